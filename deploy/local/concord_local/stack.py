"""What the platform consists of on one machine: which programs, in which order, and what each is told."""

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

from concord_local import postgres, system
from concord_local.nats import NatsServer
from concord_local.postgres import Postgres
from concord_local.processes import Program
from concord_local.state import State

SERVICES = ("customer", "rating", "campaign", "contact", "loyalty")
SIGNERS = ("gateway", *SERVICES)
KEYS = "customer-keys"
"""The customer master's key store: a database of its own."""
DATABASES = {**{service: f"CONCORD_{service.upper()}_DATABASE_URL" for service in SERVICES}, KEYS: "CONCORD_CUSTOMER_KEYS_URL"}
VIEWER_ROLE = "concord_customer_viewer"
"""Reads of the customer master for an institution run as this role, under row-level security; nobody logs in with it."""
HTTP_LISTEN = "127.0.0.1:8080"
AUDIENCE = "concord"
CALLER_KINDS = ("channel", "partner", "staff", "operator")
CONNECTIONS_OF_A_SERVICE_MAX = 50
PROBE_SECONDS_MAX = 1.0
DISK_BYTES_MIN = 1 << 30
# Of the caller's environment, what a program needs in order to run at all; everything else it gets is told here.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class External:
    """Servers that are there already, by the database's name; None where the platform starts its own."""

    databases: Mapping[str, str] | None
    nats: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "External":
        """Reads the addresses of the databases and CONCORD_NATS_URL. Raises Trouble for some of the six only."""
        databases = {database: environment[name] for database, name in DATABASES.items() if environment.get(name)}
        missing = [name for database, name in DATABASES.items() if database not in databases]
        if databases and missing:
            raise system.Trouble(f"set {', '.join(missing)} too, or none of the six; they cannot be mixed")
        for database, url in databases.items():
            if not url.startswith(("postgresql://", "postgres://")):
                right = "postgresql://user:password@host:port/database"
                raise system.Trouble(f"{DATABASES[database]} is not the address of a PostgreSQL database; right would be {right}")
        return cls(databases or None, environment.get("CONCORD_NATS_URL"))


