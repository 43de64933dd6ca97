"""Folds states of others: newer wins, set-based."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from chassis.database import Connection

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


async def fold(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Applies states to a projection where they are newer than what is known, in one statement.

    Args:
        connection: inside a transaction.
        table: a projection with `epoch` and `version`.
        rows: a value for each column.
    """
    keys = [column.name for column in table.primary_key.columns]
    newest: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        known = newest.get(key)
        if known is None or (known["epoch"], known["version"]) < (row["epoch"], row["version"]):
            newest[key] = row
    if newest:
        # In the order of the key: two replicas that fold the same rows must lock them in the same order.
        ordered = [newest[key] for key in sorted(newest)]
        await connection.execute(_statement(table), *([row[name] for row in ordered] for name in _names(table)))


def _names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


@functools.cache
def _statement(table: Table) -> str:
    names = _names(table)
    keys = [column.name for column in table.primary_key.columns]
    arrays = ", ".join(f"${i}::{column.type.compile(dialect=_DIALECT)}[]" for i, column in enumerate(table.columns, start=1))
    changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
    return (
        f"INSERT INTO {table.name} AS known ({', '.join(names)}) SELECT * FROM unnest({arrays})"
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"
        " WHERE (known.epoch, known.version) < (excluded.epoch, excluded.version)"
    )
