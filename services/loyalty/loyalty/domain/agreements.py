"""Agreements between an issuer of points and a partner: terms in versions, approved by both. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from fractions import Fraction

from loyalty.domain.expiry import time_zones
from loyalty.domain.four_eyes import OPERATOR, Person, Refused, side_name
from loyalty.domain.ledger.configuration import Basis, Funding

PRICE_TERM_MAX = 1_000_000_000
MINOR_UNITS_MAX = 1_000_000_000_000_000
FEE_BASIS_POINTS_MAX = 10_000


class AgreementState(StrEnum):
    """Of the agreement as a whole; points move under ACTIVE ones only."""

    DRAFT = "DRAFT"
    """No version was approved yet."""
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    ENDED = "ENDED"
    """For good."""


class VersionState(StrEnum):
    """Of one version of the terms."""

    DRAFT = "DRAFT"
    SUBMITTED = "SUBMITTED"
    APPROVED = "APPROVED"


@dataclass(frozen=True, slots=True)
class Terms:
    """What may change from version to version; money in minor units of the agreement's currency."""

    price_numerator: int
    price_denominator: int
    fee_basis_points: int
    net_debit_cap_minor_units: int | None
    low_water_minor_units: int
    cut_off_time: str
    time_zone: str


@dataclass(frozen=True, slots=True)
class Approval:
    """One institution's yes; `by` may be a person of the operator, for one of the two sides at most."""

    institution_id: str
    by: Person
    approve_time: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the terms. `drafters` are all who wrote on it; none of them may approve it."""

    number: int
    state: VersionState
    terms: Terms
    drafters: tuple[Person, ...]
    approvals: tuple[Approval, ...] = ()
    wanted_time: datetime | None = None
    """From when it shall hold; None: as soon as it is approved."""
    effective_time: datetime | None = None


def violations(terms: Terms, funding: Funding) -> list[tuple[str, str]]:
    """What is wrong with terms: (field, rule)."""
    wrong = []
    if not 1 <= terms.price_numerator <= PRICE_TERM_MAX:
        wrong.append(("price_numerator", f"must be 1 to {PRICE_TERM_MAX}"))
    if not 1 <= terms.price_denominator <= PRICE_TERM_MAX:
        wrong.append(("price_denominator", f"must be 1 to {PRICE_TERM_MAX}"))
    if not 0 <= terms.fee_basis_points <= FEE_BASIS_POINTS_MAX:
        wrong.append(("fee_basis_points", f"must be 0 to {FEE_BASIS_POINTS_MAX}, which is all of the price"))
    cap = terms.net_debit_cap_minor_units
    if (cap is not None) is not (funding is Funding.CREDIT):
        rule = "must be given where the funding is CREDIT" if cap is None else "must be left out where packs bound the exposure"
        wrong.append(("net_debit_cap_minor_units", rule))
    if cap is not None and not 0 <= cap <= MINOR_UNITS_MAX:
        wrong.append(("net_debit_cap_minor_units", f"must be 0 to {MINOR_UNITS_MAX}"))
    if not 0 <= terms.low_water_minor_units <= MINOR_UNITS_MAX:
        wrong.append(("low_water_minor_units", f"must be 0 to {MINOR_UNITS_MAX}"))
    if terms.time_zone not in time_zones():
        wrong.append(("time_zone", "must be an IANA time zone such as Asia/Shanghai"))
    return wrong


def amended(newest: Version, terms: Terms, wanted_time: datetime | None, by: Person) -> Version:
    """The newest version as a draft with these terms; after an approved one, the next."""
    if newest.state is VersionState.APPROVED:
        return Version(newest.number + 1, VersionState.DRAFT, terms, (by,), wanted_time=wanted_time)
    drafters = tuple(dict.fromkeys((*newest.drafters, by)))
    return Version(newest.number, VersionState.DRAFT, terms, drafters, wanted_time=wanted_time)


def submitted(version: Version) -> Version:
    """The draft, fixed for approval."""
    if version.state is not VersionState.DRAFT:
        raise Refused("AGREEMENT_NOT_DRAFT", f"version {version.number} is {version.state}; only a draft is submitted")
    return replace(version, state=VersionState.SUBMITTED)


def approved(version: Version, sides: Sequence[str], institution_id: str, by: Person, now: datetime) -> Version:
    """The version with the yes of one side; with both it is APPROVED and holds from now or later on.

    Args:
        sides: issuer and partner.
        institution_id: for which of them the person approves.

    Raises:
        Refused: AGREEMENT_NOT_SUBMITTED, APPROVAL_BY_SAME_PERSON, APPROVED_ALREADY, APPROVAL_OF_BOTH_SIDES.
    """
    if version.state is not VersionState.SUBMITTED:
        raise Refused("AGREEMENT_NOT_SUBMITTED", f"version {version.number} is {version.state}; submit it first")
    if by.subject in {person.subject for person in (*version.drafters, *(approval.by for approval in version.approvals))}:
        raise Refused(
            "APPROVAL_BY_SAME_PERSON", "you drafted or approved this version already; somebody else must approve for this side"
        )
    if institution_id in {approval.institution_id for approval in version.approvals}:
        raise Refused("APPROVED_ALREADY", f"institutions/{institution_id} has approved; the other side is awaited")
    if by.side == OPERATOR and any(approval.by.side == OPERATOR for approval in version.approvals):
        raise Refused("APPROVAL_OF_BOTH_SIDES", "the operator stands in for one side at most; the other must approve itself")
    approvals = (*version.approvals, Approval(institution_id, by, now))
    if {approval.institution_id for approval in approvals} != set(sides):
        return replace(version, approvals=approvals)
    effective = max(version.wanted_time or now, now)
    return replace(version, approvals=approvals, state=VersionState.APPROVED, effective_time=effective)


def suspended(state: AgreementState) -> AgreementState:
    """Either side stops an agreement at once, alone."""
    if state is not AgreementState.ACTIVE:
        raise Refused("AGREEMENT_NOT_ACTIVE", f"the agreement is {state}; only an active one is suspended")
    return AgreementState.SUSPENDED


def resumed(state: AgreementState, suspended_by: Person, by: Person) -> AgreementState:
    """The side that stopped it, by another person, lets it go on.

    Raises:
        Refused: AGREEMENT_NOT_SUSPENDED, SUSPENDED_BY_OTHER_SIDE, APPROVAL_BY_SAME_PERSON.
    """
    if state is not AgreementState.SUSPENDED:
        raise Refused("AGREEMENT_NOT_SUSPENDED", f"the agreement is {state}; only a suspended one is resumed")
    if by.side != suspended_by.side:
        raise Refused("SUSPENDED_BY_OTHER_SIDE", f"it was suspended by {side_name(suspended_by.side)}, who must resume it")
    if by.subject == suspended_by.subject:
        raise Refused("APPROVAL_BY_SAME_PERSON", "you suspended it; somebody else must resume it")
    return AgreementState.ACTIVE


def payer_and_payee(basis: Basis, issuer: str, partner: str) -> tuple[str, str]:
    """Who pays whom."""
    return (issuer, partner) if basis is Basis.AT_REDEMPTION else (partner, issuer)


def bound_minor_units(funding: Funding, terms: Terms, packs_minor_units: int) -> int:
    """What the exposure must not exceed."""
    return packs_minor_units if funding is Funding.PREPAID else terms.net_debit_cap_minor_units or 0


def is_low(bound: int, exposure: Fraction, low_water_minor_units: int) -> bool:
    """Whether what is left has come to the mark at which the payer is told."""
    return bound - exposure <= low_water_minor_units
