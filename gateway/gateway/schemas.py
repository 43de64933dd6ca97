"""JSON Schemas of messages from their descriptors: comments, field_behavior and buf.validate rules.

What a request may hold is described exactly as `json_decoder` takes it (integers as text too, null for "not set"); what only
answers hold is described as `json_encoder` writes it.
"""

import math
import re
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from buf.validate import validate_pb2
from concord.options.v1 import field_options_pb2
from gateway.contracts import is_choice
from gateway.json_encoder import BY_LIBRARY, LONG, WRAPPERS
from gateway.values import BASE64, FLOATS, RANGES

Schema = dict[str, Any]
REF = "#/components/schemas/"
NO_CONTROL = r"^[^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F]*$"
INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
DURATION = r"^-?[0-9]{1,11}(\.[0-9]{1,9})?s$"
MASK = r"^([a-z][a-zA-Z0-9_]*(\.[a-z][a-zA-Z0-9_]*)*(,[a-z][a-zA-Z0-9_]*(\.[a-z][a-zA-Z0-9_]*)*)*)?$"
NUMBER_TEXT = r"^(-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?|NaN|-?Infinity)$"
FORMATS = {"email": "email", "uri": "uri", "uuid": "uuid", "hostname": "hostname", "ipv4": "ipv4", "ipv6": "ipv6"}


