import asyncio
import random
import uuid

import asyncpg
import pytest

from chassis.unit_of_work import Commands
from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.configuration import PlainConfiguration, ProgramTerms
from loyalty.domain.ledger.engine import decide
from loyalty.domain.ledger.types import HASH_OF_NOTHING, Account, Head, KeyReused, OperationKind, Outcome, Unknown
from loyalty.store.ledger_rows import to_operation

EARN, REDEEM = OperationKind.EARN, OperationKind.REDEEM


async def test_a_batch_is_written_and_read_back(ledger):
    member = ledger.members[0]
    results = await ledger.post(
        ledger.order(EARN, member, 100, "e"), ledger.order(REDEEM, member, 70, "r", reference="till 1"),
        ledger.order(REDEEM, member, 70, "r2"), ledger.order(REDEEM, member, 70, "r", reference="till 1"),
        ledger.order(REDEEM, member, 70, "r", content=b"other"),
    )  # fmt: skip
    assert [getattr(result, "outcome", None) for result in results] == [
        Outcome.POSTED, Outcome.POSTED, Outcome.INSUFFICIENT_POINTS, Outcome.POSTED, None,
    ]  # fmt: skip
    assert results[3] == results[1]
    assert results[4] == KeyReused(results[1])
    async with ledger.database.connection() as connection:
        rows = await connection.fetch("SELECT * FROM operations ORDER BY sequence")
        assert [to_operation(row) for row in rows] == results[:3]
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 2
        assert await connection.fetchval("SELECT count(*) FROM entries") == 4
    assert await ledger.broken() == {}


async def test_a_later_batch_knows_the_earlier_ones(ledger):
    member = ledger.members[0]
    (first,) = await ledger.post(ledger.order(EARN, member, 100, "e"))
    again, reused, fresh = await ledger.post(
        ledger.order(EARN, member, 100, "e"),
        ledger.order(EARN, member, 100, "e", content=b"x"),
        ledger.order(REDEEM, member, 1, "r"),
    )
    assert (again, reused) == (first, KeyReused(first))
    assert (fresh.sequence, fresh.balance_points) == (2, 99)


async def test_only_what_is_known_writes_nothing(ledger):
    order = ledger.order(EARN, ledger.members[0], 100, "e")
    await ledger.post(order)
    assert await ledger.post() == []
    await ledger.post(order, order)
    assert await ledger.fetchval("SELECT sequence FROM ledger_heads") == 1
    assert await ledger.fetchval("SELECT count(*) FROM outbox") == 1


async def test_concurrent_batches_with_duplicates_across_them_never_deadlock(ledger):
    chance = random.Random(7)
    await ledger.post(*(ledger.order(EARN, member, 200, f"start-{member}") for member in ledger.members))
    orders = [
        ledger.order(chance.choice([EARN, REDEEM]), chance.choice(ledger.members), chance.randint(1, 90), f"r{i}")
        for i in range(150)
    ]
    batches = [chance.sample(orders, 30) for _ in range(40)]
    given = await asyncio.gather(*(ledger.post(*batch) for batch in batches))
    answers: dict[str, set[bytes]] = {}
    for batch, results in zip(batches, given, strict=True):
        for order, result in zip(batch, results, strict=True):
            answers.setdefault(order.key.request_id, set()).add(result.hash)
    assert all(len(operations) == 1 for operations in answers.values())
    assert await ledger.fetchval("SELECT count(*) FROM operations") == len(answers) + 3
    assert await ledger.broken() == {}
    await replay(ledger)


async def replay(ledger) -> None:
    """The operations, in sequence, through the pure engine: every outcome, leg and hash is the same."""
    async with ledger.database.connection() as connection:
        rows = await connection.fetch("SELECT * FROM operations ORDER BY sequence")
        accounts = await connection.fetch(
            "SELECT owner, kind, program_id, balance_points, version FROM ledger_accounts WHERE version > 0"
        )
        lots = await connection.fetch("SELECT lot_id, remaining_points FROM lots")
    configuration = PlainConfiguration(rows[0]["configuration_version"], {"p": ProgramTerms("p", "bank")})
    members = {member: Account(member) for member in ledger.members}
    books = Books(Head(0, HASH_OF_NOTHING), configuration, rows[0]["post_time"], accounts=members)
    for operation in map(to_operation, rows):
        command = ledger.order(
            operation.kind, operation.account_id, operation.amount_points, operation.key.request_id, operation.content_hash,
            operation_id=operation.operation_id, effective_time=operation.effective_time,
        )  # fmt: skip
        books.now = operation.post_time
        (again,) = decide([command], books)
        assert again.hash == operation.hash
    assert {(*key, *state) for key, state in books.balances.items()} == {tuple(row) for row in accounts}
    assert {(lot.lot_id, lot.remaining_points) for lot in books.lots.values()} == {tuple(row) for row in lots}


