"""Access tokens: what is accepted, what is refused and why, caching, keys by file and by address."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route

from chassis.identity import InternalTokens, PrincipalKind, generate_key
from gateway import issuers, testing
from gateway.identity import AccessTokens
from gateway.issuers import IssuerError
from gateway.problems import Problem

PRIVATE, PUBLIC = generate_key("gateway")
INTERNAL = InternalTokens("gateway", json.dumps({"keys": [PUBLIC]}), json.dumps(PRIVATE))


@pytest.fixture
def issuer(tmp_path):
    return testing.Issuer(tmp_path)


def verifier(issuer, **changed):
    entry = json.loads(issuer.setting())[0] | changed
    return AccessTokens(issuers.read(json.dumps([{k: v for k, v in entry.items() if v is not None}])), INTERNAL)


def bearer(token):
    return f"Bearer {token}".encode()


def b64(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(issuer, header=None, claims=None, key=None, algorithm="ES256"):
    head = {"alg": algorithm, "typ": "at+jwt", "kid": issuer.key.kid} | (header or {})
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(head, claims or issuer.claims(), key or issuer.key, algorithms=[algorithm], default_type=None)


async def test_a_good_token_becomes_a_caller(issuer):
    tokens = verifier(issuer)
    customer = "0190c1c0-0000-7000-8000-000000000001"
    token = issuer.token(scope="customer.read points.read", roles=["approver"], customer=customer)
    caller = await tokens.verify(bearer(token))
    p = INTERNAL.verify(caller.internal_token)
    assert p == caller.principal
    assert (p.kind, p.institution, p.client, p.subject) == (PrincipalKind.CHANNEL, "northbank", "tests", "tester")
    assert p.scopes == {"customer.read", "points.read"}
    assert (set(p.roles), p.customer) == ({"approver"}, customer)
    assert tokens.known(bearer(token)) is caller


@pytest.mark.parametrize("kind", ["staff", "partner", "STAFF"])
async def test_kinds(issuer, kind):
    caller = await verifier(issuer).verify(bearer(issuer.token(kind=kind)))
    assert caller.principal.kind is PrincipalKind[kind.upper()]


async def test_an_operator_needs_no_institution(issuer):
    caller = await verifier(issuer).verify(bearer(issuer.token(kind="operator", institution=None)))
    assert (caller.principal.kind, caller.principal.institution) == (PrincipalKind.OPERATOR, None)


NOW = int(time.time())  # of the import: a long run of tests reaches this one much later
LATER = NOW + 7_200
BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.test"},
    "no issuer": {"iss": None},
    "issuer is no text": {"iss": ["https://issuer.test"]},
    "another audience": {"aud": "other"},
    "audiences without ours": {"aud": ["a", "b"]},
    "no audience": {"aud": None},
    "expired": {"exp": NOW - 1, "iat": NOW - 100},
    "expired by less than a usual leeway": {"exp": NOW - 5, "iat": NOW - 100},
    "no end": {"exp": None},
    "end is text": {"exp": str(LATER)},
    "end is true": {"exp": True},
    "end is no number": {"exp": float("nan")},
    "lives too long": {"exp": NOW + 100_000},
    "not valid yet": {"nbf": LATER, "exp": LATER + 600},
    "issued in the future": {"iat": LATER, "exp": LATER + 600},
    "no time of issue": {"iat": None},
    "bound to a key": {"cnf": {"jkt": "x"}},
    "no kind": {"kind": None},
    "unknown kind": {"kind": "admin"},
    "a service": {"kind": "service"},
    "kind is no text": {"kind": 1},
    "no institution": {"institution": None},
    "institution is no id": {"institution": "North Bank"},
    "institution is no text": {"institution": ["northbank"]},
    "customer is no id": {"customer": "1 OR 1=1"},
    "staff bound to a customer": {"kind": "staff", "customer": "0190c1c0-0000-7000-8000-000000000001"},
    "no subject": {"sub": None},
    "subject too long": {"sub": "x" * 256},
    "no client": {"client_id": None},
    "client that could pretend": {"client_id": "a/b"},
    "client with a line end": {"client_id": "a\nb"},
    "scope is a list": {"scope": ["customer.read"]},
    "scope with quotes": {"scope": 'a"b'},
    "roles are text": {"roles": "approver"},
    "too many roles": {"roles": ["r"] * 33},
    "role is no text": {"roles": [1]},
    "more than can be carried": {"scope": " ".join(f"scope-number-{index}" for index in range(400))},
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
async def test_bad_claims(issuer, name):
    tokens = verifier(issuer)
    token = issuer.token(**BAD_CLAIMS[name])
    with pytest.raises(Problem) as refused:
        await tokens.verify(bearer(token))
    assert (refused.value.status, refused.value.reason) == (401, "TOKEN_INVALID")
    assert tokens.known(bearer(token)) is None
    assert ('error="invalid_token"' in refused.value.headers[0][1].decode()) is True


def hmac_with_public_key(issuer):
    head = b64({"alg": "HS256", "typ": "at+jwt", "kid": issuer.key.kid}) + "." + b64(issuer.claims())
    secret = json.dumps(issuer.key.as_dict(private=False)).encode()
    return head + "." + b64(hmac.new(secret, head.encode(), hashlib.sha256).digest())


def hmac_with_public_pem(issuer):
    head = b64({"alg": "HS256", "typ": "at+jwt", "kid": issuer.key.kid}) + "." + b64(issuer.claims())
    return head + "." + b64(hmac.new(issuer.key.as_pem(private=False), head.encode(), hashlib.sha256).digest())


def other_payload(issuer):
    head, _, signature = issuer.token().split(".")
    return f"{head}.{b64(issuer.claims(institution='southbank'))}.{signature}"


BAD_TOKENS = {
    "not a token": lambda i: "abc",
    "two parts": lambda i: "a.b",
    "four parts": lambda i: i.token() + ".x",
    "parts are no JSON": lambda i: "!!.??.x",
    "header is a list": lambda i: f"{b64([])}.{b64({})}.x",
    "too long": lambda i: i.token(sub="x" * 9000),
    "alg none": lambda i: f"{b64({'alg': 'none', 'typ': 'at+jwt'})}.{b64(i.claims())}.x",
    "alg none, no signature": lambda i: f"{b64({'alg': 'none', 'typ': 'at+jwt'})}.{b64(i.claims())}.",
    "no alg": lambda i: f"{b64({'typ': 'at+jwt'})}.{b64(i.claims())}.x",
    "alg is a list": lambda i: f"{b64({'alg': ['ES256'], 'typ': 'at+jwt'})}.{b64(i.claims())}.x",
    "HMAC with the public key": hmac_with_public_key,
    "HMAC with the public key as PEM": hmac_with_public_pem,
    "HMAC with an own secret": lambda i: signed(i, key=OctKey.import_key("s" * 32), algorithm="HS256"),
    "another algorithm than the key's": lambda i: signed(i, key=RSAKey.generate_key(2048), algorithm="RS256"),
    "no typ": lambda i: signed(i, {"typ": None}),
    "typ of an id token": lambda i: signed(i, {"typ": "JWT"}),
    "another key of the same id": lambda i: signed(i, key=ECKey.generate_key("P-256")),
    "unknown key id": lambda i: signed(i, {"kid": "other"}),
    "key id is no text": lambda i: f"{b64({'alg': 'ES256', 'typ': 'at+jwt', 'kid': 1})}.{b64(i.claims())}.x",
    "key brought along": lambda i: signed(
        i, {"kid": "other", "jwk": (k := ECKey.generate_key("P-256")).as_dict(private=False)}, key=k
    ),
    "crit": lambda i: f"{b64({'alg': 'ES256', 'typ': 'at+jwt', 'kid': 'test-1', 'crit': ['x'], 'x': 1})}.{b64(i.claims())}.x",
    "changed payload": other_payload,
    "changed signature": lambda i: i.token()[:-8] + "AAAAAAAA",
    "no signature": lambda i: i.token().rpartition(".")[0] + ".",
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_bad_tokens(issuer, name):
    with pytest.raises(Problem) as refused:
        await verifier(issuer).verify(bearer(BAD_TOKENS[name](issuer)))
    assert (refused.value.status, refused.value.reason) == (401, "TOKEN_INVALID")


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"token"])
async def test_no_token(issuer, header):
    with pytest.raises(Problem) as refused:
        await verifier(issuer).verify(header)
    assert (refused.value.status, refused.value.reason) == (401, "TOKEN_MISSING")
    assert refused.value.headers == [(b"www-authenticate", b'Bearer realm="concord"')]


async def test_an_issuer_speaks_only_for_its_own(issuer):
    tokens = verifier(issuer, institutions=["northbank"], kinds=["channel"])
    caller = await tokens.verify(bearer(issuer.token(institution=None, kind=None)))
    assert (caller.principal.institution, caller.principal.kind) == ("northbank", PrincipalKind.CHANNEL)
    for claims in ({"institution": "southbank"}, {"kind": "operator", "institution": None}, {"kind": "staff"}):
        with pytest.raises(Problem):
            await tokens.verify(bearer(issuer.token(**claims)))


async def test_an_operator_of_a_bound_issuer_is_of_its_institution(issuer):
    tokens = verifier(issuer, institutions=["northbank", "southbank"], kinds=["operator"])
    with pytest.raises(Problem):
        await tokens.verify(bearer(issuer.token(kind="operator", institution=None)))


async def test_claims_may_have_other_names(issuer):
    tokens = verifier(issuer, claims={"institution": "https://bank.test/org", "client_id": "azp"})
    token = issuer.token(institution=None, client_id=None, azp="mobile", **{"https://bank.test/org": "northbank"})
    assert (await tokens.verify(bearer(token))).principal.caller == "northbank/mobile"


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (lambda: OKPKey.generate_key("Ed25519", {"kid": "k"}), "Ed25519"),
        (lambda: ECKey.generate_key("P-384", {"kid": "k"}), "ES384"),
        (lambda: RSAKey.generate_key(2048, {"kid": "k"}), "PS256"),
        (lambda: RSAKey.generate_key(2048, {"kid": "k"}), "RS256"),
    ],
)
async def test_other_algorithms(issuer, make, algorithm):
    issuer.key = make()
    caller = await verifier(issuer).verify(bearer(signed(issuer, algorithm=algorithm)))
    assert caller.principal.institution == "northbank"


async def test_a_verified_token_is_kept_no_longer_than_it_is_good(issuer, monkeypatch):
    tokens = verifier(issuer)
    token = bearer(issuer.token())
    short = bearer(issuer.token(exp=int(time.time()) + 5))
    await tokens.verify(token)
    await tokens.verify(short)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 6)
    assert tokens.known(token) is not None
    assert tokens.known(short) is None
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert tokens.known(token) is None


async def test_a_rotated_key_is_found_and_a_flood_of_unknown_ids_is_not(issuer, monkeypatch):
    tokens = verifier(issuer)
    await tokens.verify(bearer(issuer.token()))
    keys = tokens.issuers[testing.ISSUER]
    reads = []
    original = keys.refresh

    async def counted():
        reads.append(1)
        await original()

    monkeypatch.setattr(keys, "refresh", counted)
    issuer.key = ECKey.generate_key("P-256", {"kid": "test-2", "alg": "ES256", "use": "sig"})
    issuer.setting()  # writes the key set with the new key
    await tokens.verify(bearer(issuer.token()))
    for _ in range(5):
        with pytest.raises(Problem):
            await tokens.verify(bearer(signed(issuer, {"kid": "unknown"})))
    assert len(reads) == 1


async def served_keys(answer):
    config = uvicorn.Config(Starlette(routes=[Route("/jwks", answer)]), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    return server, serving, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/jwks"


@pytest.mark.parametrize("case", ["good", "error", "redirect", "large", "no keys", "short key", "shared secret"])
async def test_keys_by_address(issuer, case):
    good = {"keys": [issuer.key.as_dict(private=False)]}
    contents = {
        "good": good,
        "large": good | {"x": "x" * 300_000},
        "no keys": {"keys": []},
        "short key": {"keys": [{"kty": "RSA", "n": "AQAB" * 30, "e": "AQAB", "kid": "test-1"}]},
        "shared secret": {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "test-1"}]},
    }

    async def answer(_):
        if case == "redirect":
            return RedirectResponse("/elsewhere")
        return JSONResponse(contents.get(case), 500 if case == "error" else 200)

    server, serving, url = await served_keys(answer)
    try:
        tokens = verifier(issuer, jwks_file=None, jwks_url=url)
        if case == "good":
            assert (await tokens.verify(bearer(issuer.token()))).principal.institution == "northbank"
            assert tokens.are_ready
        else:
            with pytest.raises(Problem) as refused:
                await tokens.verify(bearer(issuer.token()))
            assert (refused.value.status, refused.value.reason) == (503, "ISSUER_UNAVAILABLE")
            assert not tokens.are_ready
    finally:
        server.should_exit = True
        await serving


async def test_keys_that_are_known_outlive_their_issuer(issuer, tmp_path):
    tokens = verifier(issuer)
    await tokens.verify(bearer(issuer.token()))
    (tmp_path / "jwks.json").write_text("broken")
    await tokens.issuers[testing.ISSUER].refresh()
    assert (await tokens.verify(bearer(issuer.token(jti="other")))).principal.client == "tests"


GOOD = {"issuer": "i", "audience": "a", "jwks_file": "f", "institutions": ["*"], "kinds": ["channel"]}


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("/nowhere/issuers.json", "FileNotFoundError"),
        ("[", "JSONDecodeError"),
        ("[]", "at least one"),
        ("[1]", "at least one"),
        (json.dumps([GOOD, GOOD]), "twice"),
        (json.dumps([{k: v for k, v in GOOD.items() if k != "audience"}]), "audience is missing"),
        (json.dumps([GOOD | {"jwks_url": "https://x"}]), "one of jwks_file and jwks_url"),
        (json.dumps([{k: v for k, v in GOOD.items() if k != "jwks_file"} | {"jwks_url": "http://bank.test/jwks"}]), "https"),
        (json.dumps([GOOD | {"kinds": ["service"]}]), "service is not one of"),
        (json.dumps([GOOD | {"kinds": []}]), "kinds must be a list"),
        (json.dumps([GOOD | {"institutions": "*"}]), "institutions must be a list"),
        (json.dumps([GOOD | {"algorithms": ["HS256"]}]), "HS256"),
        (json.dumps([GOOD | {"algoritms": ["ES256"]}]), "algoritms is not known"),
        (json.dumps([GOOD | {"claims": {"kind": 1}}]), "claims"),
    ],
)
def test_wrong_settings_of_issuers_say_what_is_wrong(setting, why):
    with pytest.raises(IssuerError, match=why):
        issuers.read(setting)
