"""20,000 operations by three writers at once, with crashes and duplicates: the model decides the log as the ledger did."""

import asyncio
import os
import random
import signal

import pytest
from simulator.run import Simulation

from chassis import migrations
from chassis.database import Database
from chassis.testing.fixtures import execute
from concord_local import postgres

WRITERS = 3


async def simulated(url: str, operations_min: int, kills=None):
    databases = [await Database.connect(url, 4) for _ in range(WRITERS)]
    killing = asyncio.create_task(kills) if kills is not None else None
    try:
        simulation = Simulation(databases, seed=20_261_124)
        await simulation.run(operations_min, lambda count: print(f"\r{count:,} operations", end="", flush=True))
        if killing is not None:
            killing.cancel()
        return await simulation.check()
    finally:
        for database in databases:
            database.pool.terminate()


@pytest.mark.timeout(300)
async def test_the_model_decides_the_log_as_the_ledger_did(database_url):
    report = await simulated(database_url, 20_000)
    assert report.problems == []
    assert report.operations_count >= 20_000, report
    assert report.crashes_count > 10
    assert len(report.outcomes) >= 30, report.outcomes


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_a_million_operations_while_postgresql_is_killed(service):
    with postgres.temporary({}) as server:  # as in production: fsync on
        await execute(server.url(), "CREATE DATABASE simulation")
        await migrations.migrate(service.migrations, server.url("simulation"))
        count = int(os.environ.get("SIMULATED_OPERATIONS", "1000000"))
        report = await simulated(server.url("simulation"), count, kill_again_and_again(server))
    assert report.problems == []
    assert report.operations_count >= count


async def kill_again_and_again(server: postgres.Postgres) -> None:
    chance = random.Random(1)
    while True:
        await asyncio.sleep(chance.uniform(2, 20))
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGKILL)
        server.stop()
        server.start()
