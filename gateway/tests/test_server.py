"""The HTTP server and the pages: bytes that are not HTTP, heads too large or too slow, health, documents, drain."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from chassis.identity import PrincipalKind, generate_key
from gateway import limits, testing


async def exchange(stack, content, wait=3.0):
    host, port = stack.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(content)
    try:
        return await asyncio.wait_for(reader.read(), wait)
    finally:
        writer.close()


def problem(answer, status, reason):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"application/problem+json" in head
    assert json.loads(body)["reason"] == reason


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST /v1/a HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/a HTTP/1.1\r\nBad Header: x\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_problem(stack, content):
    problem(await exchange(stack, content), 400, "HTTP_INVALID")


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"x-%d: 1\r\n" % index for index in range(limits.HEADERS_MAX + 1)) + b"\r\n",
        b"x: " + b"y" * (limits.HEAD_BYTES_MAX + 10),
        b"x: " + b"y" * (limits.HEAD_BYTES_MAX + 10) + b"\r\n\r\n",
    ],
)
async def test_heads_are_limited(stack, head):
    problem(await exchange(stack, b"GET /v1/customers HTTP/1.1\r\n" + head), 431, "HEADERS_TOO_LARGE")


async def test_a_head_that_takes_too_long_ends(stack, monkeypatch):
    monkeypatch.setattr(limits, "HEAD_SECONDS_MAX", 0.3)
    problem(await exchange(stack, b"GET /v1/cust"), 408, "HEAD_TOO_SLOW")


async def test_a_body_that_takes_too_long_ends(stack, monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS_MAX", 0.3)
    token = stack.issuer.token_for_all(stack.backend.served, PrincipalKind.STAFF)
    head = f"POST /v1/customers:search HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    problem(await exchange(stack, head.encode() + b"Content-Length: 10\r\n\r\n{"), 408, "BODY_TOO_SLOW")


async def test_a_long_address_is_refused(client):
    response = await client.get("/v1/customers?pageToken=" + "x" * 9000)
    assert (response.status_code, response.json()["reason"]) == (414, "ADDRESS_TOO_LONG")


async def test_several_requests_on_one_connection(stack):
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await exchange(stack, one + one + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 3


async def test_pages_load_nothing_from_elsewhere(client):
    page = await client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 3
    for link in links:
        assert link.startswith("/docs/")
        asset = await client.get(link)
        assert asset.status_code == 200
        assert asset.headers["x-content-type-options"] == "nosniff"
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert "<script>" not in page.text  # the policy admits none
    bundle = (await client.get("/docs/swagger-ui-bundle.js")).text
    assert re.search(r'PACKAGE_VERSION:"5\.(1[0-9]|[2-9][0-9])\.', bundle)  # 4.x cannot show OpenAPI 3.1
    assert (await client.get("/", follow_redirects=True)).text == page.text


async def test_health_and_readiness(client, stack):
    assert (await client.get("/healthz")).json() == {"healthy": True}
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert set(ready.json()["services"].values()) == {"SERVING"}
    stack.built.readiness.is_draining = True
    try:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
    finally:
        stack.built.readiness.is_draining = False


def environment(tmp_path, port, **changed):
    private, public = generate_key("gateway")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")},
        "CONCORD_IDENTITY_KEYS": json.dumps({"keys": [public]}),
        "CONCORD_IDENTITY_PRIVATE_KEY": json.dumps(private),
        "CONCORD_GATEWAY_ISSUERS": testing.Issuer(tmp_path).setting(),
        "CONCORD_HTTP_LISTEN": f"127.0.0.1:{port}",
        **{f"CONCORD_TARGET_{owner.upper()}": "127.0.0.1:1" for owner in testing.OWNERS},
        **changed,
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def process(tmp_path):
    started = []

    def start(**changed):
        port = free_port()
        command = [sys.executable, "-m", "gateway", "serve"]
        process = subprocess.Popen(command, env=environment(tmp_path, port, **changed), stderr=subprocess.PIPE, text=True)
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                if httpx.get(f"{url}/healthz", trust_env=False).status_code == 200:
                    return process, url
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the gateway does not answer")

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_a_signal_drains_and_then_ends(process):
    gateway, url = process(CONCORD_DRAIN_SECONDS="1")
    gateway.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert httpx.get(f"{url}/readyz", trust_env=False).json()["draining"] is True
    assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200  # still served while the balancer learns of it
    assert gateway.wait(10) == 0


def test_without_drain_a_signal_ends_at_once(process):
    gateway, _ = process()
    started = time.monotonic()
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(10) == 0
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"CONCORD_GATEWAY_ISSUERS": "/nowhere"}, "CONCORD_GATEWAY_ISSUERS is wrong: FileNotFoundError"),
        ({"CONCORD_RATE_BURST_REQUESTS": "0"}, "CONCORD_RATE_BURST_REQUESTS is wrong"),
        ({"CONCORD_HTTP_LISTEN": "8080"}, "CONCORD_HTTP_LISTEN is wrong"),
        ({"CONCORD_HTTP_LISTEN": "256.0.0.1:80"}, "CONCORD_HTTP_LISTEN: 256.0.0.1:80 cannot be listened on"),
        ({"CONCORD_IDENTITY_PRIVATE_KEY": "/nowhere"}, "CONCORD_IDENTITY_PRIVATE_KEY"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, changed, text):
    env = environment(tmp_path, free_port(), **changed)
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve"], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        env = environment(tmp_path, taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "serve"], env=env, capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode == 2
    assert "cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr
