"""Posts orders: the one way in which anything gets into the ledger."""

import uuid
from collections.abc import Mapping, Sequence

from chassis.unit_of_work import UnitOfWork
from loyalty.domain import ledger
from loyalty.domain.ledger import AccountKind, ActivityKey, Batch, Head, Operation, Order, OrderKey, RequestKey, Result
from loyalty.store import ledger as ledger_store
from loyalty.store.messages import points_posted


async def post(unit: UnitOfWork, orders: Sequence[Order], customers: Mapping[uuid.UUID, uuid.UUID]) -> list[Result]:
    """Posts orders one after another in one batch, and publishes each operation that moved points.

    Args:
        unit: the transaction; the ledger is locked until it ends.
        orders: what is asked for.
        customers: the customer of each member account in the orders.

    Returns:
        A result for each order, in order: of now, or of the first time its key came.
    """
    if not orders:
        return []
    connection = unit.connection
    head = await ledger_store.lock_head(connection)
    known = await ledger_store.known_requests(connection, [o.key for o in orders if isinstance(o.key, RequestKey)])
    activity_ids = {order.key.activity_id for order in orders if isinstance(order.key, ActivityKey)}
    if activity_ids:
        known |= await ledger_store.known_activities(connection, activity_ids)
    return await post_locked(unit, orders, customers, head, known)


async def post_locked(
    unit: UnitOfWork,
    orders: Sequence[Order],
    customers: Mapping[uuid.UUID, uuid.UUID],
    head: Head,
    known: Mapping[OrderKey, Operation],
) -> list[Result]:
    """As `post`, for a caller that has locked the head and read the known operations itself."""
    keys = {key for order in orders if order.key not in known for key in (order.member, order.counterparty)}
    if not keys:
        return ledger.post(orders, {}, known, head, unit.now).results
    balances, ids = await ledger_store.lock_accounts(unit.connection, keys)
    batch = ledger.post(orders, balances, known, head, unit.now)
    await ledger_store.write(unit.connection, batch, ids)
    _publish(unit, batch, customers)
    return batch.results


def _publish(unit: UnitOfWork, batch: Batch, customers: Mapping[uuid.UUID, uuid.UUID]) -> None:
    for operation, entry in batch.entries:
        if entry.key.kind is not AccountKind.MEMBER:
            continue
        unit.publish(
            points_posted(
                operation_id=operation.operation_id,
                account_id=operation.account_id,
                customer_id=customers[operation.account_id],
                program_id=operation.program_id,
                institution_id=operation.institution_id,
                kind=operation.kind,
                amount_points=entry.amount_points,
                balance_points=entry.balance_points,
                epoch=unit.epoch,
                version=entry.version,
                effective_time=operation.effective_time,
                activity_id=operation.key.activity_id if isinstance(operation.key, ActivityKey) else None,
            )
        )
