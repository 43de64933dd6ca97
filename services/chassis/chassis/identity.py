"""Who calls: principals, and the short-lived signed tokens that carry them between processes."""

import contextvars
import enum
import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from chassis.config import Settings, text_or_file
from chassis.errors import NotFound, Unauthenticated

METADATA_KEY = "concord-identity"
GATEWAY = "gateway"
ALGORITHM = "Ed25519"
TOKEN_SECONDS = 300
CLOCK_SKEW_SECONDS_MAX = 10
CACHE_SECONDS_MAX = 60
CACHED_TOKENS_MAX = 10_000
TOKEN_BYTES_MAX = 4096


class PrincipalKind(enum.IntEnum):
    """Kinds of callers, numbered as in `concord.options.v1.PrincipalKind`."""

    CHANNEL = 1
    PARTNER = 2
    STAFF = 3
    SERVICE = 4
    OPERATOR = 5


ALL_SEEING = frozenset({PrincipalKind.SERVICE, PrincipalKind.OPERATOR})


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. `institution` is the one it acts for, `customer` the only customer it may touch when it is bound to one."""

    kind: PrincipalKind
    institution: str | None
    client: str
    subject: str
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    customer: str | None = None
    caller: str = field(init=False)
    """`institution/client`: whose request ids these are."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "caller", f"{self.institution or '-'}/{self.client}")

    @property
    def sees_all(self) -> bool:
        """Whether this caller may see objects of every institution."""
        return self.kind in ALL_SEEING


_principal: contextvars.ContextVar[Principal | None] = contextvars.ContextVar("principal", default=None)
_token: contextvars.ContextVar[str | None] = contextvars.ContextVar("token", default=None)


def current_principal() -> Principal:
    """The caller of the RPC that is being served.

    Raises:
        Unauthenticated: when there is none.
    """
    principal = _principal.get()
    if principal is None:
        raise Unauthenticated("IDENTITY_MISSING", "this needs a caller, and there is none")
    return principal


def current_token() -> str | None:
    """The caller's internal token, to be carried on; None in background work."""
    return _token.get()


def set_caller(principal: Principal | None, token: str | None) -> None:
    """Sets the caller for the rest of this task."""
    _principal.set(principal)
    _token.set(token)


@contextmanager
def as_caller(principal: Principal | None, token: str | None = None) -> Iterator[None]:
    """Acts for a caller inside the block. With `None`, outgoing calls carry the service's own identity."""
    before = _principal.set(principal), _token.set(token)
    try:
        yield
    finally:
        _principal.reset(before[0])
        _token.reset(before[1])


def require_institution(principal: Principal, institution_id: str) -> None:
    """Another institution's object does not exist for this caller.

    Raises:
        NotFound: INSTITUTION_NOT_FOUND.
    """
    if principal.institution != institution_id and not principal.sees_all:
        raise NotFound("INSTITUTION_NOT_FOUND", f"institutions/{institution_id} does not exist, or is not yours")


def generate_key(issuer: str) -> tuple[dict[str, str], dict[str, str]]:
    """A new (private, public) key of an issuer as JSON Web Keys; `kid` is the issuer's name."""
    key = OKPKey.generate_key("Ed25519", {"kid": issuer, "alg": ALGORITHM, "use": "sig"})
    return dict(key.as_dict(private=True)), dict(key.as_dict(private=False))  # type: ignore[arg-type]


class InternalTokens:
    """Signs and verifies internal tokens. `issuer` is this process's own name, the `kid` of its key."""

    def __init__(self, issuer: str, public_keys: str, private_key: str | None = None) -> None:
        self.issuer = issuer
        self._keys = {key["kid"]: OKPKey.import_key(key) for key in json.loads(public_keys)["keys"]}
        self._private_key = OKPKey.import_key(json.loads(private_key)) if private_key else None
        self._verified: OrderedDict[str, tuple[Principal, float]] = OrderedDict()
        self._own: tuple[str, float] = ("", 0.0)

    @classmethod
    def from_settings(cls, issuer: str, settings: Settings) -> "InternalTokens":
        """The tokens of a service, with the keys from its settings."""
        private_key = settings.identity_private_key
        return cls(issuer, text_or_file(settings.identity_keys), text_or_file(private_key) if private_key else None)

    def public_keys(self) -> list[dict[str, str]]:
        """The public keys this process trusts, as JSON Web Keys."""
        return [{key: str(value) for key, value in each.as_dict(private=False).items()} for each in self._keys.values()]

    def sign(self, principal: Principal) -> str:
        """A token for a principal, valid for 300 seconds."""
        if self._private_key is None:
            raise ValueError("CONCORD_IDENTITY_PRIVATE_KEY is needed to sign tokens")
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "sub": principal.subject,
            "kind": principal.kind.name,
            "client": principal.client,
            "scope": " ".join(sorted(principal.scopes)),
            "roles": sorted(principal.roles),
        }
        if principal.institution is not None:
            claims["institution"] = principal.institution
        if principal.customer is not None:
            claims["customer"] = principal.customer
        return jwt.encode({"alg": ALGORITHM, "kid": self.issuer}, claims, self._private_key, algorithms=[ALGORITHM])

    def own(self) -> str:
        """The token of this service itself, for calls that no caller asked for; renewed at half its life."""
        token, renew_at = self._own
        if time.monotonic() >= renew_at:
            token = self.sign(Principal(PrincipalKind.SERVICE, None, self.issuer, self.issuer))
            self._own = token, time.monotonic() + TOKEN_SECONDS / 2
        return token

    def verify(self, token: str) -> Principal:
        """The principal of a token.

        Raises:
            Unauthenticated: IDENTITY_INVALID, for every cause alike.
        """
        cached = self._verified.get(token)
        if cached is not None and time.monotonic() < cached[1]:
            return cached[0]
        try:
            principal, expires_at = self._checked(token)
        except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unauthenticated("IDENTITY_INVALID", "the internal identity token is not valid") from error
        seconds = min(CACHE_SECONDS_MAX, expires_at - time.time())
        self._verified[token] = principal, time.monotonic() + seconds
        if len(self._verified) > CACHED_TOKENS_MAX:
            self._verified.popitem(last=False)
        return principal

    def _checked(self, token: str) -> tuple[Principal, float]:
        if len(token) > TOKEN_BYTES_MAX:
            raise ValueError("too long")
        decoded = jwt.decode(token, lambda guest: self._keys[guest.headers()["kid"]], algorithms=[ALGORITHM])
        claims, issuer = decoded.claims, decoded.header["kid"]
        now = time.time()
        expires_at, issued_at = float(claims["exp"]), float(claims["iat"])
        if now >= expires_at or issued_at > now + CLOCK_SKEW_SECONDS_MAX or expires_at - issued_at > TOKEN_SECONDS:
            raise ValueError("outside its time")
        if claims["iss"] != issuer:
            raise ValueError("another issuer than the key's")
        principal = Principal(
            kind=PrincipalKind[claims["kind"]],
            institution=_text(claims.get("institution")),
            client=str(claims["client"]),
            subject=str(claims["sub"]),
            scopes=frozenset(claims["scope"].split()),
            roles=frozenset(map(str, claims["roles"])),
            customer=_text(claims.get("customer")),
        )
        own_name = principal.kind is PrincipalKind.SERVICE and principal.client == issuer and principal.institution is None
        if issuer != GATEWAY and not own_name:
            raise ValueError("a service speaks only for itself")
        return principal, expires_at


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("must be text")
    return value