def component_name(descriptor: Descriptor | EnumDescriptor) -> str:
    """`concord.customer.v1.Customer` is `customer.v1.Customer`."""
    return str(descriptor.full_name).removeprefix("concord.")


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The buf.validate rules of a field; empty ones when it has none."""
    options: Any = field.GetOptions()
    rules: validate_pb2.FieldRules = options.Extensions[validate_pb2.field]
    return rules


def behaviors_of(field: FieldDescriptor) -> set[int]:
    """The google.api.field_behavior of a field."""
    options: Any = field.GetOptions()
    return set(options.Extensions[field_behavior_pb2.field_behavior])


class Schemas:
    """Collects the components of a document. `in_requests` are full names of messages and enums that requests can hold."""

    def __init__(self, comments: dict[str, str], in_requests: set[str]) -> None:
        self.components: dict[str, Schema] = {}
        self._comments = comments
        self._in_requests = in_requests

    def reference(self, descriptor: Descriptor | EnumDescriptor) -> Schema:
        """A reference to a message's or enum's component, which is made at the first one."""
        name = component_name(descriptor)
        if name not in self.components:
            self.components[name] = {}  # before its fields, because a message may hold itself
            made = self._enum(descriptor) if isinstance(descriptor, EnumDescriptor) else self.message(descriptor)
            self.components[name].update(made)
        return {"$ref": REF + name}

    def body_reference(self, descriptor: Descriptor, in_path: frozenset[str], is_update: bool) -> Schema:
        """The same for a body whose fields `in_path` stand in the path; in an update what is left out stays as it is."""
        name = f"{component_name(descriptor)}{'Update' if is_update else 'Body'}"
        schema = self.components[name] = self.message(descriptor, is_update=is_update)
        for field in (descriptor.fields_by_name[one] for one in sorted(in_path)):
            shown = schema["properties"][field.json_name]
            comment = f"{shown.get('description', '')} Given by the path: leave it out, or write the same.".strip()
            schema["properties"][field.json_name] = shown | {"readOnly": True, "description": comment}
            if field.json_name in schema.get("required", ()):
                schema["required"].remove(field.json_name)
        return {"$ref": REF + name}

    def message(self, descriptor: Descriptor, without: frozenset[str] = frozenset(), is_update: bool = False) -> Schema:
        """The schema of a message, without some of its fields."""
        in_request = descriptor.full_name in self._in_requests
        fields = [field for field in descriptor.fields if field.name not in without]
        schema: Schema = {"type": "object"}
        if comment := self._comments.get(descriptor.full_name):
            schema["description"] = comment
        needed = [field.json_name for field in fields if in_request and not is_update and is_required(field)]
        schema["properties"] = {field.json_name: self._property(field, in_request, field.json_name in needed) for field in fields}
        schema["additionalProperties"] = False
        if in_request:
            if needed:
                schema["required"] = needed
            if choices := [_choice(oneof, without) for oneof in descriptor.oneofs if is_choice(oneof.fields[0])]:
                schema["allOf"] = choices
        return schema

    def _property(self, field: FieldDescriptor, in_request: bool, is_needed: bool) -> Schema:
        schema = self.field(field, in_request)
        if in_request and not is_needed and not is_choice(field) and not _is_output(field):
            schema = _nullable(_or_zero(schema, field))
        if is_needed:
            schema = _filled(schema, field)
        if comment := self._comments.get(field.full_name):
            schema["description"] = comment
        if _is_output(field):
            schema["readOnly"] = True
        options: Any = field.GetOptions()
        if sensitivity := options.Extensions[field_options_pb2.sensitivity]:
            schema["x-concord-sensitivity"] = field_options_pb2.Sensitivity.Name(sensitivity).removeprefix("SENSITIVITY_")
        return schema

    def field(self, field: FieldDescriptor, in_request: bool) -> Schema:
        """The schema of a field's value."""
        rules = rules_of(field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field.message_type, rules, in_request)
        if not field.is_repeated:
            return self.single(field, rules, in_request)
        schema: Schema = {"type": "array", "items": self.single(field, rules.repeated.items, in_request)}
        _copy(rules.repeated, schema, {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"})
        if rules.repeated.unique and in_request and (field.enum_type is not None or field.type in RANGES):
            # A number and its name or text are one value, which uniqueItems cannot see.
            schema["anyOf"] = [{"items": {"type": "string"}}, {"items": {"type": "integer"}}]
        return schema

    def _map(self, entry: Descriptor, rules: validate_pb2.FieldRules, in_request: bool) -> Schema:
        members = self.single(entry.fields_by_name["value"], rules.map.values, in_request)
        schema: Schema = {"type": "object", "additionalProperties": members}
        _copy(rules.map, schema, {"min_pairs": "minProperties", "max_pairs": "maxProperties"})
        return schema

    def single(self, field: FieldDescriptor, rules: validate_pb2.FieldRules, in_request: bool) -> Schema:
        """The schema of one value of a field."""
        if field.message_type is not None:
            return self._message_value(field.message_type, in_request)
        if field.enum_type is not None:
            return self._enum_value(field.enum_type, rules.enum, in_request)
        if field.type in RANGES:
            return integer(field, rules, in_request)
        if field.type in FLOATS:
            return _number(field, rules, in_request)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _octets(rules.bytes)
        return text(rules.string, in_request)

    def _message_value(self, descriptor: Descriptor, in_request: bool) -> Schema:
        name = descriptor.full_name
        if name == "google.protobuf.Timestamp":
            return {"type": "string", "format": "date-time", "pattern": INSTANT}
        if name == "google.protobuf.Duration":
            return {"type": "string", "pattern": DURATION, "examples": ["1.5s"]}
        if name == "google.protobuf.FieldMask":
            return {"type": "string", "pattern": MASK, "examples": ["displayName,timeZone"]}
        if name in WRAPPERS:
            return _nullable(self.single(descriptor.fields_by_name["value"], validate_pb2.FieldRules(), in_request))
        if name in BY_LIBRARY:
            return {"type": "array"} if name.endswith("ListValue") else {} if name.endswith(".Value") else {"type": "object"}
        return self.reference(descriptor)

    def _enum_value(self, descriptor: EnumDescriptor, rules: validate_pb2.EnumRules, in_request: bool) -> Schema:
        schema = self.reference(descriptor)
        excluded = list(rules.not_in)
        if in_request and excluded:
            schema["not"] = {"enum": _names_and_numbers(descriptor, excluded)}
        if in_request and (allowed := list(rules.__getattribute__("in"))):
            schema["enum"] = _names_and_numbers(descriptor, allowed)
        return schema

    def _enum(self, descriptor: EnumDescriptor) -> Schema:
        names = [value.name for value in descriptor.values]
        lines = [self._comments.get(descriptor.full_name, "")]
        for name in names:
            if comment := self._comments.get(f"{descriptor.full_name}.{name}"):
                lines.append(f"- `{name}`: {comment}")
        schema: Schema = {"description": "\n".join(lines)}
        if descriptor.full_name in self._in_requests:
            numbers = sorted({value.number for value in descriptor.values})
            return schema | {"anyOf": [{"type": "string", "enum": names}, {"type": "integer", "enum": numbers}]}
        return schema | {"type": "string", "enum": names}


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request without the field is refused: said by the contract, or because the zero value breaks a rule."""
    rules = rules_of(field)
    if rules.required or field_behavior_pb2.REQUIRED in behaviors_of(field):
        return True
    if _is_output(field) or (field.has_presence and not field.is_repeated):
        return False
    if rules.ignore in (validate_pb2.IGNORE_IF_ZERO_VALUE, validate_pb2.IGNORE_ALWAYS):
        return False
    if field.is_repeated:
        return rules.repeated.min_items > 0 or rules.map.min_pairs > 0
    if field.enum_type is not None:
        return 0 in rules.enum.not_in or (bool(rules.enum.__getattribute__("in")) and 0 not in rules.enum.__getattribute__("in"))
    if field.type == FieldDescriptor.TYPE_STRING:
        string = rules.string
        return string.min_len > 0 or string.len > 0 or (bool(string.pattern) and re.search(string.pattern, "") is None)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rules.bytes.min_len > 0
    low, high = bounds(field, rules)
    return not low <= 0 <= high


def _names_and_numbers(descriptor: EnumDescriptor, numbers: list[int]) -> list[str | int]:
    """Values of an enum as a request may write them."""
    return [*(descriptor.values_by_number[number].name for number in numbers if number in descriptor.values_by_number), *numbers]


def _is_output(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.OUTPUT_ONLY in behaviors_of(field)


def _choice(oneof: OneofDescriptor, without: frozenset[str]) -> Schema:
    """At most one member, or exactly one where a rule says so."""
    names = [field.json_name for field in oneof.fields if field.name not in without]
    options: Any = oneof.GetOptions()
    exactly = [{"required": [name]} for name in names]
    if options.Extensions[validate_pb2.oneof].required:
        return {"oneOf": exactly}
    return {"oneOf": [*exactly, {"not": {"anyOf": exactly}}]}


def _filled(schema: Schema, field: FieldDescriptor) -> Schema:
    """A required field without presence: its zero value is as good as missing."""
    if field.has_presence or field.is_repeated:
        return schema
    if field.type == FieldDescriptor.TYPE_STRING:
        return {"minLength": 1} | schema
    if field.enum_type is not None:
        excluded = schema.get("not", {"enum": []})["enum"]
        return schema | {"not": {"enum": sorted({*excluded, field.enum_type.values_by_number[0].name, 0}, key=str)}}
    low, high = bounds(field, rules_of(field)) if field.type in RANGES else (1, 1)
    return schema | {"not": {"enum": [0, "0"]}} if low <= 0 <= high else schema


def _or_zero(schema: Schema, field: FieldDescriptor) -> Schema:
    """A field whose rules let its zero value pass."""
    if rules_of(field).ignore != validate_pb2.IGNORE_IF_ZERO_VALUE or field.is_repeated or field.message_type is not None:
        return schema
    if field.type == FieldDescriptor.TYPE_STRING:
        return {"anyOf": [{"type": "string", "const": ""}, schema]}
    if field.type in RANGES:
        return {"anyOf": [{"enum": [0, "0"]}, schema]}
    return {"anyOf": [{"type": "number", "const": 0}, schema]} if field.type in FLOATS else schema


def _nullable(schema: Schema) -> Schema:
    kind = schema.get("type")
    if kind is None:
        return {"anyOf": [schema, {"type": "null"}]}
    kinds = kind if isinstance(kind, list) else [kind]
    return schema | {"type": kinds if "null" in kinds else [*kinds, "null"]}


def text(rules: validate_pb2.StringRules, in_request: bool) -> Schema:
    """The schema of a text."""
    schema: Schema = {"type": "string"}
    _copy(rules, schema, {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern", "const": "const"})
    if rules.len:
        schema |= {"minLength": rules.len, "maxLength": rules.len}
    if allowed := list(rules.__getattribute__("in")):
        schema["enum"] = allowed
    which = rules.WhichOneof("well_known")
    if which in FORMATS and getattr(rules, which):
        schema["format"] = FORMATS[which]
    if in_request and not {"pattern", "const", "enum", "format"} & set(schema):
        schema["pattern"] = NO_CONTROL
    return schema


def _octets(rules: validate_pb2.BytesRules) -> Schema:
    """Bytes as base64 of both alphabets. A text counts characters, so that with padding up to two bytes too few look enough."""
    schema: Schema = {"type": "string", "contentEncoding": "base64", "pattern": f"^{BASE64.pattern}$"}
    if rules.min_len:
        schema["minLength"] = -(-4 * rules.min_len // 3)
    if rules.max_len:
        schema["maxLength"] = 4 * rules.max_len // 3
    return schema


def bounds(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> tuple[float, float]:
    """The lowest and highest number that type and rules allow."""
    low, high = RANGES.get(field.type, (float("-inf"), float("inf")))
    which = rules.WhichOneof("type")
    typed = getattr(rules, which) if which else None
    if typed is None or not hasattr(typed, "gte"):
        return low, high
    is_whole = field.type in RANGES
    if typed.HasField("gte"):
        low = max(low, typed.gte)
    if typed.HasField("gt"):
        low = max(low, typed.gt + 1 if is_whole else math.nextafter(typed.gt, math.inf))
    if typed.HasField("lte"):
        high = min(high, typed.lte)
    if typed.HasField("lt"):
        high = min(high, typed.lt - 1 if is_whole else math.nextafter(typed.lt, -math.inf))
    return low, high


def integer(field: FieldDescriptor, rules: validate_pb2.FieldRules, in_request: bool) -> Schema:
    """An integer: 64 bits are text in answers; requests may write any integer as a number or as text."""
    low, high = bounds(field, rules)
    is_long = field.type in LONG
    name = ("uint" if RANGES[field.type][0] == 0 else "int") + ("64" if is_long else "32")
    if not in_request:
        return {"type": "string", "format": name, "pattern": "^-?[0-9]+$"} if is_long else {"type": "integer", "format": name}
    kinds = ["string", "integer"] if is_long else ["integer", "string"]
    return {"type": kinds, "format": name, "minimum": low, "maximum": high, "pattern": _digits(int(low), int(high))}


def _digits(low: int, high: int) -> str:
    """A pattern of integers within bounds: some at the far ends are left out, because a pattern counts digits only."""
    nines = "[1-9][0-9]{{0,{}}}"
    positive = nines.format(max(0, len(str(high)) - 2)) if high >= 10 else f"[1-{high}]" if high > 0 else ""
    negative = f"-{nines.format(max(0, len(str(low)) - 3))}" if low <= -10 else f"-[1-{-low}]" if low < 0 else ""
    parts = [positive if low <= 1 else "", "0" if low <= 0 <= high else "", negative]
    return f"^({'|'.join(part for part in parts if part) or str(low)})$"


def _number(field: FieldDescriptor, rules: validate_pb2.FieldRules, in_request: bool) -> Schema:
    low, high = bounds(field, rules)
    limits: Schema = {}
    which = rules.WhichOneof("type")
    typed = getattr(rules, which) if which else None
    if typed is not None and low != float("-inf"):
        limits |= {"exclusiveMinimum": typed.gt} if typed.HasField("gt") else {"minimum": low}
    if typed is not None and high != float("inf"):
        limits |= {"exclusiveMaximum": typed.lt} if typed.HasField("lt") else {"maximum": high}
    name = "float" if field.type == FieldDescriptor.TYPE_FLOAT else "double"
    if in_request and not limits and not (typed is not None and typed.finite):
        return {"type": ["number", "string"], "format": name, "pattern": NUMBER_TEXT}
    return {"type": "number" if in_request or limits else ["number", "string"], "format": name, **limits}


def _copy(rules: Any, schema: Schema, names: dict[str, str]) -> None:
    for name, member in names.items():
        if value := getattr(rules, name):
            schema[member] = value


def pattern_of_segments(pattern: str) -> list[str] | None:
    """The patterns of the segments of a resource name: `^a/[a-z]+/b/[0-9]+$` has four. None where it cannot be divided."""
    if not (pattern.startswith("^") and pattern.endswith("$")):
        return None
    segments, depth, in_class, current = [], 0, False, ""
    for at, character in enumerate(pattern[1:-1]):
        escaped = at > 0 and pattern[at] == "\\"
        if character == "[" and not escaped:
            in_class = True
        elif character == "]" and not escaped:
            in_class = False
        elif not in_class and not escaped:
            depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and depth == 0 and not in_class:
            return None
        if character == "/" and depth == 0 and not in_class:
            segments.append(current)
            current = ""
        else:
            current += character
    return [*segments, current] if depth == 0 else None
