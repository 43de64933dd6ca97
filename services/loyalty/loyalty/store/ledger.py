"""The ledger's SQL: lock the head, then the accounts in id order, then write a batch by one statement."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

import asyncpg

from chassis.database import Connection
from loyalty.domain.ledger import (
    AccountKey,
    AccountKind,
    ActivityKey,
    Balance,
    Batch,
    Head,
    Operation,
    OperationKind,
    OrderKey,
    Outcome,
    RequestKey,
)

SHARD = 0


async def lock_head(connection: Connection) -> Head:
    """Locks the chain until the end of the transaction. A statement of its own: what is read after it sees every
    operation with a smaller sequence."""
    row = await connection.fetchrow("SELECT sequence, hash FROM ledger_heads WHERE shard = $1 FOR UPDATE", SHARD)
    if row is None:
        raise LookupError("ledger_heads has lost its row")
    return Head(row["sequence"], row["hash"])


async def known_requests(connection: Connection, keys: Sequence[RequestKey]) -> dict[OrderKey, Operation]:
    """Operations that callers asked for with these keys."""
    if not keys:
        return {}
    rows = await connection.fetch(
        f"SELECT {_OPERATION} FROM unnest($1::text[], $2::text[]) AS key (caller, request_id)"
        " JOIN operations USING (caller, request_id)",
        [key.caller for key in keys], [key.request_id for key in keys],
    )  # fmt: skip
    return {operation.key: operation for operation in map(to_operation, rows)}


async def known_activities(connection: Connection, activity_ids: Iterable[uuid.UUID]) -> dict[OrderKey, Operation]:
    """Operations that these activities caused."""
    rows = await connection.fetch(f"SELECT {_OPERATION} FROM operations WHERE activity_id = ANY($1::uuid[])", list(activity_ids))
    return {operation.key: operation for operation in map(to_operation, rows)}


async def lock_accounts(
    connection: Connection, keys: Iterable[AccountKey]
) -> tuple[dict[AccountKey, Balance], dict[AccountKey, int]]:
    """Locks ledger accounts in id order, opening those that are missing. Returns their states and ids."""
    ordered = sorted(set(keys))
    columns = [list(column) for column in zip(*ordered, strict=True)]
    rows = await connection.fetch(_LOCK_ACCOUNTS, *columns)
    if len(rows) < len(ordered):
        await connection.execute(_OPEN_ACCOUNTS, *columns)
        rows = await connection.fetch(_LOCK_ACCOUNTS, *columns)
    balances, ids = {}, {}
    for row in rows:
        key = AccountKey(row["owner"], AccountKind(row["kind"]), row["program_id"])
        balances[key] = Balance(row["balance_points"], row["version"])
        ids[key] = row["ledger_account_id"]
    return balances, ids


async def write(connection: Connection, batch: Batch, ids: dict[AccountKey, int]) -> None:
    """Writes what is new in a batch: operations, entries, balances and the head."""
    operations = [_to_row(operation) for operation in batch.operations]
    entries = [
        (ids[entry.key], entry.version, operation.sequence, entry.amount_points, entry.balance_points)
        for operation, entry in batch.entries
    ]
    moved = [(ids[key], balance.balance_points, balance.version) for key, balance in batch.balances.items()]
    await connection.execute(
        _WRITE,
        *_columns(operations, len(_OPERATION_TYPES)), *_columns(entries, 5), *_columns(moved, 3),
        SHARD, batch.head.sequence, batch.head.hash,
    )  # fmt: skip


async def get_operation(connection: Connection, operation_id: uuid.UUID) -> asyncpg.Record | None:
    """An operation, with whose its account is now."""
    return await connection.fetchrow(
        f"SELECT {_OPERATION}, holder_customer_id FROM operations JOIN accounts USING (account_id) WHERE operation_id = $1",
        operation_id,
    )


async def statement(
    connection: Connection, account_ids: Sequence[uuid.UUID], program_id: str, before: tuple[int, int] | None, limit: int
) -> list[asyncpg.Record]:
    """Movements of members' points, newest first, from just before a (sequence, ledger account); an empty programme means all."""
    sequence, ledger_account_id = before or (None, 0)
    return await connection.fetch(_STATEMENT, list(map(str, account_ids)), program_id, sequence, limit, ledger_account_id)


async def posted_after(connection: Connection, sequence: int, limit: int) -> list[asyncpg.Record]:
    """The member legs of posted operations in the order of the ledger, with what their events need; `limit` operations."""
    return await connection.fetch(_POSTED_AFTER, sequence, limit)


def to_operation(row: asyncpg.Record) -> Operation:
    """The operation in a row."""
    kind = OperationKind(row["kind"])
    key: OrderKey
    if row["activity_id"] is None:
        key = RequestKey(row["caller"], row["request_id"])
    else:
        key = ActivityKey(row["activity_id"], row["program_id"], kind)
    return Operation(
        operation_id=row["operation_id"],
        key=key,
        kind=kind,
        account_id=row["account_id"],
        program_id=row["program_id"],
        institution_id=row["institution_id"],
        amount_points=row["amount_points"],
        effective_time=row["effective_time"],
        content_hash=row["content_hash"],
        reference=row["reference"],
        rule=row["rule"],
        sequence=row["sequence"],
        outcome=Outcome(row["outcome"]),
        balance_points=row["balance_points"],
        shortfall_points=row["shortfall_points"],
        others_points=row["others_points"],
        post_time=row["post_time"],
        hash=row["hash"],
    )


