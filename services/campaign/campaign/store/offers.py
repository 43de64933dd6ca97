"""Offers of institutions."""

from datetime import datetime

import asyncpg

from chassis.database import Connection

_COLUMNS = "institution_id, offer_id, display_name, title, body, create_time"


async def insert(
    connection: Connection, institution_id: str, offer_id: str, display_name: str, title: str, body: str, create_time: datetime
) -> asyncpg.Record | None:
    """The new offer; None when the institution has one with this id."""
    return await connection.fetchrow(
        f"INSERT INTO offers ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",
        institution_id, offer_id, display_name, title, body, create_time,
    )  # fmt: skip


async def get(connection: Connection, institution_id: str, offer_id: str) -> asyncpg.Record | None:
    """The offer, or None."""
    return await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM offers WHERE institution_id = $1 AND offer_id = $2", institution_id, offer_id
    )


async def page(connection: Connection, institution_id: str, after: str, limit: int) -> list[asyncpg.Record]:
    """Offers of an institution, by id."""
    return await connection.fetch(
        f"SELECT {_COLUMNS} FROM offers WHERE institution_id = $1 AND offer_id > $2 ORDER BY offer_id LIMIT $3",
        institution_id, after, limit,
    )  # fmt: skip
