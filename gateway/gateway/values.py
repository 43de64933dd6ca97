"""Values from outside: JSON or text to what a protobuf field holds. What is wrong is said as what would be right."""

import base64
import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

Parse: TypeAlias = Callable[[Any], Any]
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
DURATION_SECONDS_MAX = 315_576_000_000
MASK_PATH = re.compile(r"[a-z][a-zA-Z0-9_]*(\.[a-z][a-zA-Z0-9_]*)*")
BASE64 = re.compile(r"([A-Za-z0-9+/_-]{4})*([A-Za-z0-9+/_-]{2}(==)?|[A-Za-z0-9+/_-]{3}=?)?")
# Tab and line ends belong to text; the other control characters do not, and NUL cannot be stored.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
SECONDS_MIN, SECONDS_MAX = -62_135_596_800, 253_402_300_799
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
RANGES = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_SFIXED32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_SINT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.TYPE_FIXED64: (0, (1 << 64) - 1),
}
FLOATS = {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE}


class Wrong(ValueError):
    """A value that the field cannot take; the text says what would be right, and never holds the value."""


def of(field: FieldDescriptor) -> Parse:
    """The function that reads one JSON value for a scalar or enum field; it raises Wrong."""
    if field.enum_type is not None:
        return enum(field.enum_type)
    if field.type in RANGES:
        return integer(*RANGES[field.type])
    if field.type in FLOATS:
        return single_float if field.type == FieldDescriptor.TYPE_FLOAT else double
    return {FieldDescriptor.TYPE_BOOL: boolean, FieldDescriptor.TYPE_BYTES: octets}.get(field.type, text)


def from_text(field: FieldDescriptor) -> Parse:
    """The same for a value that arrives as text, in a query, a path, or as the key of a map."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return boolean_text
    return of(field)


def text(value: Any) -> str:
    """Text without control characters."""
    if not isinstance(value, str):
        raise Wrong("must be text")
    if value.isascii() and value.isprintable():
        return value
    if CONTROL.search(value):
        raise Wrong("must not hold control characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Wrong("must be Unicode text; half of a surrogate pair is none") from None
    return value


def boolean(value: Any) -> bool:
    """JSON's true or false."""
    if not isinstance(value, bool):
        raise Wrong("must be true or false")
    return value


def boolean_text(value: Any) -> bool:
    """The words true or false."""
    if value not in ("true", "false"):
        raise Wrong("must be true or false")
    return bool(value == "true")


def integer(lowest: int, highest: int) -> Parse:
    """A whole number in a range, as a number or as text."""
    refusal = f"must be a whole number from {lowest} to {highest}"

    def parse(value: Any) -> int:
        if (isinstance(value, str) and INTEGER.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise Wrong(refusal)
        return value

    return parse


def double(value: Any) -> float:
    """A number, as a number or as text; NaN, Infinity and -Infinity as text."""
    if isinstance(value, str):
        if value in SPECIAL:
            return SPECIAL[value]
        if not NUMBER.fullmatch(value):
            raise Wrong("must be a number")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong("must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise Wrong("must be a number that 64 bits can hold")
    return number


def single_float(value: Any) -> float:
    """As `double`, within 32 bits."""
    number = double(value)
    try:
        struct.pack("<f", number)
    except OverflowError:
        raise Wrong("must be a number that 32 bits can hold") from None
    return number


def octets(value: Any) -> bytes:
    """Base64, in the standard or the URL alphabet, with or without padding."""
    refusal = "must be base64 text"
    if not isinstance(value, str) or not BASE64.fullmatch(value):
        raise Wrong(refusal)
    unpadded = value.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)


def enum(descriptor: EnumDescriptor) -> Parse:
    """A name of the enum, or one of its numbers."""
    numbers = {name: value.number for name, value in descriptor.values_by_name.items()}
    known = set(numbers.values())
    refusal = f"must be one of {', '.join(numbers)}"

    def parse(value: Any) -> int:
        if isinstance(value, str):
            value = numbers.get(value)
        elif isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value not in known:
            raise Wrong(refusal)
        return value

    return parse


def instant(value: Any) -> tuple[int, int]:
    """RFC 3339 to seconds since 1970 and nanoseconds."""
    refusal = "must be an instant with its offset, such as 2026-01-31T08:00:00Z"
    match = INSTANT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Wrong(refusal)
    whole, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(whole + ("+00:00" if offset == "Z" else offset))
    except ValueError:
        raise Wrong(refusal) from None
    seconds = (moment - EPOCH) // timedelta(seconds=1)
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise Wrong("must be in the years 0001 to 9999")
    return seconds, int((fraction or "0").ljust(9, "0"))


def duration(value: Any) -> tuple[int, int]:
    """`1.5s` to seconds and nanoseconds, both of one sign."""
    match = DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[2]) > DURATION_SECONDS_MAX:
        raise Wrong("must be seconds with an s behind them, such as 1.5s")
    sign = -1 if match[1] else 1
    return sign * int(match[2]), sign * int((match[3] or "0").ljust(9, "0"))


def mask(value: Any) -> list[str]:
    """`displayName,defaultRank` to the paths of a field mask; proto names are taken too, as everywhere."""
    if not isinstance(value, str):
        raise Wrong("must be names of fields with commas between them")
    paths = value.split(",") if value else []
    if not all(MASK_PATH.fullmatch(path) for path in paths):
        raise Wrong("must be names of fields with commas between them, such as displayName,timeZone")
    return [re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", path) for path in paths]
