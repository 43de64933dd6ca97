"""What happens around an RPC: errors, deadlines, identity, validation, masking, refusal to start."""

import asyncio
import base64
import json
import logging
import time
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from echo_service import contract as pb
from echo_service.service import SECRET, EchoServicer
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from chassis import errors, identity, migrations, telemetry
from chassis.channel import channel
from chassis.errors import DomainError
from chassis.identity import InternalTokens, PrincipalKind
from chassis.server import ContractError, ListenError
from chassis.testing import principal, reason
from concord_local import postgres

READ = {"scopes": ["echo.read"]}


async def refusal(stub, behaviour: str = "", **arguments) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetEcho(pb.GetEchoRequest(behaviour=behaviour, **arguments), timeout=5)
    return refused.value


@pytest.mark.parametrize("error_class", DomainError.__subclasses__(), ids=lambda each: each.__name__)
def test_every_error_is_a_status_with_its_reason_and_fields(error_class):
    status = errors.to_status(error_class("SOME_REASON", "text", {"key": "value"}, [("field", "rule")]))
    again = grpc.aio.AioRpcError(
        error_class.code, grpc.aio.Metadata(), grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString())), "text"
    )
    back = errors.from_rpc(again)
    assert type(back) is error_class
    assert (back.reason, back.message, back.metadata) == ("SOME_REASON", "text", {"key": "value"})
    assert back.field_violations == [("field", "rule")]


async def test_a_refusal_reaches_the_caller_whole(start):
    error = await refusal(pb.Stub((await start()).channel(**READ)), "refuse")
    back = errors.from_rpc(error)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert (back.reason, back.metadata, back.field_violations) == (
        "ECHO_NOT_FOUND",
        {"wall": "near"},
        [("behaviour", "not this")],
    )


async def test_a_refusal_of_much_arrives_with_the_first_that_is_wrong(start):
    error = await refusal(pb.Stub((await start()).channel(**READ)), numbers=[-1] * 5000)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    named = [field for field, _ in errors.from_rpc(error).field_violations]
    assert named == [f"numbers[{index}]" for index in range(len(named))]
    assert 20 < len(named) < 5000


def test_a_status_fits_into_what_a_client_takes():
    long = "长" * 10_000
    status = errors.to_status(errors.InvalidArgument("LONG", long, None, [(long, long), *[("field", "rule" * 50)] * 500]))
    grpc_message_bytes = len(quote(status.message))
    assert 1_000 < len(status.message.encode()) <= 1_024
    assert status.ByteSize() + grpc_message_bytes < 7_900


async def test_an_unknown_exception_says_nothing_to_the_caller_and_no_secret_to_the_log(start, caplog):
    error = await refusal(pb.Stub((await start()).channel(**READ)), "crash")
    assert error.code() is grpc.StatusCode.INTERNAL
    trace_id = errors.from_rpc(error).metadata["trace_id"]
    assert error.details() == f"internal error, trace {trace_id}"
    assert "4111" not in str(error)
    assert trace_id in caplog.text
    assert "ValueError" in caplog.text
    assert "service.py" in caplog.text
    assert SECRET not in caplog.text


def test_log_lines_are_json_without_the_text_of_exceptions():
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        record = logging.LogRecord("l", logging.ERROR, "f", 1, "could not %s", ("add",), (ValueError, error, error.__traceback__))
    line = json.loads(telemetry.JsonFormatter("echo").format(record))
    assert line["message"] == "could not add"
    assert line["failure"].startswith("ValueError < test_rpc.py:")
    assert SECRET not in json.dumps(line)


async def test_a_call_ends_at_the_callers_deadline(start):
    stub = pb.Stub((await start()).channel(**READ))
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetEcho(pb.GetEchoRequest(behaviour="sleep"), timeout=0.3)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 2


async def test_a_call_without_deadline_ends_at_ours(start, monkeypatch):
    monkeypatch.setattr("chassis.deadlines.DEFAULT_SECONDS", 0.3)
    stub = pb.Stub((await start()).channel(**READ))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetEcho(pb.GetEchoRequest(behaviour="sleep"))
    assert reason(refused.value) == "DEADLINE_EXCEEDED"
    assert "0.3 s" in str(refused.value.details())


async def test_outgoing_calls_get_what_is_left_of_the_deadline(start):
    stub = pb.Stub((await start()).channel(scopes=["echo.read", "personal.read"]))
    left = (await stub.GetEcho(pb.GetEchoRequest(), timeout=2)).remaining_seconds
    assert 1 < left < 2
    assert 4.5 < (await stub.GetEcho(pb.GetEchoRequest(), timeout=50)).remaining_seconds <= 5


