"""Versions of scorecards, kept as data, and which of them rates."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import asyncpg

from chassis.database import Connection
from rating.domain.scorecard import (
    DegreeKind,
    Level,
    LevelThreshold,
    LoyaltyParameters,
    PiecewiseLinearMap,
    Scorecard,
)
from rating.store.queue import NOBODY


@dataclass(frozen=True, slots=True)
class ScorecardVersion:
    """A version of a scorecard."""

    scorecard_id: str
    version: int
    content: Scorecard
    created_at: datetime
    active: bool


async def create(connection: Connection, scorecard_id: str, content: Scorecard, now: datetime) -> ScorecardVersion:
    """Writes the next version of a scorecard; its first is 1."""
    # Two writers must not find the same last version.
    await connection.execute("SELECT FROM active_scorecard FOR UPDATE")
    version = await connection.fetchval(
        "INSERT INTO scorecard_versions (scorecard_id, version, content, created_at)"
        " SELECT $1, coalesce(max(version), 0) + 1, $2, $3 FROM scorecard_versions WHERE scorecard_id = $1 RETURNING version",
        scorecard_id, to_json(content), now,
    )  # fmt: skip
    return ScorecardVersion(scorecard_id, version, content, now, active=False)


async def get(connection: Connection, scorecard_id: str, version: int) -> ScorecardVersion | None:
    """One version."""
    row = await connection.fetchrow(f"{_SELECT} WHERE s.scorecard_id = $1 AND s.version = $2", scorecard_id, version)
    return _version(row) if row else None


async def page(connection: Connection, scorecard_id: str, before_version: int | None, limit: int) -> list[ScorecardVersion]:
    """Versions below `before_version`, newest first."""
    rows = await connection.fetch(
        f"{_SELECT} WHERE s.scorecard_id = $1 AND ($2::integer IS NULL OR s.version < $2) ORDER BY s.version DESC LIMIT $3",
        scorecard_id, before_version, limit,
    )  # fmt: skip
    return [_version(row) for row in rows]


async def active(connection: Connection) -> ScorecardVersion:
    """The one that rates now; the migrations leave one, so there always is one."""
    row = await connection.fetchrow(f"{_SELECT} WHERE a.singleton = 1")
    assert row is not None
    return _version(row)


async def activate(connection: Connection, scorecard_id: str, version: int, now: datetime) -> None:
    """Makes a version the one that rates, and everybody to be marked; nothing when it is already."""
    await connection.execute(
        "UPDATE active_scorecard SET scorecard_id = $1, version = $2, activated_at = $3, marked_up_to = $4"
        " WHERE (scorecard_id, version) <> ($1, $2)",
        scorecard_id, version, now, NOBODY,
    )  # fmt: skip


def to_json(content: Scorecard) -> str:
    """The content as it is kept."""
    return json.dumps(asdict(content))


def from_json(text: str) -> Scorecard:
    """The content from what is kept."""
    data: dict[str, Any] = json.loads(text)
    return Scorecard(
        loyalty=LoyaltyParameters(**data["loyalty"]),
        contribution=_map(data["contribution"]),
        credit=_map(data["credit"]),
        level_thresholds=tuple(
            LevelThreshold(
                Level(threshold["level"]), tuple((DegreeKind(kind), minimum) for kind, minimum in threshold["minimums"])
            )
            for threshold in data["level_thresholds"]
        ),
        reference_currency_code=data["reference_currency_code"],
    )


def _map(data: dict[str, Any]) -> PiecewiseLinearMap:
    return PiecewiseLinearMap(tuple((x, y) for x, y in data["points"]))


def _version(row: asyncpg.Record) -> ScorecardVersion:
    return ScorecardVersion(row["scorecard_id"], row["version"], from_json(row["content"]), row["created_at"], row["active"])


_SELECT = """
SELECT s.scorecard_id, s.version, s.content, s.created_at, a.singleton IS NOT NULL AS active
FROM scorecard_versions s LEFT JOIN active_scorecard a USING (scorecard_id, version)
"""
