"""What settlement posts to the ledger: points that go back to their issuers, and exposures that end."""

from collections.abc import Mapping
from fractions import Fraction
from uuid import UUID

from chassis.unit_of_work import UnitOfWork
from loyalty.domain.ledger.types import Head


async def clear(
    unit: UnitOfWork, head: Head, batch_id: UUID, points: Mapping[tuple[str, str], int], issuers: Mapping[str, str]
) -> None:
    raise NotImplementedError


async def release(unit: UnitOfWork, batch_id: UUID, pair: str, exposures: Mapping[UUID, Fraction]) -> None:
    raise NotImplementedError


async def mark(unit: UnitOfWork, key: str, institution_id: str) -> int:
    raise NotImplementedError
