"""What happened on accounts, and their lots: each page by one statement, which also says whether the caller may see it."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from chassis.database import Connection

EXPIRING_ROWS_MAX = 200


class Asked(NamedTuple):
    """Of whom, for whom, and which part."""

    account_id: uuid.UUID
    institution_id: str
    """Whose link with the customer counts."""
    program_id: str = ""
    """Empty: all."""
    kinds: tuple[str, ...] = ()
    begin_time: datetime | None = None
    end_time: datetime | None = None


class Place(NamedTuple):
    """A line's place in a statement."""

    sequence: int
    owner: str
    program_id: str


class Page(NamedTuple):
    """Rows, and whose they are: None where there is no such account. `linked`: whether the institution may see them."""

    account: asyncpg.Record | None
    rows: list[asyncpg.Record]


async def lines(connection: Connection, asked: Asked, before: Place | None, limit: int) -> Page:
    """Lines, newest first, from just before a place: what an operation did to an account of the family in a programme."""
    place = before or Place(2**62, "", "")
    arguments: list[object] = [asked.account_id, asked.institution_id, asked.program_id, *place, limit]
    if asked.kinds or asked.begin_time or asked.end_time:
        arguments += [list(asked.kinds), asked.begin_time, asked.end_time]
        return _page(await connection.fetch(_FILTERED, *arguments), "sequence")
    return _page(await connection.fetch(_LINES, *arguments), "sequence")


async def lots(connection: Connection, asked: Asked, after: tuple[datetime | None, int] | None, limit: int) -> Page:
    """Lots with points left, what ends first first, from just after an (expire time, lot)."""
    expire_time, lot_id = after or (None, 0)
    never = after is not None and expire_time is None
    found = await connection.fetch(
        _LOTS, asked.account_id, asked.institution_id, asked.program_id, limit, expire_time, lot_id, never
    )
    return _page(found, "lot_id")


async def summary(connection: Connection, asked: Asked, now: datetime) -> tuple[Page, list[asyncpg.Record]]:
    """What came and went in a period, by programme and kind (kind None: the programme's opening balance), and which points
    end when."""
    arguments = (asked.account_id, asked.institution_id, asked.program_id)
    sums = _page(await connection.fetch(_SUMS, *arguments, asked.begin_time, asked.end_time), "program_id")
    return sums, await connection.fetch(_EXPIRING, asked.account_id, asked.program_id, now, EXPIRING_ROWS_MAX)


def _page(found: Sequence[asyncpg.Record], key: str) -> Page:
    return Page(found[0] if found else None, [row for row in found if row[key] is not None])


_ASKED = """
asked AS (
    SELECT account_id AS asked_account_id, holder_customer_id, parent_account_id, create_time,
        EXISTS (SELECT FROM record_links r WHERE r.customer_id = a.holder_customer_id AND r.institution_id = $2) AS linked
    FROM accounts a WHERE account_id = $1
), family AS (
    SELECT account_id, account_id::text AS owner FROM accounts WHERE account_id = $1 OR parent_account_id = $1
)"""
_FILTER = """
JOIN operations o ON o.sequence = e.sequence AND (cardinality($8::text[]) = 0 OR o.kind = ANY($8))
    AND ($9::timestamptz IS NULL OR o.post_time >= $9) AND ($10::timestamptz IS NULL OR o.post_time < $10)"""


