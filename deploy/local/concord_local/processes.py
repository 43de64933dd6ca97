"""Keeps processes running: starts them stage by stage, restarts with back-off, stops in reverse order. Knows no service."""

import asyncio
import os
import random
import shutil
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from concord_local import system
from concord_local.state import State

RESTART_SECONDS_MIN, RESTART_SECONDS_MAX = 0.2, 10.0
HEALTHY_AFTER_SECONDS = 10.0  # a program that lived this long is restarted at once again
DEATHS_BEFORE_READY_MAX = 3
READY_SECONDS_MAX = 60.0
READY_POLL_SECONDS = 0.03
STOP_SECONDS_MAX = 15.0
WATCH_SECONDS = 2.0
LOG_BYTES_MAX = 32 << 20


class StartFailed(system.Trouble):
    """A program did not become ready; the text says which, why, and where to look."""


@dataclass(frozen=True)
class Program:
    """What to run. `once`: it must end with status 0 before the next stage. `then` runs after it became ready the first time."""

    name: str
    command: Callable[[], Sequence[str]]
    ready: Callable[[int], Awaitable[bool]] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    account: system.Account = field(default_factory=system.Account)
    stop_signal: signal.Signals = signal.SIGTERM
    prepare: Callable[[], None] | None = None
    then: Callable[[], Awaitable[None]] | None = None
    once: bool = False
    address: str = ""


class Child:
    """The life of one program: its process, its state, and how often it came back."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self.log = log
        self.log_from = 0
        self.process: Process | None = None
        self.keeper: asyncio.Task[None] | None = None
        self.state = "waiting"
        self.deaths = 0
        self.started_at = 0.0
        self.exit_status: int | None = None

    @property
    def pid(self) -> int | None:
        """The process number while it lives."""
        return self.process.pid if self.process and self.process.returncode is None else None

    @property
    def last_words(self) -> str:
        """What the program's log says last, of this life."""
        return system.last_line(self.log, self.log_from)

    def row(self) -> dict[str, Any]:
        """Its line in the status."""
        told: dict[str, Any] = {"name": self.program.name, "state": self.state, "pid": self.pid, "restarts": self.deaths}
        told |= {"started_at": self.started_at, "address": self.program.address, "exit_status": self.exit_status}
        return told | {"said": self.last_words if self.state in ("restarting", "not serving") else ""}


