"""Versions of contact policies: rows are only added, the newest is in force."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from chassis.database import Connection
from contact.domain.caps import Cap

ALLIANCE = "alliance"
"""The policy whose caps count the contacts of all institutions."""


async def add_version(
    connection: Connection, policy_id: str, contact_caps: Sequence[dict[str, int]], created_at: datetime, created_by: str
) -> int:
    """Writes the next version, which is then in force, and returns its number."""
    version: int = await connection.fetchval(
        "INSERT INTO contact_policies AS p (policy_id, version) VALUES ($1, 1)"
        " ON CONFLICT (policy_id) DO UPDATE SET version = p.version + 1 RETURNING version",
        policy_id,
    )
    await connection.execute(
        "INSERT INTO contact_policy_versions (policy_id, version, contact_caps, created_at, created_by)"
        " VALUES ($1, $2, $3::jsonb, $4, $5)",
        policy_id, version, json.dumps(contact_caps), created_at, created_by,
    )  # fmt: skip
    return version


async def page(connection: Connection, policy_id: str, before_version: int | None, limit: int) -> list[asyncpg.Record]:
    """The versions before one, newest first."""
    return await connection.fetch(
        "SELECT policy_id, version, contact_caps, created_at FROM contact_policy_versions"
        " WHERE policy_id = $1 AND ($2::integer IS NULL OR version < $2) ORDER BY version DESC LIMIT $3",
        policy_id, before_version, limit,
    )  # fmt: skip


async def caps_in_force(connection: Connection, institution_id: str) -> list[Cap]:
    """The caps that bind an institution: the alliance's, which count everybody's contacts, and its own."""
    rows = await connection.fetch(
        "SELECT policy_id, contact_caps FROM contact_policies JOIN contact_policy_versions USING (policy_id, version)"
        " WHERE policy_id = ANY($1::text[])",
        [ALLIANCE, institution_id],
    )
    return [
        Cap(
            contacts_max=cap["contacts_max"],
            window=timedelta(hours=cap["window_hours"]),
            channel=cap["channel"],
            purpose=cap["purpose"],
            institution=None if row["policy_id"] == ALLIANCE else institution_id,
        )
        for row in rows
        for cap in caps_of(row)
    ]


def caps_of(row: asyncpg.Record) -> list[dict[str, Any]]:
    """The caps of a row, as they were written."""
    caps: list[dict[str, Any]] = json.loads(row["contact_caps"])
    return caps
