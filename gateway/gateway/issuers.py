"""The issuers of access tokens that this gateway trusts, for whom each may speak, and their keys."""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from chassis.identity import PrincipalKind

logger = logging.getLogger(__name__)

ALGORITHMS = ("ES256", "ES384", "Ed25519", "EdDSA", "PS256", "RS256")
TYPES = ("at+jwt",)
KINDS = frozenset({PrincipalKind.CHANNEL, PrincipalKind.PARTNER, PrincipalKind.STAFF, PrincipalKind.OPERATOR})
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
RSA_BITS_MIN = 2048
KEYS_MAX = 50
KEY_SET_BYTES_MAX = 256 << 10
FETCH_SECONDS_MAX = 5.0
REFRESH_SECONDS = 600.0
RETRY_SECONDS = 10.0

Key = ECKey | OKPKey | RSAKey
KEY_CLASSES: dict[str, type[ECKey] | type[OKPKey] | type[RSAKey]] = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}


class IssuerError(ValueError):
    """The file of issuers is wrong; the text says where and what would be right."""


@dataclass(frozen=True)
class Issuer:
    """An issuer, and for whom it may speak. `institutions` None means all. Its keys are at `source`, a file or an address."""

    issuer: str
    audience: str
    source: str
    institutions: frozenset[str] | None
    kinds: frozenset[PrincipalKind]
    algorithms: tuple[str, ...] = ALGORITHMS
    types: tuple[str, ...] = TYPES
    claims: tuple[tuple[str, str], ...] = ()

    @property
    def is_remote(self) -> bool:
        """Whether the keys are fetched over the network."""
        return "://" in self.source


def read(setting: str) -> list[Issuer]:
    """The issuers from JSON text or the path of a file with it: a list of
    `{issuer, audience, jwks_file | jwks_url, institutions, kinds, algorithms?, types?, claims?}`.

    Raises:
        IssuerError: it cannot be read, or an issuer lacks what it needs.
    """
    try:
        text = setting if setting.lstrip().startswith("[") else Path(setting).read_text(encoding="utf-8")
        entries = json.loads(text)
    except (OSError, ValueError) as error:
        raise IssuerError(f"{type(error).__name__}; it must be a JSON list of issuers, or the path of a file with one") from None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise IssuerError("it must be a JSON list with at least one issuer")
    issuers = [_issuer(index, entry) for index, entry in enumerate(entries)]
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise IssuerError("an issuer is there twice")
    return issuers


def _issuer(index: int, entry: dict[str, Any]) -> Issuer:
    known = {"issuer", "audience", "jwks_file", "jwks_url", "institutions", "kinds", "algorithms", "types", "claims"}
    if unknown := sorted(set(entry) - known):
        raise IssuerError(f"issuer {index}: {', '.join(unknown)} is not known; known are {', '.join(sorted(known))}")
    for name in ("issuer", "audience"):
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise IssuerError(f"issuer {index}: {name} is missing")
    if ("jwks_file" in entry) == ("jwks_url" in entry):
        raise IssuerError(f"issuer {index}: one of jwks_file and jwks_url is needed")
    institutions = _texts(index, entry, "institutions")
    kinds = {kind.lower() for kind in _texts(index, entry, "kinds")}
    if bad := sorted(kinds - {kind.name.lower() for kind in KINDS}):
        raise IssuerError(f"issuer {index}: kind {', '.join(bad)} is not one of channel, partner, staff, operator")
    algorithms = _texts(index, entry, "algorithms") if "algorithms" in entry else ALGORITHMS
    if bad := sorted(set(algorithms) - set(ALGORITHMS)):
        raise IssuerError(f"issuer {index}: algorithm {', '.join(bad)} is not one of {', '.join(ALGORITHMS)}")
    claims = entry.get("claims", {})
    if not isinstance(claims, dict) or not all(isinstance(name, str) for name in claims.values()):
        raise IssuerError(f"issuer {index}: claims must say, for one of ours, what the issuer calls it")
    return Issuer(
        issuer=entry["issuer"],
        audience=entry["audience"],
        source=_source(index, entry),
        institutions=None if "*" in institutions else frozenset(institutions),
        kinds=frozenset(PrincipalKind[kind.upper()] for kind in kinds),
        algorithms=tuple(algorithms),
        types=tuple(name.lower() for name in (_texts(index, entry, "types") if "types" in entry else TYPES)),
        claims=tuple(sorted(claims.items())),
    )


