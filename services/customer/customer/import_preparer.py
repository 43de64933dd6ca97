"""A process that prepares rows of bulk imports: reads, checks and standardises them, so that all cores are used.

It holds keys in memory, gets everything over its standard input, and ends with it: no process outlives the service.
"""

import asyncio
import contextlib
import functools
import gc
import pickle
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import IO, Any, NamedTuple
from uuid import UUID

from chassis import clock
from customer.domain.blind_index import BlindIndex
from customer.domain.import_reading import RowReader
from customer.domain.intake import Rejected
from customer.domain.row_splitter import Row
from customer.import_parties import Defaults, source_record
from customer.lone import LoneMaker, Moment, bare
from customer.prepare import Prepared, prepare_with_party, seal
from customer.store.institutions import SourceSystem
from customer.store.vault import DataKey

_LENGTH = struct.Struct(">Q")
_FORMAT = pickle.HIGHEST_PROTOCOL
# Not `-m`: what is sent over the pipes must be of this module, not of `__main__`.
_PROGRAM = "from customer.import_preparer import main; main()"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that follow one another in a file.

    When most rows are expected to be new records, `new_keys` has an id and a data key for each, and `moment` says when and under
    what rules their customers are prepared.
    """

    first_row_number: int
    rows: Sequence[Row | Sequence[Any]]
    new_keys: Sequence[tuple[UUID, DataKey]] = ()
    moment: Moment | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be taken, with the source's own key where it has one."""

    row_number: int
    line_number: int
    source_record_key: str
    field: str
    reason: str
    description: str


class Ready(NamedTuple):
    """A row as a record, ready to be decided on."""

    row_number: int
    line_number: int
    item: Prepared


@dataclass(frozen=True, slots=True)
class Reading:
    """How the rows of an import are read."""

    reader: RowReader
    defaults: Defaults
    source: SourceSystem
    index_key: bytes = field(repr=False)


@functools.lru_cache(1)
def _tools(index_key: bytes) -> tuple[BlindIndex, LoneMaker]:
    index = BlindIndex(index_key)
    return index, LoneMaker(index)


def prepare_rows(reading: Reading, chunk: Chunk, now: datetime) -> list[Ready | Refused]:
    """One result for each row, in order. Pure."""
    keys: Sequence[tuple[UUID, DataKey] | None] = chunk.new_keys or [None] * len(chunk.rows)
    numbered = zip(count(chunk.first_row_number), chunk.rows, keys, strict=False)
    return [_prepared(reading, chunk.moment, now, number, row, key) for number, row, key in numbered]


def _prepared(
    reading: Reading,
    moment: Moment | None,
    now: datetime,
    row_number: int,
    row: Row | Sequence[Any],
    key: tuple[UUID, DataKey] | None,
) -> Ready | Refused:
    line_number = row.line_number if isinstance(row, Row) else 0
    texts: dict[str, str] = {}
    index, maker = _tools(reading.index_key)
    try:
        texts = reading.reader.texts(row)
        record = source_record(texts, reading.defaults)
        item, party = prepare_with_party(now, index, reading.source, record, is_canonical=True)
    except Rejected as rejected:
        own_key = texts.get("source_record_key", "")
        return Refused(row_number, line_number, own_key, rejected.field, rejected.reason, rejected.description)
    if key is not None:
        record_id, data_key = key
        item = item._replace(record_id=record_id, sealed=seal(item, data_key, record_id, 1))
        if moment is not None and (lone := maker.make(item, party, moment)) is not None:
            item = bare(item, lone)
    return Ready(row_number, line_number, item)


# ---- the process, and the other end of its pipes


class Preparer:
    """A process that prepares chunks, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = asyncio.Lock()

    async def prepare(self, reading: Reading, chunk: Chunk) -> list[Ready | Refused]:
        """The rows of a chunk, prepared.

        Raises:
            PreparerDied: the process is gone, or met an error that is ours; its log line says which.
        """
        async with self._lock:
            try:
                answer: list[Ready | Refused] | None = await asyncio.to_thread(self._exchange, (reading, chunk))
            except (OSError, EOFError) as error:
                raise PreparerDied("a process that prepares rows of imports is gone") from error
        if answer is None:
            raise PreparerDied("a row could not be prepared")
        return answer

    def _exchange(self, order: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        _write(self._process.stdin, order)
        return _read(self._process.stdout)

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        self._process.kill()
        self._process.wait()


class PreparerDied(Exception):
    """A process that prepares is gone. What it had in hand is prepared again."""


class Preparers:
    """As many processes as there are cores, started when they are needed."""

    def __init__(self, count_max: int) -> None:
        self.count_max = count_max
        self._idle: list[Preparer] = []
        self._places = asyncio.Semaphore(count_max)

    async def prepare(self, reading: Reading, chunk: Chunk) -> list[Ready | Refused]:
        """The rows of a chunk, prepared by a process that has nothing to do."""
        async with self._places:
            preparer = self._idle.pop() if self._idle else await asyncio.to_thread(Preparer)
            try:
                answer = await preparer.prepare(reading, chunk)
            except BaseException:
                preparer.close()  # half an answer may be in its pipe
                raise
            self._idle.append(preparer)
            return answer

    def close(self) -> None:
        """Ends the processes."""
        while self._idle:
            self._idle.pop().close()


def _write(pipe: IO[bytes], message: Any) -> None:
    content = pickle.dumps(message, _FORMAT)
    pipe.write(_LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def _read(pipe: IO[bytes]) -> Any:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return pickle.loads(content)  # from our own process only


def main() -> None:
    """Prepares chunks until the input ends."""
    gc.collect()
    gc.freeze()
    gc.disable()  # rows hold no cycles, and what a chunk brings is gone with it
    while True:
        try:
            reading, chunk = _read(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = prepare_rows(reading, chunk, clock.now())
        except Exception as error:  # noqa: BLE001 - whatever it is, its text may hold personal data: only its kind is said
            sys.stderr.write(f"import_preparer: {type(error).__name__}\n")
            answer = None
        _write(sys.stdout.buffer, answer)
