"""What PostgreSQL and NATS have in common: one server with a directory of its own, started here or by the supervisor."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from concord_local import system

STOP_SECONDS_MAX = 10.0


class Server(ABC):
    """A server with its data below `state_dir`, which one process at a time may run.

    `start()` and `stop()` run it from this process, for tests and tools. Start it in the main thread: on Linux the kernel
    then ends it when this process dies. The supervisor calls `prepare()` and runs `command()` itself.
    """

    name: str
    stop_signal: signal.Signals
    start_seconds_max: float
    account = system.Account()

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir.resolve()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Makes ready what the server needs before each start. Call only while holding the directory's lock.

        Raises Trouble, which says what to do.
        """

    @abstractmethod
    def command(self) -> list[str]:
        """The server's command line."""

    @abstractmethod
    def is_ready(self, pid: int) -> bool:
        """Whether the server with this pid serves."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of the server's process."""
        return system.MINIMAL_ENVIRONMENT

    @property
    def log(self) -> Path:
        """What the server said since it was started by `start()`."""
        return self.state_dir / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The server's process while it runs by `start()`."""
        return self._process.pid if self._process else None

    def choose_ports(self) -> None:
        """Chooses a free port, unless one is set."""
        self.port = self.port or system.free_port()

    def start(self) -> None:
        """Starts the server and returns when it serves. Raises Trouble when it does not."""
        self._lock = system.lock(self.state_dir / "lock")
        if self._lock is None:
            raise system.Trouble(f"another process runs {self.name} in {self.state_dir}")
        try:
            self.choose_ports()
            self.prepare()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=self.environment,
                    user=self.account.user,
                    group=self.account.group,
                    extra_groups=self.account.extra_groups,
                    process_group=0,
                    preexec_fn=system.dies_with_parent(self.stop_signal),  # noqa: PLW1509 - makes one system call
                )
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server; its connections are closed. Nothing happens when it does not run."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def kill(self) -> None:
        """Kills the server as a power cut would (SIGKILL); `start()` afterwards recovers. For fault tests."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.stop()

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + self.start_seconds_max
        while not self.is_ready(process.pid):
            if process.poll() is not None:
                raise system.Trouble(f"{self.name} ended with {process.returncode}: {system.last_line(self.log)}; see {self.log}")
            if time.monotonic() > deadline:
                raise system.Trouble(f"{self.name} is not ready after {self.start_seconds_max:.0f} s; see {self.log}")
            time.sleep(0.01)
