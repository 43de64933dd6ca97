"""Ratings: an append-only history and, for each customer and scope, which version is current."""

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from chassis.database import Connection
from rating.domain.degrees import Degree, Reason
from rating.domain.facts import ALLIANCE
from rating.domain.lifecycle import Stage
from rating.domain.rating import REASONS_KEPT_MAX, Rating
from rating.domain.scorecard import DegreeKind, Level

Key = tuple[uuid.UUID, str]


@dataclass(frozen=True, slots=True)
class RatingVersion:
    """One state of a customer's rating in a scope; of each degree the strongest reasons."""

    customer_id: uuid.UUID
    scope: str
    version: int
    rating: Rating
    scorecard_id: str
    scorecard_version: int
    created_at: datetime

    def says_the_same(self, other: "RatingVersion") -> bool:
        """Whether a reader sees no difference that matters: values, level, stage and scorecard."""
        return self._seen() == other._seen()

    def _seen(self) -> tuple[object, ...]:
        values = tuple((degree.kind, degree.value) for degree in self.rating.degrees)
        return values, self.rating.level, self.rating.stage, self.scorecard_id, self.scorecard_version


async def current(connection: Connection, customer_ids: Collection[uuid.UUID]) -> dict[Key, RatingVersion]:
    """The current ratings of customers, by (customer, scope)."""
    rows = await connection.fetch(f"{_CURRENT} WHERE r.customer_id = ANY($1)", list(customer_ids))
    return {(row["customer_id"], row["scope"]): _version(row) for row in rows}


async def get(connection: Connection, customer_id: uuid.UUID, scope: str) -> RatingVersion | None:
    """The current rating; None when the customer was not rated in this scope, or has no record of it any more."""
    row = await connection.fetchrow(f"{_CURRENT} WHERE r.customer_id = $1 AND r.scope = $2 AND {_LINKED}", customer_id, scope)
    return _version(row) if row else None


async def scopes(connection: Connection, customer_id: uuid.UUID) -> list[RatingVersion]:
    """The current ratings in every scope the customer has a record of, `alliance` first."""
    rows = await connection.fetch(
        f"{_CURRENT} WHERE r.customer_id = $1 AND {_LINKED} ORDER BY r.scope <> '{ALLIANCE}', r.scope", customer_id
    )
    return [_version(row) for row in rows]


async def history(
    connection: Connection, customer_id: uuid.UUID, scope: str, before_version: int | None, limit: int
) -> list[RatingVersion]:
    """States below `before_version`, newest first."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM rating_versions v WHERE v.customer_id = $1 AND v.scope = $2"
        " AND ($3::bigint IS NULL OR v.version < $3) ORDER BY v.version DESC LIMIT $4",
        customer_id, scope, before_version, limit,
    )  # fmt: skip
    return [_version(row) for row in rows]


async def write(connection: Connection, versions: Sequence[RatingVersion]) -> None:
    """Appends versions, one at most for each customer and scope, and makes them current. The caller holds the marks."""
    await connection.execute(
        _WRITE,
        [version.customer_id for version in versions],
        [version.scope for version in versions],
        [version.version for version in versions],
        [json.dumps([_degree_data(degree) for degree in version.rating.degrees]) for version in versions],
        [version.rating.level.value for version in versions],
        [version.rating.stage.value for version in versions],
        [version.scorecard_id for version in versions],
        [version.scorecard_version for version in versions],
        [version.rating.as_of for version in versions],
        [version.created_at for version in versions],
    )


async def page_with_former(
    connection: Connection, after: Key | None, limit: int
) -> list[tuple[RatingVersion, Level | None, Stage | None]]:
    """Current ratings by (customer, scope), each with the level and stage of the version before, to be published again."""
    customer_id, scope = after or (uuid.UUID(int=0), "")
    rows = await connection.fetch(
        f"SELECT {_COLUMNS}, former.customer_level AS former_level, former.lifecycle_stage AS former_stage"
        " FROM ratings r JOIN rating_versions v USING (customer_id, scope, version) LEFT JOIN rating_versions former"
        " ON (former.customer_id, former.scope, former.version) = (v.customer_id, v.scope, v.version - 1)"
        " WHERE (r.customer_id, r.scope) > ($1, $2) ORDER BY r.customer_id, r.scope LIMIT $3",
        customer_id, scope, limit,
    )  # fmt: skip
    return [
        (
            _version(row),
            Level(row["former_level"]) if row["former_level"] else None,
            Stage(row["former_stage"]) if row["former_stage"] else None,
        )
        for row in rows
    ]


def _degree_data(degree: Degree) -> dict[str, object]:
    return {
        "kind": degree.kind.value,
        "value": degree.value,
        "confidence": degree.confidence,
        "reasons": [[reason.code, reason.description, reason.contribution] for reason in degree.reasons[:REASONS_KEPT_MAX]],
    }


def _degree(data: dict[str, Any]) -> Degree:
    return Degree(
        DegreeKind(data["kind"]), data["value"], data["confidence"], tuple(Reason(*reason) for reason in data["reasons"])
    )


def _version(row: asyncpg.Record) -> RatingVersion:
    return RatingVersion(
        customer_id=row["customer_id"],
        scope=row["scope"],
        version=row["version"],
        rating=Rating(
            degrees=tuple(_degree(data) for data in json.loads(row["degrees"])),
            level=Level(row["customer_level"]),
            stage=Stage(row["lifecycle_stage"]),
            as_of=row["as_of"],
        ),
        scorecard_id=row["scorecard_id"],
        scorecard_version=row["scorecard_version"],
        created_at=row["created_at"],
    )


_COLUMNS = (
    "v.customer_id, v.scope, v.version, v.degrees, v.customer_level, v.lifecycle_stage, v.scorecard_id, v.scorecard_version,"
    " v.as_of, v.created_at"
)
_CURRENT = f"SELECT {_COLUMNS} FROM ratings r JOIN rating_versions v USING (customer_id, scope, version)"
_LINKED = (
    "EXISTS (SELECT FROM record_links l WHERE l.customer_id = r.customer_id"
    f" AND (r.scope = '{ALLIANCE}' OR l.institution_id = r.scope))"
)

_WRITE = """
WITH appended AS (
    INSERT INTO rating_versions (customer_id, scope, version, degrees, customer_level, lifecycle_stage, scorecard_id,
                                 scorecard_version, as_of, created_at)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::jsonb[], $5::smallint[], $6::smallint[], $7::text[],
                         $8::integer[], $9::timestamptz[], $10::timestamptz[])
)
INSERT INTO ratings (customer_id, scope, version) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[])
ON CONFLICT (customer_id, scope) DO UPDATE SET version = excluded.version
"""