class Supervisor:
    """Runs stages of programs until `stop()`; the next stage starts when every program of the one before is ready."""

    def __init__(self, stages: Sequence[Sequence[Program]], state: State, announce: Callable[[dict[str, Any]], None]) -> None:
        self.state = state
        self.announce = announce
        self.stages = [[Child(program, state.log(program.name)) for program in stage] for stage in stages]
        self.children = [child for stage in self.stages for child in stage]
        self.phase = "starting"
        self._stopping = asyncio.Event()
        self._began = time.time()

    def stop(self) -> None:
        """Asks for an orderly end."""
        self._stopping.set()

    async def run(self) -> bool:
        """Starts everything, keeps it running until `stop()` and stops it. False when the start failed."""
        failure = None
        try:
            for stage in self.stages:
                await self._start_stage(stage)
            self._enter("stopping" if self._stopping.is_set() else "ready")
            if self.phase == "ready":
                self.announce({"ready": time.time() - self._began})
                await self._watch()
        except StartFailed as why:
            failure = str(why)
        finally:
            self.stop()
            self._enter("stopping")
            for stage in reversed(self.stages):
                await asyncio.gather(*(self._stop_child(child) for child in stage))
            self._enter("stopped")
        if failure:
            self.announce({"failed": failure})
        return failure is None

    # ---- starting

    async def _start_stage(self, stage: Sequence[Child]) -> None:
        if self._stopping.is_set():
            return
        for child in stage:
            child.keeper = asyncio.create_task(self._keep(child))
        outcomes = await asyncio.gather(*(self._until_ready(child) for child in stage), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self._stopping.is_set():
            self._refuse_hopeless(child)
            if child.state in ("ready", "done") or await self._probe(child):
                if child.program.then:
                    await child.program.then()
                self._set(child, "done" if child.program.once else "ready")
                return
            if time.monotonic() > deadline:
                raise StartFailed(f"{child.program.name} is not ready after {READY_SECONDS_MAX:.0f} s; see {child.log}")
            await asyncio.sleep(READY_POLL_SECONDS)

    def _refuse_hopeless(self, child: Child) -> None:
        """Raises StartFailed for a program that cannot start, rather than waiting until its time is over."""
        if child.keeper and child.keeper.done() and (error := child.keeper.exception()):
            raise StartFailed(f"{child.program.name} cannot start: {error}") from error
        attempts_max = 1 if child.program.once else DEATHS_BEFORE_READY_MAX
        if child.deaths >= attempts_max:
            said = child.last_words or "it said nothing"
            ended = f"{child.program.name} ended with {child.exit_status} before it was ready: {said}"
            raise StartFailed(f"{ended} (all of it: {child.log})")

    async def _probe(self, child: Child) -> bool:
        if child.pid is None or child.program.once:
            return False
        return child.program.ready is None or await child.program.ready(child.pid)

    # ---- keeping

    async def _keep(self, child: Child) -> None:
        """Runs a program again and again until we stop (a `once` program: one time)."""
        delay = RESTART_SECONDS_MIN
        while not self._stopping.is_set():
            if child.program.prepare:
                await asyncio.to_thread(child.program.prepare)
            process = await self._spawn(child)
            if self._stopping.is_set():
                process.send_signal(child.program.stop_signal)
            child.exit_status = await process.wait()
            _kill_group(process.pid)  # what it started itself
            if child.program.once and child.exit_status == 0:
                self._set(child, "done")
                return
            if self._stopping.is_set():
                return
            if time.time() - child.started_at > HEALTHY_AFTER_SECONDS:
                delay = RESTART_SECONDS_MIN
            child.deaths += 1
            self._set(child, "failed" if child.program.once else "restarting")
            if child.program.once:
                return
            await self._pause(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, RESTART_SECONDS_MAX)

    async def _spawn(self, child: Child) -> Process:
        program = child.program
        folder = self.state.run_folder(program.name)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)  # its account must be able to stand in it
        with child.log.open("ab") as log:
            child.log_from = log.tell()
            child.process = await asyncio.create_subprocess_exec(
                *program.command(),
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=dict(program.environment),
                user=program.account.user,
                group=program.account.group,
                extra_groups=program.account.extra_groups,
                process_group=0,
                preexec_fn=system.dies_with_parent(program.stop_signal),
            )
        child.started_at = time.time()
        self._set(child, "starting")
        return child.process

    async def _watch(self) -> None:
        """Until we stop: sees who serves and who does not, and keeps the logs small."""
        while not self._stopping.is_set():
            lasting = [child for child in self.children if not child.program.once]
            serving = await asyncio.gather(*(self._probe(child) for child in lasting))
            for child, serves in zip(lasting, serving, strict=True):
                if serves:
                    child.state = "ready"
                elif child.state == "ready" and child.pid is not None:
                    child.state = "not serving"
                _shorten(child.log)
            self._tell()
            await self._pause(WATCH_SECONDS if all(serving) else WATCH_SECONDS / 4)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    # ---- stopping

    async def _stop_child(self, child: Child) -> None:
        if child.keeper is None:
            return
        if child.process and child.process.returncode is None:
            child.process.send_signal(child.program.stop_signal)
        done, _ = await asyncio.wait([child.keeper], timeout=STOP_SECONDS_MAX)
        if not done:
            if child.process:
                _kill_group(child.process.pid)
            await asyncio.wait([child.keeper], timeout=STOP_SECONDS_MAX)
        self._set(child, "done" if child.program.once and child.exit_status == 0 else "stopped")

    # ---- telling

    def _set(self, child: Child, state: str) -> None:
        if child.state != state:
            child.state = state
            self.announce({"name": child.program.name, "state": state})
            self._tell()

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self._tell()

    def _tell(self) -> None:
        rows = [child.row() for child in self.children]
        try:
            self.state.write_status({"pid": os.getpid(), "phase": self.phase, "began": self._began, "programs": rows})
        except OSError as error:  # a full disk must not end the supervisor too
            print(f"cannot write the status: {error}", file=sys.stderr)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _shorten(log: Path) -> None:
    """Keeps a log and one older piece below LOG_BYTES_MAX each; its writer appends, so it goes on at the new end."""
    try:
        if log.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(log, log.with_suffix(".old.log"))
            os.truncate(log, 0)
    except OSError as error:
        print(f"cannot shorten {log}: {error}", file=sys.stderr)
