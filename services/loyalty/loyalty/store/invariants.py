"""What must always be true of the ledger, each as a query for the rows that break it.

Each query takes $1: check only what came after this sequence, 0 for everything. All run in one snapshot.
"""

from dataclasses import dataclass, field
from datetime import timedelta

from chassis.clock import now
from chassis.database import Connection, Database
from chassis.ids import id_floor
from loyalty.domain.ledger.chain import chain_hash
from loyalty.domain.ledger.types import HASH_OF_NOTHING, AccountKey, AccountKind, Entry
from loyalty.store.ledger import SHARD
from loyalty.store.ledger_rows import to_operation
from loyalty.store.messages import POINTS_POSTED

EXAMPLES_MAX = 10
STATEMENT_SECONDS_MAX = 55
CHAIN_PAGE_OPERATIONS = 2000
# Published outbox rows are removed after 30 days; a day less, so that the check never meets the broom.
EVENTS_KEPT = timedelta(days=29)
CLOCK_DIFFERENCE_MAX = timedelta(minutes=10)
HASH_CHAIN_UNBROKEN = "HASH_CHAIN_UNBROKEN"


@dataclass(frozen=True, slots=True)
class Invariant:
    """A rule: its name, what it says, and the query for the ids of what breaks it (empty: checked in Python)."""

    name: str
    description: str
    query: str = ""


@dataclass(slots=True)
class Finding:
    """How often an invariant is broken, with the ids of the first ten rows."""

    invariant: Invariant
    violations_count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """The result of a check. `sequence` is the last operation it saw."""

    findings: list[Finding]
    operations_count: int
    entries_count: int
    sequence: int

    @property
    def valid(self) -> bool:
        """Whether every invariant holds."""
        return not any(finding.violations_count for finding in self.findings)


# What the entries after $1 do to each ledger account.
_MOVED = """
    (SELECT ledger_account_id, sum(amount_points) AS sum_points, count(*) AS entries_count, max(version) AS version_max,
            min(version) AS version_min, min(sequence) AS sequence_min
     FROM entries WHERE sequence > $1 GROUP BY ledger_account_id)
"""
_LEGS = """
    (SELECT e.sequence, a.program_id, sum(e.amount_points) AS sum_points, count(*) AS legs_count
     FROM entries e JOIN ledger_accounts a USING (ledger_account_id) WHERE e.sequence > $1 GROUP BY e.sequence, a.program_id)
"""

