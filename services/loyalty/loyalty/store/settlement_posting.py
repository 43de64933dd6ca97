"""What settlement posts to the ledger: points that go back to their issuers, exposures that end, and marks in its order."""

from collections.abc import Mapping
from fractions import Fraction
from uuid import UUID

from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from loyalty.domain.four_eyes import OPERATOR
from loyalty.domain.ledger.commands import Settle
from loyalty.domain.ledger.types import AccountKey, AccountKind, Head, Operation, SystemKey
from loyalty.store import posting


async def clear(
    unit: UnitOfWork, head: Head, batch_id: UUID, points: Mapping[tuple[str, str], int], issuers: Mapping[str, str]
) -> None:
    """Gives points back to their issuers, by one operation.

    Args:
        unit: the transaction.
        head: as it was locked before the points were summed up.
        batch_id: the settlement.
        points: what leaves the clearing account of (redeemer, programme); below zero after more refunds than redemptions.
        issuers: of the programmes.
    """
    legs: dict[AccountKey, int] = {}
    for (redeemer, program_id), amount in points.items():
        issuer = AccountKey(issuers[program_id], AccountKind.ISSUER, program_id)
        legs[AccountKey(redeemer, AccountKind.PARTNER, program_id)] = -amount
        legs[issuer] = legs.get(issuer, 0) + amount
    if legs:
        await _post(unit, f"settle/{batch_id}", OPERATOR, legs=legs, head=head)


async def release(unit: UnitOfWork, batch_id: UUID, pair: str, exposures: Mapping[UUID, Fraction]) -> None:
    """Lowers the exposures of a pair's agreements by what was settled of them, by one operation without legs."""
    lowered = {agreement_id: amount for agreement_id, amount in sorted(exposures.items()) if amount}
    if lowered:
        await _post(unit, f"settle/{batch_id}/{pair}", OPERATOR, exposures=lowered)


async def mark(unit: UnitOfWork, key: str, institution_id: str) -> int:
    """An operation that moves nothing: its sequence, which is a place in the ledger's order."""
    return (await _post(unit, key, institution_id)).sequence


async def _post(
    unit: UnitOfWork,
    key: str,
    institution_id: str,
    *,
    legs: Mapping[AccountKey, int] | None = None,
    exposures: Mapping[UUID, Fraction] | None = None,
    head: Head | None = None,
) -> Operation:
    command = Settle(
        operation_id=new_id(),
        key=SystemKey(key),
        account_id=None,
        institution_id=institution_id,
        effective_time=unit.now,
        legs=tuple((account, points) for account, points in sorted((legs or {}).items()) if points),
        exposures=tuple((agreement, *amount.as_integer_ratio()) for agreement, amount in (exposures or {}).items()),
    )
    [posted] = await posting.post(unit, [command], head)
    assert isinstance(posted, Operation), posted
    return posted
