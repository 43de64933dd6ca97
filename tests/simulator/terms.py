"""The alliance of the simulation: three programmes of two institutions, shops with and without agreements."""

import random
import uuid
from datetime import UTC, datetime

from loyalty.domain.expiry import ExpiryKind, ExpiryPolicy
from loyalty.domain.ledger.configuration import AgreementTerms, Basis, Funding, PlainConfiguration, ProgramTerms, RateTerms
from loyalty.domain.ledger.types import SpendLine

START = datetime(2026, 1, 1, 8, tzinfo=UTC)
BANK_SHOP, BANK_AIR, AIR_BANK, BANK_CAFE = (uuid.UUID(int=n) for n in (11, 12, 13, 14))
PROGRAMS = (
    ProgramTerms("bank", "bank", (ExpiryPolicy(1, START, ExpiryKind.DAYS, days=90),), transfers_allowed=True),
    ProgramTerms("miles", "air", (ExpiryPolicy(1, START, ExpiryKind.DAYS, days=30),), pending_days=3, refund_grace_days=10),
    ProgramTerms("old", "bank", transfers_allowed=True),
)
AGREEMENTS = (
    AgreementTerms(BANK_SHOP, 1, "bank", "shop", Basis.AT_REDEMPTION, 7, 10, 150, "USD", limit_minor_units=300),
    AgreementTerms(BANK_AIR, 1, "bank", "air", Basis.AT_REDEMPTION, 1, 3, 0, "USD"),
    AgreementTerms(AIR_BANK, 1, "air", "bank", Basis.AT_REDEMPTION, 3, 1, 0, "USD"),
    AgreementTerms(
        BANK_CAFE, 1, "bank", "cafe", Basis.AT_ISSUANCE, 1, 1, 0, "USD", Funding.PREPAID, limit_minor_units=40_000,
        low_water_minor_units=1000,
    ),
)  # fmt: skip


def configuration() -> PlainConfiguration:
    """All terms, in force from the beginning."""
    return PlainConfiguration(
        programs={terms.program_id: terms for terms in PROGRAMS},
        agreements={(terms.agreement_id, terms.version): terms for terms in AGREEMENTS},
        rates={("bank", "miles"): (RateTerms(3, 10, START),), ("miles", "bank"): (RateTerms(33, 10, START),)},
    )


def quoted(chance: random.Random) -> tuple[str, tuple[SpendLine, SpendLine]]:
    """Where a quote is for, and its lines: points of the place's own programme, which is the target, and of another's."""
    own, value = chance.randint(1, 20), chance.randint(1, 20)
    if chance.random() < 0.5:
        return "air", (SpendLine("miles", own, own), SpendLine("bank", -(-value * 10 // 3), value, 3, 10, BANK_AIR, 1))
    return "bank", (SpendLine("bank", own, own), SpendLine("miles", -(-value * 10 // 33), value, 33, 10, AIR_BANK, 1))


OWN_PROGRAM = {"air": "miles", "bank": "bank"}
