import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from chassis.clock import now
from loyalty.domain.earning import ErasureRule
from loyalty.domain.expiry import ExpiryKind, ExpiryPolicy
from loyalty.store import configuration, programs
from loyalty.store.configuration import Configurations


async def version(connection) -> int:
    number: int = await connection.fetchval("SELECT configuration_version FROM ledger_heads")
    return number


@pytest.fixture
async def program(database) -> str:
    async with database.transaction() as connection:
        await programs.create(connection, "p", "bank", "P", ErasureRule.EXPIRE, now(), time_zone="Asia/Shanghai")
    return "p"


async def test_it_is_read_again_only_when_it_changed(database, program):
    known = Configurations()
    async with database.transaction() as connection:
        first = await known.current(connection)
        assert await known.of_version(connection, first.version) is first
    async with database.transaction() as connection:
        await configuration.raise_version(connection)
        await programs.update(connection, program, pending_days=3)
    async with database.transaction() as connection:
        second = await known.of_version(connection, await version(connection))
    assert (first.program(program).pending_days, second.program(program).pending_days) == (0, 3)
    assert second.version > first.version


async def test_what_was_read_in_a_change_that_failed_is_not_taken_for_the_next_one(database, program):
    known = Configurations()
    for pending_days, fails in ((3, True), (4, False)):
        with suppress(ZeroDivisionError):
            async with database.transaction() as connection:
                await configuration.raise_version(connection)
                await programs.update(connection, program, pending_days=pending_days)
                assert (await known.of_version(connection, await version(connection))).program(
                    program
                ).pending_days == pending_days
                if fails:
                    raise ZeroDivisionError
    async with database.connection() as connection:
        assert (await known.current(connection)).program(program).pending_days == 4


async def test_nobody_changes_it_while_a_batch_holds_the_head(database, program):
    async with database.transaction() as batch:
        held = await batch.fetchval("SELECT configuration_version FROM ledger_heads WHERE shard = 0 FOR UPDATE")

        async def change() -> None:
            async with database.transaction() as connection:
                await configuration.raise_version(connection)
                await programs.update(connection, program, pending_days=9)

        changing = asyncio.create_task(change())
        await asyncio.sleep(0.2)
        assert not changing.done()
        loaded = await configuration.load(batch)
        assert (loaded.version, loaded.program(program).pending_days) == (held, 0)
    await changing
    async with database.connection() as connection:
        assert (await configuration.load(connection)).program(program).pending_days == 9


async def test_expiry_policies_come_with_their_programme(database, program):
    begins = datetime(2027, 1, 1, tzinfo=UTC)
    written = begins - timedelta(days=1)
    async with database.transaction() as connection:
        await configuration.raise_version(connection)
        made = await programs.add_expiry_policy(connection, program, ExpiryPolicy(0, begins, ExpiryKind.DAYS, days=1), written)
    async with database.connection() as connection:
        terms = (await configuration.load(connection)).program(program)
    assert (made.version, terms.expiry_policies) == (1, (made,))
    assert terms.expire_time(begins, begins) == datetime(2027, 1, 2, 16, tzinfo=UTC)
    assert terms.expire_time(written, written) is None
