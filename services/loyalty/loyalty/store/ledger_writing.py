"""Writes all that a batch made: by one statement, made of the parts that it needs; new rows of large batches by COPY, which costs
client and server half."""

import functools
from collections.abc import Sequence

from chassis.database import Connection
from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.types import AccountKey
from loyalty.store import ledger_rows as rows
from loyalty.store.ledger import SHARD


def _update(table: str, key: dict[str, str], changes: dict[str, str]) -> tuple[str, list[str]]:
    names = rows.columns([*key, *changes])
    changed = ", ".join(f"{name} = state.{name}" for name in changes)
    found = " AND ".join(f"t.{name} = state.{name}" for name in key)
    statement = f"UPDATE {table} t SET {changed} FROM {{}} AS state ({names}) WHERE {found}"
    return statement, [*key.values(), *changes.values()]


_ID, _POINTS = "bigint", "bigint"
NEW = {
    "operations": ("operations", rows.OPERATION),
    "entries": ("entries", rows.ENTRY),
    "lots": ("lots", rows.LOT),
    "uses": ("lot_uses", rows.LOT_USE),
    "returns": ("lot_returns", rows.LOT_RETURN),
    "holds": ("holds", rows.HOLD),
    "hold_lines": ("hold_lines", rows.HOLD_LINE),
    "hold_lots": ("hold_lots", rows.HOLD_LOT),
    "spent": ("spend_lines", rows.SPEND_LINE),
    "items": ("clearing_items", rows.CLEARING_ITEM),
}
"""Rows that are only added: table and columns. Operations first, because the others' triggers look for them."""
CHANGED = {
    "balances": _update("ledger_accounts", {"ledger_account_id": _ID}, {"balance_points": _POINTS, "version": "bigint"}),
    "changed_lots": _update("lots", {"lot_id": _ID}, {"remaining_points": _POINTS, "reserved_points": _POINTS}),
    "activated_lots": _update(
        "lots", {"lot_id": _ID},
        {"remaining_points": _POINTS, "reserved_points": _POINTS, "state": "text", "active_time": "timestamptz"},
    ),
    "changed_uses": _update("lot_uses", {"sequence": _ID, "ordinal": _ID}, {"returned_points": _POINTS}),
    "changed_holds": _update(
        "holds", {"hold_id": "uuid"}, {"state": "text", "captured_units": "bigint", "close_time": "timestamptz"}
    ),
    "changed_hold_lines": _update(
        "hold_lines", {"hold_id": "uuid", "position": _ID}, {"captured_points": _POINTS, "captured_value_units": "bigint"}
    ),
    "changed_hold_lots": _update(
        "hold_lots", {"hold_id": "uuid", "position": _ID, "ordinal": _ID}, {"captured_points": _POINTS}
    ),
    "changed_spent": _update(
        "spend_lines", {"sequence": _ID, "position": _ID}, {"refunded_points": _POINTS, "refunded_value_units": "bigint"}
    ),
    "exposures": (
        f"INSERT INTO exposures ({rows.columns(rows.EXPOSURE)}) SELECT * FROM {{}}"
        " ON CONFLICT (agreement_id) DO UPDATE SET exposure_numerator = excluded.exposure_numerator,"
        " exposure_denominator = excluded.exposure_denominator",
        list(rows.EXPOSURE.values()),
    ),
    "limit_counters": (
        f"INSERT INTO limit_counters ({rows.columns(rows.LIMIT_COUNTER)}) SELECT * FROM {{}}"
        " ON CONFLICT (limit_id, subject, window_start) DO UPDATE SET operations_count = excluded.operations_count,"
        " points = excluded.points",
        list(rows.LIMIT_COUNTER.values()),
    ),
    "quotes": _update("quotes", {"quote_id": "uuid"}, {"used_by_operation_id": "uuid"}),
}  # fmt: skip
COPY_OPERATIONS_MIN = 50
"""In a smaller batch a COPY's round trips cost more than it saves."""


async def write(connection: Connection, books: Books, ids: dict[AccountKey, int]) -> None:
    """Writes what is new in the books; ledger accounts that are missing are opened.

    Args:
        connection: in the transaction that holds the head.
        books: decided on.
        ids: of the ledger accounts that were loaded; those opened are added.
    """
    if not books.posted:
        return
    missing = [key for key in books.moved if key not in ids]
    if missing:
        await _open(connection, missing, ids)
    parts = {name: made for name, made in _content(books, ids).items() if made}
    if len(books.posted) >= COPY_OPERATIONS_MIN:
        for name, (table, types) in NEW.items():
            made = parts.pop(name, ())
            if made:
                await connection.copy_records_to_table(table, records=made, columns=list(types))
    arguments: list[object] = []
    for made in parts.values():
        arguments.extend(map(list, zip(*made, strict=True)))
    await connection.execute(_statement(tuple(parts)), SHARD, books.head.sequence, books.head.hash, *arguments)