INVARIANTS = (
    Invariant(
        "ENTRIES_SUM_TO_ZERO",
        "In each programme all entries sum to zero.",
        f"SELECT program_id FROM {_LEGS} legs GROUP BY program_id HAVING sum(sum_points) <> 0",
    ),
    Invariant(
        "BALANCES_SUM_TO_ZERO",
        "In each programme the balances of all ledger accounts sum to zero.",
        "SELECT program_id FROM ledger_accounts WHERE $1::bigint >= 0 GROUP BY program_id HAVING sum(balance_points) <> 0",
    ),
    Invariant(
        "BALANCE_IS_SUM_OF_ENTRIES",
        "The balance of a ledger account is the sum of its entries.",
        f"""
        SELECT a.ledger_account_id FROM ledger_accounts a LEFT JOIN {_MOVED} m USING (ledger_account_id)
        LEFT JOIN entries before
            ON $1 > 0 AND before.ledger_account_id = a.ledger_account_id AND before.version = m.version_min - 1
        WHERE ($1 = 0 OR m.version_max IS NOT NULL)
          AND a.balance_points <> coalesce(m.sum_points, 0) + coalesce(before.balance_points, 0)
        """,
    ),
    Invariant(
        "ENTRY_VERSIONS_WITHOUT_GAPS",
        "The entries of a ledger account are numbered from 1 without gaps, and its version is their number.",
        f"""
        SELECT a.ledger_account_id FROM ledger_accounts a LEFT JOIN {_MOVED} m USING (ledger_account_id)
        WHERE ($1 = 0 OR m.version_max IS NOT NULL)
          AND (a.version <> coalesce(m.version_max, 0)
               OR coalesce(m.entries_count, 0) <> coalesce(m.version_max - m.version_min + 1, 0)
               OR ($1 = 0 AND m.version_min <> 1))
        """,
    ),
    Invariant(
        "BALANCE_CHAIN_UNBROKEN",
        "Each entry's balance is the balance of the entry before plus its amount, and its operation came later.",
        """
        SELECT e.ledger_account_id || '/' || e.version
        FROM entries e LEFT JOIN entries p ON p.ledger_account_id = e.ledger_account_id AND p.version = e.version - 1
        WHERE e.sequence > $1
          AND (e.balance_points <> coalesce(p.balance_points, 0) + e.amount_points OR p.sequence >= e.sequence)
        """,
    ),
    Invariant(
        "LEGS_SUM_TO_ZERO",
        "A posted operation has legs, at least two in a programme, that sum to zero; only captures and refunds of less than a"
        " point, settlements that lower exposures, and what brings back points that have ended since, have none.",
        f"""
        SELECT o.operation_id FROM operations o LEFT JOIN {_LEGS} legs USING (sequence)
        WHERE o.sequence > $1 AND o.outcome = 'POSTED'
          AND (legs.sequence IS NULL AND o.kind NOT IN ('CAPTURE', 'REFUND', 'SETTLE')
                 AND NOT (o.kind = 'REVERSE' AND o.result ? 'expired') OR legs.legs_count < 2
               OR legs.sum_points <> 0)
        """,
    ),
    Invariant(
        "REFUSED_WITHOUT_LEGS",
        "A refused operation has no legs.",
        """
        SELECT o.operation_id FROM operations o
        WHERE o.sequence > $1 AND o.outcome <> 'POSTED' AND EXISTS (SELECT FROM entries e WHERE e.sequence = o.sequence)
        """,
    ),
    Invariant(
        "OPERATION_IS_ITS_MEMBER_LEG",
        "Amount and sign of a posted earning or unquoted redemption are those of the members' legs (promised points and debts"
        " among them), its balance is that of the member's and what child accounts have; only a redemption may leave the"
        " member's own account alone, when it was empty.",
        """
        SELECT o.operation_id FROM operations o
        LEFT JOIN (
            SELECT e.sequence, sum(e.amount_points) AS amount_points,
                   max(e.balance_points) FILTER (WHERE a.owner = p.account_id::text AND a.kind = 'MEMBER')
                       AS balance_points
            FROM entries e JOIN operations p USING (sequence)
            JOIN ledger_accounts a ON a.ledger_account_id = e.ledger_account_id AND a.program_id = p.program_id
            WHERE e.sequence > $1 AND a.kind IN ('MEMBER', 'PENDING', 'DEBT') GROUP BY e.sequence
        ) legs USING (sequence)
        WHERE o.sequence > $1 AND o.outcome = 'POSTED' AND o.kind IN ('EARN', 'REDEEM')
          AND NOT coalesce(o.result ? 'target', false)
          AND (legs.amount_points, coalesce(legs.balance_points, o.balance_points - o.others_points))
              IS DISTINCT FROM
              (CASE o.kind WHEN 'EARN' THEN o.amount_points ELSE -o.amount_points END, o.balance_points - o.others_points)
        """,
    ),
    Invariant(
        "NO_MEMBER_BELOW_ZERO",
        "No member's balance is or ever was below zero.",
        """
        SELECT ledger_account_id FROM ledger_accounts a WHERE kind = 'MEMBER' AND balance_points < 0
        UNION
        SELECT e.ledger_account_id FROM entries e JOIN ledger_accounts a USING (ledger_account_id)
        WHERE e.sequence > $1 AND e.balance_points < 0 AND a.kind = 'MEMBER'
        """,
    ),
    Invariant(
        "ONE_OPERATION_PER_KEY",
        "A request of a caller, and an activity in a programme, has one operation of its kind.",
        """
        SELECT max(operation_id::text) FROM operations WHERE sequence > $1
        GROUP BY caller, request_id, system_key, activity_id, CASE WHEN activity_id IS NOT NULL THEN program_id || '/' || kind END
        HAVING count(*) > 1
        """,
    ),
    Invariant(
        "SEQUENCE_WITHOUT_GAPS",
        "Operations are numbered without gaps, and the head of the chain is the last one.",
        f"""
        SELECT coalesce(gaps.sequence, head.sequence) FROM ledger_heads head
        LEFT JOIN (SELECT sequence, lag(sequence, 1, $1) OVER (ORDER BY sequence) AS before,
                          lead(sequence) OVER (ORDER BY sequence) AS after
                   FROM operations WHERE sequence > $1) gaps ON true
        WHERE head.shard = {SHARD}
          AND CASE WHEN gaps.sequence IS NULL THEN head.sequence <> $1
                   ELSE gaps.before <> gaps.sequence - 1 OR (gaps.after IS NULL AND gaps.sequence <> head.sequence) END
        """,
    ),
    Invariant(
        "EVENT_FOR_EACH_OPERATION",
        "Each posted operation of the last 29 days that moved points of members has its PointsPosted event in the outbox.",
        f"""
        SELECT o.operation_id FROM operations o
        WHERE o.sequence > $1 AND o.outcome = 'POSTED' AND o.post_time > $2
          AND NOT EXISTS (SELECT FROM outbox WHERE row_id >= $3 AND event_id = o.operation_id AND target IS NULL
                          AND type = '{POINTS_POSTED}')
          AND EXISTS (SELECT FROM entries e JOIN ledger_accounts a USING (ledger_account_id)
                      WHERE e.sequence = o.sequence AND a.kind IN ('MEMBER', 'PENDING', 'HELD', 'DEBT'))
        """,
    ),
    Invariant(
        HASH_CHAIN_UNBROKEN,
        "The hash of each operation is made of its content, its legs and the hash before; the head holds the last one.",
    ),
)


