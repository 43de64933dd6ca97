"""The one write path, over real sockets and a real PostgreSQL."""

import asyncio
import uuid
from datetime import timedelta

import grpc
import pytest
from echo_service import contract as pb
from echo_service.service import EchoServicer, add, add_many

from chassis import answers, housekeeping
from chassis.clock import now
from chassis.errors import FailedPrecondition
from chassis.ids import new_id
from chassis.outbox import Event
from chassis.testing import acting_as, principal, reason
from chassis.unit_of_work import Commands

ADD = f"/{pb.ECHO}/Add"
BOTH = pytest.mark.parametrize("method", ["Add", "AddGathered"])


async def totals(running):
    async with running.application.database.connection() as connection:
        return {row["counter"]: row["total"] for row in await connection.fetch("SELECT counter, total FROM counters")}


async def count(database, table: str):
    async with database.connection() as connection:
        return await connection.fetchval(f"SELECT count(*) FROM {table}")


def servicer(running) -> EchoServicer:
    return running.application.servicers[0][1]


def call(commands: Commands, request_id: str, counter: str = "c", amount: int = 1, client: str = "app"):
    with acting_as(principal(client=client), ADD):
        return commands.call(pb.AddRequest(request_id=request_id, counter=counter, amount=amount))


@BOTH
async def test_fifty_concurrent_duplicates_have_one_effect_and_one_answer(start, method):
    replicas = [await start(), await start()]
    stubs = [pb.Stub(running.channel()) for running in replicas]
    request = pb.AddRequest(request_id="r", counter="slow", amount=3)
    answers = await asyncio.gather(*(getattr(stubs[i % 2], method)(request, timeout=20) for i in range(50)))
    assert {(answer.total, answer.serial) for answer in answers} == {(3, 1)}
    assert await totals(replicas[0]) == {"slow": 3}
    assert len(await replicas[0].events()) == 2


