"""Comparisons for Splink whose levels come from the very functions that score at run time: no second set of rules in SQL.

Each attribute is a column of numbers, one for each distinct value; DuckDB calls back with pairs of them. So no personal value
enters DuckDB, and text is compared as letters, not as bytes.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import duckdb
import pyarrow
from duckdb.func import ARROW

from customer.domain.comparisons import COMPARISONS
from customer.domain.features import Features

PAIRS_REMEMBERED_MAX = 100_000
NOTHING = -1


def columns(features: Sequence[Features]) -> tuple[pyarrow.Table, dict[str, list[Any]]]:
    """The table that Splink trains on, and the value behind each number of each column."""
    table: dict[str, Any] = {"unique_id": list(range(len(features)))}
    values: dict[str, list[Any]] = {}
    for attribute, (_, part, _) in COMPARISONS.items():
        numbers: dict[Hashable, int] = {}
        # What is not stated has no number: it is neither compared nor blocked on.
        stated = [part(record) or None for record in features]
        table[attribute] = pyarrow.array(
            [None if value is None else numbers.setdefault(value, len(numbers)) for value in stated], pyarrow.int32()
        )
        values[attribute] = list(numbers)
    return pyarrow.table(table), values


def register(connection: duckdb.DuckDBPyConnection, values: dict[str, list[Any]]) -> None:
    """Makes `{attribute}_level(number, number)` known to DuckDB."""
    for attribute, (_, _, compare) in COMPARISONS.items():
        function: Any = _function(values[attribute], compare)
        connection.create_function(f"{attribute}_level", function, ["INTEGER", "INTEGER"], "TINYINT", type=ARROW)


def _function(values: list[Any], compare: Callable[[Any, Any], int | None]) -> Callable[[Any, Any], Any]:
    remembered: dict[tuple[int, int], int] = {}

    def level(one: int, other: int) -> int:
        found = remembered.get((one, other))
        if found is None:
            if len(remembered) >= PAIRS_REMEMBERED_MAX:
                remembered.clear()
            compared = compare(values[one], values[other])
            found = remembered[one, other] = NOTHING if compared is None else int(compared)
        return found

    # A CASE of Splink asks once for each level: the answer is remembered.
    return lambda ones, others: pyarrow.array(map(level, ones.to_pylist(), others.to_pylist()), pyarrow.int8())


def comparisons() -> list[dict[str, Any]]:
    """The settings of Splink's comparisons, best level first."""
    return [_comparison(attribute, [level.value for level in levels]) for attribute, (levels, _, _) in COMPARISONS.items()]


def _comparison(attribute: str, levels: list[int]) -> dict[str, Any]:
    call = f"{attribute}_level({attribute}_l, {attribute}_r)"
    nothing = f"{attribute}_l IS NULL OR {attribute}_r IS NULL OR {call} = {NOTHING}"
    return {
        "output_column_name": attribute,
        "comparison_levels": [
            {"sql_condition": nothing, "label_for_charts": "nothing", "is_null_level": True},
            *(
                {"sql_condition": f"{call} = {level}", "label_for_charts": str(level)}
                for level in sorted(levels[1:], reverse=True)
            ),
            {"sql_condition": "ELSE", "label_for_charts": "0"},
        ],
    }
