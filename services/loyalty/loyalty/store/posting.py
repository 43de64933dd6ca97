"""Posts orders: the one way in which anything gets into the ledger."""

import itertools
import uuid
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from chassis.unit_of_work import UnitOfWork
from loyalty.domain import ledger
from loyalty.domain.ledger import AccountKind, ActivityKey, Batch, Entry, Head, Operation, Order, OrderKey, Result
from loyalty.store import ledger as ledger_store
from loyalty.store.messages import points_posted

Customers: TypeAlias = Mapping[uuid.UUID, uuid.UUID | None]


async def post(
    unit: UnitOfWork, orders: Sequence[Order], customers: Customers, head: Head, known: Mapping[OrderKey, Operation]
) -> list[Result]:
    """Posts orders one after another in one batch, and publishes each operation that moved points.

    Args:
        unit: the transaction; the ledger is locked until it ends.
        orders: what is asked for.
        customers: whose each member account in the orders is; None of an erased one.
        head: as `lock_head` gave it, before anything else that this decides upon was read.
        known: the operations with the keys of the orders, read after that.

    Returns:
        A result for each order, in order: of now, or of the first time its key came.
    """
    keys = {key for order in orders if order.key not in known for key in order.touches}
    if not keys:
        return ledger.post(orders, {}, known, head, unit.now).results
    balances, ids = await ledger_store.lock_accounts(unit.connection, keys)
    batch = ledger.post(orders, balances, known, head, unit.now)
    await ledger_store.write(unit.connection, batch, ids)
    _publish(unit, batch, customers)
    return batch.results


def in_order(operation: Operation, legs: Sequence[Entry]) -> list[Entry]:
    """An operation's member legs, the leading one first: of the account itself, or else the first by its owner."""
    members = [leg for leg in legs if leg.key.kind is AccountKind.MEMBER]
    return sorted(members, key=lambda leg: (leg.key.owner != str(operation.account_id), leg.key.owner))


def _publish(unit: UnitOfWork, batch: Batch, customers: Customers) -> None:
    for operation, pairs in itertools.groupby(batch.entries, key=lambda pair: pair[0]):
        for position, entry in enumerate(in_order(operation, [entry for _, entry in pairs])):
            account_id = uuid.UUID(entry.key.owner)
            unit.publish(
                points_posted(
                    operation_id=operation.operation_id,
                    account_id=account_id,
                    customer_id=customers[account_id],
                    program_id=operation.program_id,
                    institution_id=operation.institution_id,
                    kind=operation.kind,
                    amount_points=entry.amount_points,
                    balance_points=entry.balance_points,
                    epoch=unit.epoch,
                    version=entry.version,
                    effective_time=operation.effective_time,
                    activity_id=operation.key.activity_id if isinstance(operation.key, ActivityKey) else None,
                    leading=position == 0,
                )
            )
