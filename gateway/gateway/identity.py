"""Who calls: access tokens verified, and the short-lived internal token that carries the caller to the services."""

import base64
import binascii
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from chassis.identity import TOKEN_BYTES_MAX as INTERNAL_TOKEN_BYTES_MAX
from chassis.identity import InternalTokens, Principal, PrincipalKind
from gateway.contracts import Rpc
from gateway.issuers import Issuer, IssuerKeys, Key
from gateway.problems import Problem

TOKEN_BYTES_MAX = 8192
CACHED_TOKENS_MAX = 10_000
CACHE_SECONDS_MAX = 60.0
CLOCK_SKEW_SECONDS_MAX = 10
LIFETIME_SECONDS_MAX = 86_400
SUBJECT_CHARACTERS_MAX = 255
ROLES_MAX = 32
KEYS_UNREADABLE_RETRY_SECONDS = 10
SLUG = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]")
CLIENT = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
SCOPE = re.compile(r"[A-Za-z0-9_.:/-]{1,100}( [A-Za-z0-9_.:/-]{1,100})*")
CUSTOMER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
ROLE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Refused(ValueError):
    """Why a token is not accepted, for the caller's developer; never holds a part of the token."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller whose token was verified. `internal_token` goes to the services; `until` is in seconds of the monotonic clock."""

    principal: Principal
    internal_token: str
    until: float


class AccessTokens:
    """Verifies access tokens in the form of RFC 9068 and keeps those verified for at most 60 s, and never beyond their end."""

    def __init__(self, issuers: Iterable[Issuer], internal_tokens: InternalTokens) -> None:
        self.issuers = {issuer.issuer: IssuerKeys(issuer) for issuer in issuers}
        self._internal_tokens = internal_tokens
        self._callers: OrderedDict[bytes, Caller] = OrderedDict()

    @property
    def are_ready(self) -> bool:
        """Whether the keys of at least one issuer are known."""
        return any(keys.is_loaded for keys in self.issuers.values())

    def known(self, authorization: bytes) -> Caller | None:
        """The caller of an Authorization header that was verified lately."""
        caller = self._callers.get(authorization)
        return caller if caller is not None and time.monotonic() < caller.until else None

    async def verify(self, authorization: bytes | None) -> Caller:
        """The caller of an Authorization header.

        Raises:
            Problem: 401 with the reason; 503 when the issuer's keys cannot be had.
        """
        if authorization is None:
            raise unauthenticated("TOKEN_MISSING", "a bearer token is needed: Authorization: Bearer …")
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthenticated("TOKEN_MISSING", "the Authorization header must be Bearer and a token")
        try:
            caller = await self._verified(token.strip())
        except Refused as refused:
            raise unauthenticated("TOKEN_INVALID", str(refused)) from None
        self._callers[authorization] = caller
        if len(self._callers) > CACHED_TOKENS_MAX:
            self._callers.popitem(last=False)
        return caller

    async def _verified(self, token: str) -> Caller:
        if len(token) > TOKEN_BYTES_MAX:
            raise Refused(f"the token is longer than {TOKEN_BYTES_MAX} bytes")
        header, unverified = _parts(token)
        keys = self.issuers.get(_text(unverified, "iss", SUBJECT_CHARACTERS_MAX))
        if keys is None:
            raise Refused("the token's issuer (iss) is not one that this gateway trusts")
        issuer = keys.issuer
        _check_header(header, issuer)
        key = await keys.find(_key_id(header))
        if key is None and not keys.is_loaded:
            raise Problem(
                503, "ISSUER_UNAVAILABLE", "the issuer's keys cannot be read now", retry_seconds=KEYS_UNREADABLE_RETRY_SECONDS
            )
        if key is None:
            raise Refused("the issuer has no key with the token's kid")
        claims = _claims(token, key, str(header["alg"]))
        until = time.monotonic() + min(CACHE_SECONDS_MAX, _seconds_left(claims, issuer))
        principal = _principal(claims, issuer)
        internal = self._internal_tokens.sign(principal)
        if len(internal) > INTERNAL_TOKEN_BYTES_MAX:
            raise Refused("the token has more scopes and roles than can be carried on")
        return Caller(principal, internal, until)


def unauthenticated(reason: str, detail: str) -> Problem:
    """A 401, with the challenge of RFC 6750."""
    error = ', error="invalid_token"' if reason == "TOKEN_INVALID" else ""
    return Problem(401, reason, detail, headers=[(b"www-authenticate", f'Bearer realm="concord"{error}'.encode())])


class Admission:
    """Who may call one RPC, as its access option says."""

    def __init__(self, rpc: Rpc) -> None:
        self.kinds = frozenset(PrincipalKind(kind) for kind in rpc.access.kinds if kind)
        self.scopes = frozenset(rpc.access.scopes)

    def refusal(self, principal: Principal) -> Problem | None:
        """Why this caller may not; None when it may."""
        if principal.kind not in self.kinds:
            kinds = ", ".join(sorted(kind.name.lower() for kind in self.kinds if kind is not PrincipalKind.SERVICE))
            kind = principal.kind.name.lower()
            return Problem(
                403, "KIND_NOT_ADMITTED", f"a caller of kind {kind} may not do this; {kinds or 'no outside caller'} may"
            )
        if self.scopes and self.scopes.isdisjoint(principal.scopes):
            needed = " or ".join(sorted(self.scopes))
            challenge = f'Bearer realm="concord", error="insufficient_scope", scope="{" ".join(sorted(self.scopes))}"'
            return Problem(
                403,
                "SCOPE_MISSING",
                f"the token needs the scope {needed}",
                headers=[(b"www-authenticate", challenge.encode())],
                extra={"metadata": {"scope": needed}},
            )
        return None


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, not verified yet: they only say which issuer and key to verify with."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise Refused("the token is not a signed JSON Web Token")
    documents = []
    for part in parts[:2]:
        try:
            document = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
        except (ValueError, binascii.Error, RecursionError):
            raise Refused("the token is not a signed JSON Web Token") from None
        if not isinstance(document, dict):
            raise Refused("the token is not a signed JSON Web Token")
        documents.append(document)
    return documents[0], documents[1]


