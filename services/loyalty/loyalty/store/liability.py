"""SQL of liabilities: sums by day that follow the ledger, and reports that add what is not in them yet.

Operations are summed up in the order of their sequence, each once: `report_progress` says how far. A report adds what came after
in the same snapshot, so it is always of now.
"""

from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from typing import NamedTuple

import asyncpg

from chassis.database import Connection
from loyalty.domain.liability import Cohort, Movement

OPERATIONS_AT_ONCE = 20_000
"""Operations summed up in one transaction: about half a second."""
MEMBERS = "('MEMBER', 'PENDING', 'HELD', 'DEBT')"


class Program(NamedTuple):
    """A programme, as far as reports need it."""

    program_id: str
    institution_id: str
    time_zone: str
    value: Fraction | None
    """Of a point, in minor units."""
    currency_code: str | None


class Owed(NamedTuple):
    """Money that became owed on a day for points of a programme, or was settled on it (then negative): exact."""

    program_id: str
    day: date
    payer: str
    payee: str
    currency_code: str
    amount: Fraction


async def fold(connection: Connection) -> bool:
    """Sums up the next operations, in the caller's transaction. False when there are none."""
    done = await connection.fetchval("SELECT sequence FROM report_progress WHERE shard = 0 FOR UPDATE")
    last = await connection.fetchval("SELECT sequence FROM ledger_heads WHERE shard = 0")
    through = min(last, done + OPERATIONS_AT_ONCE)
    if through == done:
        return False
    for statement in _FOLDS:
        await connection.execute(statement, done, through)
    await connection.execute("UPDATE report_progress SET sequence = $1 WHERE shard = 0", through)
    return True


async def programs(connection: Connection, institution_id: str | None) -> list[Program]:
    """The programmes of an institution (None: of all), by id."""
    rows = await connection.fetch(
        "SELECT program_id, institution_id, time_zone, liability_numerator, liability_denominator, liability_currency_code"
        " FROM programs WHERE $1::text IS NULL OR institution_id = $1 ORDER BY program_id",
        institution_id,
    )
    return [
        Program(
            row["program_id"], row["institution_id"], row["time_zone"],
            Fraction(row["liability_numerator"], row["liability_denominator"]) if row["liability_currency_code"] else None,
            row["liability_currency_code"],
        )
        for row in rows
    ]  # fmt: skip


async def movements(connection: Connection, program_ids: Sequence[str], begin: date, end: date) -> list[Movement]:
    """Movements of programmes up to a day, by programme and day; all before the first day stand together on the one before it."""
    rows = await connection.fetch(_MOVEMENTS, program_ids, end, *await _tail(connection), begin)
    return [Movement(*row[:4], *map(int, row[4:])) for row in map(tuple, rows)]


async def issuer_balances(connection: Connection, program_ids: Sequence[str]) -> dict[str, int]:
    """The balances of the issuers' accounts as they are now."""
    rows = await connection.fetch(
        "SELECT program_id, balance_points FROM ledger_accounts WHERE kind = 'ISSUER' AND program_id = ANY($1::text[])",
        program_ids,
    )
    return {row["program_id"]: row["balance_points"] for row in rows}


async def cohorts(connection: Connection, program_id: str, until: date) -> list[Cohort]:
    """The cohorts of a programme as they stood at the end of a day, by month."""
    rows = await connection.fetch(_COHORTS, program_id, until, *await _tail(connection))
    return [Cohort(row["month"], *map(int, tuple(row)[1:])) for row in rows]


async def owed(connection: Connection, program_ids: Sequence[str], begin: date, end: date) -> list[Owed]:
    """Money owed for points of programmes, by day: what arose, and (negative) what was settled. Days as in `movements`."""
    rows = await connection.fetch(_OWED, program_ids, end, *await _tail(connection), begin)
    return [_owed(row) for row in rows]


async def _tail(connection: Connection) -> tuple[int, int]:
    """What is not in the sums yet: operations after the one, up to the other. The caller's transaction is one snapshot."""
    row = await connection.fetchrow(
        "SELECT p.sequence, h.sequence FROM report_progress p JOIN ledger_heads h USING (shard) WHERE shard = 0"
    )
    assert row is not None
    return row[0], row[1]


def _owed(row: asyncpg.Record) -> Owed:
    points = int(row["points"])
    if row["price_denominator"] is None:  # what was settled: a line, whose amount is exact as it is
        amount = -Fraction(int(row["amount_numerator"]), int(row["amount_denominator"]))
    else:
        amount = Fraction(points * row["price_numerator"], row["price_denominator"])
        amount -= amount * row["fee_basis_points"] / 10_000
    return Owed(row["program_id"], row["day"], row["payer"], row["payee"], row["currency_code"], amount)