def _to_row(operation: Operation) -> tuple[object, ...]:
    key = operation.key
    caller: tuple[str | None, str | None, uuid.UUID | None]
    caller = (key.caller, key.request_id, None) if isinstance(key, RequestKey) else (None, None, key.activity_id)
    effective_time: datetime = operation.effective_time
    return (
        operation.operation_id, operation.sequence, operation.kind, operation.outcome, operation.account_id, operation.program_id,
        operation.institution_id, operation.amount_points, operation.balance_points, operation.others_points,
        operation.shortfall_points, *caller,
        operation.content_hash, operation.reference, operation.rule, effective_time, operation.post_time, operation.hash,
    )  # fmt: skip


def _columns(rows: Sequence[tuple[object, ...]], count: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]


_OPERATION_TYPES = {
    "operation_id": "uuid", "sequence": "bigint", "kind": "text", "outcome": "text", "account_id": "uuid", "program_id": "text",
    "institution_id": "text", "amount_points": "bigint", "balance_points": "bigint", "others_points": "bigint",
    "shortfall_points": "bigint",
    "caller": "text", "request_id": "text", "activity_id": "uuid", "content_hash": "bytea", "reference": "text", "rule": "text",
    "effective_time": "timestamptz", "post_time": "timestamptz", "hash": "bytea",
}  # fmt: skip
_OPERATION = ", ".join(_OPERATION_TYPES)
_KEYS = "unnest($1::text[], $2::text[], $3::text[]) AS key (owner, kind, program_id)"
_LOCK_ACCOUNTS = (
    "SELECT a.ledger_account_id, a.owner, a.kind, a.program_id, a.balance_points, a.version"
    f" FROM {_KEYS} JOIN ledger_accounts a USING (owner, kind, program_id)"
    " ORDER BY a.ledger_account_id FOR UPDATE OF a"
)
_OPEN_ACCOUNTS = (
    f"INSERT INTO ledger_accounts (owner, kind, program_id) SELECT owner, kind, program_id FROM {_KEYS} ON CONFLICT DO NOTHING"
)


def _unnest(types: Iterable[str], first: int) -> str:
    return f"unnest({', '.join(f'${first + i}::{name}[]' for i, name in enumerate(types))})"


_N = len(_OPERATION_TYPES)
_WRITE = f"""
WITH written AS (
    INSERT INTO operations ({_OPERATION}) SELECT * FROM {_unnest(_OPERATION_TYPES.values(), 1)}
), posted AS (
    INSERT INTO entries (ledger_account_id, version, sequence, amount_points, balance_points)
    SELECT * FROM {_unnest(["bigint"] * 5, _N + 1)}
), moved AS (
    UPDATE ledger_accounts a SET balance_points = state.balance_points, version = state.version
    FROM {_unnest(["bigint"] * 3, _N + 6)} AS state (ledger_account_id, balance_points, version)
    WHERE a.ledger_account_id = state.ledger_account_id
)
UPDATE ledger_heads SET sequence = ${_N + 10}, hash = ${_N + 11} WHERE shard = ${_N + 9}
"""
_STATEMENT = """
SELECT o.operation_id, a.owner, a.ledger_account_id, o.program_id, o.kind, o.institution_id, o.effective_time, o.post_time,
       line.sequence, line.version, line.amount_points, line.balance_points
FROM ledger_accounts a
CROSS JOIN LATERAL (
    SELECT * FROM entries e
    WHERE e.ledger_account_id = a.ledger_account_id
      AND ($3::bigint IS NULL OR e.sequence < $3 + CASE WHEN a.ledger_account_id < $5::bigint THEN 1 ELSE 0 END)
    ORDER BY e.sequence DESC LIMIT $4
) line
JOIN operations o ON o.sequence = line.sequence
WHERE a.owner = ANY($1::text[]) AND a.kind = 'MEMBER' AND ($2 = '' OR a.program_id = $2)
ORDER BY line.sequence DESC, a.ledger_account_id DESC LIMIT $4
"""
# The leg of the account itself comes first, or else the first by its owner: see `posting.in_order`.
_POSTED_AFTER = """
SELECT o.operation_id, a.owner::uuid AS account_id, accounts.holder_customer_id AS customer_id, o.program_id, o.institution_id,
       o.kind, o.effective_time, o.activity_id, o.sequence, e.amount_points, e.balance_points, e.version, database_epoch.epoch
FROM (SELECT * FROM operations WHERE sequence > $1 AND outcome = 'POSTED' ORDER BY sequence LIMIT $2) o
CROSS JOIN database_epoch
JOIN entries e ON e.sequence = o.sequence
JOIN ledger_accounts a ON a.ledger_account_id = e.ledger_account_id AND a.kind = 'MEMBER'
JOIN accounts ON accounts.account_id = a.owner::uuid
ORDER BY o.sequence, a.owner <> o.account_id::text, a.owner COLLATE "C"
"""