def _check_header(header: dict[str, Any], issuer: Issuer) -> None:
    if header.get("alg") not in issuer.algorithms:
        raise Refused(f"the token's algorithm (alg) must be one of {', '.join(issuer.algorithms)}")
    kind = str(header.get("typ", "")).lower().removeprefix("application/")
    if kind not in issuer.types:
        raise Refused(f"the token's type (typ) must be {' or '.join(issuer.types)}")
    if "crit" in header or header.get("b64") is False:
        raise Refused("the token's header asks for extensions (crit) that are not known here")


def _key_id(header: dict[str, Any]) -> str | None:
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise Refused("the token's key id (kid) must be text")
    return key_id


def _claims(token: str, key: Key, algorithm: str) -> dict[str, Any]:
    if key.alg not in (None, algorithm):
        raise Refused("the token's key is not for its algorithm (alg)")
    try:
        return jwt.decode(token, key, algorithms=[algorithm]).claims
    except (JoseError, ValueError, TypeError, KeyError):
        raise Refused("the token's signature is wrong") from None


def _seconds_left(claims: dict[str, Any], issuer: Issuer) -> float:
    """Checks for whom and when the token is good."""
    audience = claims.get("aud")
    if audience != issuer.audience and not (isinstance(audience, list) and issuer.audience in audience):
        raise Refused(f"the token's audience (aud) must be {issuer.audience}")
    now = time.time()
    expires_at, issued_at = _instant(claims, "exp"), _instant(claims, "iat")
    if now >= expires_at:
        raise Refused("the token has expired (exp)")
    if issued_at > now + CLOCK_SKEW_SECONDS_MAX:
        raise Refused("the token was issued in the future (iat)")
    if "nbf" in claims and _instant(claims, "nbf") > now + CLOCK_SKEW_SECONDS_MAX:
        raise Refused("the token is not valid yet (nbf)")
    if expires_at - issued_at > LIFETIME_SECONDS_MAX:
        raise Refused(f"the token is valid for more than {LIFETIME_SECONDS_MAX} seconds")
    if "cnf" in claims:
        raise Refused("the token is bound to a key (cnf), which this gateway cannot check yet")
    return expires_at - now


def _principal(claims: dict[str, Any], issuer: Issuer) -> Principal:
    """The caller that the claims name, if the issuer may speak for it."""
    renamed = dict(issuer.claims)

    def claim(name: str) -> Any:
        return claims.get(renamed.get(name, name))

    kind = _kind(claim("kind"), issuer)
    institution = claim("institution")
    if institution is None and issuer.institutions is not None and len(issuer.institutions) == 1:
        (institution,) = issuer.institutions
    if institution is None and kind is not PrincipalKind.OPERATOR:
        raise Refused("the token names no institution")
    if institution is not None and not (isinstance(institution, str) and SLUG.fullmatch(institution)):
        raise Refused("the token's institution must be an institution's id")
    if issuer.institutions is not None and institution not in issuer.institutions:
        raise Refused("the token's issuer may not speak for this institution")
    customer = claim("customer")
    if customer is not None and (kind is not PrincipalKind.CHANNEL or not _matches(CUSTOMER, customer)):
        raise Refused("the token's customer must be a customer's id, and only a channel may be bound to one")
    scope, roles = claim("scope") or "", claim("roles") or []
    if scope and not _matches(SCOPE, scope):
        raise Refused("the token's scope must be words with single spaces between them")
    if not isinstance(roles, list) or len(roles) > ROLES_MAX or not all(_matches(ROLE, role) for role in roles):
        raise Refused(f"the token's roles must be a list of at most {ROLES_MAX} words")
    client = claim("client_id")
    if not _matches(CLIENT, client):
        raise Refused("the token's client_id must be 1 to 128 letters, digits or . _ : @ -")
    return Principal(
        kind=kind,
        institution=institution,
        client=client,
        subject=_text(claims, renamed.get("sub", "sub"), SUBJECT_CHARACTERS_MAX),
        scopes=frozenset(scope.split()),
        roles=frozenset(roles),
        customer=customer,
    )


def _kind(value: Any, issuer: Issuer) -> PrincipalKind:
    if value is None and len(issuer.kinds) == 1:
        return next(iter(issuer.kinds))
    kind = next((kind for kind in issuer.kinds if isinstance(value, str) and kind.name.lower() == value.lower()), None)
    if kind is None:
        raise Refused("the token's kind is not one that its issuer may speak for")
    return kind


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _instant(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Refused(f"the token's {name} must be a number of seconds")
    return float(value)


def _text(claims: dict[str, Any], name: str, characters_max: int) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= characters_max:
        raise Refused(f"the token's {name} must be text of 1 to {characters_max} characters")
    return value
