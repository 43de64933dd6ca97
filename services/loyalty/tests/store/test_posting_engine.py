"""What the store loads, decides and writes, batch by batch, is what the engine decides on books that go on and on."""

import json
import random
import uuid
from datetime import timedelta
from typing import Any

import pytest

from chassis.unit_of_work import Commands
from loyalty.domain.ledger.engine import decide
from loyalty.domain.ledger.types import Operation
from loyalty.store import invariants, ledger_loading, posting
from loyalty.store.ledger_rows import to_operation

ISSUED = {"bank": "bank", "miles": "air", "old": "bank"}
BANK_AIR = uuid.UUID(int=12)
DAY = timedelta(days=1)


class Pair:
    """The database and the books, asked the same."""

    def __init__(self, database, world, chance: random.Random) -> None:
        self.database, self.world, self.chance = database, world, chance
        self.members = sorted(world.books.accounts)
        self.commands = Commands(database, clock=lambda: world.now)

    async def found(self) -> None:
        async with self.database.transaction() as connection:
            for program_id, institution_id in ISSUED.items():
                await connection.execute(
                    "INSERT INTO programs (program_id, institution_id, display_name, version, create_time)"
                    " VALUES ($1, $2, $1, 1, now())",
                    program_id, institution_id,
                )  # fmt: skip
            parents = {child: member for member in self.members for child in self.world.books.accounts[member].family}
            for member in self.members:
                holder = parents.get(member, member)
                await connection.execute(
                    "INSERT INTO accounts (account_id, customer_id, holder_customer_id, parent_account_id, version, create_time)"
                    " VALUES ($1, $1, $2, $3, 1, now())",
                    member, holder, parents.get(member),
                )  # fmt: skip

    async def ask(self, batch) -> None:
        expected = decide(batch, self.world.books)
        async with self.commands.unit() as unit:
            results = await posting.post(unit, batch)
        assert [plain(result) for result in results] == [plain(result) for result in expected]

    async def quote(self, member):
        """Miles at the airline, paid by its own and the bank's."""
        miles, value = self.chance.randint(1, 20), self.chance.randint(1, 20)
        needed = -(-value * 10 // 3)
        lines = [("miles", miles, miles, 1, 1, None, None), ("bank", needed, value, 3, 10, BANK_AIR, 1)]
        quote_id = self.world.quote(lines, ("miles",), member)
        made = self.world.books.quotes[quote_id]
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO quotes (quote_id, account_id, institution_id, target_program_id, amount_units, lines, reference,"
                " create_time, expire_time) VALUES ($1, $2, 'air', 'miles', $3, $4, '', $5, $6)",
                quote_id, member, made.value_units,
                json.dumps([line.content() for line in made.lines], default=str),
                self.world.now, made.expire_time,
            )  # fmt: skip
        return quote_id

    def earlier(self, *kinds):
        found = [operation.operation_id for operation in self.world.books.posted if not kinds or operation.kind in kinds]
        return self.chance.choice(found) if found else uuid.uuid4()

    async def command(self):
        """Anything that may be asked for."""
        chance, world = self.chance, self.world
        member, other, program = chance.choice(self.members), chance.choice(self.members), chance.choice(sorted(ISSUED))
        points, part = chance.randint(1, 60), chance.choice([None, chance.randint(1, 40)])
        place = chance.choice(["bank", "air", "shop", "kiosk"])
        earned = {"program_id": program, "institution_id": ISSUED[program], "amount_points": points * 2}
        spent = {"program_id": program, "institution_id": place, "amount_points": points}
        makers = {
            "earn": lambda: world.command("Earn", member, **earned, pending=chance.choice([None, False, False, True])),
            "cafe": lambda: world.command("Earn", member, program_id="bank", amount_points=points, institution_id="cafe"),
            "redeem": lambda: world.command("Redeem", member, **spent),
            "hold": lambda: world.command("Hold", member, **spent, expire_time=world.now + 30 * DAY),
            "capture": lambda: world.command(
                "Capture", None, hold_id=self.earlier("HOLD"), amount_units=part, final=chance.random() < 0.3
            ),
            "void": lambda: world.command("Void", None, hold_id=self.earlier("HOLD")),
            "expire": lambda: world.command("ExpireHold", None, hold_id=self.earlier("HOLD")),
            "refund": lambda: world.command("Refund", None, spending_id=self.earlier("CAPTURE", "REDEEM"), amount_units=part),
            "clawback": lambda: world.command("Clawback", None, earning_id=self.earlier("EARN"), amount_points=part),
            "confirm": lambda: world.command("Confirm", None, earning_id=self.earlier("EARN")),
            "cancel": lambda: world.command("Cancel", None, earning_id=self.earlier("EARN")),
            "reverse": lambda: world.command("Reverse", None, reversed_id=self.earlier()),
            "adjust": lambda: world.command(
                "Adjust",
                member,
                program_id=program,
                change_points=chance.choice([-points, points]),
                institution_id=ISSUED[program],
            ),
            "transfer": lambda: world.command("Transfer", member, to_account_id=other, program_id="bank", amount_points=points),
            "exchange": lambda: world.command(
                "Exchange", member, program_id="bank", to_program_id=chance.choice(["miles", "old"]), amount_points=points
            ),
            "sweep": lambda: world.command("ExpireLots", None, program_id=program, lot_ids=tuple(world.books.lots)),
            "activate": lambda: world.command("Confirm", None, program_id=program, lot_ids=tuple(world.books.lots)),
            "end": lambda: world.command("ExpireLots", member, program_id=program),
        }
        weights = {"earn": 6, "redeem": 5, "hold": 3, "capture": 4, "refund": 3, "end": 0.2}
        quoted = chance.random() < 0.15
        if quoted:
            quote_id = await self.quote(member)
            if chance.random() < 0.5:
                return world.command("Redeem", member, quote_id=quote_id)
            return world.command("Hold", member, quote_id=quote_id, expire_time=world.now + 30 * DAY)
        (name,) = chance.choices(sorted(makers), [weights.get(name, 1) for name in sorted(makers)])
        return makers[name]()


def plain(result):
    """A result as it can be compared: an operation by its hash, which covers all of it."""
    return (result.sequence, result.outcome, result.hash) if isinstance(result, Operation) else result


TABLES = {
    "lots": "lot_id, state, remaining_points, reserved_points, active_time, expire_time, origin_lot_id",
    "lot_uses": "sequence, ordinal, lot_id, points, returned_points",
    "holds": "hold_id, state, captured_units, close_time",
    "hold_lines": "hold_id, position, captured_points, captured_value_units",
    "hold_lots": "hold_id, position, ordinal, captured_points",
    "spend_lines": "sequence, position, refunded_points, refunded_value_units",
    "clearing_items": "sequence, position, payer_institution_id, payee_institution_id, program_id, points, price_numerator",
}


def expected(books):
    holds = books.holds.values()
    return {
        "lots": [
            (x.lot_id, x.state, x.remaining_points, x.reserved_points, x.active_time, x.expire_time, x.origin_lot_id)
            for x in books.lots.values()
        ],
        "lot_uses": [(x.sequence, x.ordinal, x.lot_id, x.points, x.returned_points) for x in books.new_uses],
        "holds": [(x.hold_id, x.state, x.captured_units, x.close_time) for x in holds],
        "hold_lines": [(x.hold_id, y.position, y.captured_points, y.captured_value_units) for x in holds for y in x.lines],
        "hold_lots": [(x.hold_id, y.position, y.ordinal, y.captured_points) for x in holds for y in x.lots],
        "spend_lines": [(x.sequence, x.position, x.refunded_points, x.refunded_value_units) for x in books.new_spent],
        "clearing_items": [
            (x.sequence, x.position, x.payer_institution_id, x.payee_institution_id, x.program_id, x.points, x.price_numerator)
            for x in books.items
        ],
    }


@pytest.mark.parametrize("seed", range(4))
async def test_the_store_is_the_engine(database, new_world, monkeypatch, seed):
    chance, world = random.Random(seed), new_world()
    monkeypatch.setattr(posting, "configuration_of", lambda unit, head: resolved(world.books.configuration))
    monkeypatch.setattr(ledger_loading, "LOTS_OF_OWNER_MAX", 3)  # so that batches need more lots than they loaded
    pair = Pair(database, world, chance)
    await pair.found()
    asked: list[Any] = []
    for _ in range(30):
        batch = []
        for _ in range(chance.randint(1, 12)):
            batch.append(chance.choice(asked) if asked and chance.random() < 0.05 else await pair.command())
        await pair.ask(batch)
        asked += batch
        world.later(days=chance.choice([0, 0, 1, 5, 20]))
    outcomes = {operation.outcome for operation in world.books.posted}
    assert len(outcomes) >= 5, outcomes
    async with database.connection() as connection:
        for table, made in expected(world.books).items():
            rows = await connection.fetch(f"SELECT {TABLES[table]} FROM {table}")
            assert sorted(map(repr, map(tuple, rows))) == sorted(map(repr, made_plain(made))), table
        balances = await connection.fetch("SELECT owner, kind, program_id, balance_points, version FROM ledger_accounts")
        assert {tuple(row) for row in balances} == {(*key, *state) for key, state in world.books.balances.items()}
        exposures = await connection.fetch(
            "SELECT agreement_id, exposure_numerator / exposure_denominator AS units FROM exposures"
        )
        assert {row["agreement_id"]: float(row["units"]) for row in exposures} == {
            agreement_id: float(exposure) for agreement_id, exposure in world.books.exposures.items()
        }
        stored = [to_operation(row) for row in await connection.fetch("SELECT * FROM operations ORDER BY sequence")]
    assert [plain(operation) for operation in stored] == [plain(operation) for operation in world.books.posted]
    assert world.problems() == []
    report = await invariants.verify(database)
    assert [finding.invariant.name for finding in report.findings if finding.violations_count] == []


def made_plain(rows):
    """Kinds as the text that the database has."""
    return [tuple(str(x) if isinstance(x, str) else x for x in row) for row in rows]


async def resolved(value):
    return value
