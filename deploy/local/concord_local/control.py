"""Starting and stopping the supervisor from the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from concord_local import system
from concord_local.stack import Stack
from concord_local.state import State

READY_SECONDS_MAX = 180.0
STOP_SECONDS_MAX = 90.0
POLL_SECONDS = 0.05


@dataclass
class Launched:
    """A supervisor's process and the pipe on which it tells how the start goes."""

    process: "subprocess.Popen[bytes]"
    told: IO[str]


def launch(state: State, detach: bool) -> Launched:
    """Starts the supervisor in a session of its own; not detached, it ends when we do. Raises Trouble."""
    stack = Stack(state)
    state.make()
    stack.refuse_impossible()
    reader, writer = os.pipe()
    with state.log("supervisor").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "concord_local.supervise", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writer],
            start_new_session=True,  # Ctrl-C reaches us alone, and we tell it
            preexec_fn=None if detach else system.dies_with_parent(signal.SIGTERM),  # noqa: PLW1509 - makes one system call
        )
    os.close(writer)
    return Launched(process, os.fdopen(reader))


def follow(launched: Launched, state: State, show: Callable[[dict[str, Any]], None]) -> float | None:
    """Shows how the start goes until the platform is ready; returns the seconds it took, None when another start came first.

    Raises Trouble when the start fails.
    """
    try:
        for line in launched.told:
            told = json.loads(line)
            if "running" in told:
                return None
            if "failed" in told:
                launched.process.wait()
                raise system.Trouble(told["failed"])
            if "ready" in told:
                return float(told["ready"])
            show(told)
    except KeyboardInterrupt:
        wait(launched, asked=True)
        raise
    raise system.Trouble(
        f"the supervisor ended: {system.last_line(state.log('supervisor'))} (all of it: {state.log('supervisor')})"
    )


def wait(launched: Launched, asked: bool = False) -> int:
    """Waits until the supervisor ends and returns its exit status; Ctrl-C asks it to."""
    if asked:
        launched.process.send_signal(signal.SIGTERM)
    while True:
        try:
            return launched.process.wait()
        except KeyboardInterrupt:
            launched.process.send_signal(signal.SIGTERM)


def wait_until_ready(state: State) -> None:
    """Waits for a start that another process began. Raises Trouble when it does not come to a good end."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while state.status().get("phase") != "ready":
        if not state.is_running():
            raise system.Trouble(f"the start that was under way failed; see {state.log('supervisor')}")
        if time.monotonic() > deadline:
            raise system.Trouble(f"another start is not ready after {READY_SECONDS_MAX:.0f} s; see `concord status`")
        time.sleep(POLL_SECONDS)


def stop(state: State) -> float:
    """Stops what runs and returns the seconds it took. Raises Trouble when it does not end."""
    began = time.monotonic()
    asked = False
    while state.is_running():
        pid = state.status().get("pid")
        if pid and not asked:
            os.kill(pid, signal.SIGTERM)  # the lock is held, so its number is its own
            asked = True
        if time.monotonic() - began > STOP_SECONDS_MAX:
            raise system.Trouble(
                f"the supervisor (pid {pid}) does not end after {STOP_SECONDS_MAX:.0f} s; see {state.log('supervisor')}"
            )
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def is_well(status: dict[str, Any]) -> bool:
    """Whether everything that should run does."""
    return status["phase"] == "ready" and all(row["state"] in ("ready", "done") for row in status["programs"])
