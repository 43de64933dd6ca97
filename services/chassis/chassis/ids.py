"""Ids (UUIDv7) and resource names."""

import re
import uuid
from datetime import datetime

import uuid_utils

from chassis.errors import InvalidArgument

SLUG = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]")


def new_id() -> uuid.UUID:
    """A new UUIDv7: unique, and growing with time, so that new rows lie together in an index."""
    return uuid.UUID(int=uuid_utils.uuid7().int)


def new_id_bytes() -> bytes:
    """The 16 bytes of a new UUIDv7, where nothing else is asked of it."""
    made: bytes = uuid_utils.uuid7().bytes
    return made


def id_floor(instant: datetime) -> uuid.UUID:
    """The smallest UUIDv7 of an instant: every id made before it is smaller."""
    return uuid.UUID(int=(int(instant.timestamp() * 1000) << 80) | (0x7 << 76) | (0x2 << 62))


def parse_id(text: str, field: str) -> uuid.UUID:
    """The UUID in canonical text, or INVALID_ARGUMENT naming the field."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        value = None
    if value is None or str(value) != text:
        raise InvalidArgument(
            "ID_INVALID",
            f"{field} must be a UUID in lower case, such as 0190a0b0-0000-7000-8000-000000000000",
            field_violations=[(field, "must be a UUID in canonical text")],
        )
    return value


def resource_segments(name: str, *collections: str, field: str = "name") -> list[str]:
    """The ids in a resource name: `resource_segments("a/1/b/2", "a", "b")` is `["1", "2"]`.

    Raises:
        InvalidArgument: RESOURCE_NAME_INVALID, naming the field and the right form.
    """
    parts = name.split("/")
    if len(parts) != 2 * len(collections) or parts[0::2] != list(collections) or not all(parts[1::2]):
        form = "/".join(f"{collection}/{{{collection.rstrip('s')}}}" for collection in collections)
        raise InvalidArgument(
            "RESOURCE_NAME_INVALID",
            f"{field} must have the form {form}",
            field_violations=[(field, f"must have the form {form}")],
        )
    return parts[1::2]


def resource_id(name: str, collection: str, field: str = "name") -> uuid.UUID:
    """The UUID in a name such as `customers/{uuid}`.

    Raises:
        InvalidArgument: when the name has another form.
    """
    return parse_id(resource_segments(name, collection, field=field)[0], field)


def slug(text: str, field: str) -> str:
    """An id chosen by the caller, checked.

    Raises:
        InvalidArgument: SLUG_INVALID, naming the field and the rule.
    """
    if not SLUG.fullmatch(text):
        rule = "must be 3 to 40 characters a-z, 0-9 and -, beginning with a letter and not ending with -"
        raise InvalidArgument("SLUG_INVALID", f"{field} {rule}", field_violations=[(field, rule)])
    return text
