"""What became of customers' ids: merged, restricted, erased; whatever the order in which it is told."""

import random
import uuid

import pytest

from chassis import customer_states, record_links, republish
from chassis.customer_states import CustomerState
from chassis.errors import FailedPrecondition, NotFound
from chassis.identity import Principal, PrincipalKind
from chassis.ids import new_id
from concord.common.v1.event_pb2 import RecordLink, StateVersion

ANNA, BERTA, CLARA, DORA = sorted(new_id() for _ in range(4))


def state(customer, version, into=None, restricted=False, epoch=1):
    return CustomerState(customer, into, restricted, StateVersion(epoch=epoch, version=version))


def principal(kind=PrincipalKind.CHANNEL, institution=None, customer=None):
    return Principal(kind, institution, "app", "subject", customer=str(customer) if customer else None)


def link(record, customer, version, institution="a"):
    return RecordLink(
        record_id=str(record), institution_id=institution, customer_id=str(customer),
        state_version=StateVersion(epoch=1, version=version),
    )  # fmt: skip


async def told(connection, *states):
    return await customer_states.fold(connection, states)


async def test_chains_end_at_the_last_one_and_come_back_when_undone(database):
    async with database.transaction() as connection:
        await told(connection, state(ANNA, 2, BERTA), state(BERTA, 2, CLARA), state(CLARA, 1))
        assert await customer_states.survivors(connection, [ANNA, BERTA, CLARA, DORA]) == {
            ANNA: CLARA, BERTA: CLARA, CLARA: CLARA, DORA: DORA
        }  # fmt: skip
        assert await customer_states.merged_into(connection, [CLARA]) == {ANNA, BERTA, CLARA}
        [changed] = await told(connection, state(BERTA, 3), state(ANNA, 1))
        assert (changed["customer_id"], changed["merged_into_customer_id"], changed["former_merged_into_customer_id"]) == (
            BERTA, None, CLARA
        )  # fmt: skip
        assert await customer_states.survivors(connection, [ANNA, CLARA]) == {ANNA: BERTA, CLARA: CLARA}
        assert await told(connection, state(ANNA, 3, BERTA), state(DORA, 1)) == [], "nothing that matters changed"
        await told(connection, state(BERTA, 9, ANNA, epoch=1))  # a ring, which the owner never makes, ends somewhere
        assert set((await customer_states.survivors(connection, [ANNA])).values()) <= {ANNA, BERTA}


async def test_any_order_gives_the_same(database):
    states = [state(customer, version, into) for version, into in ((1, None), (2, BERTA), (3, None), (4, CLARA))
              for customer in (ANNA, DORA)]  # fmt: skip
    chance = random.Random(1)
    for _ in range(10):
        async with database.transaction() as connection:
            await connection.execute("TRUNCATE customer_states")
            for one in chance.sample(states, len(states)) + chance.sample(states, 3):
                await told(connection, one)
            assert await customer_states.survivors(connection, [ANNA, DORA]) == {ANNA: CLARA, DORA: CLARA}


async def test_who_took_over_a_restricted_customer_is_restricted(database):
    async with database.transaction() as connection:
        await told(connection, state(ANNA, 1, BERTA, restricted=True), state(BERTA, 1, CLARA), state(DORA, 1))
        assert await customer_states.restricted(connection, [BERTA, CLARA, DORA]) == {BERTA, CLARA}
        await told(connection, state(BERTA, 2))
        assert await customer_states.restricted(connection, [BERTA, CLARA, DORA]) == {BERTA}


async def test_a_customer_exists_for_linked_institutions_only(database):
    async with database.transaction() as connection:
        await record_links.fold(connection, [link(new_id(), CLARA, 1)])
        await told(connection, state(ANNA, 2, BERTA), state(BERTA, 2, CLARA))
        for caller, asked in (
            (principal(institution="a"), CLARA),
            (principal(institution="a"), ANNA),
            (principal(institution="a", customer=CLARA), ANNA),
            (principal(institution="a", customer=ANNA), CLARA),
            (principal(PrincipalKind.OPERATOR), ANNA),
        ):
            assert await customer_states.readable(connection, caller, asked) == CLARA
        assert await customer_states.readable(connection, principal(PrincipalKind.OPERATOR), DORA) == DORA
        await customer_states.writable(connection, principal(institution="a", customer=ANNA), CLARA)
        with pytest.raises(FailedPrecondition) as merged:
            await customer_states.writable(connection, principal(institution="a"), ANNA)
        assert (merged.value.reason, merged.value.metadata) == ("CUSTOMER_MERGED", {"winner": f"customers/{CLARA}"})
        for caller, asked in (
            (principal(institution="b"), CLARA),
            (principal(institution="b"), ANNA),
            (principal(), CLARA),
            (principal(institution="a"), DORA),
            (principal(institution="a", customer=DORA), CLARA),
        ):
            for check in (customer_states.readable, customer_states.writable):
                with pytest.raises(NotFound) as refused:
                    await check(connection, caller, asked)
                assert refused.value.reason == "CUSTOMER_NOT_FOUND"
                assert str(CLARA) not in refused.value.message or asked == CLARA, "no word of who took over"


async def test_what_is_erased_stays_so_whatever_comes_late(database):
    one, two, never_told = (new_id() for _ in range(3))
    late = [link(one, ANNA, 9), link(two, BERTA, 1), link(never_told, ANNA, 1)]
    async with database.transaction() as connection:
        await record_links.fold(connection, late[:2])
        await told(connection, state(ANNA, 1), state(DORA, 1, ANNA))
        await record_links.erase(connection, [one, never_told])
        assert await customer_states.erase(connection, ANNA) == {ANNA, DORA}
        assert await record_links.fold(connection, late) == []
        assert await told(connection, state(ANNA, 99), state(DORA, 99, BERTA, epoch=7)) == []
        assert await record_links.erased(connection, [one, two, never_told, uuid.uuid4()]) == {one, never_told}
        assert await customer_states.erased(connection, [ANNA, BERTA, DORA]) == {ANNA, DORA}
        assert await record_links.anchors(connection, "a", [ANNA, BERTA, record_links.NOBODY]) == {BERTA: [two]}
        assert str(ANNA) not in str(await connection.fetch("SELECT * FROM record_links"))


async def test_a_rebuild_keeps_tombstones_and_nothing_else(database):
    one, two = new_id(), new_id()
    async with database.transaction() as connection:
        await record_links.fold(connection, [link(one, ANNA, 1), link(two, BERTA, 1)])
        await told(connection, state(ANNA, 1), state(BERTA, 1))
        await record_links.erase(connection, [one])
        await customer_states.erase(connection, ANNA)
    await republish.rebuild(database, ["record_links", "customer_states"], [])
    async with database.transaction() as connection:
        assert [row["record_id"] for row in await connection.fetch("SELECT record_id FROM record_links")] == [one]
        assert [row["customer_id"] for row in await connection.fetch("SELECT customer_id FROM customer_states")] == [ANNA]
        assert await record_links.fold(connection, [link(one, ANNA, 5)]) == []


async def test_the_oldest_record_of_an_institution_is_the_anchor(database):
    records = sorted(new_id() for _ in range(3))
    async with database.transaction() as connection:
        links = [link(record, ANNA, 1, institution) for record, institution in zip(records, ("b", "a", "a"), strict=True)]
        await record_links.fold(connection, reversed(links))
        assert await record_links.anchors(connection, "a", [ANNA, BERTA]) == {ANNA: records[1:]}
