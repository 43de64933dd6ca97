"""The history of contacts. A reservation is a contact that has not taken place yet."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from chassis.database import Connection
from contact.domain.caps import Cap, Slot
from contact.domain.kinds import Permission, State
from contact.domain.reservations import Dispatch, Known
from contact.store.tables import COUNTED

PageKey = tuple[datetime, uuid.UUID]
COLUMNS = (
    "contact_id, customer_id, institution_id, direction, channel, purpose, state, state_reason, contact_time, expires_at,"
    " touch, staff_id, topic, version"
)


@dataclass(frozen=True, slots=True)
class NewContact:
    """A contact to be written."""

    contact_id: uuid.UUID
    customer_id: uuid.UUID
    institution_id: str
    direction: int
    channel: int
    purpose: int
    state: State
    contact_time: datetime
    state_reason: str = ""
    expires_at: datetime | None = None
    touch: str = ""
    content_hash: bytes | None = None
    staff_id: str = ""
    topic: str = ""


async def add(connection: Connection, new: Sequence[NewContact]) -> list[asyncpg.Record]:
    """Writes contacts, in id order, and returns the rows of those whose id was free."""
    rows = [
        (
            c.contact_id, c.customer_id, c.institution_id, c.direction, c.channel, c.purpose, c.state, c.state_reason,
            c.contact_time, c.expires_at, c.touch, c.staff_id, c.topic, c.content_hash,
        )
        for c in sorted(new, key=lambda contact: contact.contact_id)
    ]  # fmt: skip
    if not rows:
        return []
    return await connection.fetch(
        f"INSERT INTO contacts ({COLUMNS}, content_hash)"
        " SELECT contact_id, customer_id, institution_id, direction, channel, purpose, state, state_reason, contact_time,"
        " expires_at, touch, staff_id, topic, 1, content_hash"
        " FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::smallint[], $5::smallint[], $6::smallint[], $7::smallint[],"
        " $8::text[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::text[], $13::text[], $14::bytea[])"
        " AS c (contact_id, customer_id, institution_id, direction, channel, purpose, state, state_reason, contact_time,"
        " expires_at, touch, staff_id, topic, content_hash)"
        f" ON CONFLICT DO NOTHING RETURNING {COLUMNS}",
        *([*column] for column in zip(*rows, strict=True)),
    )


async def counted(
    connection: Connection, customer_ids: Collection[uuid.UUID], caps: Sequence[Cap], now: datetime
) -> dict[uuid.UUID, list[Slot]]:
    """For each customer the contacts that decide whether a cap is full: of each cap's rolling window the newest, up to its limit.

    A reservation that is over counts no more, even before it is swept.
    """
    rows = await connection.fetch(
        "SELECT DISTINCT c.contact_id, customer.customer_id, c.institution_id, c.channel, c.purpose, c.contact_time"
        " FROM unnest($1::uuid[]) AS customer (customer_id)"
        " CROSS JOIN unnest($2::text[], $3::smallint[], $4::smallint[], $5::integer[], $6::interval[])"
        " AS cap (institution_id, channel, purpose, contacts_max, span)"
        " CROSS JOIN LATERAL (SELECT contact_id, institution_id, channel, purpose, contact_time FROM contacts"
        f" WHERE {COUNTED} AND customer_id = customer.customer_id AND contact_time > $7::timestamptz - cap.span"
        " AND (cap.institution_id IS NULL OR institution_id = cap.institution_id)"
        " AND cap.channel IN (0, channel) AND cap.purpose IN (0, purpose)"
        f" AND (state <> {int(State.RESERVED)} OR expires_at > $7) ORDER BY contact_time DESC LIMIT cap.contacts_max) AS c",
        list(set(customer_ids)),
        [cap.institution for cap in caps],
        [cap.channel for cap in caps],
        [cap.purpose for cap in caps],
        [cap.contacts_max for cap in caps],
        [cap.window for cap in caps],
        now,
    )
    history: dict[uuid.UUID, list[Slot]] = {}
    for row in rows:
        slot = Slot(row["institution_id"], row["channel"], row["purpose"], row["contact_time"])
        history.setdefault(row["customer_id"], []).append(slot)
    return history


async def known_touches(connection: Connection, touch_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, asyncpg.Record]:
    """The contacts of touches that asked before."""
    rows = await connection.fetch(f"SELECT {COLUMNS} FROM contacts WHERE contact_id = ANY($1::uuid[])", list(touch_ids))
    return {row["contact_id"]: row for row in rows}


def known(row: asyncpg.Record) -> Known:
    """A row, as the rules of reservations see it."""
    return Known(State(row["state"]), row["expires_at"])


async def lock_for_dispatch(connection: Connection, touch_ids: Collection[uuid.UUID]) -> list[asyncpg.Record]:
    """The contacts of touches, locked in id order, with whether the customer permits them now; lock the customers before."""
    return await connection.fetch(
        f"SELECT {_COLUMNS_OF_C}, EXISTS (SELECT FROM permissions p WHERE p.customer_id = c.customer_id"
        " AND p.institution_id = c.institution_id AND p.purpose = c.purpose AND p.channel = c.channel"
        f" AND p.state = {int(Permission.GRANTED)}) AS permitted"
        " FROM contacts c WHERE contact_id = ANY($1::uuid[]) ORDER BY contact_id FOR UPDATE OF c",
        list(touch_ids),
    )


async def dispatch(connection: Connection, decided: Sequence[tuple[uuid.UUID, Dispatch]], now: datetime) -> list[asyncpg.Record]:
    """Carries out what was decided on reservations, and returns the rows that were reservations still."""
    return await connection.fetch(
        "UPDATE contacts c SET state = d.state, state_reason = d.reason, version = version + 1,"
        f" contact_time = CASE WHEN d.state = {int(State.DELIVERED)} THEN $4 ELSE contact_time END"
        " FROM unnest($1::uuid[], $2::smallint[], $3::text[]) AS d (id, state, reason)"
        f" WHERE c.contact_id = d.id AND c.state = {int(State.RESERVED)} RETURNING {_COLUMNS_OF_C}",
        [contact_id for contact_id, _ in decided],
        [decision.state for _, decision in decided],
        [decision.reason for _, decision in decided],
        now,
    )


async def release_expired(connection: Connection, limit: int) -> list[asyncpg.Record]:
    """Gives back slots that were not used in time, oldest first; skips those that another replica has in hand."""
    return await connection.fetch(
        f"UPDATE contacts c SET state = {int(State.RELEASED)}, state_reason = 'EXPIRED', version = version + 1"
        f" WHERE contact_id = ANY(ARRAY(SELECT contact_id FROM contacts WHERE state = {int(State.RESERVED)}"
        f" AND expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING {COLUMNS}",
        limit,
    )


async def mark_read(connection: Connection, contact_id: uuid.UUID) -> asyncpg.Record | None:
    """Notes that the customer read it; None when that was known."""
    return await connection.fetchrow(
        f"UPDATE contacts SET state = {int(State.READ)}, version = version + 1"
        f" WHERE contact_id = $1 AND state = {int(State.DELIVERED)} RETURNING {COLUMNS}",
        contact_id,
    )


async def page(
    connection: Connection, customer_id: uuid.UUID, institution_id: str | None, before: PageKey | None, limit: int
) -> list[asyncpg.Record]:
    """A customer's contacts before a key, newest first; of all institutions with None."""
    return await connection.fetch(
        f"SELECT {COLUMNS} FROM contacts WHERE customer_id = $1 AND ($2::text IS NULL OR institution_id = $2)"
        " AND ($3::timestamptz IS NULL OR (contact_time, contact_id) < ($3, $4))"
        " ORDER BY contact_time DESC, contact_id DESC LIMIT $5",
        customer_id, institution_id, *(before or (None, None)), limit,
    )  # fmt: skip


async def all_after(connection: Connection, after: uuid.UUID, limit: int) -> list[asyncpg.Record]:
    """Everybody's contacts after an id, with the database's epoch. A slot that is neither used nor given back concerns nobody."""
    return await connection.fetch(
        f"SELECT {COLUMNS}, (SELECT epoch FROM database_epoch) AS epoch FROM contacts"
        f" WHERE contact_id > $1 AND state <> {int(State.RESERVED)} ORDER BY contact_id LIMIT $2",
        after, limit,
    )  # fmt: skip


_COLUMNS_OF_C = ", ".join(f"c.{column.strip()}" for column in COLUMNS.split(","))
