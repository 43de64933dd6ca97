"""For tests and the bench: services that answer examples and remember what they got, an issuer, and the gateway before them.

`python -m gateway.testing` runs all three, prints its `url` and a token for each kind of caller as one line of JSON, and ends
with its standard input.
"""

import asyncio
import json
import re._parser as regex_parser  # type: ignore[import-not-found]
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import protovalidate
import uvloop
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2_grpc
from joserfc import jwt
from joserfc.jwk import ECKey

from chassis.errors import DomainError, InvalidArgument, to_status
from chassis.identity import InternalTokens, PrincipalKind, generate_key
from gateway import contracts, openapi, server, wiring
from gateway.config import Settings
from gateway.contracts import Contracts, Rpc, is_choice
from gateway.json_encoder import BY_LIBRARY, WRAPPERS
from gateway.schemas import behaviors_of, bounds, rules_of
from gateway.values import FLOATS, RANGES

ISSUER, AUDIENCE = "https://issuer.test", "concord"
OWNERS = ("customer", "rating", "campaign", "contact", "loyalty")
EXAMPLE_DEPTH_MAX = 5
EXAMPLE_SECONDS = 1_767_225_600
TOKEN_FOR_ALL_SECONDS = 80_000
# How well random bodies can be made (lists of 500, one of eight members, a busy machine) says nothing about the gateway.
SLOW_GENERATION = "filter_too_much,data_too_large,too_slow"


@dataclass(frozen=True)
class Received:
    """A call that a service got."""

    path: str
    request: Message
    metadata: dict[str, str]
    seconds: float
    caller: Any


