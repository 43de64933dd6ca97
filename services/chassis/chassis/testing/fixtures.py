"""Pytest fixtures, found by pytest through an entry point. A service's conftest only defines the session fixture `service`."""

import asyncio
import concurrent.futures
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from chassis import bus, identity, migrations
from chassis.command_line import ServiceDefinition
from chassis.config import Settings
from chassis.database import Database
from chassis.identity import InternalTokens
from chassis.ids import new_id
from chassis.server import Server
from chassis.testing import Running
from concord_local import nats, postgres


def in_thread(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine to its end on a loop of its own, from code that is not asynchronous."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, coroutine).result()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    """A PostgreSQL of this test session."""
    with postgres.temporary() as server:
        yield server


@pytest.fixture(scope="session")
def nats_server() -> Iterator[nats.NatsServer]:
    """A NATS with JetStream of this test session."""
    with nats.temporary() as server:
        yield server


@pytest.fixture(scope="session")
def service() -> ServiceDefinition:
    """The service under test: overridden by its conftest."""
    raise NotImplementedError("define a session fixture `service` that returns the ServiceDefinition")


@pytest.fixture(scope="session")
def template_databases() -> dict[str, str]:
    """The template of each service whose tests ran in this session."""
    return {}


@pytest.fixture
def template_database(postgres_server: postgres.Postgres, service: ServiceDefinition, template_databases: dict[str, str]) -> str:
    """A database that the service's migrations made, once; the databases of the tests are copies.

    Not a session fixture itself: that would be the first service's for all, when the tests of several run in one session.
    """
    if service.name not in template_databases:
        name = f"template_{service.name}"
        in_thread(execute(postgres_server.url(), f"CREATE DATABASE {name}"))
        in_thread(migrations.migrate(service.migrations, postgres_server.url(name)))
        template_databases[service.name] = name
    return template_databases[service.name]


@pytest.fixture
def database_url(postgres_server: postgres.Postgres, template_database: str) -> Iterator[str]:
    """A fresh, migrated database for one test."""
    name = f"test_{new_id().hex}"
    # Copied as files: through the log, which is the default, it takes the server twice as long.
    in_thread(execute(postgres_server.url(), f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY FILE_COPY"))
    yield postgres_server.url(name)
    in_thread(execute(postgres_server.url(), f"DROP DATABASE {name} WITH (FORCE)"))


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A `Database` on the test's own database."""
    database = await Database.connect(database_url)
    yield database
    await database.close()


@pytest.fixture(scope="session")
def tokens() -> InternalTokens:
    """Signs tokens as the gateway does."""
    private, public = identity.generate_key(identity.GATEWAY)
    return InternalTokens(identity.GATEWAY, json.dumps({"keys": [public]}), json.dumps(private))


@pytest.fixture
def settings(service: ServiceDefinition, database_url: str, tokens: InternalTokens) -> Settings:
    """The settings of the service in this test, with keys of its own."""
    private, public = identity.generate_key(service.name)
    keys = {"keys": [public, *tokens.public_keys()]}
    made: Settings = service.settings(
        database_url=database_url, identity_keys=json.dumps(keys), identity_private_key=json.dumps(private)
    )
    return made


@pytest_asyncio.fixture
async def start(
    request: pytest.FixtureRequest, service: ServiceDefinition, settings: Settings, tokens: InternalTokens
) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Starts the service in this process: `await start(nats=False, **settings)`. Twice gives two replicas on one database."""
    started: list[Running] = []
    streams_emptied = False

    async def start_one(*, nats: bool = False, **overrides: Any) -> Running:
        nonlocal streams_emptied
        if nats:
            overrides.setdefault("nats_url", request.getfixturevalue("nats_server").url())
        chosen = settings.model_copy(update=overrides)
        if nats and not streams_emptied:
            await _delete_streams(chosen)
            streams_emptied = True
        application = await service.build(chosen)
        application.bus_enabled = nats
        server = Server(application)
        await server.start()
        started.append(Running(application, server, tokens))
        return started[-1]

    yield start_one
    for running in reversed(started):
        await running.stop()


async def _delete_streams(settings: Settings) -> None:
    connected = await bus.connect(settings, "tests")
    for stream in await connected.jetstream.streams_info():
        await connected.jetstream.delete_stream(str(stream.config.name))
    await connected.client.close()


async def execute(url: str, statement: str) -> None:
    """Runs one statement on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