# Of each ledger account as many entries as lines are wanted are enough, because each line has at most one of them.
def _statement(entries_filter: str) -> str:
    return f"""
WITH {_ASKED}, accounts_of_ledger AS (
    SELECT l.* FROM family f JOIN ledger_accounts l USING (owner) WHERE $3 = '' OR l.program_id = $3
), moved AS (
    SELECT e.sequence, a.owner, a.program_id,
        max(e.amount_points) FILTER (WHERE a.kind = 'MEMBER') AS amount_points,
        max(e.balance_points) FILTER (WHERE a.kind = 'MEMBER') AS balance_points,
        max(e.version) FILTER (WHERE a.kind = 'MEMBER') AS version,
        max(e.amount_points) FILTER (WHERE a.kind = 'PENDING') AS pending_points,
        max(e.amount_points) FILTER (WHERE a.kind = 'HELD') AS held_points,
        max(e.amount_points) FILTER (WHERE a.kind = 'DEBT') AS debt_points
    FROM accounts_of_ledger a CROSS JOIN LATERAL (
        SELECT e.sequence, e.version, e.amount_points, e.balance_points FROM entries e{entries_filter}
        WHERE e.ledger_account_id = a.ledger_account_id
            AND e.sequence < $4::bigint + CASE WHEN (a.owner, a.program_id) < ($5::text, $6::text) THEN 1 ELSE 0 END
        ORDER BY e.sequence DESC LIMIT $7
    ) e
    GROUP BY e.sequence, a.owner, a.program_id
    ORDER BY e.sequence DESC, a.owner DESC, a.program_id DESC LIMIT $7
), lines AS (
    SELECT m.sequence, m.owner, m.program_id, m.amount_points, m.version, m.pending_points, m.held_points, m.debt_points,
        coalesce(m.balance_points, found.balance_points, 0) AS balance_points,
        o.operation_id, o.kind, o.institution_id, o.effective_time, o.post_time, o.target_id, o.result ->> 'expire_time' AS ends
    FROM moved m JOIN operations o USING (sequence)
    LEFT JOIN accounts_of_ledger a
        ON m.version IS NULL AND a.kind = 'MEMBER' AND a.owner = m.owner AND a.program_id = m.program_id
    LEFT JOIN LATERAL (
        SELECT e.balance_points FROM entries e
        WHERE e.ledger_account_id = a.ledger_account_id AND e.sequence < m.sequence ORDER BY e.sequence DESC LIMIT 1
    ) found ON true
)
SELECT * FROM asked LEFT JOIN lines ON true ORDER BY lines.sequence DESC, lines.owner DESC, lines.program_id DESC
"""


_LINES = _statement("")
_FILTERED = _statement(_FILTER)
_LOTS = f"""
WITH {_ASKED}, found AS (
    SELECT l.lot_id, l.account_id, l.program_id, l.institution_id, l.state, l.issued_points, l.remaining_points,
        l.reserved_points, l.active_time, l.expire_time
    FROM family f JOIN lots l USING (account_id)
    WHERE l.open AND l.state IN ('ACTIVE', 'PENDING') AND ($3 = '' OR l.program_id = $3)
        AND CASE WHEN $7::boolean THEN l.expire_time IS NULL AND l.lot_id > $6::bigint
            ELSE $5::timestamptz IS NULL OR l.expire_time IS NULL OR (l.expire_time, l.lot_id) > ($5, $6::bigint) END
    ORDER BY l.expire_time, l.lot_id LIMIT $4
)
SELECT * FROM asked LEFT JOIN found ON true ORDER BY found.expire_time, found.lot_id
"""
_SUMS = f"""
WITH {_ASKED}, accounts_of_ledger AS (
    SELECT l.* FROM family f JOIN ledger_accounts l USING (owner)
    WHERE l.kind = 'MEMBER' AND l.version > 0 AND ($3 = '' OR l.program_id = $3)
), moved AS (
    SELECT a.program_id, o.kind, e.amount_points,
        CASE WHEN o.post_time < coalesce($4::timestamptz, '-infinity') THEN -1
            WHEN o.post_time >= coalesce($5::timestamptz, 'infinity') THEN 1 ELSE 0 END AS side
    FROM accounts_of_ledger a JOIN entries e USING (ledger_account_id) JOIN operations o USING (sequence)
), sums AS (
    SELECT program_id, kind, count(*) AS lines_count, sum(greatest(amount_points, 0))::bigint AS credited_points,
        sum(greatest(-amount_points, 0))::bigint AS debited_points, NULL::bigint AS opening_points
    FROM moved WHERE side = 0 GROUP BY program_id, kind
    UNION ALL
    SELECT a.program_id, NULL, 0, 0, 0, coalesce((
        SELECT sum(m.amount_points) FROM moved m WHERE m.program_id = a.program_id AND side = -1
    ), 0)::bigint
    FROM accounts_of_ledger a GROUP BY a.program_id
)
SELECT * FROM asked LEFT JOIN sums ON true ORDER BY sums.program_id, sums.kind NULLS FIRST
"""
_EXPIRING = """
SELECT l.program_id, l.expire_time, sum(l.remaining_points - l.reserved_points)::bigint AS points
FROM accounts f JOIN lots l USING (account_id)
WHERE (f.account_id = $1 OR f.parent_account_id = $1) AND l.open AND l.state = 'ACTIVE' AND ($2 = '' OR l.program_id = $2)
    AND l.expire_time > $3 AND l.remaining_points > l.reserved_points
GROUP BY l.program_id, l.expire_time ORDER BY l.expire_time, l.program_id LIMIT $4
"""
