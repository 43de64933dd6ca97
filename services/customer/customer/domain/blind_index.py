"""Keyed hashes of personal values: equal values are found, and nobody without the key can guess them.

Every key is derived by HKDF from one index key: one for matching over the whole alliance, which no caller can ask with, and
one for each institution, under which only its own records are found.
"""

import functools
import hashlib
import hmac
from collections.abc import Iterable

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


def _number(key: bytes, kind: str, value: str) -> int:
    hashed = hmac.digest(key, f"{kind}\0{value}".encode(), hashlib.sha256)
    return int.from_bytes(hashed[:LOOKUP_BYTES], "big", signed=True)


class BlindIndex:
    """Hashes values. Each kind of value has a space of its own."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"the index key must have at least {KEY_BYTES_MIN} bytes")
        self._key = derived_key(key, "source keys and contents")
        self._blocking_key = derived_key(key, "blocking")
        self._lookup_key = functools.lru_cache(INSTITUTION_KEYS_CACHED_MAX)(
            lambda institution_id: derived_key(key, f"lookup of {institution_id}")
        )

    def blocking(self, kind: str, value: str) -> int:
        """A key by which records of all institutions are matched; a PostgreSQL bigint."""
        return _number(self._blocking_key, kind, value)

    def blocking_keys(self, pairs: Iterable[tuple[str, str]]) -> set[int]:
        """The blocking keys of (kind, value) pairs."""
        return {_number(self._blocking_key, kind, value) for kind, value in pairs}

    def lookup(self, institution_id: str, kind: str, value: str) -> int:
        """A key by which an institution finds its own records; a PostgreSQL bigint."""
        return _number(self._lookup_key(institution_id), kind, value)

    def lookups(self, institution_id: str, pairs: Iterable[tuple[str, str]]) -> set[int]:
        """The look-up keys of (kind, value) pairs."""
        key = self._lookup_key(institution_id)
        return {_number(key, kind, value) for kind, value in pairs}

    def _hash(self, kind: str, value: str) -> bytes:
        return hmac.digest(self._key, f"{kind}\0{value}".encode(), hashlib.sha256)[:HASH_BYTES]

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
        return hmac.digest(self._key, b"content\0" + content, hashlib.sha256)[:HASH_BYTES]
