"""Keyed hashes of personal values: equal values are found, and nobody without the key can guess them.

Every key is derived by HKDF from one index key: one for matching over the whole alliance, which no caller can ask with, and
one for each institution, under which only its own records are found.
"""

import functools
import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from customer.domain.identity_documents import issuing_country, plain

KEY_BYTES_MIN = 32
HASH_BYTES = 16
"""128 bits of HMAC-SHA256: no two values meet by chance, and an index stays small."""
LOOKUP_BYTES = 8
"""A bigint: what is found by it is compared in clear before it counts."""
INSTITUTION_KEYS_CACHED_MAX = 10_000


def derived_key(index_key: bytes, purpose: str) -> bytes:
    """A key for one purpose; it tells nothing about the others."""
    return HKDF(SHA256(), KEY_BYTES_MIN, salt=None, info=f"concord customer {purpose}".encode()).derive(index_key)


class _Mac:
    """HMAC-SHA256 under one key. What depends on the key alone is hashed once: that makes it three times as fast."""

    def __init__(self, key: bytes) -> None:
        block = key.ljust(hashlib.sha256().block_size, b"\0")
        self._inner: Callable[[], Any] = hashlib.sha256(bytes(byte ^ 0x36 for byte in block)).copy
        self._outer: Callable[[], Any] = hashlib.sha256(bytes(byte ^ 0x5C for byte in block)).copy

    def digest(self, message: bytes) -> bytes:
        """The code of a message, all 32 bytes."""
        inner, outer = self._inner(), self._outer()
        inner.update(message)
        outer.update(inner.digest())
        code: bytes = outer.digest()
        return code

    def numbers(self, pairs: Iterable[tuple[str, str]]) -> list[int]:
        """A bigint for each (kind, value)."""
        return [_first_number(self.digest(f"{kind}\0{value}".encode()))[0] for kind, value in pairs]


_first_number = struct.Struct(f">q{hashlib.sha256().digest_size - LOOKUP_BYTES}x").unpack


class BlindIndex:
    """Hashes values. Each kind of value has a space of its own."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"the index key must have at least {KEY_BYTES_MIN} bytes")
        self._mac = _Mac(derived_key(key, "source keys and contents"))
        self._blocking_mac = _Mac(derived_key(key, "blocking"))
        self._lookup_mac = functools.lru_cache(INSTITUTION_KEYS_CACHED_MAX)(
            lambda institution_id: _Mac(derived_key(key, f"lookup of {institution_id}"))
        )

    def blocking(self, kind: str, value: str) -> int:
        """A key by which records of all institutions are matched; a PostgreSQL bigint."""
        return self.blocking_keys([(kind, value)])[0]

    def blocking_keys(self, pairs: Iterable[tuple[str, str]]) -> list[int]:
        """The blocking keys of (kind, value) pairs, in order."""
        return self._blocking_mac.numbers(pairs)

    def lookup(self, institution_id: str, kind: str, value: str) -> int:
        """A key by which an institution finds its own records; a PostgreSQL bigint."""
        return self._lookup_mac(institution_id).numbers([(kind, value)])[0]

    def lookups(self, institution_id: str, pairs: Iterable[tuple[str, str]]) -> set[int]:
        """The look-up keys of (kind, value) pairs."""
        return set(self._lookup_mac(institution_id).numbers(pairs))

    def _hash(self, kind: str, value: str) -> bytes:
        return self._mac.digest(f"{kind}\0{value}".encode())[:HASH_BYTES]

    def source_key(self, source_system: str, key: str) -> bytes:
        """A source's own key of a record or holding; the source system is its resource name."""
        return self._hash(source_system, key)

    def document(self, scheme: int, country_code: str, number: str) -> bytes:
        """A valid identity document in its standard form."""
        return self._hash("document", f"{scheme:d}\0{issuing_country(scheme, country_code)}\0{number}")

    def identifier(self, number: str) -> bytes:
        """The number of a document in any scheme."""
        return self._hash("identifier", plain(number))

    def phone(self, number: str) -> bytes:
        """A telephone number in its standard form."""
        return self._hash("phone", number)

    def email(self, address: str) -> bytes:
        """An e-mail address; the case of its letters does not count."""
        return self._hash("email", address.casefold())

    def content(self, content: bytes) -> bytes:
        """What a source said. Keyed, because a short content could be guessed from a plain hash."""
        return self._mac.digest(b"content\0" + content)[:HASH_BYTES]
