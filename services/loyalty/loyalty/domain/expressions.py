"""Expressions of earn rules: CEL without floating point, typed when they are saved, bounded when they run."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from cel_expr_python import cel  # type: ignore[import-untyped]

CHARACTERS_MAX = 2_000
COMPILED_MAX = 1_024
INTEGER_MAX = 2**63 - 1
"""Of CEL; beyond it an expression fails."""
INTEGERS = ("amount", "tier_rank", "tier_percent")
TEXTS = (
    "kind", "direction", "currency", "category", "channel", "department", "institution", "counterparty", "detail", "date",
    "level", "alliance_level", "tier",
)  # fmt: skip
CLOCK = ("year", "month", "day", "weekday", "hour", "minute")
"""Keys of the map `local`; weekday 1 is Monday."""
Value: TypeAlias = int | str | Mapping[str, int]

_environment = cel.NewEnv(
    variables=dict.fromkeys(INTEGERS, cel.Type.INT)
    | dict.fromkeys(TEXTS, cel.Type.STRING)
    | {"local": cel.Type.Map(cel.Type.STRING, cel.Type.INT)}
)
_STRINGS = re.compile(r"""[rR]?(?:\"\"\".*?\"\"\"|'''.*?'''|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""", re.DOTALL)
_FLOATS = re.compile(r"\bdouble\b|(?<![\w.])(?:\d+\.\d+|\.\d+|\d+[eE][+-]?\d)")
_LOCAL = re.compile(r"\blocal\s*\.\s*(\w+)")
_POSITION = re.compile(r"<input>:(\d+):(\d+): (.*?)(?:\n|\s\[|$)", re.DOTALL)


class Wrong(NamedTuple):
    """What is wrong with an expression, and where: line and column, from 1."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


class ExpressionInvalid(Exception):
    """The expression is none that can be used."""

    def __init__(self, wrong: Wrong) -> None:
        super().__init__(str(wrong))
        self.wrong = wrong


class Failed(NamedTuple):
    """An expression did not come to a value for these facts: an overflow, a division by zero, a missing key, too long a loop."""

    message: str


def check(text: str, of_type: type[bool] | type[int]) -> None:
    """Whether an expression is a condition (bool) or a number of points (int).

    Raises:
        ExpressionInvalid: with the position of the first fault.
    """
    if len(text) > CHARACTERS_MAX:
        raise ExpressionInvalid(Wrong(1, CHARACTERS_MAX + 1, f"must not be longer than {CHARACTERS_MAX} characters"))
    plain = _STRINGS.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    floating = _FLOATS.search(plain)
    if floating:
        raise ExpressionInvalid(_at(plain, floating.start(), "points are counted in whole numbers: write 3 / 2 as * 3 / 2"))
    for asked in _LOCAL.finditer(plain):
        if asked[1] not in CLOCK:
            raise ExpressionInvalid(_at(plain, asked.start(1), f"local has {', '.join(CLOCK)}"))
    try:
        compiled = _compiled(text)
    except RuntimeError as error:
        raise ExpressionInvalid(_told(str(error))) from None
    wanted = cel.Type.BOOL if of_type is bool else cel.Type.INT
    if compiled.return_type() != wanted:
        found = "a condition" if of_type is bool else "a whole number"
        raise ExpressionInvalid(Wrong(1, 1, f"must come to {found}, not to {compiled.return_type().name()}"))


def evaluate(text: str, facts: Mapping[str, Value]) -> bool | int | Failed:
    """What a checked expression comes to."""
    try:
        value = _compiled(text).eval(data=facts)
    except RuntimeError as error:
        return Failed(_brief(str(error)))
    # A run-time error comes back as a value of its own type, whose content is a text.
    if value.type() == cel.Type.BOOL or value.type() == cel.Type.INT:
        result: bool | int = value.value()
        return result
    return Failed(_brief(str(value.value())))


@lru_cache(COMPILED_MAX)
def _compiled(text: str) -> cel.Expression:
    return _environment.compile(text)


def _at(text: str, offset: int, message: str) -> Wrong:
    before = text[:offset]
    return Wrong(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1, message)


def _told(error: str) -> Wrong:
    found = _POSITION.search(error)
    if found is None:
        return Wrong(1, 1, _brief(error))
    return Wrong(int(found[1]), int(found[2]), _brief(found[3]))


def _brief(error: str) -> str:
    """The first line, without the library's code."""
    return error.split("\n")[0].replace(" (in container '')", "").split(" [")[0].strip()[:300]
