import asyncio

import pytest

from chassis.errors import ResourceExhausted
from chassis.gatherer import Gatherer
from chassis.identity import as_caller, current_principal
from chassis.testing import principal


class Batches:
    """Doubles what it gets; remembers the batches; waits until it is let go."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.running = self.running_most = 0
        self.go = asyncio.Event()
        self.go.set()

    async def run(self, items: list[int]) -> list[int | Exception]:
        self.seen.append(items)
        self.running += 1
        self.running_most = max(self.running_most, self.running)
        await self.go.wait()
        await asyncio.sleep(0)
        self.running -= 1
        return [ValueError(str(item)) if item < 0 else item * 2 for item in items]


async def test_each_gets_its_own_answer_in_bounded_batches_in_order():
    batches = Batches()
    gatherer = Gatherer(batches.run, items_max=10)
    answers = await asyncio.gather(*(gatherer.submit(i) for i in range(95)))
    assert answers == [i * 2 for i in range(95)]
    assert [len(batch) for batch in batches.seen] == [10] * 9 + [5]
    assert [item for batch in batches.seen for item in batch] == list(range(95))
    assert batches.running_most == 1


async def test_what_comes_meanwhile_makes_the_next_batch():
    batches = Batches()
    batches.go.clear()
    gatherer = Gatherer(batches.run)
    calls = [asyncio.create_task(gatherer.submit(0))]
    await asyncio.sleep(0.01)
    calls += [asyncio.create_task(gatherer.submit(i)) for i in range(1, 30)]
    await asyncio.sleep(0.01)
    batches.go.set()
    await asyncio.gather(*calls)
    assert [len(batch) for batch in batches.seen] == [1, 29]


async def test_several_batches_may_run_at_once():
    batches = Batches()
    batches.go.clear()
    gatherer = Gatherer(batches.run, items_max=5, batches_in_flight_max=3)
    calls = [asyncio.create_task(gatherer.submit(i)) for i in range(50)]
    await asyncio.sleep(0.01)
    assert batches.running == 3
    batches.go.set()
    assert await asyncio.gather(*calls) == [i * 2 for i in range(50)]
    assert batches.running_most == 3


async def test_an_exception_belongs_to_its_item():
    answers = await asyncio.gather(*(Gatherer(Batches().run).submit(i) for i in (1, -2, 3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, ValueError, int]
    gatherer = Gatherer(Batches().run)
    answers = await asyncio.gather(*(gatherer.submit(i) for i in (1, -2, 3)), return_exceptions=True)
    assert (answers[0], str(answers[1]), answers[2]) == (2, "-2", 6)


async def test_a_batch_that_raises_or_answers_too_little_fails_everybody():
    async def raises(items):
        raise KeyError("all")

    async def forgets(items):
        return items[1:]

    for run, expected in ((raises, KeyError), (forgets, RuntimeError)):
        gatherer = Gatherer(run)
        answers = await asyncio.gather(*(gatherer.submit(i) for i in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [expected] * 3


async def test_a_cancelled_caller_does_not_cancel_the_batch():
    batches = Batches()
    batches.go.clear()
    gatherer = Gatherer(batches.run)
    calls = [asyncio.create_task(gatherer.submit(i)) for i in range(3)]
    await asyncio.sleep(0.01)
    calls[1].cancel()
    batches.go.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert answers[0] == 0
    assert isinstance(answers[1], asyncio.CancelledError)
    assert answers[2] == 4
    assert await gatherer.submit(5) == 10


async def test_a_full_queue_refuses():
    batches = Batches()
    batches.go.clear()
    gatherer = Gatherer(batches.run, items_max=1, queued_max=2)
    first = asyncio.create_task(gatherer.submit(0))
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(gatherer.submit(i)) for i in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted):
        await gatherer.submit(3)
    batches.go.set()
    assert await asyncio.gather(first, *waiting) == [0, 2, 4]


async def test_a_batch_runs_in_nobodys_name():
    async def who(items):
        try:
            return [current_principal()]
        except Exception as error:
            return [error]

    with as_caller(principal(client="first")), pytest.raises(Exception, match="there is none"):
        await Gatherer(who).submit(1)


async def test_a_caller_who_comes_the_moment_a_batch_ends_is_not_forgotten():
    gatherer = Gatherer(Batches().run)
    async with asyncio.timeout(2):
        assert [await gatherer.submit(number) for number in range(5)] == [0, 2, 4, 6, 8]
