"""Tokens: what they say, who gets one, and that their signature is the issuer's."""

import json

import httpx
import pytest
from click.testing import CliRunner
from joserfc import jwt
from joserfc.jwk import KeySet

from concord_local import issuer, tokens
from concord_local.cli import main
from concord_local.stack import CALLER_KINDS, Stack
from concord_local.tokens import Caller

CUSTOMER = "0190a0b0-0000-7000-8000-000000000001"
ISSUER = "http://issuer.test"
FORM = {"grant_type": "client_credentials"}
CALLER = Caller("channel", "mobile", "mobile", "bank-a", ("customer.read", "points.read"), ("teller",))


@pytest.fixture
def stack(state):
    made = Stack(state, {}).load()
    made.write_files()
    return made


@pytest.fixture
async def http(stack):
    transport = httpx.ASGITransport(issuer.application(stack.state, ISSUER))
    async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
        yield client


async def test_a_client_gets_a_token_that_the_published_keys_verify(http, stack):
    secret = issuer.add_client(stack.state, CALLER)
    answer = await http.post("/token", data=FORM, auth=("mobile", secret))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    configuration = (await http.get("/.well-known/openid-configuration")).json()
    keys = KeySet.import_key_set((await http.get(configuration["jwks_uri"])).json())
    token = jwt.decode(answer.json()["access_token"], keys, algorithms=["ES256"])
    assert token.header["typ"] == "at+jwt"
    claims = token.claims
    assert claims["exp"] - claims["iat"] == answer.json()["expires_in"] == 3600
    said = {name: claims[name] for name in ("iss", "sub", "aud", "client_id", "institution", "kind", "scope", "roles")}
    assert said == {
        "iss": configuration["issuer"],
        "sub": "mobile",
        "aud": "concord",
        "client_id": "mobile",
        "institution": "bank-a",
        "kind": "channel",
        "scope": "customer.read points.read",
        "roles": ["teller"],
    }


async def test_the_secret_in_the_form_and_fewer_scopes(http, stack):
    secret = issuer.add_client(stack.state, CALLER)
    form = {**FORM, "client_id": "mobile", "client_secret": secret, "scope": "points.read"}
    assert (await http.post("/token", data=form)).json()["scope"] == "points.read"


@pytest.mark.parametrize(("form", "status", "error"), [
    ({"client_id": "mobile", "client_secret": "wrong"}, 401, "invalid_client"),
    ({"client_id": "nobody", "client_secret": ""}, 401, "invalid_client"),
    ({}, 401, "invalid_client"),
    ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ({"scope": "points.admin"}, 400, "invalid_scope"),
    ({"filler": "x" * 20_000}, 413, "invalid_request"),
])  # fmt: skip
async def test_who_gets_none(http, stack, form, status, error):
    secret = issuer.add_client(stack.state, CALLER)
    known = {"client_id": "mobile", "client_secret": secret} if "scope" in form else {}
    answer = await http.post("/token", data={**FORM, **known, **form})
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_the_secret_is_kept_as_a_hash_only(stack):
    secret = issuer.add_client(stack.state, CALLER)
    assert secret not in stack.state.clients.read_text()
    with pytest.raises(ValueError, match="mobile exists already"):
        issuer.add_client(stack.state, CALLER)


@pytest.mark.parametrize("ttl", [0, -1, 86_401])
def test_a_lifetime_out_of_bounds_is_refused(stack, ttl):
    key = tokens.signing_key(stack.state.private_key("issuer"))
    with pytest.raises(ValueError, match="from 1 to 86400"):
        tokens.access_token(key, ISSUER, "concord", CALLER, ttl)


def test_default_scopes_are_those_the_contracts_admit_the_kind_to():
    of = {kind: set(tokens.default_scopes(kind)) for kind in CALLER_KINDS}
    assert "institution.write" in of["operator"]
    assert "institution.write" not in of["channel"]
    assert "personal.read" in of["channel"]
    assert "personal.read" not in of["partner"]


def concord(state, *arguments):
    return CliRunner().invoke(main, arguments, env={"CONCORD_STATE": str(state.folder)})


def test_the_command_prints_a_token_without_any_server(state):
    arguments = ["token", "--institution", "bank-a", "--scope", "a.read b.read", "--customer", CUSTOMER, "--ttl", "60"]
    answer = concord(state, *arguments)
    assert answer.exit_code == 0, answer.output
    keys = KeySet.import_key_set(json.loads(state.issuer_keys.read_text()))
    claims = jwt.decode(answer.output.strip(), keys, algorithms=["ES256"]).claims
    assert (claims["scope"], claims["customer"], claims["exp"] - claims["iat"]) == ("a.read b.read", CUSTOMER, 60)
    assert claims["iss"] == Stack(state, {}).load().issuer_url


def test_a_channel_needs_an_institution(state):
    answer = concord(state, "token", "--kind", "channel")
    assert answer.exit_code == 2
    assert "add --institution" in answer.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--institution", "Bad Bank"], "--institution must be an institution's id"),
        (["--institution", "bank-a", "--customer", "nobody"], "--customer must be a customer's id"),
        (["--institution", "bank-a", "--customer", CUSTOMER, "--kind", "staff"], "with --kind channel only"),
    ],
)
def test_what_the_gateway_would_refuse_is_refused_where_it_is_typed(state, arguments, said):
    answer = concord(state, "token", *arguments)
    assert answer.exit_code == 2
    assert said in " ".join(answer.output.split())


def test_a_state_folder_that_cannot_be_made_is_one_line(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    answer = CliRunner().invoke(main, ["up", "--detach"], env={"CONCORD_STATE": str(in_the_way / "state")})
    assert answer.exit_code == 1
    assert "set CONCORD_STATE to a folder that can be made" in answer.output


def test_nothing_runs(state):
    assert concord(state, "status").exit_code == 3
    assert "does not run" in concord(state, "down").output