@pytest.mark.parametrize(
    ("caller", "code", "why"),
    [
        ({"scopes": ["echo.read"]}, None, None),
        ({"scopes": ["other", "echo.all"]}, None, None),
        ({"scopes": []}, grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING"),
        ({"scopes": ["echo"]}, grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING"),
        ({"kind": PrincipalKind.SERVICE}, None, None),
        ({"kind": PrincipalKind.STAFF, "scopes": ["echo.read"]}, grpc.StatusCode.PERMISSION_DENIED, "KIND_NOT_ADMITTED"),
        ({"kind": PrincipalKind.OPERATOR, "scopes": ["echo.read"]}, grpc.StatusCode.PERMISSION_DENIED, "KIND_NOT_ADMITTED"),
    ],
)
async def test_who_may_call(start, caller, code, why):
    stub = pb.Stub((await start()).channel(**caller))
    if code is None:
        await stub.GetEcho(pb.GetEchoRequest(), timeout=5)
    else:
        error = await refusal(stub)
        assert (error.code(), reason(error)) == (code, why)


def forged(**changes) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": "gateway", "iat": now, "exp": now + 300, "sub": "s", "kind": "CHANNEL", "client": "app", "scope": "echo.read",
        "roles": [],
    } | changes  # fmt: skip


async def test_bad_tokens_are_refused_all_alike(start, tokens, settings):
    gateway, service = tokens._private_key, OKPKey.import_key(json.loads(settings.identity_private_key))
    stranger = OKPKey.import_key({**identity.generate_key("gateway")[0]})
    now = int(time.time())

    def signed(key, kid="gateway", algorithm="Ed25519", **changes) -> str:
        return jwt.encode({"alg": algorithm, "kid": kid}, forged(**changes), key, algorithms=[algorithm])

    good = signed(gateway)
    head, body, signature = good.split(".")
    public = OctKey.import_key(json.dumps(gateway.as_dict(private=False)))
    none_head = base64.urlsafe_b64encode(b'{"alg":"none","kid":"gateway"}').rstrip(b"=").decode()
    bad = {
        "expired": signed(gateway, exp=now - 1, iat=now - 200),
        "from the future": signed(gateway, iat=now + 100, exp=now + 300),
        "living too long": signed(gateway, exp=now + 3600),
        "no expiry": jwt.encode({"alg": "Ed25519", "kid": "gateway"}, {"iss": "gateway"}, gateway, algorithms=["Ed25519"]),
        "unknown kid": signed(gateway, kid="nobody"),
        "another's kid": signed(service, kid="gateway"),
        "a stranger's key": signed(stranger),
        "kid is not the issuer": signed(gateway, iss="echo"),
        "a service speaking for a channel": signed(service, kid="echo", iss="echo"),
        "a service speaking for another service": signed(service, kid="echo", iss="echo", kind="SERVICE", client="rating"),
        "a service with an institution": signed(service, kid="echo", iss="echo", kind="SERVICE", client="echo", institution="a"),
        "no algorithm": f"{none_head}.{body}.",
        "no algorithm, signature kept": f"{none_head}.{body}.{signature}",
        "the public key as a secret": signed(public, algorithm="HS256"),
        "tampered body": ".".join([head, body[:-2] + ("AA" if body[-2:] != "AA" else "BB"), signature]),
        "tampered signature": ".".join([head, body, signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")]),
        "unknown kind": signed(gateway, kind="KING"),
        "wrong type": signed(gateway, institution=5),
        "too long": good + "A" * 5000,
        "no token": "x",
        "empty": ".",
    }
    running = await start()
    assert await pb.Stub(running.channel_with(good)).GetEcho(pb.GetEchoRequest(), timeout=5)
    for name, token in bad.items():
        error = await refusal(pb.Stub(running.channel_with(token)))
        assert (error.code(), reason(error)) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_INVALID"), name
    assert reason(await refusal(pb.Stub(running.channel_with(None)))) == "IDENTITY_MISSING"


async def test_a_verified_token_is_not_believed_beyond_its_end(tokens, monkeypatch):
    token = tokens.sign(principal(institution="a", scopes=["x"], roles=["r"], customer="c"))
    assert tokens.verify(token) == principal(institution="a", scopes=["x"], roles=["r"], customer="c")
    later = time.monotonic() + 400
    monkeypatch.setattr(time, "monotonic", lambda: later)
    real = time.time() + 400
    monkeypatch.setattr(time, "time", lambda: real)
    with pytest.raises(errors.Unauthenticated):
        tokens.verify(token)


async def test_a_service_calls_in_its_own_name_or_in_that_of_its_caller(start, settings, tokens):
    running = await start()
    own = InternalTokens("echo", settings.identity_keys, settings.identity_private_key)
    async with channel(running.address, own) as outgoing:
        stub = pb.Stub(outgoing)
        assert (await stub.GetEcho(pb.GetEchoRequest())).name == "Anna"  # SERVICE sees personal data
        caller = principal(scopes=["echo.read"])
        with identity.as_caller(caller, tokens.sign(caller)):
            assert (await stub.GetEcho(pb.GetEchoRequest())).name == "A***"
        stranger = principal(scopes=[])
        with identity.as_caller(stranger, tokens.sign(stranger)):
            assert reason(await refusal(stub)) == "SCOPE_MISSING"


async def test_requests_obey_their_contract(start):
    error = await refusal(pb.Stub((await start()).channel(**READ)), "x" * 41, numbers=[1, 0, 2])
    back = errors.from_rpc(error)
    assert (error.code(), back.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert [field for field, _ in back.field_violations] == ["behaviour", "numbers[1]"]
    assert "x" * 41 not in str(error)


async def test_personal_fields_are_masked_at_every_depth(start):
    running = await start()
    plain = await pb.Stub(running.channel(scopes=["echo.read", "personal.read"])).GetEcho(pb.GetEchoRequest(), timeout=5)
    assert (plain.name, list(plain.phones), plain.birth.year) == ("Anna", ["+41791234567", "112"], 1970)
    found = await pb.Stub(running.channel()).Search(pb.GetEchoRequest(), timeout=5)
    [masked] = found.people
    assert (masked.name, list(masked.phones), masked.document) == ("A***", ["***67", "***"], "***67")
    assert not masked.HasField("birth")
    assert (masked.relatives["sister"].name, masked.friends[0].name, masked.partner.name) == ("B***", "C***", "D***")
    assert masked.nickname == "A"


async def test_a_service_with_a_broken_contract_does_not_start(start, service, settings):
    application = await service.build(settings)
    application.servicers = [*application.servicers, (pb.add_to_server(pb.BROKEN), object())]
    from chassis.server import Server

    with pytest.raises(ContractError) as refused:
        await Server(application).start()
    await application.database.close()
    found = {problem.split(": ")[0].rsplit("/", 1)[1]: problem.split(": ")[1] for problem in str(refused.value).split("; ")}
    assert found == {
        "WithoutHttp": "lacks google.api.http",
        "WithoutAccess": "lacks concord.options.v1.access",
        "WithoutKinds": "its access option admits no kind of caller",
        "WithoutObjectCheck": "its access option states no object_check",
        "WithoutRequestId": "changes something, but its request has no string field request_id",
        "Streams": "streams are not served",
    }


async def test_a_taken_port_is_said_clearly(start):
    running = await start()
    with pytest.raises(ListenError, match="CONCORD_GRPC_LISTEN: cannot listen on"):
        await start(grpc_listen=running.address)


async def test_an_unknown_method_and_the_health_of_services(start):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    running = await start()
    open_channel = running.channel_with(None)
    stub: Any = health_pb2_grpc.HealthStub(open_channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=pb.ECHO), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await open_channel.unary_unary("/concord.nothing.v1.No/No")(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_database_that_is_away_is_unavailable_and_comes_back(start, service):
    with postgres.temporary(settings={}) as server:
        await migrations.migrate(service.migrations, server.url())
        running = await start(database_url=server.url())
        stub = pb.Stub(running.channel())
        await stub.Add(pb.AddRequest(request_id="1", counter="c", amount=1), timeout=5)
        server.kill()
        acknowledged, error = await add_until_refused(stub)
        assert reason(error) == "DATABASE_UNAVAILABLE"
        await asyncio.to_thread(server.start)
        assert await until_available(stub, pb.AddRequest(request_id="1", counter="c", amount=1)) == 1  # was kept, once
        again = pb.AddRequest(request_id=f"{acknowledged + 1}", counter="c", amount=1)
        assert await until_available(stub, again) == acknowledged + 1
        await running.application.database.close()


async def add_until_refused(stub) -> tuple[int, grpc.aio.AioRpcError]:
    """How many requests are acknowledged, and what refused the next: the server's children may outlive it for a moment."""
    for acknowledged in range(1, 1000):
        try:
            await stub.Add(pb.AddRequest(request_id=f"{acknowledged + 1}", counter="c", amount=1), timeout=5)
        except grpc.aio.AioRpcError as error:
            return acknowledged, error
    raise AssertionError("was never refused")


async def until_available(stub, request):
    async with asyncio.timeout(20):
        while True:
            try:
                return (await stub.Add(request, timeout=5)).total
            except grpc.aio.AioRpcError as error:
                if reason(error) != "DATABASE_UNAVAILABLE":
                    raise
                await asyncio.sleep(0.1)


def test_the_servicer_of_these_tests_serves_every_method():
    assert all(hasattr(EchoServicer, name) for name in ("GetEcho", "Add", "AddGathered", "Search"))
