"""Response messages to JSON, compiled once for each message type; the same document as `json_format.MessageToDict` makes.

Only the fields that are set are walked, through closures made from the descriptor; the tests prove it on random messages.
"""

import base64
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal import type_checkers  # json_format itself takes the shortest float from there

Encode: TypeAlias = Callable[[Any], Any]
LONG = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
}
WRAPPERS = {
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
BY_LIBRARY = {f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue")}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Encoders:
    """The encoders of one descriptor pool."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._made: dict[str, Encode] = {}

    def of(self, descriptor: Descriptor) -> Encode:
        """The function that turns a message of this type into what JSON is made of."""
        made = self._made.get(descriptor.full_name)
        if made is None:
            made = self._well_known(descriptor) or self._message(descriptor)
            self._made[descriptor.full_name] = made
        return made

    def _well_known(self, descriptor: Descriptor) -> Encode | None:
        name = descriptor.full_name
        if name == "google.protobuf.Timestamp":
            return timestamp
        if name in ("google.protobuf.Duration", "google.protobuf.FieldMask"):
            return lambda message: message.ToJsonString()
        if name in WRAPPERS:
            inner = self._value(descriptor.fields_by_name["value"])
            return (lambda message: message.value) if inner is None else (lambda message: inner(message.value))
        if name in BY_LIBRARY:
            return lambda message: json_format.MessageToDict(message, descriptor_pool=self._pool)
        return None

    def _message(self, descriptor: Descriptor) -> Encode:
        plan: dict[FieldDescriptor, tuple[str, Encode | None]] = {}

        def encode(message: Any) -> dict[str, Any]:
            result = {}
            for field, value in message.ListFields():
                name, convert = plan[field]
                result[name] = value if convert is None else convert(value)
            return result

        self._made[descriptor.full_name] = encode  # before its fields, because a message may hold itself
        for field in descriptor.fields:
            plan[field] = (field.json_name, self._field(field))
        return encode

    def _field(self, field: FieldDescriptor) -> Encode | None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field.message_type)
        convert = self._value(field)
        if not field.is_repeated:
            return convert
        return list if convert is None else lambda values: [convert(value) for value in values]

    def _map(self, entry: Descriptor) -> Encode:
        is_bool = entry.fields_by_name["key"].type == FieldDescriptor.TYPE_BOOL
        convert = self._value(entry.fields_by_name["value"])

        def encode(values: Any) -> dict[str, Any]:
            return {
                (str(key).lower() if is_bool else str(key)): values[key] if convert is None else convert(values[key])
                for key in values
            }

        return encode

    def _value(self, field: FieldDescriptor) -> Encode | None:
        """The conversion of one value; None where the value is JSON's already."""
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            return _enum(field.enum_type)
        if field.type in LONG:
            return str
        if field.type == FieldDescriptor.TYPE_BYTES:
            return lambda value: base64.b64encode(value).decode()
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return _double
        if field.type == FieldDescriptor.TYPE_FLOAT:
            return _float
        return None


def _enum(descriptor: EnumDescriptor) -> Encode:
    if descriptor.full_name == "google.protobuf.NullValue":
        return lambda value: None
    names = {number: value.name for number, value in descriptor.values_by_number.items()}
    return lambda value: names.get(value, value)


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float(value: float) -> float | str:
    return type_checkers.ToShortestFloat(value) if math.isfinite(value) else _double(value)


def timestamp(message: Any) -> str:
    """RFC 3339 in UTC with 0, 3, 6 or 9 digits of a second.

    Raises:
        OverflowError: the instant is outside the years 1 to 9999.
    """
    text = (EPOCH + timedelta(seconds=message.seconds)).isoformat()[:19]
    nanos = message.nanos
    if nanos == 0:
        return f"{text}Z"
    if nanos % 1_000_000 == 0:
        return f"{text}.{nanos // 1_000_000:03d}Z"
    return f"{text}.{nanos // 1000:06d}Z" if nanos % 1000 == 0 else f"{text}.{nanos:09d}Z"
