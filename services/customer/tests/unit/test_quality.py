from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from concord.customer.v1.party_pb2 import (
    IDENTIFIER_SCHEME_NATIONAL_ID,
    PARTY_ROLE_KIND_CUSTOMER,
    Identifier,
    PartyRole,
)
from customer.domain.golden import Ranks, RecordView, Stated, golden
from customer.domain.quality import Advice, Finding, Stage, assess
from customer.domain.survivorship import Policy, Verification, Verified
from customer.domain.vocabulary import Attribute, PartyKind
from customer.survivorship_standard import first_policy, quality_standard

NOW = datetime(2026, 6, 1, tzinfo=UTC)
A, B = "institutions/bank/sourceSystems/core", "institutions/shop/sourceSystems/kyc"
STANDARD = quality_standard()
LOAN, DEPOSIT = 3, 1
CHINESE = "11010519491231002X"  # the example number of GB 11643: born 1949-12-31, female


def record(number, source=A, rank=1, verified=(), kind=PartyKind.PERSON, **values):
    said = {Attribute.PARTY_KIND: [Stated(int(kind), int(kind))]}
    for word, value in values.items():
        attribute = Attribute[word.upper()]
        if isinstance(value, Stated):
            said[attribute] = [value]
        elif isinstance(value, Identifier):
            said[attribute] = [Stated(value, value.value, value.valid)]
        else:
            said[attribute] = [Stated(value, str(value))]
    return RecordView(
        UUID(int=number), source, NOW - timedelta(days=1), Ranks(rank, {}), said, {},
        {Attribute[word]: [Verified(2, NOW.date())] for word in verified},
    )  # fmt: skip


def quality(*records, holdings=(), weights=None, policy=None, at=NOW):
    return assess(golden(records, policy or first_policy(), at), holdings, weights or {}, STANDARD, at)


def reason(found, word):
    return next(one for one in found.reasons if one.attribute is Attribute[word])


def test_completeness_is_the_weight_of_filled_and_valid_required_attributes():
    empty = quality(record(1))
    assert (empty.stage, empty.completeness_percent, empty.credibility_percent) == (Stage.PROSPECT, 0, 0)
    assert (empty.next_attribute, empty.next_advice) == (Attribute.NAME, Advice.ASK)
    named = quality(record(1, name="x", phone="1"))
    assert named.completeness_percent == 55  # 30 + 25 of 100
    assert (named.next_attribute, named.next_advice) == (Attribute.BIRTH_DATE, Advice.ASK)
    failing = quality(record(1, name="x", phone=Stated("1", "1", False)))
    assert failing.completeness_percent == 30
    assert (failing.next_attribute, failing.next_advice) == (Attribute.PHONE, Advice.CORRECT)
    assert Finding.INVALID in reason(failing, "PHONE").findings
    whole = dict.fromkeys(("name", "phone", "email", "birth_date", "address", "language"), "x")
    assert quality(record(1, **whole)).completeness_percent == 100


def test_stage_and_holdings_ask_for_more():
    whole = dict.fromkeys(("name", "phone", "email", "birth_date", "address", "language"), "x")
    assert quality(record(1, **whole)).stage is Stage.PROSPECT
    role = PartyRole(kind=PARTY_ROLE_KIND_CUSTOMER)
    by_role = quality(record(1, **whole, role=Stated(role, role.kind)))
    by_holding = quality(record(1, **whole), holdings=[DEPOSIT])
    assert by_role.stage is by_holding.stage is Stage.CUSTOMER
    assert by_role.completeness_percent == by_holding.completeness_percent == 71  # 66 of 93
    assert by_holding.next_attribute is Attribute.IDENTIFIER
    lent = quality(record(1, **whole), holdings=[DEPOSIT, LOAN])
    assert lent.completeness_percent == 58  # 66 of 93 + 12 + 6 + 2
    assert reason(lent, "OCCUPATION").weight == 6


