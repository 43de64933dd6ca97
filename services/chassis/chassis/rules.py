"""Rules of the contracts that a request breaks: where, and what would be right."""

from collections.abc import Sequence
from typing import Any

import protovalidate
from google.protobuf.message import Message

from buf.validate import validate_pb2

_validator = protovalidate.Validator()


def broken(request: Message) -> list[tuple[str, str]]:
    """The path of each wrong field, and what would be right there. Holds no value of the request."""
    violations = _validator.collect_violations(request)
    return [_described(request.DESCRIPTOR, violation.proto) for violation in violations] if violations else []


def has_rules(descriptor: Any, seen: set[str] | None = None) -> bool:
    """Whether a message, or one within it, has any rule at all."""
    seen = set() if seen is None else seen
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    return (
        descriptor.GetOptions().HasExtension(validate_pb2.message)
        or any(oneof.GetOptions().HasExtension(validate_pb2.oneof) for oneof in descriptor.oneofs)
        or any(field.GetOptions().HasExtension(validate_pb2.field) for field in descriptor.fields)
        or any(field.message_type is not None and has_rules(field.message_type, seen) for field in descriptor.fields)
    )


def _described(descriptor: Any, violation: Any) -> tuple[str, str]:
    elements = violation.field.elements if violation.field is not None else ()
    path = ".".join(map(_step, elements))
    parent, last = _follow(descriptor, elements)
    if parent is None:
        return path, violation.message
    field = parent.fields_by_name.get(last)
    if field is None:  # a oneof: no field has its name, so the choices are named instead
        choices = ", ".join(choice.name for choice in parent.oneofs_by_name[last].fields)
        return ".".join(path.split(".")[:-1]), f"must have exactly one of {choices}"
    if field.enum_type is not None and violation.rule_id.startswith("enum."):
        names = ", ".join(value.name for value in field.enum_type.values if value.number)
        return path, f"must be one of {names}"
    if violation.rule_id == "string.pattern":
        rules = field.GetOptions().Extensions[validate_pb2.field]
        strings = rules.repeated.items.string if field.is_repeated else rules.string
        return path, f"must match {strings.pattern}"
    if violation.rule_id == "required":
        return path, "is required"
    return path, violation.message


def _follow(descriptor: Any, elements: Sequence[Any]) -> tuple[Any, str]:
    """The message that holds the last element of a path, and the element's name; None where the path ends in no field."""
    if not elements:
        return None, ""
    current = descriptor
    for element in elements[:-1]:
        field = current.fields_by_name.get(element.field_name)
        if field is None or field.message_type is None:
            return None, ""
        current = field.message_type
    last = elements[-1].field_name
    known = last in current.fields_by_name or last in current.oneofs_by_name
    return (current, last) if known else (None, "")


def _step(element: Any) -> str:
    # The key of a map entry is left out: it may be personal.
    if element.subscript is not None and element.subscript.field == "index":
        return f"{element.field_name}[{element.subscript.value}]"
    return str(element.field_name)
