"""The load generator: a process of its own, told by lines of JSON what to send, so that no server shares its interpreter.

It is cheap on purpose: requests are bytes made beforehand, answers are counted and hardly looked at.
"""

import asyncio
import base64
import itertools
import json
import random
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import nats
import uvloop

WARM_UP_SECONDS = 0.3
CALL_SECONDS_MAX = 10.0
PUBLISHES_IN_FLIGHT_MAX = 256
HEAD_END = b"\r\n\r\n"

Json = dict[str, Any]
Call = Callable[[], Awaitable[str]]
"""Makes one call; answers an empty text, or why it failed."""


async def serve() -> None:
    """Carries out one order a line until the input ends."""
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    channels: dict[str, grpc.aio.Channel] = {}
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        order = json.loads(line)
        if order["kind"] == "publish":
            answer = await publish(order)
        elif order["kind"] == "http":
            answer = await over_http(order)
        else:
            target = order["target"]
            if target not in channels:
                channels[target] = grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
            answer = await drive([grpc_call(channels[target], order)] * order["clients"], order["seconds"])
        print(json.dumps(answer), flush=True)


async def drive(calls: list[Call], seconds: float) -> Json:
    """Each of the calls again and again for some seconds, after a warm-up; answers counts and latencies."""
    await _drive(calls, WARM_UP_SECONDS)
    return await _drive(calls, seconds)


async def _drive(calls: list[Call], seconds: float) -> Json:
    latencies: list[float] = []
    failures: dict[str, int] = {}
    started = time.perf_counter()
    end = started + seconds

    async def client(call: Call) -> None:
        before = time.perf_counter()
        while before < end:
            failure = await call()
            after = time.perf_counter()
            latencies.append(after - before)
            before = after
            if failure:
                failures[failure] = failures.get(failure, 0) + 1

    await asyncio.gather(*map(client, calls))
    took = time.perf_counter() - started
    latencies.sort()
    return {
        "per_second": len(latencies) / took,
        "count": len(latencies),
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
        "failures": failures,
    }


# ---- gRPC


def grpc_call(channel: grpc.aio.Channel, order: Json) -> Call:
    """A call with a random one of the requests. `unique_field`: the number of a text field that gets a new value each time."""
    call: Any = channel.unary_unary(order["method"])
    requests = [base64.b64decode(request) for request in order["requests"]]
    metadata = (("concord-identity", order["token"]),)
    unique, run, serial = order.get("unique_field"), uuid.uuid4().hex, itertools.count()

    async def one() -> str:
        request = random.choice(requests)
        if unique:
            value = f"{run}-{next(serial)}".encode()
            request += bytes((unique << 3 | 2, len(value))) + value
        try:
            await call(request, timeout=CALL_SECONDS_MAX, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return ""

    return one


# ---- HTTP


class Connection(asyncio.Protocol):
    """A keep-alive connection that knows just enough of HTTP/1.1 to find the end of an answer."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[str] | None = None

    def connection_made(self, transport: Any) -> None:
        """Keeps the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers the waiting call when the body is complete."""
        self._buffer += data
        head, found, body = self._buffer.partition(HEAD_END)
        if not found:
            return
        place = head.lower().index(b"content-length:") + len(b"content-length:")
        if len(body) < int(head[place:].split(b"\r\n", 1)[0]):
            return
        self._buffer = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result("" if head[9:12] == b"200" else f"{head[9:12].decode()}: {body[:300].decode()}")

    def connection_lost(self, exc: Exception | None) -> None:
        """A call that waits fails."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result("the connection was closed")

    async def send(self, request: bytes) -> str:
        """Sends one request and waits for its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(CALL_SECONDS_MAX):
            return await self._answer


async def over_http(order: Json) -> Json:
    """A connection for each client."""
    requests = [base64.b64decode(request) for request in order["requests"]]
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(Connection, order["host"], order["port"]))[1] for _ in range(order["clients"])]

    def calling(connection: Connection) -> Call:
        return lambda: connection.send(random.choice(requests))

    try:
        return await drive([calling(connection) for connection in connections], order["seconds"])
    finally:
        for connection in connections:
            connection.transport.close()


# ---- JetStream


async def publish(order: Json) -> Json:
    """Publishes messages with an id of their own, 256 in flight, and waits for every acknowledgement."""
    client = await nats.connect(order["url"])
    jetstream = client.jetstream(timeout=CALL_SECONDS_MAX)
    payload = random.randbytes(order["payload_bytes"])
    ids, run = iter(range(order["count"])), uuid.uuid4().hex

    async def publisher() -> None:
        for number in ids:
            await jetstream.publish(order["subject"], payload, headers={"Nats-Msg-Id": f"{run}-{number}"})

    started = time.perf_counter()
    await asyncio.gather(*(publisher() for _ in range(PUBLISHES_IN_FLIGHT_MAX)))
    took = time.perf_counter() - started
    await client.close()
    return {"per_second": order["count"] / took, "count": order["count"], "failures": {}}


if __name__ == "__main__":
    uvloop.run(serve())
