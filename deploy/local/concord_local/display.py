"""How the state of the platform looks in a terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from concord_local import system

COLOURS = {"ready": "green", "starting": "yellow", "restarting": "red", "not serving": "red", "stopped": "dim", "waiting": "dim"}


def status_table(status: dict[str, Any]) -> Table:
    """A line for each program that runs, with its memory."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("program", "state", "pid", "restarts", "memory", "up since", "address"):
        table.add_column(heading, justify="right" if heading in ("pid", "restarts", "memory") else "left", overflow="fold")
    total = 0
    supervisor = {"name": "supervisor", "state": status["phase"], "pid": status["pid"], "restarts": 0}
    for row in [*status["programs"], supervisor | {"started_at": status["began"], "address": ""}]:
        if row["state"] == "done":  # a migration that did its work
            continue
        used = system.memory_bytes(row["pid"]) if row["pid"] else None
        total += used or 0
        table.add_row(
            row["name"],
            f"[{COLOURS.get(row['state'], 'default')}]{row['state']}[/]",
            str(row["pid"] or "-"),
            str(row["restarts"]),
            _megabytes(used),
            _since(row["started_at"]) if row["pid"] else "-",
            row["address"],
        )
    table.add_row("[bold]all[/]", "", "", "", _megabytes(total or None), "", "")
    return table


def troubles(status: dict[str, Any]) -> Iterator[str]:
    """What the programs that are not well said last."""
    for row in status["programs"]:
        if row.get("said"):
            yield f"{row['name']} ({row['state']}, last exit status {row['exit_status']}) said: {row['said']}"


@contextmanager
def starting(console: Console) -> Iterator[Any]:
    """Shows how the start goes; yields a function that takes what the supervisor announces."""
    states: dict[str, str] = {}
    with console.status("starting") as spinner:

        def show(told: dict[str, Any]) -> None:
            states[told["name"]] = told["state"]
            busy = [name for name, state in states.items() if state in ("starting", "restarting")]
            spinner.update(f"starting {', '.join(busy)}" if busy else "starting")
            if told["state"] in ("ready", "done"):
                console.print(f"  [green]✓[/] {told['name']}", highlight=False)
            elif told["state"] == "restarting":
                console.print(f"  [yellow]![/] {told['name']} ended and is started again", highlight=False)

        yield show


def tail(path: Path, lines: int, follow: bool) -> Iterator[str]:
    """The last lines of a log, then new ones as they come when `follow`; ends at Ctrl-C."""
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from file.readlines()[-lines:]
        while follow:
            line = file.readline()
            if line:
                yield line
            elif path.stat().st_size < file.tell():  # it was shortened
                file.seek(0)
            else:
                time.sleep(0.2)


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / (1 << 20):.0f} MB"


def _since(instant: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(instant))
