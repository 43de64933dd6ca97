import uuid
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain.ledger import (
    HASH_OF_NOTHING,
    AccountKey,
    AccountKind,
    ActivityKey,
    Balance,
    Head,
    KeyReused,
    Operation,
    OperationKind,
    Order,
    OrderKey,
    Outcome,
    RequestKey,
    chain_hash,
    post,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ACCOUNTS = [uuid.UUID(int=i) for i in range(1, 4)]
START = Head(0, HASH_OF_NOTHING)


def make(kind, account, points, key, program="p", content=b"", partner="shop", family=()) -> Order:
    counterparty = AccountKey(partner, AccountKind.PARTNER, program)
    if kind is not OperationKind.REDEEM:
        counterparty = AccountKey("bank", AccountKind.ISSUER, program)
    return Order(
        operation_id=uuid.uuid4(), key=key, kind=kind, account_id=account, program_id=program, institution_id=partner,
        counterparty=counterparty, amount_points=points, effective_time=NOW, content_hash=content, family=family,
    )  # fmt: skip


@st.composite
def orders(draw) -> Order:
    kind = draw(st.sampled_from(OperationKind))
    program = draw(st.sampled_from(["p", "q"]))
    number = draw(st.integers(0, 12))  # few keys, so that some come twice
    key: OrderKey = RequestKey("bank/app", f"r{number}")
    if kind is not OperationKind.REDEEM:
        key = ActivityKey(uuid.UUID(int=number), program, kind)
    account = draw(st.sampled_from(ACCOUNTS))
    family = tuple(other for other in ACCOUNTS if other != account) if draw(st.booleans()) else ()
    return make(
        kind, account, draw(st.integers(1, 60)), key, program, family=family,
        content=draw(st.sampled_from([b"a", b"b"])), partner=draw(st.sampled_from(["shop", "cafe"])),
    )  # fmt: skip


def one_by_one(batch: list[Order]):
    """The same orders, each in a batch of its own, with everything carried over as the store does."""
    balances: dict[AccountKey, Balance] = {}
    known: dict[OrderKey, Operation] = {}
    head, results = START, []
    for order in batch:
        single = post([order], balances, known, head, NOW)
        balances |= single.balances
        known |= {operation.key: operation for operation in single.operations}
        head = single.head
        results += single.results
    return results, balances, head


@given(st.lists(orders(), max_size=40))
def test_a_batch_is_exactly_its_orders_one_by_one(batch):
    together = post(batch, {}, {}, START, NOW)
    assert (together.results, together.balances, together.head) == one_by_one(batch)


@given(st.lists(orders(), max_size=40), st.integers(0, 40))
def test_a_batch_may_be_cut_anywhere(batch, cut):
    first = post(batch[:cut], {}, {}, START, NOW)
    known = {operation.key: operation for operation in first.operations}
    second = post(batch[cut:], first.balances, known, first.head, NOW)
    whole = post(batch, {}, {}, START, NOW)
    assert first.results + second.results == whole.results
    assert first.balances | second.balances == whole.balances


@given(st.lists(orders(), max_size=40))
def test_points_are_neither_made_nor_lost(batch):
    posted = post(batch, {}, {}, START, NOW)
    for program in ("p", "q"):
        assert sum(entry.amount_points for _, entry in posted.entries if entry.key.program_id == program) == 0
        assert sum(state.balance_points for key, state in posted.balances.items() if key.program_id == program) == 0
    assert all(state.balance_points >= 0 for key, state in posted.balances.items() if key.kind is AccountKind.MEMBER)


@given(st.lists(orders(), max_size=40))
def test_every_operation_has_its_legs_and_every_account_its_chain(batch):
    posted = post(batch, {}, {}, START, NOW)
    assert [operation.sequence for operation in posted.operations] == list(range(1, len(posted.operations) + 1))
    previous = HASH_OF_NOTHING
    states: dict[AccountKey, Balance] = {}
    for operation in posted.operations:
        legs = [entry for owner, entry in posted.entries if owner is operation]
        members = [leg for leg in legs if leg.key.kind is AccountKind.MEMBER]
        assert len(legs) - len(members) == (1 if operation.outcome is Outcome.POSTED else 0)
        assert len(members) == 1 or operation.kind is OperationKind.REDEEM or not legs
        assert abs(sum(leg.amount_points for leg in members)) == (operation.amount_points if legs else 0)
        assert sum(leg.amount_points for leg in legs) == 0
        for leg in legs:
            before = states.get(leg.key, Balance())
            assert (leg.balance_points, leg.version) == (before.balance_points + leg.amount_points, before.version + 1)
            states[leg.key] = Balance(leg.balance_points, leg.version)
            if leg.key.owner == str(operation.account_id):
                assert leg.balance_points + operation.others_points == operation.balance_points
        assert operation.hash == chain_hash(previous, operation, legs)
        previous = operation.hash
    assert states == posted.balances


@given(st.lists(orders(), max_size=40))
def test_a_key_has_one_operation_and_other_content_is_told(batch):
    posted = post(batch, {}, {}, START, NOW)
    firsts: dict[object, Order] = {}
    for order, result in zip(batch, posted.results, strict=True):
        first = firsts.setdefault(order.key, order)
        operation = result.operation if isinstance(result, KeyReused) else result
        assert operation.operation_id == first.operation_id
        assert isinstance(result, KeyReused) is (order.content_hash != first.content_hash)
    assert len(posted.operations) == len(firsts)


def test_a_refused_redemption_says_what_was_found():
    earned = make(OperationKind.EARN, ACCOUNTS[0], 10, ActivityKey(ACCOUNTS[0], "p", OperationKind.EARN))
    refused, posted = (make(OperationKind.REDEEM, ACCOUNTS[0], points, RequestKey("a", str(points))) for points in (11, 10))
    results = post([earned, refused, posted], {}, {}, START, NOW).results
    assert [(r.outcome, r.amount_points, r.balance_points) for r in results if isinstance(r, Operation)] == [
        (Outcome.POSTED, 10, 10), (Outcome.INSUFFICIENT_POINTS, 11, 10), (Outcome.POSTED, 10, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("balance", "moved", "shortfall", "outcome"), [(9, 5, 0, "POSTED"), (3, 3, 2, "POSTED"), (0, 5, 5, "INSUFFICIENT_POINTS")]
)
def test_a_reversal_takes_what_is_there(balance, moved, shortfall, outcome):
    order = make(OperationKind.REVERSE_EARN, ACCOUNTS[0], 5, ActivityKey(ACCOUNTS[0], "p", OperationKind.REVERSE_EARN))
    (result,) = post([order], {order.member: Balance(balance, 1)}, {}, START, NOW).results
    assert (result.amount_points, result.shortfall_points, result.outcome) == (moved, shortfall, outcome)
    assert result.balance_points == (balance - moved if outcome == "POSTED" else balance)


@pytest.mark.parametrize(
    ("points", "taken", "left"),
    [(3, {0: 3}, 12), (5, {0: 5}, 10), (7, {0: 5, 2: 2}, 8), (15, {0: 5, 2: 4, 1: 6}, 0), (16, {}, 15)],
)
def test_a_redemption_takes_its_own_points_first_then_those_of_the_accounts_under_it(points, taken, left):
    own, other, first = ACCOUNTS
    order = make(OperationKind.REDEEM, own, points, RequestKey("a", "1"), family=(first, other))
    balances = {key: Balance(amount, 1) for key, amount in zip(order.members, (5, 4, 6), strict=True)}
    batch = post([order], balances, {}, START, NOW)
    (operation,) = batch.operations
    legs = {entry.key.owner: entry.amount_points for _, entry in batch.entries if entry.key.kind is AccountKind.MEMBER}
    assert legs == {str(ACCOUNTS[number]): -amount for number, amount in taken.items()}
    assert (operation.amount_points, operation.balance_points) == (points, left)
    assert operation.outcome is (Outcome.POSTED if taken else Outcome.INSUFFICIENT_POINTS)
    own_left = 5 - taken.get(0, 0)
    assert operation.others_points == left - own_left


def test_an_order_of_nothing_is_a_fault():
    order = make(OperationKind.EARN, ACCOUNTS[0], 0, ActivityKey(ACCOUNTS[0], "p", OperationKind.EARN))
    with pytest.raises(ValueError, match="more than zero"):
        post([order], {}, {}, START, NOW)


def test_the_chain_covers_everything_but_the_text_of_the_reference():
    order = make(OperationKind.EARN, ACCOUNTS[0], 10, ActivityKey(ACCOUNTS[0], "p", OperationKind.EARN))
    batch = post([order], {}, {}, START, NOW)
    (operation,), entries = batch.operations, [entry for _, entry in batch.entries]
    hashes = {
        operation.hash,
        chain_hash(b"another before", operation, entries),
        chain_hash(HASH_OF_NOTHING, operation, entries[:1]),
    }
    changes: dict[str, Any] = {
        "operation_id": ACCOUNTS[1], "key": RequestKey("a", "b"), "kind": OperationKind.REDEEM, "account_id": ACCOUNTS[1],
        "program_id": "q", "institution_id": "cafe", "amount_points": 11, "effective_time": NOW.replace(year=2025),
        "content_hash": b"x", "rule": "r", "sequence": 2, "outcome": Outcome.INSUFFICIENT_POINTS, "balance_points": 11,
        "shortfall_points": 1, "others_points": 1, "post_time": NOW.replace(year=2025),
    }  # fmt: skip
    hashes |= {chain_hash(HASH_OF_NOTHING, replace(operation, **{name: value}), entries) for name, value in changes.items()}
    assert len(hashes) == 3 + len(changes)
    assert {field.name for field in fields(Operation)} == changes.keys() | {"reference", "hash"}
    assert chain_hash(HASH_OF_NOTHING, replace(operation, reference="erased"), entries) == operation.hash
