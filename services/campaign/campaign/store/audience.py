"""The customers linked with an institution, with what is known of them."""

import uuid
from typing import Any

import asyncpg

from campaign.domain.audience import ALLIANCE, DEGREES, Field, profile_key
from campaign.domain.profile import Profile
from chassis import customer_states
from chassis.database import Connection

PAGE_PROFILES_MAX = 1000
MARKETING = "MARKETING"


async def page(connection: Connection, institution_id: str, channel: str, after: uuid.UUID, limit: int) -> list[Profile]:
    """Profiles of the institution's customers, by id; less than `limit` only at the end."""
    rows = await connection.fetch(_PAGE, institution_id, after, limit, channel, MARKETING)
    restricted = await customer_states.restricted(connection, [row["customer_id"] for row in rows])
    return [_profile(row, institution_id, restricted) for row in rows]


def _profile(row: asyncpg.Record, institution_id: str, restricted: frozenset[uuid.UUID]) -> Profile:
    numbers: dict[str, Any] = {profile_key(Field.BIRTH_YEAR): row["birth_year"]}
    texts: dict[str, Any] = {
        profile_key(field): row[field.name.lower()]
        for field in (Field.SEX, Field.COUNTRY, Field.ADMINISTRATIVE_AREA, Field.LANGUAGE)
    }
    for prefix, scope in (("a", ALLIANCE), ("i", institution_id)):
        for field in (Field.CUSTOMER_LEVEL, Field.LIFECYCLE_STAGE):
            texts[profile_key(field, scope)] = row[f"{prefix}_{field.name.lower()}"]
        for field in DEGREES:
            numbers[profile_key(field, scope)] = row[f"{prefix}_{field.name.lower()}"]
    for program_id, balance_points in zip(row["program_ids"] or (), row["balances_points"] or (), strict=True):
        numbers[profile_key(Field.POINTS_BALANCE, program_id)] = balance_points
    return Profile(
        customer_id=row["customer_id"],
        numbers={key: float(value) for key, value in numbers.items() if value is not None},
        texts={key: value for key, value in texts.items() if value is not None},
        permitted=row["permitted"],
        restricted=row["customer_id"] in restricted,
        record_id=row["record_id"],
    )


_RATING = ("customer_level", "lifecycle_stage", *(degree.name.lower() for degree in DEGREES))
# Permissions as contact decides: a later statement replaces those of the records it covers, of the others the strictest binds.
# OFFSET 0 keeps these lookups by key: a page must not cost more because the whole is larger, and a join would read all of it.
_PAGE = f"""
WITH page AS (
    SELECT customer_id, (array_agg(record_id ORDER BY record_id))[1] AS record_id FROM record_links
    WHERE institution_id = $1 AND customer_id > $2 GROUP BY customer_id ORDER BY customer_id LIMIT $3
)
SELECT page.customer_id, page.record_id, p.birth_year, p.sex, p.country, p.administrative_area, p.language,
    {", ".join(f"a.{name} AS a_{name}, i.{name} AS i_{name}" for name in _RATING)},
    points.program_ids, points.balances_points, coalesce(permission.granted, false) AS permitted
FROM page
LEFT JOIN LATERAL (SELECT * FROM profiles WHERE customer_id = page.customer_id OFFSET 0) AS p ON true
LEFT JOIN LATERAL (
    SELECT * FROM profile_ratings WHERE customer_id = page.customer_id AND scope = '{ALLIANCE}' OFFSET 0
) AS a ON true
LEFT JOIN LATERAL (SELECT * FROM profile_ratings WHERE customer_id = page.customer_id AND scope = $1 OFFSET 0) AS i ON true
LEFT JOIN LATERAL (
    WITH said AS (
        SELECT s.* FROM record_links l JOIN permissions s USING (record_id)
        WHERE l.customer_id = page.customer_id AND l.institution_id = $1 AND s.channel = $4 AND s.purpose = $5
    )
    SELECT bool_and(granted) AS granted FROM said WHERE NOT EXISTS (
        SELECT FROM said AS later WHERE said.record_id::text = ANY(string_to_array(later.covered_record_ids, ','))
        AND (later.state_time_microseconds, later.statement_id) > (said.state_time_microseconds, said.statement_id)
    )
) AS permission ON true
LEFT JOIN LATERAL (
    SELECT array_agg(program_id) AS program_ids, array_agg(balance_points) AS balances_points
    FROM (
        SELECT b.program_id, sum(b.balance_points) AS balance_points
        FROM loyalty_accounts l JOIN profile_points b USING (account_id)
        WHERE l.customer_id = page.customer_id GROUP BY b.program_id
    ) AS balances
) AS points ON true
ORDER BY page.customer_id
"""
