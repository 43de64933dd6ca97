"""What the local platform needs of the operating system: ports, locks, users, and children that never outlive it."""

import ctypes
import fcntl
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below the ranges from which Linux and macOS serve outgoing connections: none of those takes a port whose program restarts.
PORTS = range(20_000, 32_000)
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


class Trouble(RuntimeError):
    """Something stands in the way; the text is one line that says what it is and what to do."""


@dataclass(frozen=True)
class Account:
    """The account a child runs under: user and group numbers, no other groups; None means our own."""

    user: int | None = None
    group: int | None = None

    @property
    def extra_groups(self) -> list[int] | None:
        """The supplementary groups to pass to subprocess: none for another account, ours otherwise."""
        return None if self.user is None else []

    def own(self, path: Path) -> None:
        """Makes the account the owner of `path`."""
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)

    def run(self, command: list[str | Path]) -> "subprocess.CompletedProcess[bytes]":
        """Runs a short command under the account and collects what it says."""
        return subprocess.run(
            command,
            capture_output=True,
            check=False,
            cwd="/",
            env=MINIMAL_ENVIRONMENT,
            user=self.user,
            group=self.group,
            extra_groups=self.extra_groups,
        )

    def reaches(self, directory: Path) -> bool:
        """Whether the account may enter `directory`; an existing ancestor is asked in place of one that is not there yet."""
        while not directory.exists():
            directory = directory.parent
        return self.run(["/usr/bin/test", "-x", directory]).returncode == 0


MINIMAL_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TZ": "UTC"}


def unprivileged() -> Account:
    """The account for programs that refuse to be root: `nobody` when we are root, else our own."""
    if os.geteuid() != 0:
        return Account()
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def dies_with_parent(stop_signal: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: Linux sends the child `stop_signal` when we die, however we die.

    The kernel binds this to the parent's thread, so it is left out when another thread than the main one spawns.
    """
    parent = os.getpid()
    bound = _libc is not None and threading.current_thread() is threading.main_thread()

    def in_child() -> None:
        if bound and _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, stop_signal)
            if os.getppid() != parent:  # the parent died between fork and prctl
                os._exit(1)

    return in_child


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on `port` of an IPv4 host."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(taken: Iterable[int] = ()) -> int:
    """A free port that is not one of `taken`. Raises OSError when none is found."""
    for _ in range(1_000):
        port = random.choice(PORTS)
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {PORTS.start} and {PORTS.stop} on {LOOPBACK}")


def lock(path: Path) -> int | None:
    """The descriptor that holds the lock file, or None when another process holds it. Children never inherit it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def working_in(directory: Path) -> list[int]:
    """The processes whose working directory is `directory`; nothing where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(directory):
                found.append(int(entry.name))
        except OSError:  # ended meanwhile, a zombie, or another user's
            continue
    return found


def end_all_working_in(directory: Path) -> None:
    """Ends what an earlier, killed server left behind in its directory. Call only while holding that server's lock."""
    for stop_signal, seconds_max in ((signal.SIGQUIT, 2.0), (signal.SIGKILL, 5.0)):
        left = working_in(directory)
        for pid in left:
            try:
                os.kill(pid, stop_signal)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + seconds_max
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = working_in(directory)


def memory_bytes(pid: int) -> int | None:
    """Resident memory of a process, or None where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None


def free_bytes(directory: Path) -> int:
    """What an ordinary account may still write on the disk of `directory`."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def last_line(path: Path, offset: int = 0, bytes_max: int = 4096) -> str:
    """The last line after `offset` bytes of a log that says something, or an empty string."""
    try:
        with path.open("rb") as file:
            file.seek(max(offset, path.stat().st_size - bytes_max))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, in place of an older one, in one step."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.rename(path)
