"""The intake of the customer master in a process of its own, beside a bare transaction that writes the same rows.

Told by lines of JSON what to measure. It calls the servicers, without sockets: what is compared is the work on records.
"""

import asyncio
import itertools
import json
import os
import random
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Any

import asyncpg
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import config, migrations, server
from chassis.clock import now
from chassis.testing import acting_as, principal
from concord.customer.v1 import customer_service_pb2, intake_service_pb2
from concord.customer.v1.party_pb2 import Party
from customer import ingest
from customer.config import Settings
from customer.prepare import prepare
from customer.rpc.customer_service import CustomerServicer
from customer.rpc.intake_service import IntakeServicer
from customer.store import institutions
from customer.wiring import SERVICE, build

SOURCE = "institutions/bench-bank/sourceSystems/core"
INGEST, RESOLVE = "/concord.customer.v1.IntakeService/IngestRecord", "/concord.customer.v1.CustomerService/ResolveCustomer"
TABLES = ("idempotency", "customers", "records", "source_records", "links", "blocking_keys", "customer_qualities", "outbox")
BLOCK = 20
GATHERED_CLIENTS = 200
CHUNK_RECORDS = 2_000
CONSONANTS, VOWELS = "bdfghjklmnprstvz", "aeio"

Json = dict[str, Any]
_names = random.Random(1)
GIVEN, FAMILY, PLACES = (
    [
        "".join(_names.choice(CONSONANTS) + _names.choice(VOWELS) for _ in range(_names.randint(2, longest))).capitalize()
        for _ in range(count)
    ]
    for count, longest in ((900, 3), (6_000, 4), (300, 3))
)


def person(number: int, seed: int) -> Json:
    """A person of a population without end, always the same for the same number."""
    chance = random.Random(seed << 32 | number)
    born = date(1950, 1, 1) + timedelta(days=chance.randrange(20_000))
    party: Json = {
        "party_kind": 1,
        "party_name": {"given_name": chance.choice(GIVEN), "family_name": chance.choice(FAMILY)},
        "birth_date": born.isoformat(),
        "phones": [{"number": f"+42060{chance.randrange(1, 9)}{chance.randrange(10**6):06d}"}],
        "postal_address": {
            "address_lines": [f"{chance.choice(FAMILY)} {chance.randrange(1, 200)}"],
            "locality": chance.choice(PLACES),
            "postal_code": f"{chance.randrange(10_000, 79_999)}",
            "country_code": "CZ",
        },
    }
    if chance.random() < 0.7:
        party["emails"] = [{"address": f"u{number}.{chance.randrange(10**6)}@example{chance.randrange(50)}.com"}]
    if chance.random() < 0.7:
        party["identifiers"] = [{"scheme": 2, "country_code": "CZ", "value": f"{chance.randrange(10**7, 10**8)}"}]
    return party


def record(number: int, seed: int) -> intake_service_pb2.SourceRecord:
    """Such a person as a source states it."""
    return intake_service_pb2.SourceRecord(
        source_record_key=f"k{seed}-{number}", observe_time=Timestamp(seconds=1_700_000_000), party=Party(**person(number, seed))
    )


def asked(number: int, seed: int, chance: random.Random) -> customer_service_pb2.ResolveCustomerRequest:
    """A damaged copy of a known person, or a new one with the birth date and the address of a known one."""
    party = person(number, seed)
    if chance.random() < 0.6:
        for field in ("identifiers", "phones", "emails"):
            if chance.random() < 0.35:
                party.pop(field, None)
    else:
        party["party_name"] = {"given_name": chance.choice(GIVEN), "family_name": chance.choice(FAMILY)}
        for field in ("identifiers", "phones", "emails"):
            party.pop(field, None)
    return customer_service_pb2.ResolveCustomerRequest(party=Party(**party))


