"""Runs a simulation on a real database, and checks all that it left behind."""

import asyncio
import functools
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg

from chassis.database import Database, is_unavailable
from chassis.unit_of_work import Commands
from loyalty.domain.ledger.commands import AnyCommand
from loyalty.domain.ledger.types import KeyReused, Operation
from loyalty.store import invariants, posting
from loyalty.store.ledger_rows import to_operation
from simulator.load import Load
from simulator.model import Model
from simulator.terms import OWN_PROGRAM, PROGRAMS, START, configuration, quoted

MEMBERS_COUNT, CHILD_EVERY = 30, 6
QUOTES_COUNT = 12
BATCH_MAX = 150
QUOTES_EVERY = 4
CRASH_CHANCE = 0.15
CRASH_SECONDS_MAX = 0.1
RETRY_SECONDS = 0.05
PAGE = 20_000


@dataclass
class Report:
    """What a simulation came to."""

    operations_count: int = 0
    crashes_count: int = 0
    retries_count: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Simulation:
    """Several writers ask one ledger at once.

    Args:
        databases: one for each writer, as replicas of the service have.
        seed: the same asks the same.
    """

    def __init__(self, databases: Sequence[Database], seed: int) -> None:
        self.databases, self.seed = list(databases), seed
        self.chance = random.Random(seed)
        self.now = START
        ids = random.Random(seed + 1)
        self.members = sorted(uuid.UUID(int=ids.getrandbits(128), version=4) for _ in range(MEMBERS_COUNT))
        self.parents = {self.members[i]: self.members[i - 1] for i in range(1, MEMBERS_COUNT, CHILD_EVERY)}
        self.acknowledged: dict[uuid.UUID, bytes | None] = {}
        """By id the hash of what was answered; None where it is about nothing that there is."""
        self.operations_count = 0
        self.report = Report()
        self.lots: dict[int, str] = {}

    async def run(self, operations_min: int, progress: Callable[[int], None] = lambda count: None) -> None:
        """Asks until so many operations were answered."""
        posting_configuration, terms = posting.configuration_of, configuration()
        posting.configuration_of = lambda unit, head: _resolved(terms)
        try:
            await self._found()
            done = asyncio.Event()
            clock = asyncio.create_task(self._turn_clock(done))
            await asyncio.gather(*(self._write(place, operations_min, progress) for place in range(len(self.databases))))
            done.set()
            await clock
        finally:
            posting.configuration_of = posting_configuration

    async def _found(self) -> None:
        async with self.databases[0].transaction() as connection:
            for program in PROGRAMS:
                await connection.execute(
                    "INSERT INTO programs (program_id, institution_id, display_name, version, create_time)"
                    " VALUES ($1, $2, $1, 1, now())",
                    program.program_id, program.institution_id,
                )  # fmt: skip
            for member in self.members:
                parent = self.parents.get(member)
                await connection.execute(
                    "INSERT INTO accounts (account_id, customer_id, holder_customer_id, parent_account_id, version, create_time)"
                    " VALUES ($1, $1, $2, $3, 1, now())",
                    member, parent or member, parent,
                )  # fmt: skip

    async def _turn_clock(self, done: asyncio.Event) -> None:
        """Time goes on in jumps, now and then a little back, and what is known of lots is read again."""
        database = self.databases[0]
        while not done.is_set():
            self.now += self.chance.choice([timedelta(0), timedelta(hours=5), timedelta(days=1), timedelta(minutes=-20)])
            try:
                async with database.connection() as connection:
                    rows = await connection.fetch("SELECT lot_id, program_id FROM lots WHERE open ORDER BY lot_id LIMIT 300")
                self.lots = {row["lot_id"]: row["program_id"] for row in rows}
            except Exception as error:
                self._expected(error)
            await asyncio.sleep(0.05)

    async def _write(self, place: int, operations_min: int, progress: Callable[[int], None]) -> None:
        """One replica: asks batch after batch, and asks again until it is answered."""
        load = Load(self.seed * 100 + place, self.members)
        batches = 0
        while self.operations_count < operations_min:
            load.lots = self.lots
            if batches % QUOTES_EVERY == 0:
                load.quotes = await self._again(place, self._quotes)
            batches += 1
            batch = load.batch(load.chance.randint(1, BATCH_MAX), self.now)
            results = await self._again(place, functools.partial(self._post, batch=batch))
            self._acknowledge(batch, results)
            progress(self.operations_count)

    def _acknowledge(self, batch: Sequence[AnyCommand], results: Sequence[Any]) -> None:
        for command, result in zip(batch, results, strict=True):
            if isinstance(result, KeyReused | Exception):
                self.report.problems.append(f"{command.kind} {command.operation_id}: {result!r}")
                continue
            found = result.hash if isinstance(result, Operation) else None
            self.operations_count += found is not None and command.operation_id not in self.acknowledged
            if self.acknowledged.setdefault(command.operation_id, found) not in {found, None}:
                self.report.problems.append(f"{command.kind} {command.operation_id} was answered in two ways")

    async def _again(self, place: int, ask: Callable[[int], Coroutine[Any, Any, Any]]) -> Any:
        """Asks until it is answered: the writer may be killed at any moment, and the database may be away."""
        while True:
            task = asyncio.create_task(ask(place))
            if self.chance.random() < CRASH_CHANCE:
                await asyncio.sleep(self.chance.random() * CRASH_SECONDS_MAX)
                self.report.crashes_count += task.cancel()
            try:
                return await task
            except asyncio.CancelledError:
                place = self.chance.randrange(len(self.databases))  # another replica is asked
            except Exception as error:
                self._expected(error)
                await asyncio.sleep(RETRY_SECONDS)
            self.report.retries_count += 1

    @staticmethod
    def _expected(error: Exception) -> None:
        if not (
            is_unavailable(error) or isinstance(error, TimeoutError | asyncpg.InterfaceError | asyncpg.CannotConnectNowError)
        ):
            raise error

    async def _post(self, place: int, batch: Sequence[AnyCommand]) -> list[Any]:
        async with Commands(self.databases[place], clock=lambda: self.now).unit() as unit:
            return list(await posting.post(unit, batch, limits=None))

    async def _quotes(self, place: int) -> list[uuid.UUID]:
        """Quotes of the first member."""
        made = []
        async with self.databases[place].transaction() as connection:
            for _ in range(QUOTES_COUNT):
                institution_id, lines = quoted(self.chance)
                made.append(uuid.uuid4())
                await connection.execute(
                    "INSERT INTO quotes (quote_id, account_id, institution_id, target_program_id, amount_units, lines,"
                    " reference, create_time, expire_time) VALUES ($1, $2, $3, $4, $5, $6, '', $7, $8)",
                    made[-1], self.members[0], institution_id, OWN_PROGRAM[institution_id],
                    sum(line.value_units for line in lines), json.dumps([line.content() for line in lines], default=str),
                    self.now, self.now + timedelta(hours=6),
                )  # fmt: skip
        return made

    # ---- afterwards

    async def check(self) -> Report:
        """What is wrong: the log through the model, it against tables, the acknowledged against the log, all invariants."""
        database, problems = self.databases[0], self.report.problems
        async with database.connection() as connection:
            quotes = {
                row["quote_id"]: (
                    row["account_id"],
                    row["institution_id"],
                    row["target_program_id"],
                    json.loads(row["lines"]),
                    row["expire_time"],
                )
                for row in await connection.fetch("SELECT * FROM quotes")
            }  # fmt: skip
            children: dict[uuid.UUID, tuple[uuid.UUID, ...]] = {}
            for child, parent in sorted(self.parents.items()):
                children[parent] = (*children.get(parent, ()), child)
            model = Model(configuration(), children, quotes)
            stored: dict[uuid.UUID, bytes] = {}
            sequence = 0
            while rows := await connection.fetch(
                "SELECT * FROM operations WHERE sequence > $1 ORDER BY sequence LIMIT $2", sequence, PAGE
            ):
                for operation in map(to_operation, rows):
                    stored[operation.operation_id] = operation.hash
                    self.report.outcomes[f"{operation.kind} {operation.outcome}"] += 1
                    decided = model.replay(operation)
                    if decided != (operation.outcome, operation.amount_points):
                        problems.append(f"{operation.sequence} {operation.kind} is {operation.outcome}, the model says {decided}")
                    if not model.lots_agree():
                        problems.append(f"{operation.sequence} {operation.kind} took other lots")
                sequence = rows[-1]["sequence"]
            self.report.operations_count = len(stored)
            await self._compare(connection, model)
        self._compare_acknowledged(stored)
        report = await invariants.verify(database)
        problems += [f"{finding.invariant.name}: {finding.examples}" for finding in report.findings if finding.violations_count]
        return self.report

    async def _compare(self, connection: Any, model: Model) -> None:
        rows = await connection.fetch(
            "SELECT owner, kind, program_id, balance_points FROM ledger_accounts WHERE balance_points <> 0"
        )
        stored = {(row["owner"], row["kind"], row["program_id"]): row["balance_points"] for row in rows}
        modelled = {(owner, str(kind), program): points for (owner, kind, program), points in model.balances().items()}
        if stored != modelled:
            self.report.problems.append(f"balances differ: {sorted(stored.items() ^ modelled.items())[:6]}")
        lots = {
            (row["lot_id"], row["remaining_points"], row["reserved_points"], row["expire_time"])
            for row in await connection.fetch("SELECT * FROM lots")
        }
        mine = {(lot.lot_id, lot.remaining, lot.reserved, lot.expire_time) for lot in model.lots.values()}
        if lots != mine:
            self.report.problems.append(f"lots differ: {sorted(map(str, lots ^ mine))[:6]}")
        owed = await connection.fetch(
            "SELECT payer_institution_id, payee_institution_id, program_id, sum(points)::bigint AS points FROM clearing_items"
            " GROUP BY 1, 2, 3"
        )
        if {tuple(row)[:3]: row["points"] for row in owed if row["points"]} != {k: v for k, v in model.owed.items() if v}:
            self.report.problems.append("clearing items differ")
        exposures = {row["agreement_id"]: row for row in await connection.fetch("SELECT * FROM exposures")}
        for agreement_id, exposure in model.exposures.items():
            row = exposures[agreement_id]
            if exposure.numerator * row["exposure_denominator"] != exposure.denominator * row["exposure_numerator"]:
                self.report.problems.append(f"exposure of {agreement_id} differs")

    def _compare_acknowledged(self, stored: dict[uuid.UUID, bytes]) -> None:
        for operation_id, found in self.acknowledged.items():
            if found is not None and stored.get(operation_id) != found:
                self.report.problems.append(f"{operation_id} was acknowledged and is lost, or another")


async def _resolved(value: Any) -> Any:
    return value
