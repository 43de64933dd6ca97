"""The service: counters that are added to; it folds its own events into copies and sums."""

import asyncio
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from chassis import deadlines
from chassis.command_line import ServiceDefinition
from chassis.config import Settings
from chassis.consumer import ReceivedEvent, Subscription
from chassis.database import Database
from chassis.errors import FailedPrecondition, NotFound
from chassis.gatherer import Gatherer
from chassis.ids import new_id
from chassis.outbox import Event
from chassis.republish import Republisher
from chassis.server import Application
from chassis.unit_of_work import Call, Commands, UnitOfWork
from concord.common.v1.event_pb2 import StateVersion
from echo_service import contract as pb
from echo_service.tables import metadata

CHANGED, ADDED = "concord.echo.v1.counter.changed", "concord.echo.v1.counter.added"
SECRET = "card 4111-1111 of Anna"


class EchoServicer:
    def __init__(self, database: Database, commands: Commands) -> None:
        self.database, self.commands = database, commands
        self.gatherer: Gatherer[Call, Any] = Gatherer(self._add_batch)
        self.batches: list[int] = []

    async def GetEcho(self, request, context):
        if request.behaviour == "crash":
            raise ValueError(SECRET)
        if request.behaviour == "refuse":
            raise NotFound("ECHO_NOT_FOUND", "no echo", metadata={"wall": "near"}, field_violations=[("behaviour", "not this")])
        if request.behaviour == "sleep":
            async with self.database.connection() as connection:
                await connection.execute("SELECT pg_sleep(30)")
        return pb.Person(
            name="Anna", phones=["+41791234567", "112"], nickname="A", birth=pb.Birth(year=1970), document="X1234567",
            relatives={"sister": pb.Person(name="Berta")}, friends=[pb.Person(name="Carl")], partner=pb.Person(name="Dora"),
            remaining_seconds=deadlines.outgoing_seconds(),
        )  # fmt: skip

    async def Search(self, request, context):
        return pb.People(people=[await self.GetEcho(request, context)])

    async def Add(self, request, context):
        return await self.commands.run(request, lambda unit: add(unit, request))

    async def AddGathered(self, request, context):
        return await self.gatherer.submit(self.commands.call(request))

    async def _add_batch(self, calls: list[Call]) -> list[Any]:
        self.batches.append(len(calls))
        return await self.commands.run_many(calls, add_many)


async def add(unit: UnitOfWork, request: Any) -> Any:
    if request.counter == "slow":
        await asyncio.sleep(0.2)
    row = await unit.connection.fetchrow(
        "INSERT INTO counters AS c (counter, total, version) VALUES ($1, $2, 1) ON CONFLICT (counter)"
        " DO UPDATE SET total = c.total + excluded.total, version = c.version + 1 RETURNING total, version",
        request.counter, request.amount,
    )  # fmt: skip
    assert row is not None
    if row["total"] < 0:
        raise FailedPrecondition("BELOW_ZERO", "a counter is never negative")
    addition_id = new_id()
    await unit.connection.execute("INSERT INTO additions VALUES ($1, $2, $3)", addition_id, request.counter, request.amount)
    unit.publish(changed(request.counter, row["total"], unit.epoch, row["version"]))
    unit.publish(Event(ADDED, request.counter, pb.Added(counter=request.counter, amount=request.amount), event_id=addition_id))
    return pb.AddResponse(total=row["total"], serial=row["version"])


async def add_many(unit: UnitOfWork, calls: list[Call]) -> list[Any]:
    if any(call.request.counter == "poison" for call in calls):
        raise RuntimeError(SECRET)
    answers: list[Any] = []
    for call in calls:
        if call.request.amount < 0:
            answers.append(FailedPrecondition("BELOW_ZERO", "a counter is never negative"))
        else:
            answers.append(await add(unit, call.request))
    return answers


def changed(counter: str, total: int, epoch: int, version: int) -> Event:
    state = StateVersion(epoch=epoch, version=version)
    return Event(CHANGED, counter, pb.CounterChanged(counter=counter, total=total, state_version=state))


async def fold(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    sums: Counter[str] = Counter()
    for event in sorted(events, key=lambda event: event.aggregate_id):
        if event.aggregate_id == "poison":
            raise ValueError(SECRET)
        if event.type == ADDED:
            sums[event.message.counter] += event.message.amount
        else:
            await fold_state(unit, event.message)
    for counter, amount in sorted(sums.items()):
        await unit.connection.execute(
            "INSERT INTO sums AS s VALUES ($1, $2) ON CONFLICT (counter) DO UPDATE SET total = s.total + excluded.total",
            counter, amount,
        )  # fmt: skip


async def fold_state(unit: UnitOfWork, message: Any) -> None:
    await unit.connection.execute(
        "INSERT INTO copies AS c VALUES ($1, $2, $3, $4) ON CONFLICT (counter) DO UPDATE"
        " SET total = excluded.total, epoch = excluded.epoch, version = excluded.version"
        " WHERE (c.epoch, c.version) < (excluded.epoch, excluded.version)",
        message.counter, message.total, message.state_version.epoch, message.state_version.version,
    )  # fmt: skip


async def counter_pages(connection, cursor: str, limit: int):
    rows = await connection.fetch("SELECT * FROM counters WHERE counter > $1 ORDER BY counter LIMIT $2", cursor, limit)
    events = [changed(row["counter"], row["total"], 1, row["version"]) for row in rows]
    return events, rows[-1]["counter"] if len(rows) == limit else None


async def addition_pages(connection, cursor: str, limit: int):
    rows = await connection.fetch(
        "SELECT * FROM additions WHERE addition_id > $1 ORDER BY addition_id LIMIT $2", uuid.UUID(cursor or "0" * 32), limit
    )
    events = [
        Event(ADDED, row["counter"], pb.Added(counter=row["counter"], amount=row["amount"]), event_id=row["addition_id"])
        for row in rows
    ]
    return events, str(rows[-1]["addition_id"]) if len(rows) == limit else None


async def build(settings: Settings) -> Application:
    database = await Database.connect(settings.database_url, settings.database_connections_max)
    commands = Commands(database)
    return Application(
        name="echo", settings=settings, database=database, commands=commands,
        servicers=[(pb.add_to_server(pb.ECHO), EchoServicer(database, commands))],
        consumers=[Subscription("echo", "echo", {CHANGED: pb.CounterChanged, ADDED: pb.Added}, fold)],
    )  # fmt: skip


SERVICE = ServiceDefinition(
    name="echo",
    settings=Settings,
    build=build,
    metadata=metadata,
    republishers=[Republisher("counters", counter_pages), Republisher("additions", addition_pages)],
    projections=["copies", "sums"],
    script_location=str(Path(__file__).parent / "migrations"),
)
