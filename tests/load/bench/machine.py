"""What the machine itself can do, and the bench's own servers: PostgreSQL, NATS, and a chassis service that does nothing."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from bench.processes import Broken, Helper
from chassis import identity, outbox
from chassis.identity import InternalTokens, Principal, PrincipalKind
from chassis.outbox import Event
from concord.customer.v1.customer_events_pb2 import InstitutionChanged
from concord_local import postgres, system
from concord_local.nats import NatsServer
from concord_local.postgres import Postgres

FLUSH_SECONDS = 1.5
FLUSH_BYTES = 8192
PGBENCH_SCALE = 5
PGBENCH_CLIENTS = 8
EVENT_PAYLOAD_BYTES = 256
EVENT_TYPE = "concord.bench.v1.something.happened"
FILL_ROWS_MAX = 1000
DRAIN_SECONDS_MAX = 60.0
POLL_SECONDS = 0.01


@dataclass
class Echo:
    """A chassis service that does nothing, with its database and NATS."""

    helper: Helper
    address: str
    database_url: str
    nats_url: str
    tokens: InternalTokens

    def token(self) -> str:
        """What a gateway would send; valid for five minutes."""
        return self.tokens.sign(caller("bench-bank"))


class Machine:
    """The bench's own PostgreSQL, and NATS twice: with the platform's durability, and with NATS's own default."""

    def __init__(self, folder: Path, server: Postgres, buses: dict[str, NatsServer]) -> None:
        self.folder = folder
        self.postgres = server
        self.buses = buses

    def flushes_per_second(self) -> float:
        """fdatasync of one page, again and again, on the volume where the databases lie."""
        page, count = os.urandom(FLUSH_BYTES), 0
        descriptor = os.open(self.folder / "flushed", os.O_WRONLY | os.O_CREAT)
        try:
            started = time.perf_counter()
            while time.perf_counter() - started < FLUSH_SECONDS:
                os.pwrite(descriptor, page, 0)
                os.fdatasync(descriptor)
                count += 1
            return count / (time.perf_counter() - started)
        finally:
            os.close(descriptor)

    async def prepare_pgbench(self) -> None:
        """Makes pgbench's own database."""
        await self.execute("CREATE DATABASE pgbench")
        self._pgbench("-i", "-q", "-s", str(PGBENCH_SCALE))

    def transactions_per_second(self, seconds: int) -> float:
        """pgbench's TPC-B with 8 clients, prepared statements, durable commits."""
        said = self._pgbench("-M", "prepared", "-c", str(PGBENCH_CLIENTS), "-j", "2", "-n", "-T", str(seconds))
        found = re.search(r"tps = ([0-9.]+)", said)
        if found is None:
            raise Broken(f"pgbench said nothing of tps: {said[-300:]}")
        return float(found[1])

    def _pgbench(self, *arguments: str) -> str:
        place = ["-h", system.LOOPBACK, "-p", str(self.postgres.port), "-U", postgres.SUPERUSER]
        environment = {**system.MINIMAL_ENVIRONMENT, "PGPASSWORD": self.postgres.password}
        command: list[str | Path] = [postgres.wheel() / "bin/pgbench", *place, *arguments, "pgbench"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise Broken(f"pgbench ended with {done.returncode}: {done.stderr[-300:]}")
        return done.stdout

    async def execute(self, statement: str) -> None:
        """Runs a statement as the superuser."""
        connection = await asyncpg.connect(self.postgres.url())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @asynccontextmanager
    async def echo(self, bus: str) -> AsyncIterator[Echo]:
        """The service, running, with a database of its own on one of the buses."""
        database, port, metrics_port = f"bench_{uuid.uuid4().hex}", system.free_port(), system.free_port()
        await self.execute(f"CREATE DATABASE {database}")
        (private, public), (own_private, own_public) = map(identity.generate_key, (identity.GATEWAY, "bench"))
        keys = json.dumps({"keys": [public, own_public]})
        told = {
            "CONCORD_DATABASE_URL": self.postgres.url(database),
            "CONCORD_NATS_URL": self.buses[bus].url(),
            "CONCORD_GRPC_LISTEN": f"{system.LOOPBACK}:{port}",
            "CONCORD_METRICS_LISTEN": f"{system.LOOPBACK}:{metrics_port}",
            "CONCORD_IDENTITY_KEYS": keys,
            "CONCORD_IDENTITY_PRIVATE_KEY": json.dumps(own_private),
        }
        tokens = InternalTokens(identity.GATEWAY, keys, json.dumps(private))
        async with Helper("echo_service", told) as helper:
            yield Echo(helper, told["CONCORD_GRPC_LISTEN"], told["CONCORD_DATABASE_URL"], told["CONCORD_NATS_URL"], tokens)


def caller(institution: str) -> Principal:
    """A bank's application, as the gateway would present it."""
    scopes = frozenset({"customer.read", "personal.read", "points.read", "points.redeem"})
    return Principal(PrincipalKind.CHANNEL, institution, "bench", "bench", scopes)


async def relayed_per_second(echo: Echo, count: int) -> float:
    """Commits events to the outbox at once, and takes the time until the running relay has published and marked all of them."""
    message = InstitutionChanged(institution_id="b" * (EVENT_PAYLOAD_BYTES - 3))  # 3: the field's tag and length
    connection = await asyncpg.connect(echo.database_url)
    try:
        async with connection.transaction():
            for first in range(0, count, FILL_ROWS_MAX):
                rows = range(first, min(first + FILL_ROWS_MAX, count))
                await outbox.write(connection, [Event(EVENT_TYPE, f"a{row}", message) for row in rows], datetime.now(UTC))
        started = time.perf_counter()
        while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL)"):
            if time.perf_counter() - started > DRAIN_SECONDS_MAX:
                raise Broken(f"the relay has not published {count} events within {DRAIN_SECONDS_MAX:.0f} s")
            await asyncio.sleep(POLL_SECONDS)
        return count / (time.perf_counter() - started)
    finally:
        await connection.close()


@asynccontextmanager
async def running() -> AsyncIterator[Machine]:
    """The servers, with the settings of the platform's own, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="concord-bench-"))
    folder.chmod(0o711)
    server = Postgres(folder / "postgres")
    buses = {
        "each message flushed": NatsServer(folder / "nats-always", sync_always=True),
        "flushed every 2 min": NatsServer(folder / "nats-later"),
    }
    try:
        for each in (server, *buses.values()):
            each.start()
        yield Machine(folder, server, buses)
    finally:
        for each in (server, *buses.values()):
            each.stop()
        shutil.rmtree(folder, ignore_errors=True)
