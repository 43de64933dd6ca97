import asyncio
import random
import uuid

import grpc
import pytest

from chassis.testing import reason
from concord.loyalty.v1 import ledger_service_pb2 as pb
from concord.loyalty.v1.account_service_pb2 import OPERATION_KIND_REDEEM
from concord.loyalty.v1.loyalty_events_pb2 import PointsPosted


async def refusal(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


async def test_redeeming_moves_points_to_the_partner_and_says_so(alliance):
    customer, account = await alliance.member(500)
    answer = await alliance.ledger().RedeemPoints(alliance.redemption(account, 120, reference="till 4"))
    assert (answer.kind, answer.outcome) == (OPERATION_KIND_REDEEM, pb.OPERATION_OUTCOME_POSTED)
    assert (answer.amount_points, answer.balance_points, answer.account) == (120, 380, account)
    assert (answer.reference, answer.institution, answer.sequence) == ("till 4", "institutions/shop", 2)
    assert await alliance.balance(account) == 380
    events = await alliance.running.events("concord.loyalty.v1.points.posted")
    message = events[-1].message(PointsPosted)
    assert events[-1].event_id == uuid.UUID(answer.name.removeprefix("operations/"))
    assert (message.amount_points, message.balance_points, message.state_version.version) == (-120, 380, 2)
    assert (message.customer_id, message.activity_id) == (str(customer.customer_id), "")
    async with alliance.running.application.database.connection() as connection:
        balances = await connection.fetch(
            "SELECT kind, owner, balance_points FROM ledger_accounts WHERE kind <> 'MEMBER' ORDER BY 1"
        )
    assert [tuple(row) for row in balances] == [("ISSUER", "bank", -500), ("PARTNER", "shop", 120)]
    assert await alliance.broken() == set()


async def test_the_same_request_is_answered_the_same_and_done_once(alliance):
    _, account = await alliance.member(500)
    request = alliance.redemption(account, 100)
    first = await alliance.ledger().RedeemPoints(request)
    assert await alliance.ledger().RedeemPoints(request) == first
    assert await alliance.balance(account) == 400


async def test_a_refusal_is_stored_and_answered_for_ever(alliance):
    customer, account = await alliance.member(50)
    request = alliance.redemption(account, 51)
    refused = await refusal(alliance.ledger().RedeemPoints(request))
    assert (refused.code(), reason(refused)) == (grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_POINTS")
    details = dict(refused.trailing_metadata())["grpc-status-details-bin"]
    await alliance.running.deliver(alliance.spending(customer, -100_000))
    again = await refusal(alliance.ledger().RedeemPoints(request))
    assert dict(again.trailing_metadata())["grpc-status-details-bin"] == details  # operation and balance in it, too
    async with alliance.running.application.database.connection() as connection:
        stored = await connection.fetchrow("SELECT * FROM operations WHERE outcome <> 'POSTED'")
    assert (stored["amount_points"], stored["balance_points"]) == (51, 50)
    operation = await alliance.ledger().GetOperation(pb.GetOperationRequest(name=f"operations/{stored['operation_id']}"))
    assert operation.outcome == pb.OPERATION_OUTCOME_INSUFFICIENT_POINTS
    assert await alliance.broken() == set()


async def test_the_same_request_id_with_other_content_is_refused(alliance):
    _, account = await alliance.member(500)
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 100, "r"))
    for other in (
        alliance.redemption(account, 101, "r"),
        alliance.redemption(account, 100, "r", institution="institutions/broker"),
        alliance.redemption(account, 100, "r", reference="x"),
        alliance.redemption(account, 100, "r", program="programs/nowhere"),
    ):
        assert reason(await refusal(alliance.ledger().RedeemPoints(other))) == "REQUEST_ID_REUSED"
    # Another client of the institution has request ids of its own.
    await alliance.ledger(client="other").RedeemPoints(alliance.redemption(account, 100, "r"))
    assert await alliance.balance(account) == 300


