"""Erases persons: their points end as each programme says, and what is left is nobody's."""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime

from chassis import customer_states, record_links
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1.customer_events_pb2 import CustomerErased
from loyalty.domain.ledger.commands import ExpireLots
from loyalty.domain.ledger.types import ActivityKey, OperationKind
from loyalty.store import earn_rules, erasure
from loyalty.store import ledger as ledger_store
from loyalty.store.messages import publish_accounts
from loyalty.store.posting import post

ERASURES = uuid.UUID("5d0b5c1a-7c7e-5b51-8f0e-2a8a4f6f9f3e")
"""Names what caused the end of an account's points: an erasure told again ends nothing twice."""


async def erase(unit: UnitOfWork, message: CustomerErased) -> None:
    """Erases records, and the customer where it is erased whole."""
    connection = unit.connection
    record_ids = [uuid.UUID(record_id) for record_id in message.record_ids]
    lost = await erasure.links_of(connection, record_ids)
    await record_links.erase(connection, record_ids)
    await erasure.forget_records(connection, record_ids)
    if not message.whole:
        await publish_accounts(unit, await erasure.unlink(connection, lost))
        return
    head = await ledger_store.lock_head(connection)
    gone = await customer_states.erase(connection, uuid.UUID(message.customer_id))
    account_ids = await erasure.accounts_of(connection, gone)
    await earn_rules.forget(connection, account_ids, gone)
    if not account_ids:
        return
    erase_time = datetime.fromtimestamp(message.erase_time_seconds, UTC)
    commands = await _endings(unit, account_ids, erase_time)
    await erasure.remember_leftovers(connection, account_ids, erase_time)
    await erasure.forget_accounts(connection, account_ids, erase_time)
    await post(unit, commands, head)
    await publish_accounts(unit, account_ids)


async def _endings(unit: UnitOfWork, account_ids: Collection[uuid.UUID], erase_time: datetime) -> list[ExpireLots]:
    return [
        ExpireLots(
            operation_id=uuid.uuid5(ERASURES, f"{row['account_id']}/{row['program_id']}"),
            key=ActivityKey(uuid.uuid5(ERASURES, str(row["account_id"])), row["program_id"], OperationKind.EXPIRE),
            account_id=row["account_id"],
            institution_id=row["institution_id"],
            effective_time=erase_time,
            program_id=row["program_id"],
        )
        for row in await erasure.points_to_expire(unit.connection, account_ids)
    ]
