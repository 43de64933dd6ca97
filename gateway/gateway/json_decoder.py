"""JSON from callers into request messages, compiled once for each message type; what a contract does not know is an error.

Takes what `json_format.ParseDict` takes (JSON and proto names, integers as text, null for "not set") and names wrong fields.
"""

import contextlib
import json
from collections.abc import Callable
from typing import Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from gateway import values
from gateway.contracts import is_choice
from gateway.json_encoder import BY_LIBRARY, WRAPPERS
from gateway.problems import Problem, in_words
from gateway.values import Wrong

DEPTH_MAX = 32
VIOLATIONS_MAX = 20
QUOTED_CHARACTERS_MAX = 60
REFUSED = "must not be null; leave it out"

Errors: TypeAlias = list[tuple[str, str]]
Decode: TypeAlias = Callable[[Any, Any, str, Errors, int], None]
"""Fills a message from a JSON value; (message, value, path of the field, errors found, levels left)."""


class TooManyErrors(Exception):
    """As many fields are wrong as an answer names."""


def load(body: bytes) -> Any:
    """The JSON document in a body.

    Raises:
        Problem: it is not UTF-8, not JSON, names a member twice, or is nested too deeply.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Problem(400, "JSON_INVALID", "the body must be JSON in UTF-8, and has bytes that are not UTF-8") from None
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem(400, "JSON_INVALID", f"the body is not JSON: look at {where}") from None
    except RecursionError:
        raise too_deep() from None
    except ValueError:
        raise Problem(
            400, "JSON_INVALID", "the body holds a number that is too long, or NaN or Infinity without quotes"
        ) from None


def too_deep() -> Problem:
    """The refusal of a document with too many levels."""
    return Problem(400, "JSON_TOO_DEEP", f"the body may be nested {DEPTH_MAX} levels deep, and is deeper")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Problem(400, "FIELD_REPEATED", "a member of an object is there twice", [(quoted(twice), "must be there once")])
    return result


def _no_constant(_: str) -> Any:
    raise ValueError


def quoted(name: str) -> str:
    """A name from outside, fit to be shown: short and printable."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:QUOTED_CHARACTERS_MAX])