@dataclass
class Backend:
    """All services in one gRPC server. `answers` overrides the examples, by gRPC path: a function that answers or raises."""

    served: Contracts
    tokens: InternalTokens
    validates: bool = True
    remembers: bool = True
    port: int = 0
    received: list[Received] = field(default_factory=list)
    answers: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    _server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = grpc.aio.server()
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for rpc in self.served.rpcs:
            _, service, method = rpc.path.split("/")
            services.setdefault(service, {})[method] = grpc.unary_unary_rpc_method_handler(
                self._handler(rpc), rpc.request_class.FromString, rpc.response_class.SerializeToString
            )
        for service, methods in services.items():
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def stop(self) -> None:
        """Stops at once."""
        if self._server is not None:
            await self._server.stop(0)

    def _handler(self, rpc: Rpc) -> Callable[[Any, Any], Any]:
        validator = protovalidate.Validator()
        example_answer = example(rpc.response_class)

        async def handle(request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            caller = self.tokens.verify(metadata["concord-identity"])
            if self.remembers:
                self.received.append(Received(rpc.path, request, metadata, context.time_remaining(), caller))
            try:
                if self.validates:
                    named = [(field_path(one.proto.field), one.proto.message) for one in validator.collect_violations(request)]
                    if rpc.http.WhichOneof("pattern") != "patch":
                        named += [(path, "is needed") for path in missing(request, rpc.descriptor.input_type, "")]
                    if named:
                        raise InvalidArgument("FIELD_INVALID", "a field is wrong", field_violations=named)
                answer = self.answers.get(rpc.path)
                result = example_answer if answer is None else answer(request)
                return await result if asyncio.iscoroutine(result) else result
            except DomainError as error:
                status = to_status(error)
                details = (("grpc-status-details-bin", status.SerializeToString()),)
                await context.abort(error.code, status.message, trailing_metadata=details)

        return handle


def missing(message: Any, descriptor: Descriptor, prefix: str) -> list[str]:
    """The paths of fields that are REQUIRED by google.api.field_behavior and not set; services check them by hand."""
    found = []
    there = {one.name: value for one, value in message.ListFields()}
    for one in descriptor.fields:
        if field_behavior_pb2.REQUIRED in behaviors_of(one) and one.name not in there:
            found.append(prefix + one.name)
        elif one.name in there and one.message_type is not None and one.message_type.full_name.startswith("concord."):
            inner = one.message_type
            for each in there[one.name] if one.is_repeated else [there[one.name]]:
                found += missing(each, inner, f"{prefix}{one.name}.")
    return found


def field_path(path: Any) -> str:
    """A field path of protovalidate as services write it: `source_records[0].party`."""
    return ".".join(
        f"{element.field_name}[{element.subscript.value}]"
        if element.subscript is not None and element.subscript.field == "index"
        else element.field_name
        for element in (path.elements if path is not None else ())
    )


def example(message_class: type[Message]) -> Message:
    """A message with every field set, by the rules of its contract."""
    message = message_class()
    _fill(message, cast(Descriptor, message.DESCRIPTOR), 0)
    return message


def _fill(message: Any, descriptor: Descriptor, depth: int) -> None:
    for one in descriptor.fields:
        if is_choice(one) and one.containing_oneof is not None and one is not one.containing_oneof.fields[0]:
            continue
        inner = one.message_type
        times = max(1, rules_of(one).repeated.min_items) if one.is_repeated else 1
        if inner is None:
            value = _example_value(one)
            if one.is_repeated:
                values = [value] * times
                if rules_of(one).repeated.unique and isinstance(value, str):  # ids end with a digit that may differ
                    values = [f"{value[:-1]}{place % 10}" if place else value for place in range(times)]
                getattr(message, one.name).extend(values)
            else:
                setattr(message, one.name, value)
        elif inner.GetOptions().map_entry or inner.full_name in BY_LIBRARY | WRAPPERS or depth >= EXAMPLE_DEPTH_MAX:
            continue
        elif inner.full_name == "google.protobuf.Timestamp":
            getattr(message, one.name).seconds = EXAMPLE_SECONDS
        elif inner.full_name != "google.protobuf.FieldMask":
            child = getattr(message, one.name)
            for each in [child.add() for _ in range(times)] if one.is_repeated else [child]:
                _fill(each, inner, depth + 1)


def _example_value(one: FieldDescriptor) -> Any:
    rules = rules_of(one).repeated.items if one.is_repeated else rules_of(one)
    if one.enum_type is not None:
        return one.enum_type.values[min(1, len(one.enum_type.values) - 1)].number
    if one.type in RANGES:
        low, high = bounds(one, rules)
        return int(min(max(1, low), high))
    if one.type in FLOATS:
        low, high = bounds(one, rules)
        return min(max(0.5, low), high)
    if one.type == FieldDescriptor.TYPE_BOOL:
        return True
    if one.type == FieldDescriptor.TYPE_BYTES:
        return b"example"
    if one.name == "etag":
        return '"e1"'
    if rules.string.pattern:
        return matching(rules.string.pattern)
    return "e" * min(max(3, rules.string.min_len), rules.string.max_len or 3)


def matching(pattern: str) -> str:
    """A short text that matches a regular expression of the kind that contracts use, and is not empty unless it must be."""
    parsed = regex_parser.parse(pattern)
    return "".join(_sample(parsed, 0)) or "".join(_sample(parsed, 1))


def _sample(parsed: Iterable[Any], times_min: int) -> Iterable[str]:
    for kind, argument in parsed:
        name = str(kind)
        if name == "LITERAL":
            yield chr(argument)
        elif name == "IN":
            first = next(part for part in argument if str(part[0]) in ("LITERAL", "RANGE"))
            yield chr(first[1] if str(first[0]) == "LITERAL" else first[1][0])
        elif name == "MAX_REPEAT":
            yield "".join(_sample(argument[2], times_min)) * max(int(argument[0]), min(times_min, int(argument[1])))
        elif name == "SUBPATTERN":
            yield from _sample(argument[3], times_min)
        elif name == "BRANCH":
            yield from _sample(argument[1][0], times_min)


@dataclass
class Issuer:
    """An issuer of access tokens, with its key set in a file."""

    folder: Path
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "test-1", "alg": "ES256", "use": "sig"}))

    def setting(self) -> str:
        """What CONCORD_GATEWAY_ISSUERS is set to."""
        keys = self.folder / "jwks.json"
        keys.write_text(json.dumps({"keys": [self.key.as_dict(private=False)]}))
        kinds = ["channel", "partner", "staff", "operator"]
        entry = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": str(keys), "institutions": ["*"], "kinds": kinds}
        return json.dumps([entry])

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of a good token of a channel; None leaves one out."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "tester",
            "client_id": "tests",
            "iat": now,
            "exp": now + 600,
            "jti": uuid.uuid4().hex,
            "kind": "channel",
            "institution": "northbank",
            "scope": "customer.read",
            "roles": [],
        }
        return {name: value for name, value in (claims | changed).items() if value is not None}

    def token(self, **changed: Any) -> str:
        """A signed token."""
        header = {"alg": "ES256", "typ": "at+jwt", "kid": self.key.kid}
        return jwt.encode(header, self.claims(**changed), self.key, algorithms=["ES256"])

    def token_for_all(self, served: Contracts, kind: PrincipalKind) -> str:
        """A token of this kind with every scope there is."""
        scopes = sorted({scope for rpc in served.rpcs for scope in rpc.access.scopes})
        institution = None if kind is PrincipalKind.OPERATOR else "northbank"
        lasts_till = int(time.time()) + TOKEN_FOR_ALL_SECONDS
        return self.token(kind=kind.name.lower(), institution=institution, scope=" ".join(scopes), exp=lasts_till)


