"""What `python -m <service>` understands; the same for every service."""

import argparse
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import uvloop
from sqlalchemy import MetaData

from chassis import config, dead_letters, migrations, republish, telemetry
from chassis.database import Database
from chassis.republish import Pause, Republisher
from chassis.server import Application, ContractError, ListenError, serve

EXIT_STATUS_FAILED = 1


@dataclass(frozen=True)
class FurtherDatabase:
    """A database beside the service's own, with migrations of its own.

    Args:
        setting: the field of the settings that holds its address.
        migrations: where alembic finds its scripts, `package:folder`.
    """

    setting: str
    migrations: str


@dataclass(frozen=True)
class ServiceDefinition:
    """A service, before anything is connected.

    Args:
        name: the service's name.
        settings: its settings class.
        build: puts it together; the only composition root.
        metadata: its tables.
        republishers: what it can say again.
        projections: tables that `rebuild` may empty, because their owners can fill them again.
        pause: work that rests from a rebuild until every owner has said all.
        script_location: where alembic finds the migrations; None means `<name>:migrations`.
        further_databases: what `migrate` and `serve` look after beside its own database.
    """

    name: str
    settings: type[Any]
    build: Callable[[Any], Awaitable[Application]]
    metadata: MetaData
    republishers: Sequence[Republisher] = ()
    projections: Sequence[str] = ()
    pause: Pause | None = None
    script_location: str | None = None
    further_databases: Sequence[FurtherDatabase] = ()

    @property
    def migrations(self) -> str:
        """Where alembic finds its scripts."""
        return self.script_location or f"{self.name}:migrations"


def main(service: ServiceDefinition, arguments: Sequence[str] | None = None) -> None:
    """Runs one command; a failure that the operator can mend is one line and a status."""
    options = _parser(service).parse_args(arguments)
    settings = config.load(service.settings)
    telemetry.setup(service.name, settings)
    try:
        uvloop.run(_COMMANDS[options.command](service, settings, options))
    except (ContractError, ListenError, migrations.MigrationsPending, LookupError, ValueError) as error:
        _fail(service, str(error))
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        _fail(service, f"CONCORD_DATABASE_URL: the database cannot be reached ({type(error).__name__}); is it running?")
    except asyncpg.InvalidCatalogNameError:
        _fail(service, "CONCORD_DATABASE_URL: there is no such database; create it first")


def _fail(service: ServiceDefinition, message: str) -> None:
    sys.stderr.write(f"{service.name}: {message}\n")
    raise SystemExit(EXIT_STATUS_FAILED)


def _say(message: str) -> None:
    sys.stdout.write(f"{message}\n")


def _parser(service: ServiceDefinition) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {service.name}", description=f"The {service.name} service of Concord.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve until SIGTERM")
    migrate = commands.add_parser("migrate", help="bring the database up to date")
    migrate.add_argument(
        "--check", action="store_true", help="change nothing; fail when the database or the migrations are behind"
    )
    migrate.add_argument("--restored", action="store_true", help="after a restore from backup: raise the database's epoch")
    again = commands.add_parser("republish", help="say again what the tables hold")
    again.add_argument("--to", metavar="SERVICE", help="everything, to this service only; goes on where it was interrupted")
    again.add_argument(
        "--since", metavar="INSTANT", type=_instant, help="what was published since, to everybody, from the outbox"
    )
    again.add_argument("--run", metavar="ID", type=_run_id, help="with --to: the rebuild that asks, as it said")
    rebuild = commands.add_parser("rebuild", help="empty the projections; their owners then republish --to this service")
    rebuild.add_argument("--resume", action="store_true", help="empty nothing; end the pause though owners have not said all")
    letters = commands.add_parser("dead-letters", help="events that could not be applied")
    letters.add_argument("action", choices=["list", "replay"])
    letters.add_argument("ids", nargs="*", metavar="ID", help="which to replay; none: all of them")
    return parser


def _run_id(text: str) -> str:
    return str(uuid.UUID(text))


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise argparse.ArgumentTypeError("needs a zone, such as 2026-11-23T10:00:00+00:00")
    return instant


