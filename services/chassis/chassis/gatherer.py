"""Gathers concurrent calls into batches: one statement, one commit, an answer for each."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

from chassis.errors import ResourceExhausted

ITEMS_MAX = 500
QUEUED_MAX = 10_000

T = TypeVar("T")
R = TypeVar("R")


class Gatherer(Generic[T, R]):
    """Natural batching: whatever came while the last batch ran makes the next one.

    Args:
        run_batch: given the items, answers each in order with a result or an exception.
        items_max: items in a batch.
        wait_ms_max: how long a batch waits for company (0 to 5); 0 waits for the present turn of the loop only.
        batches_in_flight_max: batches that run at the same time.
        queued_max: items that wait; one more is refused.
    """

    def __init__(
        self,
        run_batch: Callable[[list[T]], Awaitable[list[R | Exception]]],
        items_max: int = ITEMS_MAX,
        wait_ms_max: float = 0,
        batches_in_flight_max: int = 1,
        queued_max: int = QUEUED_MAX,
    ) -> None:
        if not 0 <= wait_ms_max <= 5:
            raise ValueError("wait_ms_max must be 0 to 5")
        self._run_batch = run_batch
        self._items_max = items_max
        self._wait_seconds = wait_ms_max / 1000
        self._batches_in_flight_max = batches_in_flight_max
        self._queued_max = queued_max
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    async def submit(self, item: T) -> R:
        """The answer for one item. Cancelling the caller does not cancel the batch.

        Raises:
            ResourceExhausted: OVERLOADED, when the queue is full.
            Exception: whatever the batch answered for this item.
        """
        if len(self._queue) >= self._queued_max:
            raise ResourceExhausted("OVERLOADED", "too many calls are waiting; try again later")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((item, answer))
        if len(self._workers) < self._batches_in_flight_max:
            # An empty context: a batch must not run in the name of the caller who happened to come first.
            worker = asyncio.get_running_loop().create_task(self._work(), context=contextvars.Context())
            self._workers.add(worker)
        return await answer

    async def _work(self) -> None:
        try:
            while self._queue:
                await asyncio.sleep(self._wait_seconds)  # lets callers of the same turn join
                batch = [self._queue.popleft() for _ in range(min(self._items_max, len(self._queue)))]
                if batch:
                    await self._answer(batch)
        finally:
            # At once, not in a callback: a caller who comes before the callback would wait for a worker that has gone.
            self._workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _answer(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        answers: list[R | Exception]
        try:
            answers = await self._run_batch([item for item, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"the batch gave {len(answers)} answers for {len(batch)} items")
        except Exception as error:  # noqa: BLE001 - whatever the batch raised is everybody's answer
            answers = [error] * len(batch)
        except asyncio.CancelledError:
            for _, answer in batch:
                answer.cancel()
            raise
        for (_, future), result in zip(batch, answers, strict=True):
            if future.done():  # its caller went away
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