async def verify(database: Database, after_sequence: int = 0) -> Report:
    """Checks every invariant in one snapshot: of the whole ledger, or of what came after a sequence."""
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS_MAX}s'")
        findings = [await _check(connection, invariant, after_sequence) for invariant in INVARIANTS]
        counts = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM operations WHERE sequence > $1) AS operations_count,"
            " (SELECT count(*) FROM entries WHERE sequence > $1) AS entries_count,"
            " (SELECT max(sequence) FROM operations) AS sequence",
            after_sequence,
        )
    assert counts is not None
    return Report(findings, counts["operations_count"], counts["entries_count"], counts["sequence"] or 0)


async def _check(connection: Connection, invariant: Invariant, after_sequence: int) -> Finding:
    if not invariant.query:
        return await _check_chain(connection, invariant, after_sequence)
    arguments: list[object] = [after_sequence]
    if "$2" in invariant.query:
        kept_since = now() - EVENTS_KEPT
        first = await connection.fetchval(
            "SELECT min(post_time) FROM operations WHERE sequence > $1 AND sequence <= $1 + $2",
            after_sequence,
            CHAIN_PAGE_OPERATIONS,
        )
        arguments += [kept_since, id_floor(max(kept_since, first or kept_since) - CLOCK_DIFFERENCE_MAX)]
    rows = await connection.fetch(
        f"SELECT count(*) OVER () AS violations_count, broken.id::text FROM ({invariant.query}) AS broken (id)"
        f" ORDER BY broken.id LIMIT {EXAMPLES_MAX}",
        *arguments,
    )
    return Finding(invariant, rows[0]["violations_count"] if rows else 0, [row["id"] for row in rows])


async def _check_chain(connection: Connection, invariant: Invariant, after_sequence: int) -> Finding:
    """Makes every hash again. Goes on from the stored hash, so that one change breaks one link."""
    finding = Finding(invariant)
    start = await connection.fetchval("SELECT hash FROM operations WHERE sequence = $1", after_sequence)
    previous: bytes = start if start is not None else HASH_OF_NOTHING
    sequence = after_sequence
    while rows := await connection.fetch(_CHAIN, sequence, CHAIN_PAGE_OPERATIONS):
        for row in rows:
            operation = to_operation(row)
            entries = [
                Entry(AccountKey(owner, AccountKind(kind), program_id), version, amount_points, balance_points)
                for owner, kind, program_id, version, amount_points, balance_points in row["legs"] or ()
            ]
            if chain_hash(previous, operation, entries) != operation.hash:
                finding.violations_count += 1
                if len(finding.examples) < EXAMPLES_MAX:
                    finding.examples.append(str(operation.operation_id))
            previous = operation.hash
        sequence = rows[-1]["sequence"]
    head = await connection.fetchval("SELECT hash FROM ledger_heads WHERE shard = $1", SHARD)
    if head != previous:
        finding.violations_count += 1
        finding.examples.append(f"head {SHARD}")
    return finding


_CHAIN = """
SELECT o.*, legs.legs FROM (SELECT * FROM operations WHERE sequence > $1 ORDER BY sequence LIMIT $2) o
LEFT JOIN (
    SELECT e.sequence, array_agg((a.owner, a.kind, a.program_id, e.version, e.amount_points, e.balance_points)) AS legs
    FROM entries e JOIN ledger_accounts a USING (ledger_account_id)
    WHERE e.sequence > $1 AND e.sequence <= (
        SELECT max(sequence) FROM (SELECT sequence FROM operations WHERE sequence > $1 ORDER BY sequence LIMIT $2) page
    )
    GROUP BY e.sequence
) legs USING (sequence)
ORDER BY o.sequence
"""
