"""The whole platform as real processes, for the system and fault tests: started, called, killed, looked into."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from concord_local.api import Gateway
from concord_local.stack import SERVICES, Stack
from concord_local.state import State

COMMAND = Path(sys.executable).parent / "concord"
READY_SECONDS_MAX = 60.0
SETTLE_SECONDS_MAX = 60.0

Json = dict[str, Any]


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Platform:
    """One platform with its state in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "CONCORD_STATE": str(folder), "CONCORD_HTTP_LISTEN": f"127.0.0.1:{free_port()}"}
        self.state = State(folder)

    @property
    def stack(self) -> Stack:
        """Its ports, addresses and passwords."""
        return Stack(self.state, self.environment).load()

    def run(self, *arguments: str, check: bool = True, seconds_max: float = 300.0) -> "subprocess.CompletedProcess[str]":
        """Runs the `concord` command against this platform."""
        done = subprocess.run(
            [COMMAND, *arguments], env=self.environment, capture_output=True, text=True, timeout=seconds_max, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"concord {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def up(self) -> None:
        """Starts it and waits until it is ready."""
        self.run("up", "--detach")

    def down(self) -> None:
        """Stops it."""
        self.run("down")

    def gateway(self) -> Gateway:
        """A client that retries through restarts."""
        return Gateway(self.stack)

    def pid(self, program: str) -> int:
        """The process number of a program, 0 while it does not run."""
        return next(int(row["pid"]) for row in self.state.status()["programs"] if row["name"] == program)

    def kill(self, program: str) -> None:
        """kill -9."""
        if pid := self.pid(program):
            with suppress(ProcessLookupError):  # it died of the kill before, and the supervisor has not noticed yet
                os.kill(pid, signal.SIGKILL)

    async def until_well(self) -> None:
        """Waits until every program serves again."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while self.run("status", check=False).returncode:
            assert time.monotonic() < deadline, self.run("status", check=False).stdout
            await asyncio.sleep(0.3)

    async def query(self, service: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """What a service's database answers."""
        connection = await asyncpg.connect(self.stack.database_url(service))
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def until_settled(self) -> None:
        """Waits until every event has arrived: outboxes empty, nothing pending at any consumer, no customer left to rate."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        still = 0
        while still < 3:
            left = await self.unsettled()
            still = 0 if left else still + 1
            assert time.monotonic() < deadline, f"not settled after {SETTLE_SECONDS_MAX:.0f} s: {left}"
            await asyncio.sleep(0.2)

    async def unsettled(self) -> dict[str, int]:
        """What is still under way, by place."""
        counts = {}
        for service in SERVICES:
            statement = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
            counts[f"{service} outbox"] = (await self.query(service, statement))[0]["count"]
        counts["rerate queue"] = (await self.query("rating", "SELECT count(*) FROM rerate_queue"))[0]["count"]
        for stream, consumer, pending in await asyncio.to_thread(lambda: list(self.consumers())):
            counts[f"{stream}/{consumer}"] = pending
        return {place: count for place, count in counts.items() if count}

    def consumers(self) -> Iterator[tuple[str, str, int]]:
        """Stream, consumer and messages not yet acknowledged, as the NATS server tells."""
        assert self.stack.nats is not None
        address = f"http://127.0.0.1:{self.stack.ports['nats-monitor']}/jsz?streams=true&consumers=true"
        with urllib.request.urlopen(address, timeout=5) as answer:
            told = json.load(answer)
        for account in told.get("account_details", []):
            for stream in account.get("stream_detail", []):
                for consumer in stream.get("consumer_detail") or []:
                    yield stream["name"], consumer["name"], consumer["num_pending"] + consumer["num_ack_pending"]


@contextmanager
def running_platform() -> Iterator[Platform]:
    """A platform with fresh data, gone afterwards. It lies where PostgreSQL's account can go."""
    folder = Path(tempfile.mkdtemp(prefix="concord-test-"))
    folder.chmod(0o711)
    platform = Platform(folder)
    try:
        platform.up()
        yield platform
    finally:
        platform.run("down", check=False)
        shutil.rmtree(folder, ignore_errors=True)