class Bare:
    """Writes rows like those that are there already, a statement for each table, in one transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._kinds: list[tuple[str, list[str], int, Any]] = []

    async def learn(self, ingested_count: int) -> None:
        """Looks at what an ingested record wrote."""
        for table in TABLES:
            rows = [dict(row) for row in await self._connection.fetch(f"SELECT * FROM {table}")]
            columns, each = list(rows[0]), max(1, round(len(rows) / ingested_count))
            values = ", ".join(
                f"({', '.join(f'${row * len(columns) + place}' for place in range(1, len(columns) + 1))})" for row in range(each)
            )
            self._kinds.append(
                (f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values}", columns, each, itertools.cycle(rows))
            )

    def rows(self) -> list[tuple[str, list[Any]]]:
        """The statements of a transaction, with new keys."""
        made = []
        for statement, columns, each, rows in self._kinds:
            values = [_renewed(next(rows)) for _ in range(each)]
            made.append((statement, [value[column] for value in values for column in columns]))
        return made

    async def write(self, statements: Sequence[tuple[str, list[Any]]]) -> float:
        """Seconds of the transaction."""
        started = time.perf_counter()
        async with self._connection.transaction():
            for statement, arguments in statements:
                await self._connection.execute(statement, *arguments)
        return time.perf_counter() - started


def _renewed(row: Json) -> Json:
    fresh = {column: uuid.uuid4() if isinstance(value, uuid.UUID) else value for column, value in row.items()}
    keys = {"source_key": os.urandom(16), "key": random.getrandbits(63), "request_id": uuid.uuid4().hex}
    return fresh | {column: value for column, value in keys.items() if column in row}


class Intake:
    """The service in this process."""

    def __init__(self, application: server.Application) -> None:
        self.application = application
        servicers = [servicer for _, servicer in application.servicers]
        self.intake = next(one for one in servicers if isinstance(one, IntakeServicer))
        self.customers = next(one for one in servicers if isinstance(one, CustomerServicer))
        self._seeds = itertools.count(1)
        self._loaded = 0

    async def found(self) -> None:
        """A bank with a source system."""
        async with self.application.database.transaction() as connection:
            await institutions.insert_institution(connection, "bench-bank", "Bench", 1, "Europe/Prague", "CZ", now())
            await institutions.insert_source_system(connection, "bench-bank", "core", "core", 10, {}, now())

    def _time_transactions(self) -> list[float]:
        """Seconds of every transaction from now on."""
        took: list[float] = []
        begin = type(self.application.database).transaction

        @asynccontextmanager
        async def timed() -> AsyncIterator[Any]:
            started = time.perf_counter()
            async with begin(self.application.database) as connection:
                yield connection
            took.append(time.perf_counter() - started)

        self.application.database.transaction = timed  # type: ignore[method-assign]
        return took

    async def unary(self, order: Json) -> Json:
        """One after another, in turn with the bare transactions; then many at once. Medians of blocks."""
        requests = self._requests(next(self._seeds))
        for _ in range(2 * BLOCK):
            await self.intake.IngestRecord(next(requests), None)
        connection = await asyncpg.connect(self.application.settings.database_url)
        bare = Bare(connection)
        await bare.learn(2 * BLOCK)
        transactions = self._time_transactions()
        ours, calls, theirs = [], [], []
        for _ in range(order["rounds"]):
            statements = [bare.rows() for _ in range(BLOCK)]
            mine = list(itertools.islice(requests, BLOCK))
            theirs.append(statistics.median([await bare.write(one) for one in statements]))
            transactions.clear()
            started = time.perf_counter()
            for request in mine:
                await self.intake.IngestRecord(request, None)
            calls.append((time.perf_counter() - started) / BLOCK)
            ours.append(statistics.median(transactions))
        await connection.close()
        many = itertools.islice(self._requests(next(self._seeds)), order["gathered"])
        left = iter(list(many))

        async def client() -> None:
            for request in left:
                await self.intake.IngestRecord(request, None)

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(GATHERED_CLIENTS)))
        gathered = order["gathered"] / (time.perf_counter() - started)
        return {"transactions": ours, "calls": calls, "bare": theirs, "gathered_per_second": gathered}

    def _requests(self, seed: int) -> Iterator[intake_service_pb2.IngestRecordRequest]:
        for number in itertools.count():
            yield intake_service_pb2.IngestRecordRequest(
                parent=SOURCE, source_record=record(number, seed), request_id=f"{seed}-{number}"
            )

    async def resolve(self, order: Json) -> Json:
        """Seconds of resolving, one after another, among so many people."""
        core = self.intake._core
        async with self.application.database.connection() as connection:
            [source] = (await institutions.find_source_systems(connection, [("bench-bank", "core")])).values()
        while self._loaded < order["people"]:
            last = min(self._loaded + CHUNK_RECORDS, order["people"])
            items = [prepare(now(), core.index, source, record(number, 0)) for number in range(self._loaded, last)]
            async with self.application.commands.unit() as unit:
                await ingest.take(unit, core, items)
            self._loaded = last
        async with self.application.database.connection() as connection:
            await connection.execute("DELETE FROM outbox")
            await connection.execute("ANALYZE")
        chance = random.Random(order["people"])
        requests = [asked(chance.randrange(order["people"]), 0, chance) for _ in range(order["count"])]
        took, used = [], time.process_time()
        for request in requests:
            started = time.perf_counter()
            await self.customers.ResolveCustomer(request, None)
            took.append(time.perf_counter() - started)
        took.sort()
        return {
            "p50_ms": took[len(took) // 2] * 1e3,
            "p99_ms": took[len(took) * 99 // 100] * 1e3,
            "mean_ms": statistics.mean(took) * 1e3,
            "cpu_ms": (time.process_time() - used) / len(took) * 1e3,
        }


async def serve(settings: Settings) -> None:
    """Makes the databases' tables and carries out one order a line until the input ends."""
    await migrations.migrate(SERVICE.migrations, settings.database_url)
    for further in SERVICE.further_databases:
        await migrations.migrate(further.migrations, getattr(settings, further.setting))
    application = await build(settings)
    intake = Intake(application)
    await intake.found()
    server.spare_the_collector()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    caller = principal(institution="bench-bank", scopes=["record.write", "customer.read"])
    while line := await reader.readline():
        order = json.loads(line)
        with acting_as(caller, INGEST if order["kind"] == "unary" else RESOLVE):
            answer = await (intake.unary(order) if order["kind"] == "unary" else intake.resolve(order))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(config.load(Settings)))
