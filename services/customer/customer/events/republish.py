"""What the customer master can say again from its tables. Links of records travel with the customers they belong to."""

from uuid import UUID

from chassis import clock
from chassis.database import Connection
from chassis.outbox import Event
from chassis.republish import Republisher
from concord.customer.v1.activity_pb2 import ActivityDetail
from customer import published
from customer.core import Core
from customer.domain.golden import golden
from customer.statements import view
from customer.store import activities as activity_store
from customer.store import customers as customer_store
from customer.store import holdings as holding_store
from customer.store import institutions as institution_store
from customer.store import portfolios as portfolio_store
from customer.store import quality as quality_store
from customer.store import records as record_store
from customer.store.holdings import HolderRow
from customer.store.quality import Remembered

Page = tuple[list[Event], str | None]


async def _epoch(connection: Connection) -> int:
    return await connection.fetchval("SELECT epoch FROM database_epoch") or 1


async def institution_pages(connection: Connection, cursor: str, limit: int) -> Page:
    """States of institutions."""
    rows = await institution_store.list_institutions(connection, cursor, limit)
    epoch = await _epoch(connection)
    events = [published.institution_changed(row, epoch) for row in rows]
    return events, rows[-1]["institution_id"] if len(rows) == limit else None


def customer_republisher(core: Core) -> Republisher:
    """Says again the states of customers with the links of their records."""

    async def pages(connection: Connection, cursor: str, limit: int) -> Page:
        # Versions are read before the records: a change between the two is published later under a higher version.
        rows = await customer_store.page(connection, cursor, limit)
        members = await record_store.visible(connection, core.vault, [(row.customer_id, None) for row in rows])
        epoch, now = await _epoch(connection), clock.now()
        policy = await core.policies.at(connection, now)
        events = []
        for row, mine in zip(rows, members, strict=True):
            believed = golden([view(member) for member in mine], policy, now)
            events.append(published.customer_changed(row, mine, believed, now, epoch))
        return events, str(rows[-1].customer_id) if len(rows) == limit else None

    return Republisher("customers", pages)


async def quality_pages(connection: Connection, cursor: str, limit: int) -> Page:
    """Qualities as they were last published."""
    rows = await quality_store.page(connection, cursor, limit)
    epoch = await _epoch(connection)
    events = [
        published.quality_changed(
            row["customer_id"], Remembered(row["version"], row["completeness_percent"], row["credibility_percent"]), epoch
        )
        for row in rows
    ]
    return events, str(rows[-1]["customer_id"]) if len(rows) == limit else None


async def holding_pages(connection: Connection, cursor: str, limit: int) -> Page:
    """States of holdings."""
    rows, holders = await holding_store.page(connection, cursor, limit)
    epoch = await _epoch(connection)
    mine: dict[UUID, list[HolderRow]] = {}
    for holder in holders:
        mine.setdefault(holder.holding_id, []).append(holder)
    events = [published.holding_changed(row, mine.get(row.holding_id, []), epoch) for row in rows]
    return events, str(rows[-1].holding_id) if len(rows) == limit else None


async def activity_pages(connection: Connection, cursor: str, limit: int) -> Page:
    """Activities, each under its own id again, with the present link of its record."""
    rows = await activity_store.page(connection, cursor, limit)
    epoch = await _epoch(connection)
    events = [
        published.activity_recorded(
            row["activity_id"],
            published.record_link(row["record_id"], row["institution_id"], row["customer_id"], row["link_version"], epoch),
            f"institutions/{row['institution_id']}/sourceSystems/{row['source_system_id']}",
            row["holding_id"],
            ActivityDetail.FromString(row["payload"]),
            row["occurred_at"],
        )
        for row in rows
    ]
    return events, str(rows[-1]["activity_id"]) if len(rows) == limit else None


async def portfolio_pages(connection: Connection, cursor: str, limit: int) -> Page:
    """Who looks after whom; ended ones too, because they may be all that is known of a pair."""
    rows = await portfolio_store.page(connection, cursor, limit)
    epoch = await _epoch(connection)
    return [published.portfolio_changed(row, epoch) for row in rows], str(rows[-1].assignment_id) if len(rows) == limit else None


REPUBLISHERS = [
    Republisher("institutions", institution_pages),
    Republisher("qualities", quality_pages),
    Republisher("holdings", holding_pages),
    Republisher("activities", activity_pages),
    Republisher("portfolios", portfolio_pages),
]