async def test_a_connection_killed_in_the_middle_keeps_nothing_and_a_retry_does_it_once(ledger):
    orders = [ledger.order(EARN, member, 10, f"e-{member}") for member in ledger.members]

    async def killed() -> None:
        async with Commands(ledger.database).unit() as unit:
            await ledger.post_in(unit, orders)
            pid = unit.connection.get_server_pid()
            async with ledger.database.connection() as other:
                await other.execute("SELECT pg_terminate_backend($1)", pid)

    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError)):
        await killed()
    assert await ledger.fetchval("SELECT count(*) FROM operations") == 0
    await ledger.post(*orders)
    await ledger.post(*orders)
    assert await ledger.fetchval("SELECT count(*) FROM operations") == 3
    assert await ledger.broken() == {}


async def test_a_crowd_at_one_partner_agrees(ledger):
    await ledger.post(*(ledger.order(EARN, member, 1000, f"e-{member}") for member in ledger.members))
    await asyncio.gather(
        *(ledger.post(*(ledger.order(REDEEM, m, 3, f"{i}-{m}") for m in reversed(ledger.members))) for i in range(50))
    )
    assert await ledger.fetchval("SELECT balance_points FROM ledger_accounts WHERE kind = 'PARTNER'") == 450
    assert await ledger.broken() == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET amount_points = 1", "DELETE FROM entries", "TRUNCATE entries",
        "UPDATE operations SET outcome = 'POSTED'", "DELETE FROM operations", "TRUNCATE operations, entries",
    ],
)  # fmt: skip
async def test_what_is_written_stays(ledger, statement):
    await ledger.post(ledger.order(EARN, ledger.members[0], 100, "e"))
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await ledger.fetchval(statement)


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE ledger_accounts SET balance_points = -1 WHERE kind = 'MEMBER'", "ledger_accounts_member_not_below_zero"),
        ("INSERT INTO entries VALUES (1, 2, 1, 5, 105)", "entries_sequence"),
    ],
)
async def test_the_database_refuses_wrong_states(ledger, statement, constraint):
    await ledger.post(ledger.order(EARN, ledger.members[0], 100, "e"))
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await ledger.fetchval(statement)
    assert refused.value.constraint_name == constraint


async def test_the_database_refuses_legs_without_operation_or_ledger_account(ledger):
    await ledger.post(ledger.order(EARN, ledger.members[0], 100, "e"))
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="no operation"):
        await ledger.fetchval("INSERT INTO entries VALUES (1, 2, 99, 5, 105), (2, 2, 99, -5, -105)")
    with pytest.raises(asyncpg.CheckViolationError):
        await ledger.fetchval("INSERT INTO entries VALUES (77, 1, 1, 5, 5), (78, 1, 1, -5, -5)")


async def test_the_database_refuses_legs_that_do_not_sum_to_zero(ledger):
    await ledger.post(ledger.order(EARN, ledger.members[0], 100, "e"))
    await ledger.post(ledger.order(REDEEM, ledger.members[0], 200, "refused"))
    member = await ledger.fetchval("SELECT ledger_account_id FROM ledger_accounts WHERE kind = 'MEMBER'")
    with pytest.raises(asyncpg.CheckViolationError, match="do not sum to zero"):
        await ledger.fetchval("INSERT INTO entries VALUES ($1, 2, 2, -100, 0)", member)


async def test_what_is_about_nothing_keeps_nothing(ledger):
    assert await ledger.post(ledger.order(EARN, uuid.uuid4(), 1, "e")) == [Unknown("ACCOUNT_NOT_FOUND")]
    assert await ledger.fetchval("SELECT count(*) FROM operations") == 0
