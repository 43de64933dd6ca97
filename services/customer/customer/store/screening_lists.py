"""Screening lists: versions and their entries."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from chassis.database import Connection
from customer.domain.kyc import Topic
from customer.domain.screening import Form, Screened
from customer.domain.screening_index import ListedEntry, ScreeningIndex

_COLUMNS = """v.*, (SELECT count(*) FROM screening_entries e
    WHERE e.list_id = v.list_id AND e.list_version = v.list_version) AS entries_count"""


async def insert_version(connection: Connection, list_id: str, version: str, topic: int, now: datetime) -> bool:
    """Begins a version; false when it exists."""
    return (
        await connection.fetchval(
            "INSERT INTO screening_list_versions VALUES ($1, $2, $3, false, $4, NULL, NULL, false)"
            " ON CONFLICT DO NOTHING RETURNING 1",
            list_id, version, topic, now,
        )
    ) is not None  # fmt: skip


async def get_version(connection: Connection, list_id: str, version: str, lock: bool = False) -> asyncpg.Record | None:
    """A version with the number of its entries."""
    locked = " FOR UPDATE" if lock else ""
    return await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM screening_list_versions v WHERE list_id = $1 AND list_version = $2{locked}",
        list_id, version,
    )  # fmt: skip


async def list_versions(connection: Connection, list_id: str, offset_time: datetime | None, limit: int) -> list[asyncpg.Record]:
    """Versions of a list, the newest first."""
    return await connection.fetch(
        f"SELECT {_COLUMNS} FROM screening_list_versions v WHERE list_id = $1 AND ($2::timestamptz IS NULL OR create_time < $2)"
        " ORDER BY create_time DESC LIMIT $3",
        list_id, offset_time, limit,
    )  # fmt: skip


async def add_entries(connection: Connection, list_id: str, version: str, rows: Sequence[Sequence[Any]]) -> None:
    """Entries: (entry, names, forms as JSON, birth years, countries, organisation); one given again replaces the former."""
    await connection.executemany(
        "INSERT INTO screening_entries VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7, $8)"
        " ON CONFLICT (list_id, list_version, entry_id) DO UPDATE SET names = excluded.names, forms = excluded.forms,"
        " birth_years = excluded.birth_years, country_codes = excluded.country_codes, organisation = excluded.organisation",
        [(list_id, version, *row) for row in rows],
    )


async def activate(connection: Connection, list_id: str, version: str, now: datetime) -> None:
    """Puts a version in place of the active one; everyone is to be screened again."""
    await connection.execute("UPDATE screening_list_versions SET active = false WHERE list_id = $1 AND active", list_id)
    await connection.execute(
        "UPDATE screening_list_versions SET active = true, activate_time = $3, rescreened_until = NULL, rescreened = false"
        " WHERE list_id = $1 AND list_version = $2",
        list_id, version, now,
    )  # fmt: skip


async def active_versions(connection: Connection) -> frozenset[tuple[str, str]]:
    """The active (list, version) pairs: what an index was made of."""
    rows = await connection.fetch("SELECT list_id, list_version FROM screening_list_versions WHERE active")
    return frozenset((row[0], row[1]) for row in rows)


async def load_index(connection: Connection) -> ScreeningIndex:
    """The index of all active entries."""
    rows = await connection.fetch(
        "SELECT e.*, v.topic FROM screening_entries e JOIN screening_list_versions v USING (list_id, list_version) WHERE v.active"
    )
    return ScreeningIndex(
        ListedEntry(
            row["list_id"], row["list_version"], row["entry_id"], Topic(row["topic"]), row["names"][0],
            Screened(
                {Form(form): frozenset(names) for form, names in json.loads(row["forms"]).items()},
                frozenset(row["birth_years"]), frozenset(row["country_codes"]), row["organisation"],
            ),
        )
        for row in rows
    )  # fmt: skip


async def to_rescreen(connection: Connection) -> asyncpg.Record | None:
    """An active version after whose activation not everyone was screened again; locked."""
    return await connection.fetchrow(
        "SELECT * FROM screening_list_versions WHERE active AND NOT rescreened"
        " ORDER BY activate_time LIMIT 1 FOR UPDATE SKIP LOCKED"
    )


async def rescreened(connection: Connection, list_id: str, version: str, until: UUID | None, done: bool) -> None:
    """How far everyone was screened again."""
    await connection.execute(
        "UPDATE screening_list_versions SET rescreened_until = $3, rescreened = $4 WHERE list_id = $1 AND list_version = $2",
        list_id, version, until, done,
    )  # fmt: skip