class Decoders:
    """The decoders of one descriptor pool."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._made: dict[str, Decode] = {}

    def decode(self, message: Any, value: Any, path: str = "") -> None:
        """Fills a message from a JSON object.

        Raises:
            Problem: FIELD_INVALID, with every wrong field named (up to 20), or JSON_TOO_DEEP.
        """
        errors: Errors = []
        with contextlib.suppress(TooManyErrors):
            self.of(message.DESCRIPTOR)(message, value, path, errors, DEPTH_MAX)
        if errors:
            raise invalid(errors)

    def of(self, descriptor: Descriptor) -> Decode:
        """The function that fills a message of this type."""
        made = self._made.get(descriptor.full_name)
        if made is None:
            made = self._well_known(descriptor) or self._message(descriptor)
            self._made[descriptor.full_name] = made
        return made

    def _well_known(self, descriptor: Descriptor) -> Decode | None:
        name = descriptor.full_name
        if name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            parse = values.instant if name.endswith("Timestamp") else values.duration

            def pair(message: Any, value: Any) -> None:
                message.seconds, message.nanos = parse(value)

            return _guarded(pair)
        if name == "google.protobuf.FieldMask":
            return _guarded(lambda message, value: message.paths.extend(values.mask(value)))
        if name in WRAPPERS:
            scalar = values.of(descriptor.fields_by_name["value"])

            def wrap(message: Any, value: Any) -> None:
                message.value = scalar(value)

            return _guarded(wrap)
        return self._by_library if name in BY_LIBRARY else None

    def _by_library(self, message: Any, value: Any, path: str, errors: Errors, levels: int) -> None:
        """Any, Struct, Value and ListValue hold any JSON: checked for depth and text, then left to protobuf's own parser."""
        try:
            _check_free(value, levels)
            json_format.ParseDict(value, message, descriptor_pool=self._pool)
        except Wrong as wrong:
            add(errors, path, str(wrong))
        except (json_format.ParseError, TypeError, ValueError, AttributeError, KeyError):  # it trips over some JSON itself
            add(errors, path, f"must be a {message.DESCRIPTOR.name} as protobuf writes it in JSON")

    def _message(self, descriptor: Descriptor) -> Decode:
        plan: dict[str, tuple[FieldDescriptor, Decode]] = {}

        def decode(message: Any, value: Any, path: str, errors: Errors, levels: int) -> None:
            if not isinstance(value, dict):
                add(errors, path, "must be an object")
                return
            if levels == 0:
                raise too_deep()
            prefix = f"{path}." if path else ""
            seen: dict[int | str, str] = {}
            for name, member in value.items():
                known = plan.get(name)
                if known is None:
                    add(errors, prefix + quoted(name), "is not known here")
                    continue
                field, fill = known
                if _is_twice(field, name, seen):
                    add(errors, prefix + field.json_name, _twice(field, seen[_key(field)]))
                elif member is None and not is_choice(field) and not _takes_null(field):
                    continue  # null is "not set"
                else:
                    fill(message, member, prefix + field.json_name, errors, levels - 1)

        self._made[descriptor.full_name] = decode  # before its fields, because a message may hold itself
        for field in descriptor.fields:
            plan[field.name] = plan[field.json_name] = (field, self._field(field))
        return decode

    def _field(self, field: FieldDescriptor) -> Decode:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field)
        if field.is_repeated:
            return self._repeated(field)
        name = field.name
        if field.message_type is not None:
            inner = self.of(field.message_type)

            def fill(message: Any, value: Any, path: str, errors: Errors, levels: int) -> None:
                if value is None and not _takes_null(field):
                    add(errors, path, REFUSED)
                    return
                child = getattr(message, name)
                child.SetInParent()
                inner(child, value, path, errors, levels)

            return fill
        scalar = values.of(field)

        def set_scalar(message: Any, value: Any) -> None:
            if value is None:
                raise Wrong(REFUSED)  # of a oneof: which of its members is meant must be clear
            setattr(message, name, scalar(value))

        return _guarded(set_scalar)

    def _repeated(self, field: FieldDescriptor) -> Decode:
        name = field.name
        inner = self.of(field.message_type) if field.message_type is not None else None
        scalar = values.of(field) if inner is None else None

        def fill(message: Any, value: Any, path: str, errors: Errors, levels: int) -> None:
            if not isinstance(value, list):
                add(errors, path, "must be a list")
                return
            target = getattr(message, name)
            for index, item in enumerate(value):
                if item is None and not _takes_null(field):
                    add(errors, f"{path}[{index}]", REFUSED)
                elif inner is not None:
                    inner(target.add(), item, f"{path}[{index}]", errors, levels)
                elif scalar is not None:
                    try:
                        target.append(scalar(item))
                    except Wrong as wrong:
                        add(errors, f"{path}[{index}]", str(wrong))

        return fill

    def _map(self, field: FieldDescriptor) -> Decode:
        name = field.name
        entry: Any = field.message_type
        read_key = values.from_text(entry.fields_by_name["key"])
        member = entry.fields_by_name["value"]
        inner = self.of(member.message_type) if member.message_type is not None else None
        scalar = values.of(member) if inner is None else None

        def fill(message: Any, value: Any, path: str, errors: Errors, levels: int) -> None:
            if not isinstance(value, dict):
                add(errors, path, "must be an object")
                return
            target = getattr(message, name)
            for key, item in value.items():
                place = f"{path}.{quoted(key)}"
                try:
                    if item is None and not _takes_null(member):
                        raise Wrong(REFUSED)
                    if inner is not None:
                        inner(target[read_key(key)], item, place, errors, levels)
                    elif scalar is not None:
                        target[read_key(key)] = scalar(item)
                except Wrong as wrong:
                    add(errors, place, str(wrong))

        return fill


def _guarded(set_value: Callable[[Any, Any], None]) -> Decode:
    def fill(message: Any, value: Any, path: str, errors: Errors, levels: int) -> None:
        try:
            set_value(message, value)
        except Wrong as wrong:
            add(errors, path, str(wrong))

    return fill


def _key(field: FieldDescriptor) -> int | str:
    """What may be there once: a field, or one member of a oneof."""
    oneof = field.containing_oneof
    return str(oneof.name) if oneof is not None and is_choice(field) else field.number


def _is_twice(field: FieldDescriptor, name: str, seen: dict[int | str, str]) -> bool:
    return seen.setdefault(_key(field), name) != name


def _twice(field: FieldDescriptor, other: str) -> str:
    if other in (field.name, field.json_name):
        return f"must be there once, and is there as {field.json_name} and as {field.name}"
    return f"must not be there together with {other}"


def _takes_null(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"


def _check_free(value: Any, levels: int) -> None:
    if levels == 0:
        raise too_deep()
    if isinstance(value, str):
        values.text(value)
    elif isinstance(value, dict):
        for name, member in value.items():
            values.text(name)
            _check_free(member, levels - 1)
    elif isinstance(value, list):
        for member in value:
            _check_free(member, levels - 1)


def add(errors: Errors, path: str, description: str) -> None:
    """Adds a wrong field.

    Raises:
        TooManyErrors: so many are wrong that the rest is not looked at.
    """
    errors.append((path or "body", description))
    if len(errors) >= VIOLATIONS_MAX:
        raise TooManyErrors


def invalid(errors: Errors) -> Problem:
    """The refusal that names wrong fields."""
    return Problem(400, "FIELD_INVALID", in_words(errors), errors)
