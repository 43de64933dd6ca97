"""Campaign follows the customer master: merged persons are reached once, restricted ones never, erased ones are forgotten."""

import itertools
import uuid
from typing import Any

import pytest

from campaign.domain.audience import Condition, Field, Operator
from campaign.store import audience, waves
from campaign.store import touches as touch_store
from campaign.store.campaigns import NIL_ID
from chassis.testing import received
from concord.customer.v1.customer_events_pb2 import CustomerErased, RecordsMoved
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged

ADULTS = ((Condition(Field.BIRTH_YEAR, Operator.LESS_THAN, number=2000.0),),)
PROJECTIONS = (
    "record_links",
    "customer_states",
    "profiles",
    "profile_ratings",
    "loyalty_accounts",
    "profile_points",
    "permissions",
)


@pytest.fixture
def names(others) -> list[str]:
    """Three customers in the order in which a wave comes to them."""
    return sorted(("ann", "ben", "cid"), key=others.id)


def moved(others, why: str, source: str, target: str):
    message = RecordsMoved(
        from_customer_id=others.id(source), to_customer_id=others.id(target), reason=why,
        record_links=[others.link(f"{source if why == 'MERGE' else target} at northbank", target)],
    )  # fmt: skip
    return received("concord.customer.v1.customer.records_moved", message)


def merge(others, loser: str, winner: str, **state):
    changed = others.customer(loser, institutions=(), merged_into_customer_id=others.id(winner), **state)
    return [moved(others, "MERGE", loser, winner), changed, others.customer(winner, institutions=(), birth_year=1980)]


def unmerge(others, winner: str, loser: str):
    return [
        moved(others, "UNMERGE", winner, loser),
        *(others.customer(n, institutions=(), birth_year=1980) for n in (loser, winner)),
    ]


def erased(others, customer: str, *records: str, whole: bool = True):
    ids = [others.id(record) for record in records]
    return received(
        "concord.customer.v1.customer.erased", CustomerErased(customer_id=others.id(customer), record_ids=ids, whole=whole)
    )


async def known(workshop) -> dict[str, Any]:
    """What is known of each customer that northbank has."""
    async with workshop.database.connection() as connection:
        return {str(p.customer_id): p for p in await audience.page(connection, "northbank", "INBOX", NIL_ID, 100)}


async def listed(workshop, campaign_id) -> dict[str, str | None]:
    """By customer, why its touch was refused; None when it was planned."""
    async with workshop.database.connection() as connection:
        rows = await touch_store.page(connection, campaign_id, 1, NIL_ID, 100)
    return {str(row["customer_id"]): row["refused_reason"] for row in rows}


async def test_a_person_merged_in_the_middle_of_a_wave_is_reached_once(workshop, others, names):
    first, second, third = names
    await workshop.fold(*(others.customer(name, birth_year=1980) for name in names))
    campaign_id = await workshop.launch(ADULTS)
    planner = workshop.planner(page=1)
    assert await planner.step()  # the first has a slot
    await workshop.fold(*merge(others, first, third))
    while await planner.step():
        pass
    assert workshop.contact.customers == [f"customers/{others.id(first)}", f"customers/{others.id(second)}"]
    rows = await workshop.rows("SELECT refused_reason FROM touches ORDER BY refused_reason NULLS FIRST")
    assert [row["refused_reason"] for row in rows] == [None, None, "ALREADY_REACHED"]
    assert set(await listed(workshop, campaign_id)) == {others.id(second), others.id(third)}
    await workshop.fold(*unmerge(others, third, first))
    assert await listed(workshop, campaign_id) == {
        others.id(first): None, others.id(second): None, others.id(third): "ALREADY_REACHED"
    }  # fmt: skip


