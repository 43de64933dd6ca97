"""Nobody is rated from the rebuild that emptied the facts until each owner's facts are folded again."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias

import asyncpg

from chassis.clock import now
from chassis.database import Connection

Fence: TypeAlias = frozenset[tuple[str, uuid.UUID]]


async def begin(connection: Connection, run_id: uuid.UUID, owners: Sequence[str]) -> None:
    """Begins the pause of a rebuild, in place of any earlier one. The caller empties the facts in the same transaction."""
    await connection.execute(
        "INSERT INTO rerate_pauses (owner, run_id, since) SELECT owner, $1, $3 FROM unnest($2::text[]) AS o (owner)"
        " ON CONFLICT (owner) DO UPDATE SET run_id = excluded.run_id, since = excluded.since,"
        " stream_sequence = NULL, ended_at = NULL",
        run_id, sorted(owners), now(),
    )  # fmt: skip


async def fence(connection: Connection) -> Fence | None:
    """Which rebuilds the facts come from; None while paused.

    Read it before the facts and again in the transaction that writes what follows from them: when it differs, a rebuild emptied
    the facts in between, and nothing may be written.
    """
    rows = await connection.fetch("SELECT owner, run_id, ended_at FROM rerate_pauses")
    if any(row["ended_at"] is None for row in rows):
        return None
    return frozenset((row["owner"], row["run_id"]) for row in rows)


async def said_all(connection: Connection, owner: str, run_id: uuid.UUID, stream_sequence: int) -> None:
    """Keeps where an owner's run ends in its stream; a run that an earlier rebuild asked for changes nothing."""
    await connection.execute(
        "UPDATE rerate_pauses SET stream_sequence = $3 WHERE owner = $1 AND run_id = $2 AND ended_at IS NULL",
        owner, run_id, stream_sequence,
    )  # fmt: skip


async def unended(connection: Connection) -> list[asyncpg.Record]:
    """The pauses that last: owner, run_id, since, stream_sequence."""
    return await connection.fetch(
        "SELECT owner, run_id, since, stream_sequence FROM rerate_pauses WHERE ended_at IS NULL ORDER BY owner"
    )


async def end(connection: Connection, owner: str, run_id: uuid.UUID, at: datetime) -> None:
    """Ends the pause for one owner, unless another rebuild has begun."""
    await connection.execute(
        "UPDATE rerate_pauses SET ended_at = $3 WHERE owner = $1 AND run_id = $2 AND ended_at IS NULL", owner, run_id, at
    )


async def end_all(connection: Connection) -> int:
    """Ends the pause on the operator's word; returns how many owners it waited for."""
    status = await connection.execute("UPDATE rerate_pauses SET ended_at = $1 WHERE ended_at IS NULL", now())
    return int(status.split()[-1])