class Stack:
    """The platform with its state in one folder. Making it starts nothing."""

    def __init__(self, state: State, environment: Mapping[str, str] = os.environ) -> None:
        self.state = state
        self.given = environment
        self.external = External.from_environment(environment)
        self.http_listen = environment.get("CONCORD_HTTP_LISTEN") or HTTP_LISTEN
        self.http_host, self.http_port = _host_and_port(self.http_listen)
        self.postgres: Postgres | None = None
        self.nats: NatsServer | None = None
        self.passwords: dict[str, str] = {}
        self.ports: dict[str, int] = {}

    def refuse_impossible(self) -> None:
        """Raises Trouble when the start cannot succeed: port taken, disk full. Call while nothing runs."""
        if not system.is_free(self.http_port, self.http_host):
            other = f"CONCORD_HTTP_LISTEN={self.http_host}:{self.http_port + 1}"
            raise system.Trouble(f"{self.http_listen} is taken: end what listens there, or choose another port: {other}")
        free = system.free_bytes(self.state.folder)
        if free < DISK_BYTES_MIN:
            short = f"only {free >> 20} MB are free in {self.state.folder}, the platform needs {DISK_BYTES_MIN >> 20}"
            raise system.Trouble(f"{short}: make room, or choose another place with CONCORD_STATE=folder")

    def load(self, anew: bool = False) -> "Stack":
        """Reads ports and passwords from the state folder, making what is missing; `anew` replaces ports that are taken."""
        self.state.make()
        self.passwords = self.state.passwords(
            ["postgres", *(f"postgres-{d}" for d in DATABASES), *(f"nats-{s}" for s in SERVICES)]
        )
        wanted = ["postgres", "nats", "nats-monitor", "issuer", "gateway-metrics"]
        wanted += [f"{service}-{what}" for service in SERVICES for what in ("grpc", "metrics")]
        self.ports = self.state.ports(wanted, anew)
        if self.external.databases is None:
            self.postgres = Postgres(self.state.folder / "postgres", password=self.passwords["postgres"])
            self.postgres.port = self.ports["postgres"]
        if self.external.nats is None:
            secrets = {service: self.passwords[f"nats-{service}"] for service in SERVICES}
            self.nats = NatsServer(self.state.folder / "nats", SERVICES, secrets, sync_always=True)
            self.nats.port, self.nats.monitor_port = self.ports["nats"], self.ports["nats-monitor"]
        return self

    # ---- what each program is told

    def database_url(self, name: str) -> str:
        """The address of a service's database, or of the key store, with its own role and password."""
        if self.postgres is None:
            return (self.external.databases or {})[name]
        role = name.replace("-", "_")
        return self.postgres.url(role, role, self.passwords[f"postgres-{name}"])

    def nats_url(self, service: str) -> str:
        """The address of NATS with the service's own user."""
        return self.external.nats or "" if self.nats is None else self.nats.url(service)

    def environment(self, signer: str, serves: bool = True) -> dict[str, str]:
        """The environment of a service or the gateway; a command beside it is told no address to listen on (`serves`).

        Variables CONCORD_… and OTEL_… of the caller are passed on, so limits can be tuned; what is set here wins.
        """
        told = {name: value for name, value in self.given.items() if name in PASSED_ON}
        told |= {name: value for name, value in self.given.items() if name.startswith(("CONCORD_", "OTEL_"))}
        for ours in ("CONCORD_STATE", *DATABASES.values()):
            told.pop(ours, None)
        for service in SERVICES:
            told[f"CONCORD_TARGET_{service.upper()}"] = f"{system.LOOPBACK}:{self.ports[f'{service}-grpc']}"
        told |= {
            "TZ": "UTC",
            "PYTHONUNBUFFERED": "1",
            "CONCORD_IDENTITY_KEYS": str(self.state.identities),
            "CONCORD_IDENTITY_PRIVATE_KEY": str(self.state.private_key(signer)),
        }
        if serves:
            told["CONCORD_METRICS_LISTEN"] = f"{system.LOOPBACK}:{self.ports[f'{signer}-metrics']}"
        if signer == "gateway":
            return told | {"CONCORD_HTTP_LISTEN": self.http_listen, "CONCORD_GATEWAY_ISSUERS": str(self.state.issuers)}
        if serves:
            told["CONCORD_GRPC_LISTEN"] = told[f"CONCORD_TARGET_{signer.upper()}"]
        if signer == "customer":
            told.setdefault("CONCORD_CUSTOMER_INDEX_KEY", str(self.state.index_key))
            told.setdefault("CONCORD_CUSTOMER_ROOT_KEY", str(self.state.root_key))
            told["CONCORD_CUSTOMER_KEYS_URL"] = self.database_url(KEYS)
        return told | {"CONCORD_DATABASE_URL": self.database_url(signer), "CONCORD_NATS_URL": self.nats_url(signer)}

    def psql(self, service: str) -> tuple[list[str], dict[str, str]]:
        """Command and environment of a psql session in a service's database; the password is not in the command line."""
        url = urlsplit(self.database_url(service))
        place = ["-h", url.hostname or "", "-p", str(url.port or 5432), "-U", url.username or "", "-d", url.path[1:]]
        return [str(postgres.wheel() / "bin/psql"), *place], {**self.given, "PGPASSWORD": url.password or ""}

    @property
    def issuer_url(self) -> str:
        """The `iss` of the local tokens."""
        return f"http://{system.LOOPBACK}:{self.ports['issuer']}"

    @property
    def gateway_url(self) -> str:
        """Where the platform is reached."""
        return f"http://{self.http_host}:{self.http_port}"

    # ---- what runs

    def write_files(self) -> None:
        """Makes the keys, and tells the gateway which issuer to trust."""
        self.state.make_keys(SIGNERS)
        trusted = {"issuer": self.issuer_url, "jwks_file": str(self.state.issuer_keys), "audience": AUDIENCE}
        system.write_private(self.state.issuers, json.dumps([{**trusted, "institutions": ["*"], "kinds": list(CALLER_KINDS)}]))

    def stages(self) -> list[list[Program]]:
        """The programs, stage by stage."""
        servers = [program for program in (self._postgres(), self._nats()) if program]
        migrations = [self._service(service, "migrate", name=f"{service}-migrate", once=True) for service in SERVICES]
        services = [self._service(service, "serve", name=service) for service in SERVICES]
        return [servers, migrations, [*services, self._issuer()], [self._gateway()]]

    def _postgres(self) -> Program | None:
        server = self.postgres
        if server is None:
            return None

        async def ready(pid: int) -> bool:
            return server.is_ready(pid)

        return Program(
            "postgres",
            server.command,
            ready,
            server.environment,
            server.account,
            server.stop_signal,
            prepare=server.prepare,
            then=self._make_databases,
            address=f"{system.LOOPBACK}:{server.port}",
        )

    async def _make_databases(self) -> None:
        """One role for each database; no role may enter another's."""
        assert self.postgres is not None
        connection = await asyncpg.connect(self.postgres.url())
        try:
            present = {row["datname"] for row in await connection.fetch("select datname from pg_database")}
            roles = {row["rolname"] for row in await connection.fetch("select rolname from pg_roles")}
            for name in DATABASES:
                role = name.replace("-", "_")
                verb = "alter" if role in roles else "create"
                secret = self.passwords[f"postgres-{name}"]  # letters, digits, - and _ only
                limit = f"connection limit {CONNECTIONS_OF_A_SERVICE_MAX}"
                await connection.execute(f"{verb} role {role} login {limit} password '{secret}'")
                if role not in present:
                    await connection.execute(f"create database {role} owner {role}")
                await connection.execute(f"revoke connect, temporary on database {role} from public")
            if VIEWER_ROLE not in roles:
                await connection.execute(f"create role {VIEWER_ROLE} nologin")
            await connection.execute(f"grant {VIEWER_ROLE} to customer")
            await connection.execute("revoke connect, temporary on database postgres from public")
        finally:
            await connection.close()

    def _nats(self) -> Program | None:
        server = self.nats
        if server is None:
            return None

        async def ready(pid: int) -> bool:
            return await asyncio.to_thread(server.is_ready, pid)

        address = f"{system.LOOPBACK}:{server.port}"
        told = server.environment
        return Program(
            "nats", server.command, ready, told, stop_signal=server.stop_signal, prepare=server.prepare, address=address
        )

    def _service(self, service: str, verb: str, name: str, once: bool = False) -> Program:
        address = f"{system.LOOPBACK}:{self.ports[f'{service}-grpc']}"

        async def ready(_pid: int) -> bool:
            return await _is_serving(address)

        command = (sys.executable, "-m", service, verb)
        told = self.environment(service, serves=not once)
        if once:
            return Program(name, lambda: command, environment=told, once=True)
        return Program(name, lambda: command, ready, told, address=address)

    def _issuer(self) -> Program:
        port = self.ports["issuer"]

        async def ready(_pid: int) -> bool:
            return await asyncio.to_thread(_answers, f"http://{system.LOOPBACK}:{port}/healthz")

        command = (sys.executable, "-m", "concord_local.issuer", str(self.state.folder), str(port))
        told = {name: value for name, value in self.given.items() if name in PASSED_ON}
        return Program("issuer", lambda: command, ready, told, address=self.issuer_url)

    def _gateway(self) -> Program:
        async def ready(_pid: int) -> bool:
            return await asyncio.to_thread(_answers, f"{self.gateway_url}/readyz")

        command = (sys.executable, "-m", "gateway", "serve")
        return Program("gateway", lambda: command, ready, self.environment("gateway"), address=self.gateway_url)


async def _is_serving(target: str) -> bool:
    """Whether the gRPC health service says SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2

    async with grpc.aio.insecure_channel(target) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=PROBE_SECONDS_MAX)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS_MAX) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _host_and_port(listen: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{listen}")
        if parts.hostname and parts.port:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise system.Trouble(f"CONCORD_HTTP_LISTEN is {listen!r}, which is not host:port; right would be {HTTP_LISTEN}")