async def _serve(service: ServiceDefinition, settings: Any, options: argparse.Namespace) -> None:
    await migrations.require_current(service.migrations, settings.database_url)
    for further in service.further_databases:
        with _named(further):
            await migrations.require_current(further.migrations, getattr(settings, further.setting))
    await serve(await service.build(settings))


@contextmanager
def _named(further: FurtherDatabase) -> Iterator[None]:
    """Says which database it is that cannot be reached."""
    variable = f"{config.PREFIX}{further.setting.upper()}"
    try:
        yield
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise LookupError(f"{variable}: the database cannot be reached ({type(error).__name__}); is it running?") from None
    except asyncpg.InvalidCatalogNameError:
        raise LookupError(f"{variable}: there is no such database; create it first") from None


async def _migrate(service: ServiceDefinition, settings: Any, options: argparse.Namespace) -> None:
    bring = migrations.check if options.check else migrations.migrate
    await bring(service.migrations, settings.database_url)
    for further in service.further_databases:
        with _named(further):
            await bring(further.migrations, getattr(settings, further.setting))
    if options.restored and not options.check:
        _say(f"the epoch is now {await migrations.restored(settings.database_url)}")


async def _republish(service: ServiceDefinition, settings: Any, options: argparse.Namespace) -> None:
    if (options.to is None) == (options.since is None):
        raise ValueError("give either --to SERVICE or --since INSTANT")
    if options.run and options.to is None:
        raise ValueError("--run goes with --to SERVICE only")
    application = await service.build(settings)
    try:
        database = application.database
        if options.to is not None:
            republishers = [*service.republishers, *application.republishers]
            count = await republish.republish(database, republishers, options.to, service.name, options.run or "")
        else:
            count = await republish.republish_since(database, options.since)
        _say(f"{count} events {'are published' if options.run else 'will be published by the running service'}")
    finally:
        await _close(application)


async def _rebuild(service: ServiceDefinition, settings: Any, options: argparse.Namespace) -> None:
    application = await service.build(settings)
    try:
        if options.resume:
            await _resume(service, application.database)
            return
        consumers = [subscription.consumer for subscription in application.consumers]
        owners = sorted({subscription.stream for subscription in application.consumers})
        run_id = await republish.rebuild(application.database, service.projections, consumers, service.pause, owners)
        again = f"republish --to {service.name} --run {run_id}"
        _say("emptied. Now run: " + "; ".join(f"python -m {owner} {again}" for owner in owners))
    finally:
        await _close(application)


async def _resume(service: ServiceDefinition, database: Database) -> None:
    if service.pause is None:
        raise ValueError("this service does not pause for a rebuild")
    async with database.transaction() as connection:
        count = await service.pause.end(connection)
    _say(f"the pause is over; it waited for {count} owners" if count else "there was no pause")


async def _dead_letters(service: ServiceDefinition, settings: Any, options: argparse.Namespace) -> None:
    application = await service.build(settings)
    try:
        async with application.database.connection() as connection:
            letters = await dead_letters.open_letters(connection)
        if not letters:
            _say("there are no dead letters: every event was applied")
        if options.action == "list":
            for letter in letters:
                _say("\t".join(str(value) for value in letter.values()))
            return
        ids = dead_letters.parse_ids(options.ids) or [letter["dead_letter_id"] for letter in letters]
        failed = 0
        for letter_id in ids:
            try:
                await dead_letters.replay(application.commands, application.consumers, letter_id)
                _say(f"{letter_id}\treplayed")
            except Exception as error:  # noqa: BLE001 - the others are replayed all the same
                failed += 1
                _say(f"{letter_id}\tfailed: {telemetry.failure_text(error)}")
        if failed:
            raise ValueError(f"{failed} of {len(ids)} dead letters failed again and stay open")
    finally:
        await _close(application)


async def _close(application: Application) -> None:
    for channel in application.channels:
        await channel.close()
    for close in application.closing:
        await close()
    await application.database.close()


_COMMANDS: dict[str, Callable[[ServiceDefinition, Any, argparse.Namespace], Any]] = {
    "serve": _serve,
    "migrate": _migrate,
    "republish": _republish,
    "rebuild": _rebuild,
    "dead-letters": _dead_letters,
}