_DAY = "(o.post_time AT TIME ZONE p.time_zone)::date"
_POINTS = f"""
SELECT program_id, day, kind, institution_id, sum(greatest(member, 0)) AS up_points, sum(least(member, 0)) AS down_points,
       sum(debt) AS debt_points, sum(partner) AS partner_points, sum(issuer) AS issuer_points
FROM (
    SELECT a.program_id, {_DAY} AS day, o.kind, o.institution_id,
           coalesce(sum(e.amount_points) FILTER (WHERE a.kind IN {MEMBERS}), 0) AS member,
           coalesce(sum(e.amount_points) FILTER (WHERE a.kind = 'DEBT'), 0) AS debt,
           coalesce(sum(e.amount_points) FILTER (WHERE a.kind = 'PARTNER'), 0) AS partner,
           coalesce(sum(e.amount_points) FILTER (WHERE a.kind = 'ISSUER'), 0) AS issuer
    FROM operations o JOIN entries e ON e.sequence = o.sequence JOIN ledger_accounts a USING (ledger_account_id)
    JOIN programs p ON p.program_id = a.program_id
    WHERE e.sequence > {{after}} AND e.sequence <= {{through}} AND o.sequence > {{after}} AND o.sequence <= {{through}}
    GROUP BY o.sequence, a.program_id, 2, o.kind, o.institution_id
) one GROUP BY program_id, day, kind, institution_id
"""
# A lot that came from another stays in the cohort of the first; what happened to it is told from the operation's kind.
_ORIGIN = "coalesce(l.origin_lot_id, l.lot_id) / 1024"
_MONTH = "date_trunc('month', first.post_time AT TIME ZONE p.time_zone)::date"
_USED_BY = """CASE WHEN o.kind = 'TRANSFER' OR o.kind = 'REVERSE' AND l.origin_lot_id IS NOT NULL THEN 'MOVED'
                   WHEN o.kind IN ('CAPTURE', 'REDEEM', 'EXCHANGE') THEN 'REDEEMED'
                   WHEN o.kind IN ('EXPIRE', 'REFUND') THEN 'EXPIRED' ELSE 'WITHDRAWN' END"""
_LOTS = f"""
SELECT l.program_id, {_MONTH} AS month, {_DAY} AS day, l.expire_time IS NULL AS perpetual,
       CASE WHEN l.origin_lot_id IS NULL THEN 'ISSUED' ELSE {_USED_BY} END AS what,
       CASE WHEN l.origin_lot_id IS NULL THEN l.issued_points ELSE -l.issued_points END AS points
FROM lots l JOIN operations o ON o.sequence = l.lot_id / 1024 JOIN operations first ON first.sequence = {_ORIGIN}
JOIN programs p ON p.program_id = l.program_id
WHERE l.lot_id >= ({{after}} + 1) * 1024 AND l.lot_id < ({{through}} + 1) * 1024
UNION ALL
SELECT l.program_id, {_MONTH}, {_DAY}, l.expire_time IS NULL, {_USED_BY}, u.points
FROM lot_uses u JOIN lots l USING (lot_id) JOIN operations o ON o.sequence = u.sequence
JOIN operations first ON first.sequence = {_ORIGIN} JOIN programs p ON p.program_id = l.program_id
WHERE u.sequence > {{after}} AND u.sequence <= {{through}}
UNION ALL
SELECT l.program_id, {_MONTH}, (back.post_time AT TIME ZONE p.time_zone)::date, l.expire_time IS NULL, {_USED_BY}, -r.points
FROM lot_returns r JOIN lots l USING (lot_id) JOIN operations back ON back.sequence = r.sequence
JOIN operations o ON o.sequence = r.use_sequence
JOIN operations first ON first.sequence = {_ORIGIN} JOIN programs p ON p.program_id = l.program_id
WHERE r.sequence > {{after}} AND r.sequence <= {{through}}
"""
_COHORT_SUMS = ", ".join(
    f"coalesce(sum(points) FILTER (WHERE what = '{what}'), 0) AS {what.lower()}_points"
    for what in ("ISSUED", "REDEEMED", "EXPIRED", "WITHDRAWN", "MOVED")
)
_COHORT_DAYS = f"SELECT program_id, month, day, perpetual, {_COHORT_SUMS} FROM ({_LOTS}) used GROUP BY 1, 2, 3, 4"
_CLEARING_KEYS = "agreement_id, agreement_version, program_id, payer_institution_id, day"
_CLEARING_REST = "payee_institution_id, currency_code, price_numerator, price_denominator, fee_basis_points"
_CLEARING = f"""
SELECT {_CLEARING_KEYS}, {_CLEARING_REST}, sum(points) AS points FROM (
    SELECT i.*, {_DAY} AS day FROM clearing_items i JOIN operations o USING (sequence)
    JOIN programs p ON p.program_id = i.program_id
    WHERE i.agreement_id IS NOT NULL AND i.sequence > {{after}} AND i.sequence <= {{through}}
) item GROUP BY {_CLEARING_KEYS}, {_CLEARING_REST}
"""


