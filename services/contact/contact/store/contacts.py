"""The history of contacts. A reservation is a contact that has not taken place yet."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from chassis.database import Connection
from contact.domain.caps import Cap, Slot
from contact.domain.kinds import HOLDING_STATES, REACHING_STATES, State
from contact.domain.reservations import Dispatch, Known
from contact.store.tables import COUNTED

PageKey = tuple[datetime, uuid.UUID]
_WRITTEN = (
    "contact_id, record_id, institution_id, direction, channel, purpose, state, state_reason, contact_time, expires_at,"
    " touch, wave, staff_id, topic, version"
)
COLUMNS = (
    ", ".join(f"c.{column.strip()}" for column in _WRITTEN.split(","))
    + ", (SELECT l.customer_id FROM record_links l WHERE l.record_id = c.record_id) AS customer_id"
)
"""What is read of a contact `c`, with whose its record is now."""


@dataclass(frozen=True, slots=True)
class NewContact:
    """A contact to be written."""

    contact_id: uuid.UUID
    record_id: uuid.UUID
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

    @property
    def wave(self) -> str:
        """The wave of its touch; empty without one."""
        return wave_of(self.touch)


def wave_of(touch: str) -> str:
    """The resource name of a touch's wave."""
    return touch.rpartition("/touches/")[0]


async def add(connection: Connection, new: Sequence[NewContact]) -> list[asyncpg.Record]:
    """Writes contacts, in id order, and returns the rows of those whose id was free."""
    rows = [
        (
            c.contact_id, c.record_id, c.institution_id, c.direction, c.channel, c.purpose, c.state, c.state_reason,
            c.contact_time, c.expires_at, c.touch, c.wave, c.staff_id, c.topic, c.content_hash,
        )
        for c in sorted(new, key=lambda contact: contact.contact_id)
    ]  # fmt: skip
    if not rows:
        return []
    return await connection.fetch(
        f"INSERT INTO contacts AS c ({_WRITTEN}, content_hash)"
        " SELECT contact_id, record_id, institution_id, direction, channel, purpose, state, state_reason, contact_time,"
        " expires_at, touch, wave, staff_id, topic, 1, content_hash"
        " FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::smallint[], $5::smallint[], $6::smallint[], $7::smallint[],"
        " $8::text[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bytea[])"
        " AS n (contact_id, record_id, institution_id, direction, channel, purpose, state, state_reason, contact_time,"
        " expires_at, touch, wave, staff_id, topic, content_hash)"
        f" ON CONFLICT DO NOTHING RETURNING {COLUMNS}",
        *([*column] for column in zip(*rows, strict=True)),
    )