def _content(books: Books, ids: dict[AccountKey, int]) -> dict[str, Sequence[tuple[object, ...]]]:
    """The rows of each part, in the parts' order of columns."""
    changed, new = books.changed_holds.values(), books.new_holds.values()
    activated = books.activated_lots
    return {
        "operations": [rows.of_operation(operation) for operation in books.posted],
        "entries": [
            (ids[key], version, sequence, amount, balance) for sequence, (key, version, amount, balance) in books.entries
        ],
        "balances": [(ids[key], *books.balances[key]) for key in books.moved],
        "lots": [rows.of_lot(lot) for lot in books.new_lots],
        "changed_lots": [
            (lot.lot_id, lot.remaining_points, lot.reserved_points)
            for lot in books.changed_lots.values()
            if lot.lot_id not in activated
        ],
        "activated_lots": [
            (lot.lot_id, lot.remaining_points, lot.reserved_points, lot.state, lot.active_time)
            for lot in books.changed_lots.values()
            if lot.lot_id in activated
        ],
        "uses": [rows.of_use(use) for use in books.new_uses],
        "changed_uses": [(use.sequence, use.ordinal, use.returned_points) for use in books.changed_uses.values()],
        "returns": books.returns,
        "holds": [rows.of_hold(hold) for hold in new],
        "hold_lines": [rows.of_hold_line(hold, line) for hold in new for line in hold.lines],
        "hold_lots": [rows.of_hold_lot(hold, lot) for hold in new for lot in hold.lots],
        "changed_holds": [(hold.hold_id, hold.state, hold.captured_units, hold.close_time) for hold in changed],
        "changed_hold_lines": [
            (hold.hold_id, line.position, line.captured_points, line.captured_value_units)
            for hold in changed
            for line in hold.lines
        ],
        "changed_hold_lots": [
            (hold.hold_id, lot.position, lot.ordinal, lot.captured_points) for hold in changed for lot in hold.lots
        ],
        "spent": [rows.of_spent(line) for line in books.new_spent],
        "changed_spent": [
            (line.sequence, line.position, line.refunded_points, line.refunded_value_units)
            for line in books.changed_spent.values()
        ],
        "items": books.items,
        "exposures": [rows.of_exposure(each, books.exposures[each]) for each in books.changed_exposures],
        "limit_counters": books.limits.rows() if books.limits is not None else [],
        "quotes": list(books.used_quotes.items()),
    }


@functools.cache
def _statement(parts: tuple[str, ...]) -> str:
    """One statement that writes these parts and moves the head. There are as many as kinds of batches that occur: few."""
    first, written = 4, []
    for name in parts:
        if name in NEW:
            table, columns = NEW[name]
            statement, types = f"INSERT INTO {table} ({rows.columns(columns)}) SELECT * FROM {{}}", list(columns.values())
        else:
            statement, types = CHANGED[name]
        source = ", ".join(f"${first + i}::{type_name}[]" for i, type_name in enumerate(types))
        written.append(f"{name}_written AS ({statement.format(f'unnest({source})')})")
        first += len(types)
    before = f"WITH {', '.join(written)} " if written else ""
    return f"{before}UPDATE ledger_heads SET sequence = $2, hash = $3 WHERE shard = $1"


async def _open(connection: Connection, keys: Sequence[AccountKey], ids: dict[AccountKey, int]) -> None:
    # In the order of the key, as everywhere, though the head's lock lets only one batch come here at a time.
    opened = await connection.fetch(_OPEN, *(list(column) for column in zip(*sorted(keys), strict=True)))
    for row in opened:
        ids[AccountKey(row["owner"], row["kind"], row["program_id"])] = row["ledger_account_id"]


_OPEN = (
    "INSERT INTO ledger_accounts (owner, kind, program_id)"
    " SELECT owner, kind, program_id FROM unnest($1::text[], $2::text[], $3::text[]) AS key (owner, kind, program_id)"
    " RETURNING ledger_account_id, owner, kind, program_id"
)
