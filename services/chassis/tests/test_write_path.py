"""The one write path, over real sockets and a real PostgreSQL."""

import asyncio

import grpc
import pytest
from echo_service import contract as pb
from echo_service.service import EchoServicer

from chassis.testing import acting_as, principal, reason


async def totals(running) -> dict[str, int]:
    async with running.application.database.connection() as connection:
        return {row["counter"]: row["total"] for row in await connection.fetch("SELECT counter, total FROM counters")}


async def count(running, table: str) -> int:
    async with running.application.database.connection() as connection:
        return await connection.fetchval(f"SELECT count(*) FROM {table}")


def servicer(running) -> EchoServicer:
    return running.application.servicers[0][1]


@pytest.mark.parametrize("method", ["Add", "AddGathered"])
async def test_fifty_concurrent_duplicates_have_one_effect_and_one_answer(start, method):
    replicas = [await start(), await start()]
    stubs = [pb.Stub(running.channel()) for running in replicas]
    request = pb.AddRequest(request_id="r", counter="slow", amount=3)
    answers = await asyncio.gather(*(getattr(stubs[i % 2], method)(request, timeout=20) for i in range(50)))
    assert {(answer.total, answer.serial) for answer in answers} == {(3, 1)}
    assert await totals(replicas[0]) == {"slow": 3}
    assert len(await replicas[0].events()) == 2
