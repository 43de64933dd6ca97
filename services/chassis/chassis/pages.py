"""Opaque keyset page tokens, bound to the other arguments of the request and signed, so that stores may trust their keys."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from google.protobuf.message import DecodeError, Message

from chassis.errors import InvalidArgument
from concord.common.v1.page_token_pb2 import PageToken

TOKEN_CHARACTERS_MAX = 4096
HASH_BYTES = 16
_key = secrets.token_bytes(32)


def bind(secret: str) -> None:
    """Derives the key of this process's tokens from a secret that all replicas of the service share: its private key."""
    global _key
    _key = hashlib.blake2b(secret.encode(), person=b"page-token").digest()


def page_size(requested: int, default: int, maximum: int) -> int:
    """Rows in a page: the default for 0, never more than the maximum (AIP-158).

    Raises:
        InvalidArgument: PAGE_SIZE_INVALID, when negative.
    """
    if requested < 0:
        rule = "must not be negative; 0 means the default"
        raise InvalidArgument("PAGE_SIZE_INVALID", f"page_size {rule}", field_violations=[("page_size", rule)])
    return min(requested or default, maximum)


def encode(keys: Sequence[str], request: Message) -> str:
    """The token of the page after the row with these sort keys."""
    token = PageToken(arguments_hash=_signature(request, keys), keys=keys)
    return base64.urlsafe_b64encode(token.SerializeToString(deterministic=True)).rstrip(b"=").decode()


def decode(page_token: str, request: Message) -> list[str]:
    """The sort keys in a token; none for the first page.

    Raises:
        InvalidArgument: PAGE_TOKEN_INVALID, when it is not ours, or other arguments changed since.
    """
    if not page_token:
        return []
    try:
        if len(page_token) > TOKEN_CHARACTERS_MAX:
            raise ValueError("too long")
        content = base64.b64decode(page_token + "=" * (-len(page_token) % 4), altchars=b"-_", validate=True)
        token = PageToken.FromString(content)
    except (DecodeError, binascii.Error, ValueError):
        raise _invalid() from None
    if not hmac.compare_digest(token.arguments_hash, _signature(request, token.keys)) or not token.keys:
        raise _invalid()
    return list(token.keys)


def _signature(request: Message, keys: Sequence[str]) -> bytes:
    arguments = type(request)()
    arguments.CopyFrom(request)
    for field in ("page_token", "page_size"):
        if field in arguments.DESCRIPTOR.fields_by_name:
            arguments.ClearField(field)
    parts = (request.DESCRIPTOR.full_name.encode(), PageToken(keys=keys).SerializeToString(deterministic=True))
    content = b"".join(len(part).to_bytes(4, "big") + part for part in parts) + arguments.SerializeToString(deterministic=True)
    return hashlib.blake2b(content, digest_size=HASH_BYTES, key=_key).digest()


def _invalid() -> InvalidArgument:
    rule = "must be the next_page_token of the page before, with all other arguments (except page_size) unchanged"
    return InvalidArgument("PAGE_TOKEN_INVALID", f"page_token {rule}", field_violations=[("page_token", rule)])