async def counted(
    connection: Connection, customer_ids: Collection[uuid.UUID], caps: Sequence[Cap], now: datetime
) -> dict[uuid.UUID, list[Slot]]:
    """For each customer the contacts that decide whether a cap is full: of each cap's window the newest of each record.

    A reservation that is over counts no more, even before it is swept.
    """
    rows = await connection.fetch(
        "SELECT DISTINCT c.contact_id, l.customer_id, c.institution_id, c.channel, c.purpose, c.contact_time"
        " FROM record_links l"
        " CROSS JOIN unnest($2::text[], $3::smallint[], $4::smallint[], $5::integer[], $6::interval[])"
        " AS cap (institution_id, channel, purpose, contacts_max, span)"
        " CROSS JOIN LATERAL (SELECT contact_id, institution_id, channel, purpose, contact_time FROM contacts"
        f" WHERE {COUNTED} AND record_id = l.record_id AND contact_time > $7::timestamptz - cap.span"
        " AND (cap.institution_id IS NULL OR institution_id = cap.institution_id)"
        " AND cap.channel IN (0, channel) AND cap.purpose IN (0, purpose)"
        f" AND (state <> {int(State.RESERVED)} OR expires_at > $7) ORDER BY contact_time DESC LIMIT cap.contacts_max) AS c"
        " WHERE l.customer_id = ANY($1::uuid[])",
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
    rows = await connection.fetch(f"SELECT {COLUMNS} FROM contacts c WHERE contact_id = ANY($1::uuid[])", list(touch_ids))
    return {row["contact_id"]: row for row in rows}


async def records_of(connection: Connection, touch_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """The record that each touch's contact hangs on; a touch without a contact is left out."""
    rows = await connection.fetch(
        "SELECT contact_id, record_id FROM contacts WHERE contact_id = ANY($1::uuid[])", list(touch_ids)
    )
    return {row["contact_id"]: row["record_id"] for row in rows}


def known(row: asyncpg.Record) -> Known:
    """A row, as the rules of reservations see it."""
    return Known(State(row["state"]), row["expires_at"])


async def reached(
    connection: Connection, customer_ids: Collection[uuid.UUID], waves: Collection[str], now: datetime, *, reserved: bool
) -> set[tuple[uuid.UUID, str]]:
    """(customer, wave) of the touches that have reached customers in these waves; with `reserved` also those that hold a slot."""
    states = HOLDING_STATES if reserved else REACHING_STATES
    rows = await connection.fetch(
        "SELECT DISTINCT l.customer_id, c.wave FROM record_links l JOIN contacts c USING (record_id)"
        " WHERE l.customer_id = ANY($1::uuid[]) AND c.wave = ANY($2::text[]) AND c.wave <> '' AND c.state = ANY($3::smallint[])"
        f" AND (c.state <> {int(State.RESERVED)} OR c.expires_at > $4)",
        list(set(customer_ids)), list(set(waves)), [int(state) for state in states], now,
    )  # fmt: skip
    return {(row["customer_id"], row["wave"]) for row in rows}


async def hold_links(connection: Connection, touch_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """The customers of the touches' contacts, whose records cannot move away until the transaction ends."""
    rows = await connection.fetch(
        "SELECT l.customer_id FROM record_links l WHERE record_id IN"
        " (SELECT record_id FROM contacts WHERE contact_id = ANY($1::uuid[])) ORDER BY record_id FOR SHARE",
        list(touch_ids),
    )
    return {row["customer_id"] for row in rows}


async def lock_for_dispatch(connection: Connection, touch_ids: Collection[uuid.UUID]) -> list[asyncpg.Record]:
    """The contacts of touches, locked in id order; lock the customers before."""
    return await connection.fetch(
        f"SELECT {COLUMNS} FROM contacts c WHERE contact_id = ANY($1::uuid[]) ORDER BY contact_id FOR UPDATE OF c",
        list(touch_ids),
    )


async def dispatch(connection: Connection, decided: Sequence[tuple[uuid.UUID, Dispatch]], now: datetime) -> list[asyncpg.Record]:
    """Carries out what was decided on reservations, and returns the rows that were reservations still."""
    return await connection.fetch(
        "UPDATE contacts c SET state = d.state, state_reason = d.reason, version = version + 1,"
        f" contact_time = CASE WHEN d.state = {int(State.DELIVERED)} THEN $4 ELSE contact_time END"
        " FROM unnest($1::uuid[], $2::smallint[], $3::text[]) AS d (id, state, reason)"
        f" WHERE c.contact_id = d.id AND c.state = {int(State.RESERVED)} RETURNING {COLUMNS}",
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


async def release_of(connection: Connection, customer_ids: Collection[uuid.UUID], reason: str) -> list[asyncpg.Record]:
    """Gives back all slots that customers hold, and returns the contacts."""
    return await connection.fetch(
        f"UPDATE contacts c SET state = {int(State.RELEASED)}, state_reason = $2, version = c.version + 1"
        " FROM record_links l WHERE l.record_id = c.record_id AND l.customer_id = ANY($1::uuid[])"
        f" AND c.state = {int(State.RESERVED)} RETURNING {COLUMNS}",
        list(set(customer_ids)), reason,
    )  # fmt: skip


async def mark_read(connection: Connection, contact_id: uuid.UUID) -> asyncpg.Record | None:
    """Notes that the customer read it; None when that was known."""
    return await connection.fetchrow(
        f"UPDATE contacts c SET state = {int(State.READ)}, version = version + 1"
        f" WHERE contact_id = $1 AND state = {int(State.DELIVERED)} RETURNING {COLUMNS}",
        contact_id,
    )


async def page(
    connection: Connection, customer_id: uuid.UUID, institution_id: str | None, before: PageKey | None, limit: int
) -> list[asyncpg.Record]:
    """A customer's contacts before a key, newest first; of all institutions with None."""
    return await connection.fetch(
        f"SELECT {COLUMNS} FROM record_links l CROSS JOIN LATERAL ("
        "SELECT * FROM contacts WHERE record_id = l.record_id"
        " AND ($3::timestamptz IS NULL OR (contact_time, contact_id) < ($3, $4))"
        " ORDER BY contact_time DESC, contact_id DESC LIMIT $5"
        ") AS c WHERE l.customer_id = $1 AND ($2::text IS NULL OR l.institution_id = $2)"
        " ORDER BY c.contact_time DESC, c.contact_id DESC LIMIT $5",
        customer_id, institution_id, *(before or (None, None)), limit,
    )  # fmt: skip


async def all_after(connection: Connection, after: uuid.UUID, limit: int) -> list[asyncpg.Record]:
    """Everybody's contacts after an id, with the database's epoch. A slot that is neither used nor given back concerns nobody."""
    return await connection.fetch(
        f"SELECT {COLUMNS}, (SELECT epoch FROM database_epoch) AS epoch FROM contacts c"
        f" WHERE contact_id > $1 AND state <> {int(State.RESERVED)} ORDER BY contact_id LIMIT $2",
        after, limit,
    )  # fmt: skip