async def test_merge_and_unmerge_give_the_same_profiles_in_any_order(workshop, others, names):
    first, second, third = names
    told = [
        *(others.customer(name, birth_year=1980) for name in names),
        others.rating(first, level=3), others.rating(third, level=1),
        others.permission(first), others.permission(third, granted=False),
        others.account("a1", first), others.points("a1", "miles", 7),
    ]  # fmt: skip
    await workshop.fold(*told)
    before = await known(workshop)
    assert (before[others.id(first)].permitted, before[others.id(third)].permitted) == (True, False)
    merging = merge(others, first, third)
    await workshop.fold(*merging)
    merged = await known(workshop)
    assert set(merged) == {others.id(second), others.id(third)}
    assert not merged[others.id(third)].permitted, "the stricter binds"
    unmerging = unmerge(others, third, first)
    await workshop.fold(*unmerging)
    assert await known(workshop) == before
    events = [*merging, *unmerging]
    for order in itertools.islice(itertools.permutations(events), 0, 720, 53):
        await workshop.execute(f"TRUNCATE {', '.join(PROJECTIONS)}")
        for event in (*order, order[0], *told):
            await workshop.fold(event)
        assert await known(workshop) == before


async def test_restricted_customers_get_nothing_planned(workshop, others, names):
    first, second, third = names
    await workshop.fold(*(others.customer(name, birth_year=1980) for name in names))
    await workshop.fold(others.customer(second, birth_year=1980, restricted=True))
    await workshop.fold(*merge(others, first, third, restricted=True))
    await workshop.launch(ADULTS)
    planner = workshop.planner()
    while await planner.step():
        pass
    assert workshop.contact.customers == [], "nor who took over a restricted one"
    await workshop.fold(others.customer(second, birth_year=1980))
    assert not (await known(workshop))[others.id(second)].restricted


async def test_an_erased_person_is_forgotten_whatever_comes_late(workshop, others, names):
    first, second, third = names
    ben = f"{second} at northbank"

    def told():
        return [
            others.customer(second, birth_year=1980),
            others.rating(second, level=3),
            others.permission(second),
            others.account("a1", second),
        ]

    await workshop.fold(
        *(others.customer(name, birth_year=1980) for name in (first, third)), *told(), *merge(others, first, second)
    )
    await workshop.fold(others.points("a1", "miles", 7))
    campaign_id = await workshop.launch(ADULTS)
    planner = workshop.planner()
    while await planner.step():
        pass
    touches = await workshop.rows("SELECT * FROM touches ORDER BY record_id")
    assert len(touches) == 2
    await workshop.fold(erased(others, second, ben, f"{first} at northbank"))
    for _ in range(2):
        for table, column in (
            ("profiles", "customer_id"), ("profile_ratings", "customer_id"), ("loyalty_accounts", "customer_id"),
            ("record_links", "customer_id"), ("permissions", "record_id"), ("touches", "record_id"),
            ("waves", "cursor_customer_id"),
        ):  # fmt: skip
            rows = await workshop.rows(f"SELECT {column}::text AS id FROM {table}")
            assert not {row["id"] for row in rows} & {others.id(first), others.id(second), others.id(ben)}, table
        await workshop.fold(*told())
        gone = AccountChanged(account_id=others.id("a1"), state_version=others.version("account a1"))
        await workshop.fold(received("concord.loyalty.v1.account.changed", gone))
        await workshop.fold(erased(others, second, ben))
    left = {row["refused_reason"]: row["record_id"] for row in await workshop.rows("SELECT * FROM touches")}
    assert left == {"ERASED": None, None: uuid.UUID(others.id(f"{third} at northbank"))}
    assert await listed(workshop, campaign_id) == {"None": "ERASED", others.id(third): None}
    [other] = [row["touch_id"] for row in touches if row["record_id"] == left[None]]
    await workshop.fold(others.contacted(str(other), "DELIVERED"))
    async with workshop.database.transaction() as connection:
        await waves.settle(connection)
    assert (await workshop.rows("SELECT state FROM campaigns")) == [{"state": "FINISHED"}], "nobody waits for what is forgotten"