def _between(query: str, after: str, through: str) -> str:
    return query.replace("{after}", f"{after}::bigint").replace("{through}", f"{through}::bigint")


def _fold(table: str, query: str, keys: str, rest: str, sums: Sequence[str]) -> str:
    columns = ", ".join(filter(None, (keys, rest, *sums)))
    added = ", ".join(f"{column} = t.{column} + excluded.{column}" for column in sums)
    return (
        f"INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM ({_between(query, '$1', '$2')}) new"
        f" ON CONFLICT ({keys}) DO UPDATE SET {added}"
    )


_POINT_SUMS = ("up_points", "down_points", "debt_points", "partner_points", "issuer_points")
_COHORT_COLUMNS = ("issued_points", "redeemed_points", "expired_points", "withdrawn_points", "moved_points")
_FOLDS = (
    _fold("points_days", _POINTS, "program_id, day, kind, institution_id", "", _POINT_SUMS),
    _fold("cohort_days", _COHORT_DAYS, "program_id, month, day, perpetual", "", _COHORT_COLUMNS),
    _fold("clearing_days", _CLEARING, _CLEARING_KEYS, _CLEARING_REST, ("points",)),
)
_FROM_BEGIN = "greatest(day, $5::date - 1)"
_MOVEMENTS = f"""
SELECT program_id, {_FROM_BEGIN}, kind, institution_id, {", ".join(f"sum({column})" for column in _POINT_SUMS)}
FROM (
    SELECT program_id, day, kind, institution_id, {", ".join(_POINT_SUMS)} FROM points_days
    UNION ALL SELECT * FROM ({_between(_POINTS, "$3", "$4")}) tail
) every
WHERE program_id = ANY($1::text[]) AND day <= $2
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
_COHORTS = f"""
SELECT month, sum(issued_points) AS issued_points, sum(redeemed_points) AS redeemed_points,
       sum(expired_points) AS expired_points, sum(withdrawn_points) AS withdrawn_points,
       sum(left_points) AS outstanding_points, coalesce(sum(left_points) FILTER (WHERE perpetual), 0) AS perpetual_points
FROM (
    SELECT *, issued_points - redeemed_points - expired_points - withdrawn_points - moved_points AS left_points FROM (
        SELECT program_id, month, day, perpetual, {", ".join(_COHORT_COLUMNS)} FROM cohort_days
        UNION ALL SELECT * FROM ({_between(_COHORT_DAYS, "$3", "$4")}) tail
    ) every WHERE program_id = $1 AND day <= $2
) cohort GROUP BY month ORDER BY month
"""
_SETTLED_DAY = "(b.settle_time AT TIME ZONE p.time_zone)::date"
_OWED = f"""
SELECT program_id, {_FROM_BEGIN} AS day, payer, payee, currency_code, sum(points) AS points, price_numerator, price_denominator,
       fee_basis_points, amount_numerator, amount_denominator
FROM (
    SELECT program_id, day, payer_institution_id AS payer, payee_institution_id AS payee, currency_code, points,
           price_numerator, price_denominator, fee_basis_points,
           NULL::numeric AS amount_numerator, NULL::numeric AS amount_denominator
    FROM (
        SELECT {_CLEARING_KEYS}, {_CLEARING_REST}, points FROM clearing_days
        UNION ALL SELECT * FROM ({_between(_CLEARING, "$3", "$4")}) tail
    ) every
    UNION ALL
    SELECT i.program_id, (i.create_time AT TIME ZONE p.time_zone)::date, i.payer_institution_id, i.payee_institution_id,
           i.currency_code, i.points, i.price_numerator, i.price_denominator, i.fee_basis_points, NULL, NULL
    FROM settlement_corrections i JOIN programs p USING (program_id)
) arisen
WHERE program_id = ANY($1::text[]) AND day <= $2
GROUP BY 1, 2, 3, 4, 5, 7, 8, 9, 10, 11
UNION ALL
SELECT l.program_id, greatest({_SETTLED_DAY}, $5::date - 1), l.payer_institution_id, l.payee_institution_id, b.currency_code,
       l.points, NULL, NULL, NULL, l.amount_numerator, l.amount_denominator
FROM settlement_lines l JOIN settlement_batches b USING (batch_id) JOIN programs p ON p.program_id = l.program_id
WHERE l.program_id = ANY($1::text[]) AND b.settle_time IS NOT NULL AND {_SETTLED_DAY} <= $2 AND l.kind <> 'PREFUNDED'
"""
