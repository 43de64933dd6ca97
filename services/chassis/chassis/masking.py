"""Masks personal fields of responses for callers that may not see them."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from chassis.identity import Principal, PrincipalKind
from concord.options.v1 import field_options_pb2 as options

SCOPE = "personal.read"
HIDDEN = "***"
ENDING_CHARACTERS = 2
ENDING_SHOWN_FROM_CHARACTERS = 8

Mask: TypeAlias = Callable[[Any], None]


def may_see_personal(principal: Principal) -> bool:
    """Whether a caller gets personal fields as they are."""
    return SCOPE in principal.scopes or principal.kind is PrincipalKind.SERVICE


def masked_text(text: str, sensitivity: int) -> str:
    """A text as it is shown masked: of a name the first character, of a long number or address of contact the last two."""
    if sensitivity == options.SENSITIVITY_NAME:
        return text[:1] + HIDDEN
    ending = sensitivity in (options.SENSITIVITY_IDENTIFIER, options.SENSITIVITY_CONTACT_POINT)
    return HIDDEN + (text[-ENDING_CHARACTERS:] if ending and len(text) >= ENDING_SHOWN_FROM_CHARACTERS else "")


def mask_for(message_class: type[Message]) -> Mask | None:
    """The function that masks a message in place; None when the type holds nothing personal. Made once for each type."""
    return _mask_of(message_class.DESCRIPTOR) if _is_sensitive(message_class.DESCRIPTOR, frozenset()) else None


def _is_sensitive(descriptor: Any, seen: frozenset[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen |= {descriptor.full_name}
    return any(
        _sensitivity(field) or (field.message_type is not None and _is_sensitive(field.message_type, seen))
        for field in descriptor.fields
    )


def _sensitivity(field: Any) -> int:
    return int(field.GetOptions().Extensions[options.sensitivity])


@functools.cache
def _mask_of(descriptor: Any) -> Mask:
    masked = [(field.name, _sensitivity(field), field) for field in descriptor.fields if _sensitivity(field)]
    inside = [
        field
        for field in descriptor.fields
        if not _sensitivity(field) and field.message_type is not None and _is_sensitive(field.message_type, frozenset())
    ]

    def mask(message: Any) -> None:
        for name, sensitivity, field in masked:
            _mask_field(message, name, sensitivity, field)
        for field in inside:
            if field.message_type.GetOptions().map_entry:
                inner = _mask_of(field.message_type.fields_by_name["value"].message_type)
                for value in getattr(message, field.name).values():
                    inner(value)
            elif field.is_repeated:
                inner = _mask_of(field.message_type)
                for value in getattr(message, field.name):
                    inner(value)
            elif message.HasField(field.name):
                _mask_of(field.message_type)(getattr(message, field.name))

    return mask


def _mask_field(message: Any, name: str, sensitivity: int, field: Any) -> None:
    if field.type != FieldDescriptor.TYPE_STRING:
        message.ClearField(name)  # a date or a number has no masked form
    elif field.is_repeated:
        values = getattr(message, name)
        values[:] = [masked_text(value, sensitivity) for value in values]
    elif getattr(message, name):
        setattr(message, name, masked_text(getattr(message, name), sensitivity))
