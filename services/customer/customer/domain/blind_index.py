"""Keyed hashes of personal values: equal values are found, and nobody without the key can guess them."""

import hashlib
import hmac

from customer.domain.identity_documents import issuing_country, plain

KEY_BYTES_MIN = 32
HASH_BYTES = 16
"""128 bits of HMAC-SHA256: no two values meet by chance, and an index stays small."""


class BlindIndex:
    """Hashes values under the alliance's index key. Each kind of value has a space of its own."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"the index key must have at least {KEY_BYTES_MIN} bytes")
        self._key = key

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