def _texts(index: int, entry: dict[str, Any], name: str) -> tuple[str, ...]:
    given = entry.get(name)
    if not isinstance(given, list) or not given or not all(isinstance(text, str) and text for text in given):
        raise IssuerError(f"issuer {index}: {name} must be a list of texts, and not empty")
    return tuple(given)


def _source(index: int, entry: dict[str, Any]) -> str:
    if "jwks_file" in entry:
        return str(entry["jwks_file"])
    address = urlsplit(str(entry["jwks_url"]))
    if address.scheme != "https" and not (address.scheme == "http" and address.hostname in LOOPBACK):
        raise IssuerError(f"issuer {index}: jwks_url must begin with https://")
    return str(entry["jwks_url"])


class IssuerKeys:
    """The public keys of one issuer: read at first use, again every ten minutes, and at once for an unknown key id."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.is_loaded = False
        self._keys: dict[str | None, Key] = {}
        self._refresh_at = 0.0
        self._unknown_at = 0.0

    async def find(self, key_id: str | None) -> Key | None:
        """The key with an id; without an id the only key there is. None: the issuer has no such key."""
        now = time.monotonic()
        if now >= self._refresh_at:
            await self.refresh()
        key = self._pick(key_id)
        if key is None and now >= self._unknown_at:
            self._unknown_at = now + RETRY_SECONDS  # a flood of unknown ids must not become a flood at the issuer
            await self.refresh()
            key = self._pick(key_id)
        return key

    def _pick(self, key_id: str | None) -> Key | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    async def refresh(self) -> None:
        """Reads the keys. A failure is logged and leaves the keys that are known."""
        self._refresh_at = time.monotonic() + RETRY_SECONDS
        try:
            self._keys = usable(await self._content())
        except (OSError, ValueError, httpx.HTTPError, JoseError) as error:
            logger.warning("keys of issuer %s cannot be read: %s", self.issuer.issuer, type(error).__name__)
            return
        self.is_loaded = True
        self._refresh_at = time.monotonic() + REFRESH_SECONDS

    async def _content(self) -> bytes:
        if not self.issuer.is_remote:
            return Path(self.issuer.source).read_bytes()
        content = b""
        async with (
            httpx.AsyncClient(timeout=FETCH_SECONDS_MAX, follow_redirects=False, trust_env=False) as client,
            client.stream("GET", self.issuer.source) as response,
        ):
            response.raise_for_status()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > KEY_SET_BYTES_MAX:
                    raise ValueError("the key set is too large")
        return content


def usable(content: bytes) -> dict[str | None, Key]:
    """The keys of a JSON Web Key Set that may verify signatures, by id: no secrets shared with us, no short RSA keys.

    Raises:
        ValueError: it is no key set, or has no usable key.
    """
    document = json.loads(content)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > KEYS_MAX:
        raise ValueError("not a JSON Web Key Set")
    keys: dict[str | None, Key] = {}
    for entry in entries:
        key = _usable_key(entry) if isinstance(entry, dict) and entry.get("use", "sig") == "sig" else None
        if key is not None:
            keys[key.kid] = key
    if not keys:
        raise ValueError("no usable key")
    return keys


def _usable_key(entry: dict[str, Any]) -> Key | None:
    """A key of a key set; None for one of a kind that is not used here, which must not spoil the others."""
    key_class = KEY_CLASSES.get(str(entry.get("kty")))
    is_short = key_class is RSAKey and len(str(entry.get("n", ""))) * 6 < RSA_BITS_MIN  # base64 has six bits in a character
    if key_class is None or is_short:
        return None
    try:
        return key_class.import_key(entry)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
