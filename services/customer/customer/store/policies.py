"""Versions of the survivorship policy, and which of them holds at an instant."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from asyncpg import Record

from chassis.database import Connection
from customer.domain.survivorship import Policy, Standard, standard_from, to_data
from customer.survivorship_standard import FIRST_VERSION, first_policy

LEAD = timedelta(seconds=3)
"""An activation is effective so long after it was written, at the earliest."""
REFRESH_SECONDS = 1.0
"""Less than the lead: every process knows of an activation before it is effective, so that all choose alike at each instant."""
_HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A version as it is kept."""

    version: int
    row_version: int
    standard: Standard
    content_hash: bytes
    authors: tuple[str, ...]
    create_time: datetime
    update_time: datetime
    activator: str | None
    activated_at: datetime | None
    effective_at: datetime | None


class Policies:
    """The activated versions, remembered. One for each process."""

    def __init__(self) -> None:
        self._activated: dict[int, tuple[datetime, datetime, Policy]] = {}
        self._refreshed_at = float("-inf")

    async def at(self, connection: Connection, instant: datetime, known_at: datetime | None = None) -> Policy:
        """The policy in force at an instant, by what was known at another (that is now, if it is not given)."""
        asked_at = monotonic()
        if asked_at - self._refreshed_at > REFRESH_SECONDS:
            await self._refresh(connection)
            self._refreshed_at = asked_at
        return self._holding(instant, known_at)

    def remembered(self, instant: datetime) -> Policy | None:
        """The policy in force at an instant, if this process has looked a moment ago; it needs no connection."""
        return self._holding(instant, None) if monotonic() - self._refreshed_at <= REFRESH_SECONDS else None

    def _holding(self, instant: datetime, known_at: datetime | None) -> Policy:
        holding = [
            (effective_at, policy)
            for activated_at, effective_at, policy in self._activated.values()
            if effective_at <= instant and (known_at is None or activated_at <= known_at)
        ]
        return max(holding, key=lambda one: one[0])[1] if holding else first_policy()

    async def _refresh(self, connection: Connection) -> None:
        rows = await connection.fetch(
            "SELECT version, standard, activated_at, effective_at FROM survivorship_policies"
            " WHERE activated_at IS NOT NULL AND version <> ALL($1::int[])",
            list(self._activated),
        )
        for version, standard, activated_at, effective_at in rows:
            policy = Policy(version, standard_from(json.loads(standard)))
            self._activated[version] = (activated_at, effective_at, policy)


def content_of(standard: Standard) -> tuple[str, bytes]:
    """A standard as it is kept, with its hash."""
    text = json.dumps(to_data(standard), sort_keys=True)
    return text, hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES).digest()


async def create(connection: Connection, standard: Standard, author: str, now: datetime) -> PolicyRow:
    """Writes the next version, as a draft."""
    text, content_hash = content_of(standard)
    row = await connection.fetchrow(
        "INSERT INTO survivorship_policies (row_version, standard, content_hash, authors, create_time, update_time)"
        " VALUES (1, $1, $2, ARRAY[$3], $4, $4) RETURNING *",
        text, content_hash, author, now,
    )  # fmt: skip
    assert row is not None
    return _row(row)


async def get(connection: Connection, version: int, *, lock: bool = False) -> PolicyRow | None:
    """One version; for a change locked."""
    if version == FIRST_VERSION:
        return first_row()
    row = await connection.fetchrow(
        "SELECT * FROM survivorship_policies WHERE version = $1" + (" FOR UPDATE" if lock else ""), version
    )
    return _row(row) if row else None


async def page(connection: Connection, before: int | None, limit: int) -> list[PolicyRow]:
    """Versions below one, newest first; the last is the one that comes with the platform."""
    rows = await connection.fetch(
        "SELECT * FROM survivorship_policies WHERE $1::int IS NULL OR version < $1 ORDER BY version DESC LIMIT $2", before, limit
    )
    found = [_row(row) for row in rows]
    if len(found) < limit and (before is None or before > FIRST_VERSION):
        found.append(first_row())
    return found


async def replace(connection: Connection, row: PolicyRow, standard: Standard, author: str, now: datetime) -> PolicyRow:
    """Writes another standard into a locked draft."""
    text, content_hash = content_of(standard)
    authors = list(dict.fromkeys([*row.authors, author]))
    changed = await connection.fetchrow(
        "UPDATE survivorship_policies SET row_version = row_version + 1, standard = $2, content_hash = $3, authors = $4,"
        " update_time = $5 WHERE version = $1 RETURNING *",
        row.version, text, content_hash, authors, now,
    )  # fmt: skip
    assert changed is not None
    return _row(changed)


async def activate(connection: Connection, row: PolicyRow, activator: str, now: datetime, effective_at: datetime) -> PolicyRow:
    """Puts a locked draft in force from an instant on."""
    changed = await connection.fetchrow(
        "UPDATE survivorship_policies SET row_version = row_version + 1, activator = $2, activated_at = $3, effective_at = $4"
        " WHERE version = $1 RETURNING *",
        row.version, activator, now, effective_at,
    )  # fmt: skip
    assert changed is not None
    return _row(changed)


async def lock_all(connection: Connection) -> None:
    """Lets no two activations decide side by side. Readers do not wait."""
    await connection.execute("LOCK TABLE survivorship_policies IN SHARE ROW EXCLUSIVE MODE")


async def schedule(connection: Connection) -> list[tuple[int, datetime]]:
    """The activated versions with their instants, the latest first."""
    rows = await connection.fetch(
        "SELECT version, effective_at FROM survivorship_policies WHERE effective_at IS NOT NULL ORDER BY effective_at DESC"
    )
    return [(row[0], row[1]) for row in rows]


def in_force(schedule: Sequence[tuple[int, datetime]], instant: datetime) -> int:
    """The version in force at an instant, by a schedule."""
    return next((version for version, effective_at in schedule if effective_at <= instant), FIRST_VERSION)


def first_row() -> PolicyRow:
    """The version that comes with the platform, as if it were kept."""
    standard = first_policy().standard
    never = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return PolicyRow(FIRST_VERSION, 1, standard, content_of(standard)[1], (), never, never, "", never, never)


async def policies_of(connection: Connection, versions: Collection[int]) -> dict[int, Policy]:
    """Policies by their versions."""
    found = {version: await get(connection, version) for version in versions}
    return {version: Policy(version, row.standard) for version, row in found.items() if row}


def _row(row: Record) -> PolicyRow:
    standard = standard_from(json.loads(row["standard"]))
    return PolicyRow(
        row["version"], row["row_version"], standard, row["content_hash"], tuple(row["authors"]), row["create_time"],
        row["update_time"], row["activator"], row["activated_at"], row["effective_at"],
    )  # fmt: skip
