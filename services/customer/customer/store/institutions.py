"""Institutions and their source systems."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from asyncpg import Record

from chassis.database import Connection
from customer.domain.golden import Ranks


@dataclass(frozen=True, slots=True)
class SourceSystem:
    """What the intake needs of a source system."""

    number: int
    name: str
    """`institutions/{institution}/sourceSystems/{source_system}`."""
    institution_id: str
    source_system_id: str
    country_code: str
    """Of the institution."""
    ranks: Ranks


def ranks(default_rank: int, attribute_ranks: str) -> Ranks:
    """Ranks as they are stored."""
    return Ranks(default_rank, {int(attribute): rank for attribute, rank in json.loads(attribute_ranks).items()})


async def insert_institution(
    connection: Connection, institution_id: str, display_name: str, kind: int, time_zone: str, country_code: str, now: datetime
) -> Record | None:
    """The new institution; None when the id is taken."""
    return await connection.fetchrow(
        "INSERT INTO institutions VALUES ($1, $2, $3, $4, $5, 1, $6, $6) ON CONFLICT DO NOTHING RETURNING *",
        institution_id, display_name, kind, time_zone, country_code, now,
    )  # fmt: skip


async def get_institution(connection: Connection, institution_id: str) -> Record | None:
    """An institution; None when there is none."""
    return await connection.fetchrow("SELECT * FROM institutions WHERE institution_id = $1", institution_id)


async def list_institutions(connection: Connection, after: str, limit: int) -> list[Record]:
    """Institutions by id."""
    return await connection.fetch(
        "SELECT * FROM institutions WHERE institution_id > $1 ORDER BY institution_id LIMIT $2", after, limit
    )


async def all_ids(connection: Connection) -> list[str]:
    """The ids of all institutions of the alliance."""
    return [row[0] for row in await connection.fetch("SELECT institution_id FROM institutions ORDER BY institution_id")]


async def insert_source_system(
    connection: Connection,
    institution_id: str,
    source_system_id: str,
    display_name: str,
    default_rank: int,
    attribute_ranks: Mapping[int, int],
    now: datetime,
) -> Record | None:
    """The new source system; None when the id is taken."""
    return await connection.fetchrow(
        "INSERT INTO source_systems (institution_id, source_system_id, display_name, default_rank, attribute_ranks, version,"
        " create_time, update_time) VALUES ($1, $2, $3, $4, $5, 1, $6, $6) ON CONFLICT DO NOTHING RETURNING *",
        institution_id, source_system_id, display_name, default_rank, json.dumps(attribute_ranks), now,
    )  # fmt: skip


async def get_source_system(
    connection: Connection, institution_id: str, source_system_id: str, *, lock: bool = False
) -> Record | None:
    """A source system, for a change locked; None when there is none."""
    return await connection.fetchrow(
        "SELECT * FROM source_systems WHERE institution_id = $1 AND source_system_id = $2" + (" FOR UPDATE" if lock else ""),
        institution_id,
        source_system_id,
    )


async def list_source_systems(connection: Connection, institution_id: str, after: str, limit: int) -> list[Record]:
    """Source systems of an institution, by id."""
    return await connection.fetch(
        "SELECT * FROM source_systems WHERE institution_id = $1 AND source_system_id > $2 ORDER BY source_system_id LIMIT $3",
        institution_id, after, limit,
    )  # fmt: skip


async def update_source_system(
    connection: Connection,
    number: int,
    display_name: str,
    default_rank: int,
    attribute_ranks: Mapping[int, int],
    now: datetime,
) -> Record:
    """The source system after a change."""
    row = await connection.fetchrow(
        "UPDATE source_systems SET display_name = $2, default_rank = $3, attribute_ranks = $4, version = version + 1,"
        " update_time = $5 WHERE source_system_number = $1 RETURNING *",
        number, display_name, default_rank, json.dumps(attribute_ranks), now,
    )  # fmt: skip
    assert row is not None
    return row


async def find_source_systems(connection: Connection, names: Collection[tuple[str, str]]) -> dict[str, SourceSystem]:
    """Source systems by their resource names, for (institution, source system) pairs; those that do not exist are left out."""
    rows = await connection.fetch(_FIND, *(list(column) for column in zip(*names, strict=True)))
    found = (
        SourceSystem(
            number=row["source_system_number"],
            name=f"institutions/{row['institution_id']}/sourceSystems/{row['source_system_id']}",
            institution_id=row["institution_id"],
            source_system_id=row["source_system_id"],
            country_code=row["country_code"],
            ranks=ranks(row["default_rank"], row["attribute_ranks"]),
        )
        for row in rows
    )
    return {source.name: source for source in found}


_FIND = """
SELECT s.source_system_number, s.institution_id, s.source_system_id, s.default_rank, s.attribute_ranks, i.country_code
FROM unnest($1::text[], $2::text[]) AS wanted (institution_id, source_system_id)
    JOIN source_systems s USING (institution_id, source_system_id)
    JOIN institutions i USING (institution_id)
"""