@dataclass
class Running:
    """A gateway that listens, and what stands around it."""

    url: str
    backend: Backend
    issuer: Issuer
    built: wiring.Built
    signer: InternalTokens


def settings(issuer: Issuer, targets: dict[str, str], keys: tuple[dict[str, str], dict[str, str]], **changed: Any) -> Settings:
    """Settings of a gateway before these targets."""
    private_key, public_key = keys
    values: dict[str, Any] = {
        "gateway_issuers": issuer.setting(),
        "identity_keys": json.dumps({"keys": [public_key]}),
        "identity_private_key": json.dumps(private_key),
        **{f"target_{owner}": targets[owner] for owner in OWNERS},
    }
    return Settings(**(values | changed))


@asynccontextmanager
async def running(
    folder: Path, served: Contracts | None = None, validates: bool = True, **changed: Any
) -> AsyncIterator[Running]:
    """The gateway behind a real HTTP server on a free port, before a backend that answers with examples."""
    served = served or contracts.installed()
    keys = generate_key("gateway")
    signer = InternalTokens("gateway", json.dumps({"keys": [keys[1]]}), json.dumps(keys[0]))
    backend = Backend(served, signer, validates)
    await backend.start()
    issuer = Issuer(folder)
    targets = dict.fromkeys(OWNERS, f"127.0.0.1:{backend.port}")
    built = wiring.build(settings(issuer, targets, keys, **changed), served)
    for issuer_keys in built.tokens.issuers.values():
        await issuer_keys.refresh()
    http = server.Server(server.configuration(built.application, "127.0.0.1", 0), built.readiness, 0)
    serving = asyncio.create_task(http.serve())
    while not http.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = http.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", backend, issuer, built, signer)
    finally:
        http.should_exit = True
        await serving
        await built.close()
        await backend.stop()


def shared_out(served: Contracts, kinds: Sequence[str]) -> dict[str, str]:
    """Every operation given to one of the kinds of callers that may call it, in turn: for each kind a regex of operation ids."""
    given: dict[str, list[str]] = {kind: [] for kind in kinds}
    for operations in openapi.document(served)["paths"].values():
        for operation in operations.values():
            able = [kind for kind in kinds if kind in operation["x-concord-access"]["kinds"]]
            fewest = min(able, key=lambda kind: len(given[kind]))  # an error says that an operation would be left out
            given[fewest].append(operation["operationId"])
    return {kind: f"^({'|'.join(ids)})$" for kind, ids in given.items()}


def schemathesis(url: str, token: str, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Runs schemathesis against a gateway's own document, with all its checks; exit status 0 means that it found nothing.

    Args:
        url: of any gateway, before examples or before the whole platform.
        token: an access token; what it may not do is answered by 403, which is right.
        folder: where schemathesis may leave its files.
        options: such as `--phases=fuzzing`, `--max-examples=10`, `--include-operation-id-regex=Redeem`.
    """
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{url}/openapi.json",
        "-H",
        f"Authorization: Bearer {token}",
        f"--suppress-health-check={SLOW_GENERATION}",
    ]
    return subprocess.run(
        [*command, "--continue-on-failure", "--no-color", *options], cwd=folder, capture_output=True, text=True, check=False
    )


async def _main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), rate_requests_per_second=1e6, rate_burst_requests=1_000_000) as stack:
            kinds = (PrincipalKind.STAFF, PrincipalKind.CHANNEL, PrincipalKind.OPERATOR)
            tokens = {kind.name.lower(): stack.issuer.token_for_all(stack.backend.served, kind) for kind in kinds}
            sys.stdout.write(json.dumps({"url": stack.url, **tokens}) + "\n")
            sys.stdout.flush()
            stack.backend.remembers = False
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_main())
