"""`python -m bench`: measures, prints a table, writes build/bench.json. Fails when something broke, not when a goal is missed."""

import asyncio
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console

from bench import baselines, bulk, intake, whole
from bench.figures import Report
from bench.machine import running
from bench.processes import Broken, Helper, Loads
from concord_local.state import project
from concord_local.system import Trouble

OUTPUT = Path("build") / "bench.json"
SCALE_MIN, SCALE_MAX = 0.05, 20.0
FAILURES = (Broken, Trouble, AssertionError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

console = Console(width=max(140, Console().width), highlight=False)


def main() -> None:
    """Runs everything."""
    if len(sys.argv) > 1:
        sys.exit("usage: [BENCH_SCALE=0.25] make bench\nMeasures the platform beside this machine: docs/bench.md")
    report = Report(_facts(_scale()))
    asyncio.run(_measure(report, float(report.facts["scale"])))
    report.show(console)
    report.write(project() / OUTPUT)
    console.print(f"took {report.facts['seconds']:.0f} s; all of it is in {OUTPUT}")
    sys.exit(1 if report.broken else 0)


async def _measure(report: Report, scale: float) -> None:
    began = time.monotonic()
    with console.status("starting") as status:

        async def step(name: str, measure: Callable[[], Awaitable[None]]) -> None:
            status.update(name)
            try:
                await measure()
            except FAILURES as error:
                report.broken.append(f"{name}: {type(error).__name__}: {error}")

        async with AsyncExitStack() as open_things:
            machine = await open_things.enter_async_context(running())
            loads = Loads(await open_things.enter_async_context(Helper("loads")))
            await step("machine", lambda: baselines.measure_machine(report, machine, scale))
            await step("outbox relay", lambda: baselines.measure_relay(report, machine, loads, scale))
            await step("intake", lambda: intake.measure(report, machine, scale))
            await step("bulk import", lambda: bulk.measure(report, machine, scale))
            echo = await open_things.enter_async_context(machine.echo(baselines.DURABLE))
            await whole.measure(report, echo, loads, scale, step)
    report.facts["seconds"] = time.monotonic() - began


def _scale() -> float:
    text = os.environ.get("BENCH_SCALE") or "1"
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not SCALE_MIN <= scale <= SCALE_MAX:
        sys.exit(f"BENCH_SCALE is {text!r}; it must be a number from {SCALE_MIN} to {SCALE_MAX:g}")
    return scale


def _facts(scale: float) -> dict[str, Any]:
    processor = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} × {processor}, {memory:.0f} GiB, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "scale": scale,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    main()