async def test_what_a_caller_may_not_know_does_not_exist(alliance):
    customer, account = await alliance.member(500)
    nobody = f"accounts/{uuid.uuid4()}"
    for stub, request, expected in (
        (alliance.ledger(), alliance.redemption(nobody, 1), "ACCOUNT_NOT_FOUND"),
        (alliance.ledger("broker"), alliance.redemption(account, 1), "ACCOUNT_NOT_FOUND"),
        (alliance.ledger(customer=str(uuid.uuid4())), alliance.redemption(account, 1), "ACCOUNT_NOT_FOUND"),
        (alliance.ledger(), alliance.redemption(account, 1, program="programs/nowhere"), "PROGRAM_NOT_FOUND"),
        (alliance.ledger(), alliance.redemption(account, 1, institution="institutions/nowhere"), "INSTITUTION_NOT_FOUND"),
    ):
        refused = await refusal(stub.RedeemPoints(request))
        assert (refused.code(), reason(refused)) == (grpc.StatusCode.NOT_FOUND, expected)
    await alliance.ledger(customer=str(customer.customer_id)).RedeemPoints(alliance.redemption(account, 1))
    await alliance.ledger(None).RedeemPoints(alliance.redemption(account, 1))
    posted = await alliance.ledger().RedeemPoints(alliance.redemption(account, 1))
    hidden = await refusal(alliance.ledger("broker").GetOperation(pb.GetOperationRequest(name=posted.name)))
    assert (hidden.code(), reason(hidden)) == (grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND")


async def test_not_found_keeps_nothing_so_a_retry_decides_anew(alliance):
    _, account = await alliance.member(500)
    request = alliance.redemption(account, 1, program="programs/later")
    assert reason(await refusal(alliance.ledger().RedeemPoints(request))) == "PROGRAM_NOT_FOUND"
    await alliance.program("later", "broker")
    assert reason(await refusal(alliance.ledger().RedeemPoints(request))) == "INSUFFICIENT_POINTS"


@pytest.mark.parametrize(
    ("changes", "points"),
    [({}, 0), ({}, -5), ({}, 10**12 + 1), ({"reference": "a\0b"}, 1), ({"request_id": "a\0b"}, 1), ({"program": "p"}, 1)],
)
async def test_bad_input_is_refused(alliance, changes, points):
    _, account = await alliance.member(10)
    refused = await refusal(alliance.ledger().RedeemPoints(alliance.redemption(account, points, **changes)))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await alliance.balance(account) == 10


async def test_many_at_once_never_overspend(alliance):
    _, account = await alliance.member(100)
    stub = alliance.ledger()
    answers = await asyncio.gather(
        *(stub.RedeemPoints(alliance.redemption(account, 7)) for _ in range(60)), return_exceptions=True
    )
    posted = [answer for answer in answers if isinstance(answer, pb.Operation)]
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert (len(posted), len(refused)) == (14, 46)
    assert {reason(error) for error in refused} == {"INSUFFICIENT_POINTS"}
    assert sorted(answer.balance_points for answer in posted) == list(range(2, 100, 7))
    assert await alliance.broken() == set()


async def test_duplicates_at_once_inside_a_batch_and_across_replicas_are_one_effect(alliance, start):
    _, account = await alliance.member(1000)
    other = await start()
    stubs = [alliance.ledger(), type(alliance)(other).ledger()]
    requests = [alliance.redemption(account, 10, f"same-{i}") for i in range(20)]
    answers = await asyncio.gather(*(stub.RedeemPoints(r) for _ in range(3) for stub in stubs for r in requests))
    by_request: dict[int, set[bytes]] = {}
    for i, answer in enumerate(answers):
        by_request.setdefault(i % len(requests), set()).add(answer.SerializeToString())
    assert all(len(given) == 1 for given in by_request.values())
    assert await alliance.balance(account) == 800
    assert await alliance.broken() == set()


async def test_connections_that_die_under_load_lose_and_double_nothing(alliance):
    """Callers retry with the same request id, as the contract asks: each redemption happens exactly once."""
    _, account = await alliance.member(1000)
    stub = alliance.ledger()
    killed, chance = 0, random.Random(3)

    async def redeem(number: int):
        for _ in range(500):
            try:
                return await stub.RedeemPoints(alliance.redemption(account, 1, f"load-{number}"), timeout=10)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - anything else is a bug
                await asyncio.sleep(0.01)
        raise AssertionError("never answered")

    async def kill(stopping: asyncio.Event) -> None:
        nonlocal killed
        while not stopping.is_set():
            async with alliance.running.application.database.connection() as connection:
                killed += await connection.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
                )
            await asyncio.sleep(chance.uniform(0.02, 0.2))  # long enough that batches get through between two kills

    stopping = asyncio.Event()
    killer = asyncio.create_task(kill(stopping))
    answers = []
    try:
        for start in range(0, 300, 10):
            answers += await asyncio.gather(*(redeem(number) for number in range(start, start + 10)))
    finally:
        stopping.set()
        await killer
    assert killed > 0
    assert len({answer.name for answer in answers}) == 300
    assert sorted(answer.balance_points for answer in answers) == list(range(700, 1000))
    assert await alliance.balance(account) == 700
    assert await alliance.broken() == set()
