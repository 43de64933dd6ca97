"""Sums for reports: whatever happened, lots and the ledger say the same, and summing up in pieces changes nothing."""

import random
from datetime import date, timedelta

import pytest

from chassis.unit_of_work import Commands
from loyalty.domain.ledger.types import Operation, OperationKind, Outcome
from loyalty.domain.liability import day_totals, roll_forward
from loyalty.store import liability, posting

ISSUED = {"bank": "bank", "miles": "air", "old": "bank"}
DAY = timedelta(days=1)
WEIGHTS = {OperationKind.EARN: 3.0, OperationKind.REDEEM: 3.0, OperationKind.EXPIRE: 0.3, OperationKind.CLAWBACK: 0.4}
FIRST, LAST = date(2000, 1, 1), date(2100, 1, 1)


class Walk:
    """Operations of every kind on real tables."""

    def __init__(self, database, world, chance: random.Random) -> None:
        self.database, self.world, self.chance = database, world, chance
        self.commands = Commands(database, clock=lambda: world.now)
        self.members = sorted(world.books.accounts)
        self.posted: list[Operation] = []

    async def found(self) -> None:
        async with self.database.transaction() as connection:
            for program_id, institution_id in ISSUED.items():
                await connection.execute(
                    "INSERT INTO programs (program_id, institution_id, display_name, version, create_time)"
                    " VALUES ($1, $2, $1, 1, now())",
                    program_id, institution_id,
                )  # fmt: skip
            for member in self.members:
                await connection.execute(
                    "INSERT INTO accounts (account_id, customer_id, holder_customer_id, version, create_time)"
                    " VALUES ($1, $1, $1, 1, now())",
                    member,
                )

    async def ask(self, *commands) -> None:
        async with self.commands.unit() as unit:
            results = await posting.post(unit, commands)
        self.posted += [result for result in results if isinstance(result, Operation) and result.outcome is Outcome.POSTED]

    def earlier(self, *kinds: OperationKind):
        ids = [operation.operation_id for operation in self.posted if operation.kind in kinds]
        return self.chance.choice(ids) if ids else None

    async def step(self) -> None:
        world, chance, kinds = self.world, self.chance, OperationKind
        member, other = chance.sample(self.members, 2)
        program, points = chance.choice(sorted(ISSUED)), chance.randint(1, 90)
        here = {"program_id": program, "amount_points": points}
        spending, earning, hold = self.earlier(kinds.CAPTURE, kinds.REDEEM), self.earlier(kinds.EARN), self.earlier(kinds.HOLD)
        undone = self.earlier(kinds.TRANSFER, kinds.EXCHANGE, kinds.ADJUST, kinds.EARN)
        async with self.database.connection() as connection:
            lots = tuple(row[0] for row in await connection.fetch("SELECT lot_id FROM lots WHERE program_id = $1", program))
        made = [
            world.command("Earn", member, **here | {"amount_points": 2 * points}, institution_id=ISSUED[program]),
            world.command("Earn", member, **here, institution_id=ISSUED[program], pending=True),
            world.command("Redeem", member, **here, institution_id=chance.choice(["bank", "air", "shop"])),
            world.command("Hold", member, **here, institution_id="shop", expire_time=world.now + 9 * DAY),
            world.command("Adjust", member, program_id=program, change_points=chance.choice([-points, points])),
            world.command("Transfer", member, to_account_id=other, program_id="bank", amount_points=points),
            world.command("Exchange", member, program_id="bank", to_program_id="miles", amount_points=points),
        ]
        if lots:
            made.append(world.command("ExpireLots", None, program_id=program, lot_ids=lots))
        if spending:
            made.append(world.command("Refund", None, spending_id=spending))
        if earning:
            made.append(world.command("Clawback", None, earning_id=earning))
            made.append(world.command("Cancel", None, earning_id=earning))
        if hold:
            made.append(world.command("Capture", None, hold_id=hold, amount_units=chance.choice([None, 5])))
        if undone:
            made.append(world.command("Reverse", None, reversed_id=undone))
        weights = [WEIGHTS.get(command.kind, 1.0) for command in made]
        await self.ask(*chance.choices(made, weights))
        world.later(days=chance.choice([0, 0, 1, 9, 25]))

    async def report(self):
        """What reports are made of."""
        async with self.database.connection() as connection, connection.transaction(isolation="repeatable_read"):
            movements = await liability.movements(connection, sorted(ISSUED), FIRST, LAST)
            cohorts = {program: await liability.cohorts(connection, program, LAST) for program in ISSUED}
            balances = await liability.issuer_balances(connection, sorted(ISSUED))
        return movements, cohorts, balances


@pytest.mark.parametrize("seed", range(3))
async def test_lots_and_ledger_agree_on_what_members_have(database, new_world, monkeypatch, seed):
    chance, world = random.Random(seed), new_world()

    async def configuration(*_):
        return world.books.configuration

    monkeypatch.setattr(posting, "configuration_of", configuration)
    monkeypatch.setattr(liability, "OPERATIONS_AT_ONCE", 7)
    walk = Walk(database, world, chance)
    await walk.found()
    for number in range(120):
        await walk.step()
        if number % 40 == 20:
            async with walk.commands.unit() as unit:
                await liability.fold(unit.connection)
    assert len({operation.kind for operation in walk.posted}) >= 9
    movements, cohorts, balances = found = await walk.report()
    for program, issuer in ISSUED.items():
        mine = [movement for movement in movements if movement.program_id == program]
        rolled = roll_forward(mine, issuer, FIRST)
        outstanding = sum(cohort.outstanding_points for cohort in cohorts[program])
        assert outstanding + rolled.debt_points == rolled.closing_points
        assert rolled.issuer_balance_points == balances.get(program, 0)
        assert sum(rolled[:10]) == rolled.closing_points
        for cohort in cohorts[program]:
            assert min(cohort[1:]) >= 0
            assert cohort.issued_points == sum(cohort[2:6]), cohort
        days = sorted({movement.day for movement in mine})
        running = 0
        for day in days:
            running = day_totals([movement for movement in mine if movement.day == day], running).outstanding_points
        assert running == rolled.closing_points
    while True:
        async with walk.commands.unit() as unit:
            if not await liability.fold(unit.connection):
                break
    assert await walk.report() == found
