"""One GET through the gateway beside a hand-written Starlette + grpc.aio handler with json_format, on the same service.

`python gateway/tests/bench_get.py [SECONDS] [CONNECTIONS]` prints requests a second and CPU a request of both, and their ratios.
The gateway authenticates, keeps a rate limit and traces 5 %; the handler does none of it. Rounds alternate, the median counts.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import uvicorn
import uvloop
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chassis.identity import InternalTokens, Principal, PrincipalKind, generate_key
from concord.customer.v1 import customer_service_pb2 as pb
from concord.customer.v1.customer_service_pb2_grpc import CustomerServiceStub
from gateway import contracts, testing

CUSTOMER = "0190c1c0-0000-7000-8000-000000000001"
PATH = f"/v1/customers/{CUSTOMER}"
ROUNDS = 5


async def serve_backend(public_key: str) -> None:
    """The customer service, as examples; its port is printed."""
    backend = testing.Backend(contracts.installed(), InternalTokens("customer", public_key), validates=False, remembers=False)
    await backend.start()
    print(backend.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def serve_plain(target: str) -> None:
    """The handler that one would write by hand."""
    stub = CustomerServiceStub(grpc.aio.insecure_channel(target))
    metadata = (("concord-identity", os.environ["BENCH_IDENTITY"]),)

    async def get(request: Request) -> Response:
        wanted = pb.GetCustomerRequest(name=f"customers/{request.path_params['customer']}")
        customer = await stub.GetCustomer(wanted, timeout=10, metadata=metadata)
        return Response(json_format.MessageToJson(customer, indent=None), media_type="application/json")

    application = Starlette(routes=[Route("/v1/customers/{customer}", get)])
    port = free_port()
    print(port, flush=True)
    config = uvicorn.Config(
        application, port=port, log_config=None, access_log=False, loop="uvloop", http="httptools", lifespan="off"
    )
    await uvicorn.Server(config).serve()


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def load(port: int, seconds: float, connections: int, token: str) -> tuple[int, float]:
    """Requests answered, and the seconds they took, over raw connections: a client that costs little."""
    head = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    until = time.perf_counter() + seconds
    done = 0

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            writer.write(head)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            low = answer.lower()
            at = low.index(b"content-length: ") + 16
            await reader.readexactly(int(low[at : low.index(b"\r", at)]))
            done += 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return done, time.perf_counter() - started


def cpu_seconds(process: "subprocess.Popen[str]") -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(
    arguments: list[str], environment: dict[str, str] | None = None, has_line: bool = True
) -> tuple["subprocess.Popen[str]", str]:
    """A process, and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | (environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip() if has_line else ""


async def measure(
    ports: dict[str, int], processes: dict[str, "subprocess.Popen[str]"], token: str, seconds: float, many: int
) -> None:
    """Measures both in turn and prints the table."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ports}
    for port in ports.values():
        await load(port, 1.0, many, token)
    for _ in range(ROUNDS):
        for name, port in ports.items():
            before = cpu_seconds(processes[name])
            done, took = await load(port, seconds, many, token)
            figures[name].append((done / took, (cpu_seconds(processes[name]) - before) / done * 1e6))
    for name, rounds in figures.items():
        rates, costs = zip(*rounds, strict=True)
        print(f"{name:8} {statistics.median(rates):7.0f} requests/s   {statistics.median(costs):5.0f} µs CPU a request")
    speeds = [gateway[0] / plain[0] for gateway, plain in zip(figures["gateway"], figures["plain"], strict=True)]
    savings = [plain[1] / gateway[1] for gateway, plain in zip(figures["gateway"], figures["plain"], strict=True)]
    print(f"ratio    {statistics.median(speeds):7.2f} in requests/s      {statistics.median(savings):5.2f} in CPU (goal 0.9)")


def main() -> None:
    """Starts everything, measures, ends everything."""
    seconds, many = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0, int(sys.argv[2]) if len(sys.argv) > 2 else 32
    private_key, public_key = generate_key("gateway")
    public = json.dumps({"keys": [public_key]})
    with tempfile.TemporaryDirectory() as folder:
        issuer = testing.Issuer(Path(folder))
        token = issuer.token_for_all(contracts.installed(), PrincipalKind.STAFF)
        backend, backend_port = start([__file__, "--backend", public])
        target = f"127.0.0.1:{backend_port}"
        signer = InternalTokens("gateway", public, json.dumps(private_key))
        own = signer.sign(Principal(PrincipalKind.STAFF, "northbank", "bench", "bench", frozenset({"customer.read"})))
        plain, plain_port = start([__file__, "--plain", target], {"BENCH_IDENTITY": own})
        port = free_port()
        settings = {
            "CONCORD_IDENTITY_KEYS": public,
            "CONCORD_IDENTITY_PRIVATE_KEY": json.dumps(private_key),
            "CONCORD_GATEWAY_ISSUERS": issuer.setting(),
            "CONCORD_HTTP_LISTEN": f"127.0.0.1:{port}",
            "CONCORD_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
            "CONCORD_TRACE_RATIO": "0.05",
            "CONCORD_RATE_REQUESTS_PER_SECOND": "1000000",
            "CONCORD_RATE_BURST_REQUESTS": "1000000",
            "CONCORD_LOG_LEVEL": "WARNING",
            **{f"CONCORD_TARGET_{owner.upper()}": target for owner in testing.OWNERS},
        }
        gateway, _ = start(["-m", "gateway", "serve"], settings, has_line=False)
        time.sleep(3)
        try:
            asyncio.run(
                measure({"plain": int(plain_port), "gateway": port}, {"plain": plain, "gateway": gateway}, token, seconds, many)
            )
        finally:
            for process in (backend, plain, gateway):
                process.kill()
                process.communicate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--backend"]:
        uvloop.run(serve_backend(sys.argv[2]))
    elif sys.argv[1:2] == ["--plain"]:
        uvloop.run(serve_plain(sys.argv[2]))
    else:
        main()
