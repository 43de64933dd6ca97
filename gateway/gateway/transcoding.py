"""One HTTP request to one request message, and the response message to JSON, by the rules of google.api.http."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway import values
from gateway.contracts import ContractError, Rpc
from gateway.json_decoder import Decoders, invalid, load, quoted
from gateway.json_encoder import BY_LIBRARY, WRAPPERS, Encode, Encoders
from gateway.problems import Problem, camel, wrong
from gateway.routes import Binding
from gateway.schemas import is_required
from gateway.templates import Variable
from gateway.values import Parse, Wrong

QUERY_PARAMETERS_MAX = 100
ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
HEADER_OF_FIELD = {"request_id": "Idempotency-Key", "etag": "If-Match"}
HEADER_PROBLEM = {"request_id": "IDEMPOTENCY_KEY_INVALID", "etag": "IF_MATCH_INVALID"}
TEXTUAL = {"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"} | WRAPPERS


@dataclass(frozen=True, slots=True)
class QueryField:
    """A field that a query parameter may fill. `path` is the way to it; `set_value` puts a text into its message."""

    path: tuple[str, ...]
    is_repeated: bool
    set_value: Callable[[Any, str], None]


class Transcoder:
    """One HTTP rule of one RPC, worked out.

    Raises:
        ContractError: the rule names what is not there, or fields that neither path, query nor body can fill.
    """

    def __init__(self, rpc: Rpc, binding: Binding, encoders: Encoders, decoders: Decoders) -> None:
        self.rpc = rpc
        self.binding = binding
        self._decoders = decoders
        descriptor = rpc.descriptor.input_type
        self._captures = [_capture(rpc, descriptor, variable) for variable in binding.template.variables]
        self.bound = {variable.field_path for variable in binding.template.variables}
        self.body_field = _named_field(rpc, descriptor, binding.body) if binding.body not in ("", "*") else None
        if self.body_field is not None and (self.body_field.message_type is None or self.body_field.is_repeated):
            raise ContractError(f"{rpc.path}: body {binding.body} must be a single message")
        self.query_fields = self._query_fields(descriptor) if binding.body != "*" else {}
        self._query_names = {name: field for names, field in _with_both_names(descriptor, self.query_fields) for name in names}
        self.header_fields = tuple(name for name in HEADER_OF_FIELD if _is_text(descriptor, name))
        self.headers_needed = {name for name in self.header_fields if _is_needed(rpc, descriptor.fields_by_name[name])}
        taken = {path[0] for path in self.bound if len(path) == 1} | set(self.header_fields)
        self.body_is_optional = binding.body == "*" and taken >= set(descriptor.fields_by_name)
        self.encode_response = _response_encoder(rpc, binding, encoders)

    def _query_fields(self, descriptor: Descriptor) -> dict[tuple[str, ...], FieldDescriptor]:
        """The fields that are left for the query, by their paths."""
        found: dict[tuple[str, ...], FieldDescriptor] = {}
        taken = self.bound | ({(self.body_field.name,)} if self.body_field else set())
        _collect(self.rpc, descriptor, (), taken, frozenset({descriptor.full_name}), found)
        return found

    def request(self, segments: list[str], query: str, body: bytes | None, headers: Mapping[str, str]) -> Message:
        """The request message.

        Args:
            segments: of the path, still percent-encoded.
            query: what stands behind the question mark, still encoded.
            body: None when the request has none.
            headers: values for fields that headers fill (`request_id`, `etag`).

        Raises:
            Problem: 400, naming each wrong field.
        """
        message = self.rpc.request_class()
        if query:
            self._fill_from_query(message, query)
        if self.binding.body:
            self._fill_from_body(message, body)
        elif body:
            raise Problem(400, "BODY_NOT_ALLOWED", "this method takes no body")
        for name, value in headers.items():
            given = getattr(message, name)
            if given and given != value:
                raise wrong(
                    HEADER_PROBLEM[name], HEADER_OF_FIELD[name], f"must be equal to {shown_name(name)} in the body or query"
                )
            setattr(message, name, value)
        for capture in self._captures:
            capture(message, segments)
        return message

    def _fill_from_body(self, message: Message, body: bytes | None) -> None:
        if not body:
            if self.body_is_optional:
                return
            raise Problem(400, "BODY_MISSING", "a body in JSON is needed; an empty one is {}")
        document = load(body)
        if self.body_field is None:
            self._decoders.decode(message, document)
        else:
            target = getattr(message, self.body_field.name)
            target.SetInParent()
            self._decoders.decode(target, document, self.body_field.json_name)

    def _fill_from_query(self, message: Message, query: str) -> None:
        errors: list[tuple[str, str]] = []
        seen: set[tuple[str, ...]] = set()
        for name, value in _pairs(query):
            field = self._query_names.get(name)
            if field is None:
                errors.append((quoted(name), "is not a query parameter of this method"))
                continue
            if field.path in seen and not field.is_repeated:
                errors.append((name, "must be there once"))
                continue
            seen.add(field.path)
            target: Any = message
            for step in field.path[:-1]:
                target = getattr(target, step)
            try:
                field.set_value(target, values.text(value))
            except Wrong as refusal:
                errors.append((name, str(refusal)))
        if errors:
            problem = invalid(errors)
            problem.reason = "QUERY_INVALID"
            raise problem


def shown_name(name: str) -> str:
    """A field's JSON name."""
    return camel(name)


def decode_percent(text: str, keep_slash: bool = False) -> str:
    """Percent-decoding of UTF-8.

    Raises:
        Wrong: a broken escape, bytes that are not UTF-8, or control characters.
    """
    if "%" not in text:
        return text if text.isascii() and text.isprintable() else values.text(text)
    if ENCODED.search(text):
        raise Wrong("has a % that is not followed by two hexadecimal digits")
    if keep_slash:
        text = re.sub("%(2[Ff])", r"%25\1", text)
    try:
        return values.text(unquote_to_bytes(text).decode())
    except UnicodeDecodeError:
        raise Wrong("must be UTF-8, percent-encoded") from None


def _pairs(query: str) -> list[tuple[str, str]]:
    parts = query.split("&")
    if len(parts) > QUERY_PARAMETERS_MAX:
        raise Problem(400, "QUERY_INVALID", f"a query may have {QUERY_PARAMETERS_MAX} parameters, and has {len(parts)}")
    pairs = []
    for part in parts:
        name, _, value = part.replace("+", " ").partition("=")
        try:
            name = decode_percent(name)
            pairs.append((name, decode_percent(value)))
        except Wrong as refusal:
            raise wrong("QUERY_INVALID", quoted(name) or "query", str(refusal)) from None
    return pairs


def _capture(rpc: Rpc, descriptor: Descriptor, variable: Variable) -> Callable[[Any, list[str]], None]:
    """The function that puts the variable's segments into the message."""
    field = _field_at(rpc, descriptor, variable.field_path)
    if field.is_repeated or field.message_type is not None:
        raise ContractError(f"{rpc.path}: {'.'.join(variable.field_path)} is no single value, so the path cannot fill it")
    parse = values.from_text(field)
    *steps, name = variable.field_path
    start, end, is_single = variable.start, variable.end, variable.is_single
    shown = ".".join(shown_name(step) for step in variable.field_path)

    def capture(message: Any, segments: list[str]) -> None:
        raw = segments[start] if is_single else "/".join(segments[start:end])
        try:
            value = parse(decode_percent(raw, keep_slash=not is_single))
        except Wrong as refusal:
            raise wrong("PATH_INVALID", shown, str(refusal)) from None
        for step in steps:
            message = getattr(message, step)
        given = getattr(message, name)
        if given and given != value:
            raise wrong("FIELD_INVALID", shown, "is given by the path; leave it out, or write the same")
        setattr(message, name, value)

    return capture


