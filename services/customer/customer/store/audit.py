"""The audit trail: append-only, hash-chained. Its head is a locked row, so that the order of commits is that of the chain."""

from collections.abc import Iterable, Sequence
from uuid import UUID

import asyncpg

from chassis.database import Connection
from chassis.identity import Principal
from chassis.unit_of_work import UnitOfWork
from customer.domain.audit import Action, Entry, Finding, Verification, chained
from customer.domain.blind_index import derived_key
from customer.store.vault import DataKey, bound_to

VERIFIED_AT_ONCE_ENTRIES = 2000
TEXT = "audit_entries.sealed_text"
"""The place that the text of an entry is bound to."""
PLATFORM = "-"
"""Who does what the platform does by itself."""


class AuditTrail:
    """Writes and verifies. The key is derived from the root key: who can write the tables only cannot forge the chain."""

    def __init__(self, root_key: bytes) -> None:
        self._key = derived_key(root_key, "audit trail")

    async def append(
        self,
        unit: UnitOfWork,
        action: Action,
        *,
        customers: Iterable[UUID] = (),
        records: Iterable[UUID] = (),
        reason_code: str = "",
        resource: str = "",
        text: str = "",
        key: DataKey | None = None,
        principal: Principal | None = None,
    ) -> int:
        """Enters what this unit of work does, and who does it; returns the number of the entry.

        Call it last: the head stays locked until the unit commits.

        Args:
            text: free text, sealed under `key`, which is the first record's; kept only with a key.
            principal: who does it, where the unit has no caller; without one it is the platform.
        """
        caller = principal or unit.caller
        record_ids = tuple(records)
        row = await unit.connection.fetchrow("SELECT entry_number, chain_hash FROM audit_head FOR UPDATE")
        assert row is not None
        number = row["entry_number"] + 1
        entry = Entry(
            number,
            unit.now,
            (caller.institution or "") if caller else "",
            caller.client if caller else PLATFORM,
            caller.subject if caller else PLATFORM,
            action.value,
            reason_code,
            tuple(customers),
            record_ids,
            resource,
            key.seal(text.encode(), bound_to(TEXT, record_ids[0], number)) if text and key and record_ids else b"",
        )
        await unit.connection.execute(
            _APPEND, entry.number, entry.recorded_at, entry.institution_id, entry.client, entry.subject, entry.action,
            entry.reason_code, list(entry.customer_ids), list(entry.record_ids), entry.resource, entry.sealed_text,
            chained(self._key, row["chain_hash"], entry),
        )  # fmt: skip
        return entry.number

    async def verify(
        self, connection: Connection, known_count: int = 0, known_hash: bytes = b""
    ) -> tuple[int, bytes, Finding | None]:
        """Computes the chain anew: the count and hash of the head, and the first thing that is wrong.

        Args:
            connection: in a transaction of one snapshot, or entries appended meanwhile look like a fault.
            known_count: entries an earlier verification counted, with the hash it answered.
        """
        head = await connection.fetchrow("SELECT entry_number, chain_hash FROM audit_head")
        head_count, head_hash = (head["entry_number"], head["chain_hash"]) if head else (0, b"")
        walk = Verification(self._key, known_count, known_hash)
        after = -1
        while walk.finding is None and (rows := await connection.fetch(_AFTER, after, VERIFIED_AT_ONCE_ENTRIES)):
            walk.take(map(entry_of, rows))
            after = rows[-1]["entry_number"]
        walk.end(head_count, head_hash)
        return head_count, head_hash, walk.finding


def entry_of(row: asyncpg.Record) -> Entry:
    """A row as an entry."""
    values = dict(row)
    ids = {column: tuple(values[column]) for column in ("customer_ids", "record_ids")}
    return Entry(number=values.pop("entry_number"), **(values | ids))


async def page(
    connection: Connection, institution_id: str | None, customer_id: UUID | None, action: str, before: int | None, limit: int
) -> Sequence[Entry]:
    """Entries, the newest first, of an institution's callers (None: of all)."""
    rows = await connection.fetch(_PAGE, institution_id, [customer_id] if customer_id else None, action, before, limit)
    return [entry_of(row) for row in rows]


_COLUMNS = (
    "entry_number, recorded_at, institution_id, client, subject, action, reason_code, customer_ids, record_ids, resource,"
    " sealed_text, chain_hash"
)
_APPEND = f"""
WITH head AS (UPDATE audit_head SET entry_number = $1, chain_hash = $12)
INSERT INTO audit_entries ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""
_AFTER = f"SELECT {_COLUMNS} FROM audit_entries WHERE entry_number > $1 ORDER BY entry_number LIMIT $2"
_PAGE = f"""
SELECT {_COLUMNS} FROM audit_entries
WHERE ($1::text IS NULL OR institution_id = $1) AND ($2::uuid[] IS NULL OR customer_ids @> $2)
    AND ($3 = '' OR action = $3) AND ($4::bigint IS NULL OR entry_number < $4)
ORDER BY entry_number DESC LIMIT $5
"""
