"""What the engine reads of programmes, agreements and rates. One object is one version of all of it and never changes."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from zoneinfo import ZoneInfo

from loyalty.domain import expiry
from loyalty.domain.expiry import ExpiryPolicy
from loyalty.domain.limits import Limit

UTC_ZONE = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class ProgramTerms:
    """What a programme promises, as far as posting needs it."""

    program_id: str
    institution_id: str
    """The issuer."""
    expiry_policies: tuple[ExpiryPolicy, ...] = ()
    zone: ZoneInfo = UTC_ZONE
    pending_days: int = 0
    """How long points are promised before they are the member's; for who asks to earn without saying."""
    transfers_allowed: bool = False
    refund_grace_days: int = 0
    """How long points live that a refund brings back after their end; 0: they go back to the issuer."""
    sandbox: bool = False

    def expire_time(self, issue_time: datetime, active_time: datetime) -> datetime | None:
        """When a lot ends that is issued and becomes active at these instants."""
        return expiry.expire_time(expiry.in_force(self.expiry_policies, issue_time), self.zone, active_time)


class Basis(StrEnum):
    """When points are paid for between institutions."""

    AT_ISSUANCE = "AT_ISSUANCE"
    """The partner pays the issuer for points that are earned at the partner."""
    AT_REDEMPTION = "AT_REDEMPTION"
    """The issuer pays the partner for points that are redeemed at the partner."""


class Funding(StrEnum):
    """What bounds the exposure of an agreement."""

    CREDIT = "CREDIT"
    PREPAID = "PREPAID"


@dataclass(frozen=True, slots=True)
class AgreementTerms:
    """One version of an agreement that was ever active, as far as posting needs it."""

    agreement_id: uuid.UUID
    version: int
    issuer_institution_id: str
    partner_institution_id: str
    basis: Basis
    price_numerator: int
    """Minor units for `price_denominator` points."""
    price_denominator: int
    fee_basis_points: int
    currency_code: str
    funding: Funding = Funding.CREDIT
    limit_minor_units: int | None = None
    """What the exposure may not exceed: the net debit cap of a credit line (None: unbounded), or what was paid in before
    and is not used up."""
    low_water_minor_units: int | None = None
    """Prepaid: below it the institutions are told."""
    effective_time: datetime | None = None
    end_time: datetime | None = None
    active: bool = True
    """Whether new holds, redemptions, exchanges and issues may use it now; what is on its way is finished by any version."""


@dataclass(frozen=True, slots=True)
class RateTerms:
    """The rate in force: s points are worth floor(s × numerator / denominator)."""

    numerator: int
    denominator: int
    valid_from: datetime


class Configuration(Protocol):
    """One version of the configuration."""

    @property
    def version(self) -> int:
        """Of the configuration, as the ledger's head states it."""

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Of how often and how much."""

    @property
    def agreement_required(self) -> bool:
        """Whether points of another institution's programme can be redeemed only by an agreement; else they are priced later."""

    def program(self, program_id: str) -> ProgramTerms | None:
        """A programme."""

    def agreement(self, issuer_id: str, partner_id: str, basis: Basis, at: datetime) -> AgreementTerms | None:
        """The active agreement between two institutions."""

    def agreement_version(self, agreement_id: uuid.UUID, version: int) -> AgreementTerms | None:
        """A version of an agreement, whatever became of it."""

    def rate(self, from_program_id: str, to_program_id: str, at: datetime) -> RateTerms | None:
        """The rate between two programmes that is in force."""


@dataclass(frozen=True, slots=True)
class PlainConfiguration:
    """The configuration in dictionaries."""

    version: int = 1
    programs: Mapping[str, ProgramTerms] = field(default_factory=dict)
    agreements: Mapping[tuple[uuid.UUID, int], AgreementTerms] = field(default_factory=dict)
    rates: Mapping[tuple[str, str], tuple[RateTerms, ...]] = field(default_factory=dict)
    """By pair, in the order of `valid_from`; a numerator of 0 closes the pair."""
    agreement_required: bool = False
    limits: tuple[Limit, ...] = ()
    _pairs: dict[tuple[str, str, Basis], list[AgreementTerms]] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for terms in self.agreements.values():
            key = terms.issuer_institution_id, terms.partner_institution_id, terms.basis
            self._pairs.setdefault(key, []).append(terms)

    def program(self, program_id: str) -> ProgramTerms | None:
        """A programme."""
        return self.programs.get(program_id)

    def agreement(self, issuer_id: str, partner_id: str, basis: Basis, at: datetime) -> AgreementTerms | None:
        """The active agreement between two institutions: of several versions the newest in force."""
        found = [terms for terms in self._pairs.get((issuer_id, partner_id, basis), ()) if _in_force(terms, at)]
        return max(found, key=lambda terms: terms.version, default=None)

    def agreement_version(self, agreement_id: uuid.UUID, version: int) -> AgreementTerms | None:
        """A version of an agreement, whatever became of it."""
        return self.agreements.get((agreement_id, version))

    def rate(self, from_program_id: str, to_program_id: str, at: datetime) -> RateTerms | None:
        """The rate between two programmes that is in force; None where the pair has none or was closed."""
        found = None
        for rate in self.rates.get((from_program_id, to_program_id), ()):
            if rate.valid_from <= at:
                found = rate
        return found if found is not None and found.numerator > 0 else None


def plain(programs: Iterable[ProgramTerms], agreements: Iterable[AgreementTerms] = ()) -> PlainConfiguration:
    """A configuration of these."""
    return PlainConfiguration(
        programs={terms.program_id: terms for terms in programs},
        agreements={(terms.agreement_id, terms.version): terms for terms in agreements},
    )


def _in_force(terms: AgreementTerms, at: datetime) -> bool:
    return (
        terms.active
        and (terms.effective_time is None or terms.effective_time <= at)
        and (terms.end_time is None or at < terms.end_time)
    )
