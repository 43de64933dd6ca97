from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from loyalty.domain import agreements
from loyalty.domain.agreements import AgreementState, Terms, Version, VersionState
from loyalty.domain.four_eyes import OPERATOR, Person, Refused
from loyalty.domain.ledger.configuration import Basis, Funding
from loyalty.domain.rates import require_second

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SIDES = ("bank", "shop")
TERMS = Terms(3, 2, 100, 1_000_000, 50_000, "17:30", "Europe/Prague")
ANN, BOB, EVE = Person("ann", "bank"), Person("bob", "bank"), Person("eve", "shop")
OPS, OTHER_OPS = Person("ops", OPERATOR), Person("other-ops", OPERATOR)


def submitted(*drafters: Person, **changes) -> Version:
    return Version(1, VersionState.SUBMITTED, TERMS, drafters or (ANN,), **changes)


def refusal(rule, *arguments) -> str:
    with pytest.raises(Refused) as refused:
        rule(*arguments)
    return refused.value.reason


def test_both_sides_approve_and_then_it_holds():
    half = agreements.approved(submitted(), SIDES, "bank", BOB, NOW)
    assert (half.state, half.effective_time) == (VersionState.SUBMITTED, None)
    whole = agreements.approved(half, SIDES, "shop", EVE, NOW + timedelta(hours=1))
    assert (whole.state, whole.effective_time) == (VersionState.APPROVED, NOW + timedelta(hours=1))
    later = replace(half, wanted_time=NOW + timedelta(days=30))
    assert agreements.approved(later, SIDES, "shop", EVE, NOW).effective_time == NOW + timedelta(days=30)


@pytest.mark.parametrize(
    ("version", "side", "by", "expected"),
    [
        (submitted(ANN), "bank", ANN, "APPROVAL_BY_SAME_PERSON"),
        (submitted(ANN, BOB), "bank", BOB, "APPROVAL_BY_SAME_PERSON"),
        (submitted(ANN), "shop", Person("ann", "shop"), "APPROVAL_BY_SAME_PERSON"),  # one person with two employers
        (agreements.approved(submitted(), SIDES, "bank", BOB, NOW), "shop", Person("bob", OPERATOR), "APPROVAL_BY_SAME_PERSON"),
        (agreements.approved(submitted(), SIDES, "bank", BOB, NOW), "bank", Person("cid", "bank"), "APPROVED_ALREADY"),
        (agreements.approved(submitted(), SIDES, "bank", OPS, NOW), "shop", OTHER_OPS, "APPROVAL_OF_BOTH_SIDES"),
        (replace(submitted(), state=VersionState.DRAFT), "bank", BOB, "AGREEMENT_NOT_SUBMITTED"),
        (replace(submitted(), state=VersionState.APPROVED), "bank", BOB, "AGREEMENT_NOT_SUBMITTED"),
    ],
)
def test_who_may_not_approve(version, side, by, expected):
    assert refusal(agreements.approved, version, SIDES, side, by, NOW) == expected


def test_an_amended_draft_loses_its_approvals_and_remembers_who_wrote():
    half = agreements.approved(submitted(), SIDES, "bank", BOB, NOW)
    draft = agreements.amended(half, replace(TERMS, price_numerator=4), None, EVE)
    assert (draft.number, draft.state, draft.approvals, draft.drafters) == (1, VersionState.DRAFT, (), (ANN, EVE))
    assert refusal(agreements.approved, agreements.submitted(draft), SIDES, "bank", ANN, NOW) == "APPROVAL_BY_SAME_PERSON"
    whole = agreements.approved(half, SIDES, "shop", EVE, NOW)
    following = agreements.amended(whole, TERMS, None, EVE)
    assert (following.number, following.state, following.drafters) == (2, VersionState.DRAFT, (EVE,))
    assert refusal(agreements.submitted, whole) == "AGREEMENT_NOT_DRAFT"


def test_who_stops_it_lets_it_go_on_by_another_person():
    assert agreements.suspended(AgreementState.ACTIVE) is AgreementState.SUSPENDED
    assert refusal(agreements.suspended, AgreementState.DRAFT) == "AGREEMENT_NOT_ACTIVE"
    assert agreements.resumed(AgreementState.SUSPENDED, ANN, BOB) is AgreementState.ACTIVE
    assert refusal(agreements.resumed, AgreementState.SUSPENDED, ANN, EVE) == "SUSPENDED_BY_OTHER_SIDE"
    assert refusal(agreements.resumed, AgreementState.SUSPENDED, ANN, ANN) == "APPROVAL_BY_SAME_PERSON"
    assert refusal(agreements.resumed, AgreementState.ACTIVE, ANN, BOB) == "AGREEMENT_NOT_SUSPENDED"


def test_a_rate_is_published_by_the_other_side():
    require_second(ANN, EVE, SIDES)
    require_second(OPS, EVE, SIDES)
    require_second(ANN, BOB, ("bank", "bank"))
    assert refusal(require_second, ANN, BOB, SIDES) == "APPROVAL_OF_BOTH_SIDES"
    assert refusal(require_second, ANN, ANN, ("bank", "bank")) == "APPROVAL_BY_SAME_PERSON"
    assert refusal(require_second, OPS, OTHER_OPS, ("bank", "bank")) == "APPROVAL_OF_BOTH_SIDES"


@pytest.mark.parametrize(
    ("changes", "funding", "fields"),
    [
        ({}, Funding.CREDIT, []),
        ({"net_debit_cap_minor_units": None}, Funding.PREPAID, []),
        ({}, Funding.PREPAID, ["net_debit_cap_minor_units"]),
        ({"net_debit_cap_minor_units": None}, Funding.CREDIT, ["net_debit_cap_minor_units"]),
        ({"price_numerator": 0, "price_denominator": 0}, Funding.CREDIT, ["price_numerator", "price_denominator"]),
        ({"fee_basis_points": 10_001}, Funding.CREDIT, ["fee_basis_points"]),
        ({"time_zone": "Mars/Olympus"}, Funding.CREDIT, ["time_zone"]),
        ({"low_water_minor_units": -1}, Funding.CREDIT, ["low_water_minor_units"]),
    ],
)
def test_what_is_wrong_with_terms_is_named(changes, funding, fields):
    assert [field for field, _ in agreements.violations(replace(TERMS, **changes), funding)] == fields


def test_who_pays_and_what_bounds_it():
    assert agreements.payer_and_payee(Basis.AT_REDEMPTION, *SIDES) == ("bank", "shop")
    assert agreements.payer_and_payee(Basis.AT_ISSUANCE, *SIDES) == ("shop", "bank")
    assert agreements.bound_minor_units(Funding.CREDIT, TERMS, 7) == 1_000_000
    assert agreements.bound_minor_units(Funding.PREPAID, TERMS, 7) == 7
    assert not agreements.is_low(100, Fraction(89), 10)
    assert agreements.is_low(100, Fraction(271, 3), 10)
