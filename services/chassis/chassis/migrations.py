"""Migrations: run once however many replicas start, each in its own transaction, with lock and statement timeouts.

Alembic and SQLAlchemy's engine are imported where they are used: they cost half a second, and a serving service needs neither.
"""

import ast
import asyncio
import contextlib
import io
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, MetaData

LOCK_TABLE = "migration_lock"
WAIT_FOR_OTHERS_SECONDS_MAX = 600
LOCK_SECONDS_MAX = 5
STATEMENT_SECONDS_MAX = 300
URL = "url"


class MigrationsPending(Exception):
    """The database is behind the program, or differs from its tables."""


def config(script_location: str, url: str) -> "Config":
    """Alembic's configuration, with the address of the database kept out of its text."""
    from alembic.config import Config

    made = Config(stdout=io.StringIO(), output_buffer=io.StringIO())
    made.set_main_option("script_location", script_location)
    made.attributes[URL] = url
    return made


def run_env(metadata: "MetaData") -> None:
    """What a service's `migrations/env.py` calls."""
    from alembic import context

    asyncio.run(_run_env(metadata, context.config.attributes[URL]))


async def _run_env(metadata: "MetaData", url: str) -> None:
    from alembic import context

    def run(connection: "Connection") -> None:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            transaction_per_migration=True,
            compare_type=True,
            compare_server_default=True,
            include_object=lambda item, name, kind, reflected, other: not (kind == "table" and name == LOCK_TABLE),
        )
        with context.begin_transaction():
            context.run_migrations()

    await on_engine(url, run)


async def on_engine(url: str, run: Any) -> None:
    """Runs a function over a SQLAlchemy connection with the timeouts of migrations."""
    from sqlalchemy import pool
    from sqlalchemy.ext.asyncio import create_async_engine

    settings = {"lock_timeout": f"{LOCK_SECONDS_MAX}s", "statement_timeout": f"{STATEMENT_SECONDS_MAX}s", "timezone": "UTC"}
    engine = create_async_engine(
        url.replace("postgres://", "postgresql://", 1).replace("postgresql://", "postgresql+asyncpg://", 1),
        poolclass=pool.NullPool,
        connect_args={"server_settings": settings},
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
            await connection.commit()
    finally:
        await engine.dispose()


async def migrate(script_location: str, url: str) -> None:
    """Brings the database up to date. Replicas that start together wait for the first one.

    Raises:
        asyncpg.LockNotAvailableError: when another migration runs for longer than ten minutes.
    """
    connection = await asyncpg.connect(
        url,
        server_settings={
            "lock_timeout": f"{WAIT_FOR_OTHERS_SECONDS_MAX}s",
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": "0",
        },
    )
    try:
        try:
            await require_current(script_location, url)
        except MigrationsPending:
            await _upgrade(connection, script_location, url)
        # Outside the upgrade: a kill between the two must not leave a database without its epoch.
        if await connection.fetchval("SELECT to_regclass('database_epoch')"):  # a further database publishes nothing and has none
            await connection.execute("INSERT INTO database_epoch (singleton, epoch) VALUES (1, 1) ON CONFLICT DO NOTHING")
    finally:
        await connection.close()


async def _upgrade(connection: Any, script_location: str, url: str) -> None:
    from alembic import command

    await _make_lock_table(connection)
    async with connection.transaction():  # held by this row until everything is done, or this process dies
        await connection.execute(f"SELECT FROM {LOCK_TABLE} FOR UPDATE")
        await asyncio.to_thread(command.upgrade, config(script_location, url), "head")


async def _make_lock_table(connection: Any) -> None:
    with contextlib.suppress(asyncpg.UniqueViolationError, asyncpg.DuplicateTableError):  # made by another at the same moment
        await connection.execute(f"CREATE TABLE IF NOT EXISTS {LOCK_TABLE} (singleton integer PRIMARY KEY)")
    await connection.execute(f"INSERT INTO {LOCK_TABLE} VALUES (1) ON CONFLICT DO NOTHING")


async def restored(url: str) -> int:
    """Raises the database's epoch after a restore, so that its states win over those of its lost future. Returns it."""
    connection = await asyncpg.connect(url)
    try:
        epoch: int = await connection.fetchval("UPDATE database_epoch SET epoch = epoch + 1 RETURNING epoch")
        return epoch
    finally:
        await connection.close()


async def check(script_location: str, url: str) -> None:
    """Checks that the database is up to date, and that its tables are those of the program.

    Raises:
        MigrationsPending: saying what differs.
    """
    from alembic import command
    from alembic.util.exc import AutogenerateDiffsDetected, CommandError

    await require_current(script_location, url)
    try:
        await asyncio.to_thread(command.check, config(script_location, url))
    except (AutogenerateDiffsDetected, CommandError) as error:
        raise MigrationsPending(str(error)) from None


async def require_current(script_location: str, url: str) -> None:
    """Refuses to run on a database that is behind. One that is ahead is fine: a rolling upgrade migrates first.

    Raises:
        MigrationsPending: saying what to run.
    """
    before = _revisions(script_location)
    (head,) = before.keys() - before.values()
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        found = None
    finally:
        await connection.close()
    if found != head and (found is None or found in before):
        raise MigrationsPending(f"the database is at {found or 'nothing'}, this program needs {head}; run `migrate` first")


def _revisions(script_location: str) -> dict[str, str | None]:
    """The revision before each revision, as the files say it; read without running them."""
    package, _, folder = script_location.partition(":")  # `package:folder`, or a path, as alembic takes them
    location = resources.files(package) / folder if folder else Path(script_location)
    found: dict[str, str | None] = {}
    for file in (location / "versions").iterdir():
        if file.name.endswith(".py") and not file.name.startswith("__"):
            body = ast.parse(file.read_text()).body
            said = {_name(node): node.value for node in body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value}
            found[ast.literal_eval(said["revision"])] = ast.literal_eval(said["down_revision"])
    return found


def _name(assignment: ast.Assign | ast.AnnAssign) -> str:
    target = assignment.target if isinstance(assignment, ast.AnnAssign) else assignment.targets[0]
    return target.id if isinstance(target, ast.Name) else ""
