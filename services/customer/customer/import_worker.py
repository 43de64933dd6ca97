"""Works off bulk imports: one at a time in the whole deployment, chunk by chunk. Progress commits with each chunk's records."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from chassis import clock, leases
from chassis.database import RETRYABLE_ERRORS
from chassis.ids import new_id
from chassis.leases import Lease
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import intake_service_pb2 as pb
from customer import ingest
from customer.core import Core
from customer.domain.import_reading import RowReader, check_beginning, header
from customer.domain.import_rows import Unreadable, mapping
from customer.domain.imports import CODECS, REJECTIONS_KEPT, STARTED_WITHIN, Counts, Format, State
from customer.domain.intake import Rejected
from customer.domain.row_splitter import Place, Row, RowSplitter
from customer.import_parquet import ParquetRows, PartsFile
from customer.import_parties import Defaults
from customer.import_preparer import Chunk, PreparerDied, Preparers, Reading, Ready, Refused
from customer.lone import Moment, whole
from customer.prepare import Prepared
from customer.store import imports as store
from customer.store import institutions as institution_store
from customer.store.imports import ImportRow, Rejection
from customer.store.institutions import SourceSystem
from customer.store.vault import DataKey, bound_to

LEASE = "imports"
CHUNK_ROWS_MAX = 2_000
"""Of one transaction: indexes like many keys at once, but who ingests or cancels meanwhile may wait for it."""
CHUNK_BYTES_MAX = 4 << 20
CHUNKS_AHEAD_MAX = 3
"""Prepared or being prepared while one is written: enough that nobody waits, few enough to stay small."""
ATTEMPTS_MAX = 5
FAILURES_MAX = 3
POLL_SECONDS = 1.0
TIDY_SECONDS = 60.0
PREPARERS_IDLE_SECONDS_MAX = 30.0
PART_PLACE = "import_parts.content"
REJECTED_KEY_PLACE = "import_rejections.sealed_key"

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """The import was cancelled, or another worker has it: what this one did last was not kept."""


@dataclass(frozen=True, slots=True)
class _Job:
    """An import in hand."""

    row: ImportRow
    source: SourceSystem
    parts_key: DataKey
    rejections_key: DataKey
    lease: Lease


class ImportWorker:
    """Runs in the background of the service; `wake` is set when an import was started."""

    def __init__(self, core: Core, commands: Commands, index_key: bytes, processes_count: int) -> None:
        self._core = core
        self._index_key = index_key
        self._database = core.database
        self._commands = commands
        self._vault = core.vault
        self._index = core.index
        self._preparers = Preparers(processes_count or os.cpu_count() or 1)
        self._holder = f"{socket.gethostname()}/{os.getpid()}/{new_id()}"
        self._failures: dict[UUID, int] = {}
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        worked_at = tidied_at = 0.0
        try:
            while True:
                now = time.monotonic()
                if now - tidied_at > TIDY_SECONDS:
                    await self._tidy()
                    tidied_at = now
                if self.wake.is_set():
                    self.wake.clear()
                    await self._tidy()
                if await self._waiting() and (lease := await leases.acquire(self._database, LEASE, self._holder)):
                    await self._work(lease)
                    worked_at = time.monotonic()
                    continue
                if now - worked_at > PREPARERS_IDLE_SECONDS_MAX:
                    self._preparers.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self.wake.wait()
        finally:
            self._preparers.close()

    async def _waiting(self) -> ImportRow | None:
        async with self._database.connection() as connection:
            return await store.next_waiting(connection)

    async def _work(self, lease: Lease) -> None:
        renewal = asyncio.create_task(self._renew(lease))
        try:
            while row := await self._waiting():
                await self._import(row, lease)
        except Stopped:
            logger.info("an import was cancelled, or another worker has it")
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
            await leases.release(self._database, lease)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(leases.RENEW_SECONDS)
            async with self._database.connection() as connection:
                await leases.renew(connection, lease)

    # ---- one import

    async def _import(self, row: ImportRow, lease: Lease) -> None:
        try:
            await self._run(await self._job(row, lease))
            await self._finish(row, State.SUCCEEDED)
        except Unreadable as wrong:
            await self._finish(row, State.FAILED, (wrong.field, wrong.reason, wrong.description))
        except PreparerDied:
            failures = self._failures[row.import_id] = self._failures.get(row.import_id, 0) + 1
            if failures < FAILURES_MAX:
                raise
            error = (
                "rows",
                "INTERNAL",
                f"rows after row {row.rows_read_count} could not be prepared; this is a fault of the platform",
            )
            await self._finish(row, State.FAILED, error)
        self._failures.pop(row.import_id, None)
        self.wake.set()  # its parts are needed no more

    async def _job(self, row: ImportRow, lease: Lease) -> _Job:
        async with self._database.connection() as connection:
            sources = await institution_store.find_source_systems(connection, [(row.institution_id, row.source_system_id)])
        keys = await self._vault.keys([row.import_id, row.rejections_key_id])
        if len(keys) < 2:
            raise Unreadable("parts", "KEY_DESTROYED", "the key of the parts was destroyed: create another import")
        return _Job(row, sources[row.source_system], keys[row.import_id], keys[row.rejections_key_id], lease)

    async def _finish(self, row: ImportRow, state: State, error: tuple[str, str, str] | None = None) -> None:
        async with self._database.transaction() as connection:
            await store.finish(connection, row.import_id, state, clock.now(), error)
        logger.info("import %s: %s", row.import_id, state.name)

    async def _run(self, job: _Job) -> None:
        """Every row from where the import is to its end."""
        waiting: deque[tuple[asyncio.Task[list[Ready | Refused]], Place]] = deque()
        rows_read_count, is_new = job.row.rows_read_count, job.row.rows_read_count == 0
        try:
            async for reading, read, place in self._chunks(job):
                chunk = await self._with_keys(job, read) if is_new else read
                waiting.append((asyncio.create_task(self._preparers.prepare(reading, chunk)), place))
                if len(waiting) > CHUNKS_AHEAD_MAX:
                    counts = await self._take(job, rows_read_count, *waiting.popleft())
                    rows_read_count += counts.total
                    is_new = 2 * counts.created > counts.total
            while waiting:
                rows_read_count += (await self._take(job, rows_read_count, *waiting.popleft())).total
        finally:
            for task, _ in waiting:
                task.cancel()
            await asyncio.gather(*(task for task, _ in waiting), return_exceptions=True)

    async def _with_keys(self, job: _Job, chunk: Chunk) -> Chunk:
        """A chunk whose rows are expected to be new: they are sealed, and their customers made, before they are decided on."""
        now = clock.now()
        async with self._database.connection() as connection:
            policy = await self._core.policies.at(connection, now)
        keys = await self._vault.new(job.source.institution_id, len(chunk.rows))
        moment = Moment(now, self._database.epoch, policy, self._core.models.current().version)
        return replace(chunk, new_keys=keys, moment=moment)

    async def _take(self, job: _Job, rows_read_count: int, task: "asyncio.Task[list[Ready | Refused]]", place: Place) -> Counts:
        """Ingests a prepared chunk and moves the import on, in one transaction; answers what became of the rows."""
        prepared = await task
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with self._commands.unit() as unit:
                    if not await store.is_running(unit.connection, job.row.import_id):
                        raise Stopped  # seen before the work, and once more after it
                    counts = await self._ingest(unit, job, prepared)
                    advanced = await store.advance(
                        unit.connection, job.row.import_id, rows_read_count, counts, place.offset_bytes, place.line_number
                    )
                    if not advanced or not await leases.renew(unit.connection, job.lease):
                        raise Stopped
                return counts
            except RETRYABLE_ERRORS:
                if attempt == ATTEMPTS_MAX:
                    raise
        raise AssertionError("unreachable")

    async def _ingest(self, unit: UnitOfWork, job: _Job, prepared: Sequence[Ready | Refused]) -> Counts:
        counts, rejections = Counts(), []
        ready = [item for item in prepared if isinstance(item, Ready)]
        taken = await ingest.take(unit, self._core, [one.item for one in ready])
        for one, outcome in zip(ready, taken, strict=True):
            if isinstance(outcome, Rejected):
                key = await self._source_record_key(one.item)
                refused = Refused(one.row_number, one.line_number, key, outcome.field, outcome.reason, outcome.description)
                rejections.append(self._rejection(job, refused))
            else:
                counts.add(outcome.outcome)
        rejections += [self._rejection(job, item) for item in prepared if isinstance(item, Refused)]
        counts.rejected += len(rejections)
        if rejections:
            await store.insert_rejections(unit.connection, job.row.import_id, job.source.number, rejections)
        return counts

    async def _source_record_key(self, item: Prepared) -> str:
        keys = await self._vault.keys([item.record_id]) if item.record_id else {}
        payload = whole(item, keys[item.record_id]).payload if item.record_id else item.payload
        return pb.SourceRecord.FromString(payload).source_record_key

    def _rejection(self, job: _Job, item: Refused) -> Rejection:
        key = item.source_record_key
        bound = bound_to(REJECTED_KEY_PLACE, job.row.import_id, item.row_number)
        return Rejection(
            item.row_number, item.line_number, self._index.source_key(job.source.name, key) if key else None,
            job.rejections_key.seal(key.encode(), bound) if key else None, item.field, item.reason, item.description,
        )  # fmt: skip

    # ---- reading parts

    async def _chunks(self, job: _Job) -> AsyncIterator[tuple[Reading, Chunk, Place]]:
        """Chunks from where the import is, with where each ends."""
        row = job.row
        mapped = mapping(row.mapping)
        defaults = Defaults(
            int(row.default_observe_time.timestamp()),
            row.default_country_code or job.source.country_code,
            row.default_country_code,
        )
        if row.format == Format.PARQUET:
            async for found in self._parquet_chunks(job, mapped, defaults):
                yield found
            return
        is_csv = row.format == Format.CSV
        codec, delimiter = CODECS[row.encoding], row.delimiter if is_csv else None
        place, fields = Place(), tuple[str, ...]()
        check_beginning(await self._part(job, 1), codec)
        if is_csv:
            place, first = await self._first_row(job, delimiter)
            fields = header(first, row.encoding, row.delimiter, mapped)
        if row.offset_bytes:
            place = Place(row.offset_bytes, row.line_number)
        reader = RowReader(row.format, codec, row.delimiter, fields, mapped)
        reading = Reading(reader, defaults, job.source, self._index_key)
        await self._begin(row, None)
        async for chunk, after in self._text_chunks(job, place, delimiter):
            yield reading, chunk, after

    async def _text_chunks(self, job: _Job, place: Place, delimiter: str | None) -> AsyncIterator[tuple[Chunk, Place]]:
        splitter = RowSplitter(place, delimiter)
        rows: list[Row] = []
        size_bytes, row_number = 0, job.row.rows_read_count + 1
        async for piece in self._pieces(job, place.offset_bytes):
            for row in splitter.feed(piece):
                rows.append(row)
                size_bytes += len(row.content)
                if len(rows) >= CHUNK_ROWS_MAX or size_bytes >= CHUNK_BYTES_MAX:
                    yield Chunk(row_number, rows), splitter.place
                    row_number += len(rows)
                    rows, size_bytes = [], 0
        rows.extend(splitter.end())
        if rows:
            yield Chunk(row_number, rows), splitter.place

    async def _first_row(self, job: _Job, delimiter: str | None) -> tuple[Place, Row | None]:
        splitter = RowSplitter(Place(), delimiter)
        async for piece in self._pieces(job, 0):
            for row in splitter.feed(piece):
                return splitter.place, row
        for row in splitter.end():
            return splitter.place, row
        return splitter.place, None

    async def _pieces(self, job: _Job, offset_bytes: int) -> AsyncIterator[bytes]:
        async with self._database.connection() as connection:
            sizes = await store.part_sizes(connection, job.row.import_id)
        begin = 0
        for number, size in enumerate(sizes, 1):
            if begin + size > offset_bytes:
                yield (await self._part(job, number))[max(0, offset_bytes - begin) :]
            begin += size

    async def _part(self, job: _Job, number: int) -> bytes:
        async with self._database.connection() as connection:
            sealed = await store.part(connection, job.row.import_id, number)
        if sealed is None:
            raise Stopped  # cancelled a moment ago
        return job.parts_key.open(sealed, bound_to(PART_PLACE, job.row.import_id, number))

    async def _parquet_chunks(
        self, job: _Job, mapped: dict[str, str], defaults: Defaults
    ) -> AsyncIterator[tuple[Reading, Chunk, Place]]:
        loop = asyncio.get_running_loop()

        def part(number: int) -> bytes:
            return asyncio.run_coroutine_threadsafe(self._part(job, number), loop).result()

        async with self._database.connection() as connection:
            sizes = await store.part_sizes(connection, job.row.import_id)
        file = await asyncio.to_thread(ParquetRows, PartsFile(sizes, part), mapped)
        await self._begin(job.row, file.rows_count)
        reading = Reading(RowReader(Format.PARQUET, "", "", file.fields, {}), defaults, job.source, self._index_key)
        batches = file.batches(job.row.rows_read_count, CHUNK_ROWS_MAX)
        row_number = job.row.rows_read_count + 1
        while rows := await asyncio.to_thread(next, batches, None):
            yield reading, Chunk(row_number, rows), Place()
            row_number += len(rows)

    async def _begin(self, row: ImportRow, rows_count: int | None) -> None:
        async with self._database.transaction() as connection:
            await store.begin(connection, row.import_id, rows_count, clock.now())

    # ---- what is over

    async def _tidy(self) -> None:
        """Destroys what is needed no more: parts of imports that ended, rejected rows after their time; keys before rows."""
        now: datetime = clock.now()
        async with self._database.connection() as connection:
            for import_id in await store.abandoned(connection, now - STARTED_WITHIN):
                await store.finish(connection, import_id, State.CANCELLED, now)
            needless = await store.with_needless_parts(connection)
            old = await store.with_old_rejections(connection, now - REJECTIONS_KEPT)
        for import_id in needless:
            await self._vault.shred([import_id])
            async with self._database.transaction() as connection:
                await store.forget_parts(connection, import_id)
        for import_id, key_id in old:
            await self._vault.shred([key_id])
            async with self._database.transaction() as connection:
                await store.forget_old_rejections(connection, import_id)
