"""The same load on the engine alone, in memory: fast, and where planted faults must be found."""

import random
import uuid
from collections import Counter
from datetime import timedelta

from loyalty.domain.ledger import engine
from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.types import HASH_OF_NOTHING, Account, Head, Operation, Quote, Target
from simulator.load import Load
from simulator.model import Model
from simulator.terms import OWN_PROGRAM, START, configuration, quoted

MEMBERS_COUNT = 8
BATCH_MAX = 20


def simulate(seed: int, batches: int) -> tuple[list[str], Counter[str]]:
    """Asks the engine, then the model. Returns what is wrong, and how often each outcome came."""
    chance = random.Random(seed)
    members = [uuid.UUID(int=number + 1) for number in range(MEMBERS_COUNT)]
    families = {members[0]: (members[1],)}
    accounts = {member: Account(member, family=families.get(member, ())) for member in members}
    books = Books(Head(0, HASH_OF_NOTHING), configuration(), START, accounts=accounts)
    load, quotes = Load(seed, members), {}
    problems = []
    for _ in range(batches):
        load.lots = {lot.lot_id: lot.program_id for lot in books.lots.values() if lot.remaining_points}
        made = _quote(chance, members[0], books)
        quotes[made.quote_id] = (
            made.account_id,
            made.institution_id,
            made.target.program_id,
            [line.content() for line in made.lines],
            made.expire_time,
        )
        load.quotes = [made.quote_id, *load.quotes[:2]]
        batch = load.batch(chance.randint(1, BATCH_MAX), books.now)
        answers: dict[object, object] = {}
        for command, result in zip(batch, engine.decide(batch, books), strict=True):
            if answers.setdefault(command.key, result) is not result and isinstance(result, Operation):
                problems.append(f"{command.kind} was done twice")
        books.now += timedelta(hours=chance.choice([0, 0, 5, 24, 70]))
    keys = Counter(operation.key for operation in books.posted)
    problems += [f"{key} has {count} operations" for key, count in keys.items() if count > 1]
    return problems + _compare(books, Model(books.configuration, families, quotes)), Counter(  # type: ignore[arg-type]
        f"{operation.kind} {operation.outcome}" for operation in books.posted
    )


def _quote(chance: random.Random, member: uuid.UUID, books: Books) -> Quote:
    place, lines = quoted(chance)
    made = Quote(
        uuid.UUID(int=chance.getrandbits(128)), member, place, Target(OWN_PROGRAM[place]), lines, books.now + timedelta(hours=6)
    )  # fmt: skip
    books.quotes[made.quote_id] = made
    return made


def _compare(books: Books, model: Model) -> list[str]:
    for operation in books.posted:
        try:
            decided = model.replay(operation)
        except (AssertionError, KeyError) as error:
            return [f"{operation.sequence} {operation.kind}: the model stumbles: {error!r}"]
        if decided != (operation.outcome, operation.amount_points):
            return [f"{operation.sequence} {operation.kind} {operation.outcome}: the model says {decided}"]
        if not model.lots_agree():
            return [f"{operation.sequence} {operation.kind} took other lots"]
    stored = {(key.owner, str(key.kind), key.program_id): state.balance_points for key, state in books.balances.items()}
    problems = []
    if {key: points for key, points in stored.items() if points} != model.balances():
        problems.append("balances differ")
    lots = {lot.lot_id: (lot.remaining_points, lot.reserved_points, lot.expire_time) for lot in books.lots.values()}
    if lots != {lot.lot_id: (lot.remaining, lot.reserved, lot.expire_time) for lot in model.lots.values()}:
        problems.append("lots differ")
    if {k: v for k, v in books.exposures.items() if v} != {k: v for k, v in model.exposures.items() if v}:
        problems.append("exposures differ")
    owed: Counter[tuple[str, str, str]] = Counter()
    for item in books.items:
        owed[item.payer_institution_id, item.payee_institution_id, item.program_id] += item.points
    if {k: v for k, v in owed.items() if v} != {k: v for k, v in model.owed.items() if v}:
        problems.append("clearing items differ")
    return problems