def _field_at(rpc: Rpc, descriptor: Descriptor, path: tuple[str, ...]) -> FieldDescriptor:
    for step in path[:-1]:
        message_type = _named_field(rpc, descriptor, step).message_type
        if message_type is None:
            raise ContractError(f"{rpc.path}: {step} in {'.'.join(path)} is no message")
        descriptor = message_type
    return _named_field(rpc, descriptor, path[-1])


def _named_field(rpc: Rpc, descriptor: Descriptor, name: str) -> FieldDescriptor:
    field = descriptor.fields_by_name.get(name)
    if field is None:
        raise ContractError(f"{rpc.path}: its google.api.http names {name}, which {descriptor.name} does not have")
    return field


def _is_text(descriptor: Descriptor, name: str) -> bool:
    field = descriptor.fields_by_name.get(name)
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def _is_needed(rpc: Rpc, field: FieldDescriptor) -> bool:
    """Whether a call needs the header of this field: every change its key, an etag where the contract wants one."""
    return rpc.changes if field.name == "request_id" else is_required(field)


def _collect(
    rpc: Rpc,
    descriptor: Descriptor,
    prefix: tuple[str, ...],
    taken: set[tuple[str, ...]],
    outer: frozenset[str],
    found: dict[tuple[str, ...], FieldDescriptor],
) -> None:
    for field in descriptor.fields:
        path = (*prefix, field.name)
        if path in taken:
            continue
        message_type = field.message_type
        if message_type is None or (message_type.full_name in TEXTUAL and not field.is_repeated):
            found[path] = field
        elif field.is_repeated or message_type.full_name in BY_LIBRARY or message_type.full_name in outer:
            raise ContractError(f"{rpc.path}: {'.'.join(path)} fits neither path nor query; its google.api.http needs a body")
        else:
            _collect(rpc, message_type, path, taken, outer | {message_type.full_name}, found)


def _with_both_names(descriptor: Descriptor, fields: dict[tuple[str, ...], FieldDescriptor]) -> list[tuple[set[str], QueryField]]:
    """Each query field with its names: proto names and JSON names, all along the path."""
    result = []
    for path, field in fields.items():
        names = [""]
        message_type: Descriptor | None = descriptor
        for step in path:
            here = message_type.fields_by_name[step] if message_type is not None else field
            names = [f"{name}.{own}".lstrip(".") for name in names for own in {here.name, here.json_name}]
            message_type = here.message_type
        result.append((set(names), QueryField(path, field.is_repeated, _setter(field))))
    return result


def _setter(field: FieldDescriptor) -> Callable[[Any, str], None]:
    name = field.name
    if field.message_type is not None:
        kind = field.message_type.full_name
        if kind == "google.protobuf.FieldMask":
            return lambda message, text: getattr(message, name).paths.extend(values.mask(text))
        if kind in WRAPPERS:
            parse = values.from_text(field.message_type.fields_by_name["value"])
            return lambda message, text: setattr(getattr(message, name), "value", parse(text))
        return _pair_setter(name, values.instant if kind.endswith("Timestamp") else values.duration)
    scalar = values.from_text(field)
    if field.is_repeated:
        return lambda message, text: getattr(message, name).append(scalar(text))
    return lambda message, text: setattr(message, name, scalar(text))


def _pair_setter(name: str, parse: Parse) -> Callable[[Any, str], None]:
    def set_value(message: Any, text: str) -> None:
        target = getattr(message, name)
        target.seconds, target.nanos = parse(text)
        target.SetInParent()

    return set_value


def _response_encoder(rpc: Rpc, binding: Binding, encoders: Encoders) -> Encode:
    output = rpc.descriptor.output_type
    if output.full_name == "google.api.HttpBody":
        raise ContractError(f"{rpc.path}: google.api.HttpBody is not served")
    encode = encoders.of(output)
    if not binding.response_body:
        return encode
    field = _named_field(rpc, output, binding.response_body)
    if not field.is_repeated and field.message_type is None:
        raise ContractError(f"{rpc.path}: response_body {field.name} must be a message or a list")
    name = field.json_name
    empty: Any = [] if field.is_repeated else {}
    return lambda message: encode(message).get(name, empty)