@BOTH
async def test_the_same_id_with_other_input_is_refused(start, method):
    running = await start()
    run = getattr(pb.Stub(running.channel()), method)
    await run(pb.AddRequest(request_id="r", counter="c", amount=3), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await run(pb.AddRequest(request_id="r", counter="c", amount=4), timeout=5)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason(refused.value) == "REQUEST_ID_REUSED"
    assert await totals(running) == {"c": 3}


@BOTH
async def test_input_is_compared_whatever_the_order_of_map_entries(start, method):
    running = await start()
    run = getattr(pb.Stub(running.channel()), method)
    keys = [f"key{i}" for i in range(30)]
    first = await run(pb.AddRequest(request_id="r", counter="c", amount=3, labels=dict.fromkeys(keys, "x")), timeout=5)
    second = await run(pb.AddRequest(request_id="r", counter="c", amount=3, labels=dict.fromkeys(reversed(keys), "x")), timeout=5)
    assert first == second


@BOTH
async def test_a_request_id_belongs_to_institution_and_client(start, method):
    running = await start()
    callers = [("a", "x"), ("a", "y"), ("b", "x"), (None, "x")]
    for institution, client in callers:
        stub = pb.Stub(running.channel(institution=institution, client=client))
        await getattr(stub, method)(pb.AddRequest(request_id="r", counter="c", amount=1), timeout=5)
    assert await totals(running) == {"c": len(callers)}


@BOTH
@pytest.mark.parametrize("request_id", ["", "x" * 256])
async def test_a_request_id_has_1_to_255_characters(start, method, request_id):
    running = await start()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(pb.Stub(running.channel()), method)(pb.AddRequest(request_id=request_id, counter="c"), timeout=5)
    assert reason(refused.value) == "REQUEST_ID_INVALID"


@BOTH
async def test_a_refusal_keeps_nothing_and_is_decided_anew(start, method):
    running = await start()
    database = running.application.database
    run = getattr(pb.Stub(running.channel()), method)
    spend = pb.AddRequest(request_id="spend", counter="c", amount=-5)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await run(spend, timeout=5)
    assert reason(refused.value) == "BELOW_ZERO"
    assert [await count(database, table) for table in ("idempotency", "outbox", "counters", "additions")] == [0, 0, 0, 0]
    if method == "Add":
        await run(pb.AddRequest(request_id="earn", counter="c", amount=7), timeout=5)
        assert (await run(spend, timeout=5)).total == 2


async def test_what_is_kept_of_an_answer_only_who_repeats_the_request_can_read(database):
    def commands(secret: str) -> Commands:
        made = Commands(database)
        made.bind(secret)
        return made

    ours = commands("private key")
    one, other = pb.AddRequest(request_id="one", counter="marker-7731", amount=5), pb.AddRequest(request_id="two", counter="marker-7731", amount=5)  # fmt: skip # noqa: E501

    async def echoes(unit):
        return await add(unit, pb.AddRequest(counter="marker-7731", amount=5))

    with acting_as(principal(), ADD):
        first = await ours.run(one, echoes)
        assert await commands("private key").run(one, echoes) == first, "another replica answers the same"
        await ours.run(other, echoes)
        with pytest.raises(FailedPrecondition) as refused:
            await commands("another private key").run(one, echoes)
        assert refused.value.reason == "ANSWER_UNREADABLE"
    async with database.connection() as connection:
        sealed = await connection.fetch("SELECT input_hash, response FROM idempotency")
    assert len({row["response"] for row in sealed}) == 2
    assert len({row["input_hash"] for row in sealed}) == 1
    assert not any(first.SerializeToString() in row["response"] for row in sealed)
    assert await count(database, "additions") == 2, "and nothing was done twice"


async def test_answers_are_forgotten_by_whom_they_name(database):
    commands, anna, berta, clara = Commands(database), *(new_id() for _ in range(3))

    def naming(request_id: str, *names: str):
        return call(commands, request_id, " ".join(names) or "nobody")

    async def kept():
        async with database.connection() as connection:
            return [row[0] for row in await connection.fetch("SELECT request_id FROM idempotency ORDER BY 1")]

    calls = [
        naming("a", f"customers/{anna}/messages/{clara}"),
        naming("b", f"customers/{berta}"),
        naming("both", f"institutions/bank/sourceSystems/core/records/{berta}", f"customers/{anna}"),
        naming("none"),
    ]
    await commands.run_many(calls, add_many)

    async def erases(unit):
        await answers.forget(unit.connection, [anna, new_id()])
        return await add(unit, pb.AddRequest(counter="c", amount=1))

    request = pb.AddRequest(request_id="erases", counter=f"customers/{anna}", amount=1)
    with acting_as(principal(), ADD):
        done = await commands.run(request, erases)
        assert await kept() == ["b", "erases", "none"]
        assert await commands.run(request, erases) == done, "who asked for the erasure may ask again"
        async with database.transaction() as connection:
            await answers.forget(connection, [clara])
            assert await kept() == ["b", "erases", "none"]
            await answers.forget(connection, [anna, berta])
    assert await kept() == ["none"]


@pytest.mark.parametrize("around", [b"a", b"f/", b"0", b"\x7f", b"/"])
def test_ids_in_names_are_found_whatever_stands_around(around):
    one, other = new_id(), uuid.uuid4()
    content = around + f"/{one}".encode() + around + f"/{other}/{one}".encode() + around
    assert answers.numbers_named(content, b"") == {answers.number_of(one), answers.number_of(other)}
    assert answers.numbers_named(str(one).encode()) == set(), "an id that is no name's is nobody's"
    assert all(-(2**63) <= answers.number_of(new_id()) < 2**63 for _ in range(20))


async def test_an_unknown_failure_keeps_nothing(database):
    commands = Commands(database)

    async def fails(unit):
        await add(unit, pb.AddRequest(counter="c", amount=1))
        raise ZeroDivisionError

    with acting_as(principal(), ADD), pytest.raises(ZeroDivisionError):
        await commands.run(pb.AddRequest(request_id="r"), fails)
    assert [await count(database, table) for table in ("idempotency", "outbox", "counters")] == [0, 0, 0]
    assert not commands.outbox_wake.is_set()


async def test_an_event_that_nats_would_refuse_is_refused_before(database):
    async def handler(unit):
        unit.publish(Event("concord.echo.v1.counter.added", "c", pb.Added(counter="x" * 600_000)))
        return pb.AddResponse()

    with acting_as(principal(), ADD), pytest.raises(ValueError, match="600004 bytes are more"):
        await Commands(database).run(pb.AddRequest(request_id="r"), handler)
    assert await count(database, "idempotency") == 0


async def test_a_deadlock_runs_the_handler_again(database):
    commands = Commands(database)
    meet = asyncio.Barrier(2)
    runs: list[str] = []

    def crossing(first: str, second: str):
        async def handler(unit):
            runs.append(first)
            await add(unit, pb.AddRequest(counter=first, amount=1))
            if len(runs) <= 2:
                await meet.wait()
            return await add(unit, pb.AddRequest(counter=second, amount=1))

        return handler

    async def run(request_id: str, first: str, second: str):
        with acting_as(principal(), ADD):
            await commands.run(pb.AddRequest(request_id=request_id), crossing(first, second))

    await asyncio.gather(run("1", "a", "b"), run("2", "b", "a"))
    assert len(runs) >= 3  # one was the victim, perhaps more than once
    async with database.connection() as connection:
        assert await connection.fetch("SELECT counter, total FROM counters ORDER BY counter") == [("a", 2), ("b", 2)]
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 8


async def test_a_batch_answers_each_call_on_its_own(database):
    commands = Commands(database)
    await commands.run_many([call(commands, "old", amount=5)], add_many)
    answers = await commands.run_many(
        [
            call(commands, "new", amount=2),
            call(commands, "old", amount=5),
            call(commands, "refused", amount=-1),
            call(commands, "new", amount=2),
            call(commands, "old", amount=6),
            call(commands, "new", amount=3),
            call(commands, "new", amount=2, client="other"),
        ],
        add_many,
    )
    kinds = [answer.reason if isinstance(answer, FailedPrecondition) else answer.serial for answer in answers]
    assert kinds[:6] == [answers[0].serial, 1, "BELOW_ZERO", answers[0].serial, "REQUEST_ID_REUSED", "REQUEST_ID_REUSED"]
    assert {answers[0].serial, answers[6].serial} == {2, 3}
    assert await count(database, "idempotency") == 3
    assert await count(database, "outbox") == 6


async def test_a_poisoned_batch_is_run_one_by_one(database):
    commands = Commands(database)
    calls = [call(commands, f"r{i}", counter="poison" if i == 2 else "c") for i in range(5)]
    answers = await commands.run_many(calls, add_many)
    assert [type(answer).__name__ for answer in answers] == ["AddResponse"] * 2 + ["RuntimeError"] + ["AddResponse"] * 2
    assert await count(database, "additions") == 4


async def test_the_same_batches_on_two_replicas_neither_deadlock_nor_work_twice(database):
    replicas = [Commands(database), Commands(database)]

    async def answers_of(commands: Commands, order: int):
        calls = [call(commands, f"r{i}", counter=f"c{i % 10}") for i in range(200)][::order]
        counters = sorted(calls, key=lambda each: each.request.counter)
        return {c.request.request_id: a for c, a in zip(counters, await commands.run_many(counters, add_many), strict=True)}

    runs = await asyncio.gather(*(answers_of(replicas[i % 2], 1 if i % 2 else -1) for i in range(6)))
    assert all(run == runs[0] for run in runs)
    assert all(isinstance(answer, pb.AddResponse) for answer in runs[0].values())
    assert await count(database, "additions") == 200


async def test_single_calls_and_batches_share_their_request_ids(start):
    replicas = [await start(), await start()]
    stub, other = pb.Stub(replicas[0].channel()), pb.Stub(replicas[1].channel())
    requests = [pb.AddRequest(request_id=f"r{i}", counter="c", amount=1) for i in range(40)]
    await asyncio.gather(
        *(stub.AddGathered(request, timeout=20) for request in requests),
        *(other.AddGathered(request, timeout=20) for request in reversed(requests)),
    )
    assert await totals(replicas[0]) == {"c": 40}
    assert max(servicer(replicas[0]).batches) > 1


async def test_cancelled_calls_leave_no_connection_behind(start):
    running = await start(database_connections_max=5)
    stub, pool = pb.Stub(running.channel(scopes=["echo.read"])), running.application.database.pool
    adds = [stub.Add(pb.AddRequest(request_id=f"r{i}", counter="slow", amount=1), timeout=20) for i in range(100)]
    sleeps = [stub.GetEcho(pb.GetEchoRequest(behaviour="sleep"), timeout=20) for _ in range(100)]
    await asyncio.sleep(0.5)
    for each in [*adds, *sleeps]:
        each.cancel()
    async with asyncio.timeout(10):
        while pool.get_idle_size() < pool.get_size():  # noqa: ASYNC110 - the pool has no event for this
            await asyncio.sleep(0.05)
        await stub.Add(pb.AddRequest(request_id="last", counter="c", amount=1), timeout=5)
    additions = await count(running.application.database, "additions")
    assert additions == await count(running.application.database, "idempotency") == len(await running.events()) / 2


async def test_records_are_removed_when_they_have_been_kept_long_enough(database):
    long_ago = Commands(database, clock=lambda: now() - timedelta(days=8))
    with acting_as(principal(), ADD):
        await long_ago.run(pb.AddRequest(request_id="old", counter="c"), lambda unit: add(unit, pb.AddRequest(counter="c")))
        await long_ago.run(
            pb.AddRequest(request_id="kept"), lambda unit: add(unit, pb.AddRequest(counter="c")), keep_for_ever=True
        )
        await Commands(database).run(pb.AddRequest(request_id="new"), lambda unit: add(unit, pb.AddRequest(counter="c")))
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO inbox SELECT 'c', gen_random_uuid(), now() - make_interval(days => d) FROM generate_series(28, 35) d"
        )
        await connection.execute(
            "INSERT INTO outbox SELECT '00000000-0000-7000-8000-000000000001', gen_random_uuid(), 't', NULL, 'a', '',"
            " now(), NULL, now()"
        )
        assert await housekeeping.clean(database) == 1 + 5 + 1
        assert [row[0] for row in await connection.fetch("SELECT request_id FROM idempotency ORDER BY 1")] == ["kept", "new"]
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 6