def test_an_organisation_is_not_asked_for_what_persons_have():
    firm = quality(record(1, kind=PartyKind.ORGANISATION, name="x"))
    assert firm.completeness_percent == 40
    assert {one.attribute for one in firm.reasons if one.weight} == {
        Attribute.NAME, Attribute.PHONE, Attribute.EMAIL, Attribute.ADDRESS,
    }  # fmt: skip


def test_evidence_for_and_against_moves_credibility():
    alone = reason(quality(record(1, rank=10, name="x")), "NAME").credibility_percent
    assert alone == pytest.approx(100 * 50 / 59)  # the trust of rank 10, and nothing else
    agreed = reason(quality(record(1, rank=10, name="x"), record(2, B, 10, name="x")), "NAME")
    denied = reason(quality(record(1, rank=10, name="x"), record(2, B, 11, name="y")), "NAME")
    same_source = reason(quality(record(1, rank=10, name="x"), record(2, A, 10, name="x")), "NAME")
    assert denied.credibility_percent < alone == same_source.credibility_percent < agreed.credibility_percent
    assert (agreed.findings, denied.findings) == ((Finding.SOURCES_AGREE,), (Finding.SOURCES_CONFLICT,))
    verified = reason(quality(record(2, B, 10, ["NAME"], name="x")), "NAME")
    years_later = NOW.replace(year=2032)
    later = reason(quality(record(2, B, 10, ["NAME"], name="x"), at=years_later), "NAME")
    assert alone < later.credibility_percent < verified.credibility_percent
    assert verified.findings == (Finding.VERIFIED,)


def test_a_weak_match_and_age_are_findings():
    one = record(1, rank=10, name="x")
    weak, sure = quality(one, weights={one.record_id: 10.0}), quality(one, weights={one.record_id: 30.0})
    assert Finding.WEAK_LINK in reason(weak, "NAME").findings
    assert weak.credibility_percent < sure.credibility_percent == quality(one).credibility_percent
    aging = Policy(2, replace(first_policy().standard, half_life_days=10.0))
    old = quality(one, policy=aging, at=NOW + timedelta(days=30))
    assert Finding.AGED in reason(old, "NAME").findings
    assert old.credibility_percent < quality(one).credibility_percent


def test_birth_date_and_sex_are_compared_with_the_identity_number():
    card = Identifier(scheme=IDENTIFIER_SCHEME_NATIONAL_ID, country_code="CN", value=CHINESE, valid=True)
    right = quality(record(1, identifier=card, birth_date="1949-12-31", sex=1))
    wrong = quality(record(1, identifier=card), record(2, B, birth_date="1949-12-30", sex=2))
    for word in ("BIRTH_DATE", "SEX"):
        assert Finding.CONSISTENT_WITH_DOCUMENT in reason(right, word).findings
        assert Finding.CONTRADICTS_DOCUMENT in reason(wrong, word).findings
        assert reason(right, word).credibility_percent > 95 > 50 > reason(wrong, word).credibility_percent
    assert Finding.CHECK_DIGIT_RIGHT in reason(right, "IDENTIFIER").findings


def test_a_complete_customer_is_asked_to_verify_the_doubtful():
    whole = dict.fromkeys(("phone", "email", "birth_date", "address", "language"), "x")
    said = record(1, **whole, name="x"), record(2, B, 2, name="y"), record(3, B, 2, **whole)
    found = quality(*said)
    assert (found.completeness_percent, found.next_attribute, found.next_advice) == (100, Attribute.NAME, Advice.VERIFY)
    admitted = Policy(2, replace(first_policy().standard, verification=Verification((A,))))
    sure = tuple(replace(one, verifications={a: [Verified(1, date(2026, 6, 1))] for a in Attribute}) for one in said)
    found = quality(*sure, policy=admitted)
    assert (found.next_attribute, found.next_advice) == (None, Advice.NOTHING)


def test_bands():
    assert [STANDARD.band(percent) for percent in (0, 19, 20, 79, 80, 100)] == [0, 0, 1, 3, 4, 4]
