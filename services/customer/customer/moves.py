"""Records that go from one customer to another: merge, unmerge, relinking, a steward's decision."""

from collections.abc import Mapping
from uuid import UUID

from chassis.unit_of_work import UnitOfWork
from customer.changes import Changes, Why
from customer.core import Core
from customer.domain.vocabulary import MoveReason


class Elsewhere(Exception):
    """Records are not where they were expected to be: somebody moved them meanwhile. `record_ids` are theirs."""

    def __init__(self, record_ids: frozenset[UUID]) -> None:
        super().__init__(f"{len(record_ids)} records are elsewhere")
        self.record_ids = record_ids


async def move(
    unit: UnitOfWork,
    core: Core,
    from_customers: Mapping[UUID, UUID],
    to_customers: Mapping[UUID, UUID],
    why: Why,
    reason: MoveReason,
) -> Changes:
    """Moves records, locks and publishes; the only way but the intake, which decides and moves in one go.

    A customer that loses its last record is merged into the one that took it; one that gets records is merged no more.

    Args:
        from_customers: where each record is expected, by record.
        to_customers: where each goes.

    Raises:
        Elsewhere: a record is not with the customer that was expected.
    """
    changes = Changes(unit, core)
    await changes.load({*from_customers.values(), *to_customers.values()})
    elsewhere = frozenset(
        record for record, customer in from_customers.items() if record not in changes.members.get(customer, {})
    )
    if elsewhere:
        raise Elsewhere(elsewhere)
    for record_id, to_customer_id in to_customers.items():
        changes.move(changes.members[from_customers[record_id]][record_id], to_customer_id, why, reason)
    await changes.write()
    return changes
