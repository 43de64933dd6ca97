"""Access tokens of the local issuer, in the form of RFC 9068, and what each kind of caller may do by default."""

import json
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

from concord_local.state import ISSUER_ALGORITHM

TTL_SECONDS = 3_600
TTL_SECONDS_MAX = 86_400
# Shows personal fields unmasked; it belongs to no method, so it is not among those that the contracts name.
PERSONAL_SCOPE = "personal.read"
PERSONAL_KINDS = ("channel", "staff")


@dataclass(frozen=True)
class Caller:
    """Whom a token speaks for. `kind`: channel, partner, staff or operator; an operator may be of no institution."""

    kind: str
    client_id: str
    subject: str
    institution: str | None = None
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    customer: str | None = None


def access_token(key: ECKey, issuer: str, audience: str, caller: Caller, ttl_seconds: int = TTL_SECONDS) -> str:
    """A signed access token. Raises ValueError for a lifetime outside 1 to 86,400 seconds."""
    if not 1 <= ttl_seconds <= TTL_SECONDS_MAX:
        raise ValueError(f"ttl is {ttl_seconds} seconds; it must be from 1 to {TTL_SECONDS_MAX}")
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": issuer,
        "sub": caller.subject,
        "aud": audience,
        "client_id": caller.client_id,
        "iat": now,
        "exp": now + ttl_seconds,
        "jti": uuid.uuid4().hex,
        "kind": caller.kind,
        "scope": " ".join(sorted(caller.scopes)),
        "roles": sorted(caller.roles),
    }
    if caller.institution:
        claims["institution"] = caller.institution
    if caller.customer:
        claims["customer"] = caller.customer
    header = {"alg": ISSUER_ALGORITHM, "typ": "at+jwt", "kid": key.kid}
    return jwt.encode(header, claims, key, algorithms=[ISSUER_ALGORITHM])


def signing_key(path: Path) -> ECKey:
    """The issuer's private key."""
    return ECKey.import_key(json.loads(path.read_text()))


def default_scopes(kind: str) -> tuple[str, ...]:
    """Every scope of the methods that admit this kind of caller, as the contracts say it."""
    from google.protobuf import descriptor_pb2

    from concord.options.v1 import method_options_pb2

    wanted = method_options_pb2.PrincipalKind.Value(f"PRINCIPAL_KIND_{kind.upper()}")
    content = (resources.files("concord") / "descriptors.binpb").read_bytes()
    methods = (
        method.options.Extensions[method_options_pb2.access]
        for file in descriptor_pb2.FileDescriptorSet.FromString(content).file
        for service in file.service
        for method in service.method
    )
    scopes = {scope for access in methods if wanted in access.kinds for scope in access.scopes}
    return tuple(sorted(scopes | ({PERSONAL_SCOPE} if kind in PERSONAL_KINDS else set())))


def words(values: Iterable[str]) -> tuple[str, ...]:
    """The words of options that may be given several times, each with several words."""
    return tuple(sorted({word for value in values for word in value.replace(",", " ").split()}))
