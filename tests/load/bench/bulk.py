"""Figures of a bulk import into an empty customer master: speed, memory, and how long the events take afterwards."""

import tempfile
from pathlib import Path

from bench import crowd
from bench.figures import Report
from bench.intake import told
from bench.machine import Machine
from bench.processes import Broken, Helper

PEOPLE = 50_000
"""Times BENCH_SCALE: 20 for a million. The speed falls as the master grows, so that a million is worth its time."""
MILLION_SECONDS_MAX = 180
PROCESS_MEGABYTES_MAX = 1_024


async def measure(report: Report, machine: Machine, scale: float) -> None:
    """A crowd in a CSV file, uploaded in parts and imported."""
    count = max(5_000, round(PEOPLE * scale))
    with tempfile.TemporaryDirectory(prefix="concord-bench-crowd-") as folder:
        file = Path(folder) / "crowd.csv"
        crowd.write(count, file)
        async with Helper("bulk_service", await told(machine)) as service:
            answer = await service.ask({"file": str(file), "drain": True})
    if answer["state"] != "IMPORT_STATE_SUCCEEDED" or answer["created"] != count:
        raise Broken(f"the import did not take every row: {answer}")
    seconds, section = answer["load_seconds"], f"bulk import of {count:,} people into an empty master"
    note = f"CSV; upload {answer['upload_seconds']:.1f} s before, relay of all events {answer['drain_seconds']:.1f} s after"
    report.add(section, "rows", [count / seconds], "/s", note=note)
    goal = {"goal": MILLION_SECONDS_MAX, "at_most": True}
    what = (
        "a million people" if count >= 1_000_000 else "a million people, if it stayed as fast (it does not: run BENCH_SCALE=20)"
    )
    report.add(section, what, [seconds * 1_000_000 / count], "s", **goal)
    peak = {"goal": PROCESS_MEGABYTES_MAX, "at_most": True, "note": "the service, and each process that prepares rows"}
    report.add(section, "peak memory of a process", [bytes_ / (1 << 20) for bytes_ in answer["peak_bytes"]], "MB", **peak)
