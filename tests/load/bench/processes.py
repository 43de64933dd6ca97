"""Processes that the bench starts, and what the system tells about processes."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import TESTS
from bench.loads import WARM_UP_SECONDS
from concord_local.state import project

READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
LINE_BYTES_MAX = 1 << 26
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

Json = dict[str, Any]


class Broken(Exception):
    """A measurement could not be made: something failed that must not."""


class Helper:
    """A module of this package in a process of its own; it says a line of JSON when it is ready. An async context manager."""

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._environment = {**os.environ, "PYTHONPATH": str(TESTS / "load"), **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object

    async def __aenter__(self) -> "Helper":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"bench.{self._module}", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            env=self._environment, cwd=project(), limit=LINE_BYTES_MAX,
        )  # fmt: skip
        async with asyncio.timeout(READY_SECONDS_MAX):
            await self.answer()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        process = self._running
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
            except TimeoutError:
                process.kill()
                await process.wait()

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise Broken(f"{self._module} was not started")
        return self._process

    @property
    def pid(self) -> int:
        """Its number."""
        return self._running.pid

    async def answer(self) -> Json:
        """The next line it says. Raises Broken when it ended."""
        assert self._running.stdout is not None
        line = await self._running.stdout.readline()
        if not line:
            status = await self._running.wait()
            self._said.seek(0)
            last = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise Broken(f"{self._module} ended with {status}: {last}")
        return dict(json.loads(line))

    async def ask(self, order: Json) -> Json:
        """Gives an order and waits for the answer."""
        assert self._running.stdin is not None
        self._running.stdin.write(json.dumps(order).encode() + b"\n")
        await self._running.stdin.drain()
        return await self.answer()


class Loads:
    """Gives orders to the load generator; a failed call breaks the measurement, because it would flatter the rate."""

    def __init__(self, helper: Helper) -> None:
        self._helper = helper

    async def run(self, order: Json, server_pid: int | None = None) -> Json:
        """What came of an order; with a server's process also `server_cpu_us`, its CPU microseconds a call."""
        before = cpu_seconds(server_pid) if server_pid else 0.0
        answer = await self._helper.ask(order)
        if answer["failures"]:
            worst = max(answer["failures"].items(), key=lambda item: item[1])
            raise Broken(f"{sum(answer['failures'].values())} of {answer['count']} calls failed, most with: {worst[0]}")
        if server_pid:
            # The warm-up's calls are in the time too, at the same rate: its share is taken out.
            used = (cpu_seconds(server_pid) - before) / (1 + WARM_UP_SECONDS / order["seconds"])
            answer["server_cpu_us"] = used / answer["count"] * 1e6
        return answer


def encoded(requests: Iterable[bytes]) -> list[str]:
    """Bytes as the load generator takes them."""
    return [base64.b64encode(request).decode() for request in requests]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process since it began."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / TICKS_PER_SECOND


class Neighbours:
    """How busy processes other than ours keep the machine while something is measured: what makes a figure doubtful.

    Args:
        roots: processes of ours that are not below this one.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = [os.getpid(), *roots]
        self._began = self._now()

    def cores(self) -> float:
        """Cores that others used, on average since this was made."""
        before, after = self._began, self._now()
        return max(0.0, (after[1] - before[1]) / (after[0] - before[0]))

    def _now(self) -> tuple[float, float]:
        ours = sum(map(cpu_seconds_if_there, dict.fromkeys(pid for root in self._roots for pid in with_children(root))))
        fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
        idle, waiting = 3, 4
        busy = sum(fields) - fields[idle] - fields[waiting]
        return time.monotonic(), busy / TICKS_PER_SECOND - ours


def cpu_seconds_if_there(pid: int) -> float:
    """As `cpu_seconds`, 0 when the process is gone."""
    try:
        return cpu_seconds(pid)
    except OSError:
        return 0.0


def resident_bytes(pid: int, peak: bool = False) -> int:
    """Resident memory of a process, now or at its peak; 0 when it is gone."""
    name = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), 0)


def with_children(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:  # ended meanwhile
                continue
    return found


def proportional_bytes(pids: Sequence[int]) -> int:
    """Memory of processes that share some of it: each shared page is divided among those that have it."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
    return total
