"""Parquet files of bulk imports, read row group by row group out of sealed parts; never whole in memory."""

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from customer.domain.import_rows import IGNORED, Unreadable, resolve

ROW_GROUP_BYTES_MAX = 256 << 20
PARTS_CACHED_MAX = 4


class PartsFile(io.RawIOBase):
    """The parts of a file as one that can be read at any place. Used by one thread."""

    def __init__(self, sizes_bytes: Sequence[int], part: Callable[[int], bytes]) -> None:
        """`part` answers the part with a number, counted from 1."""
        super().__init__()
        self._ends = list(accumulate(sizes_bytes))
        self._part = part
        self._cached: dict[int, bytes] = {}
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a place."""
        size = self._ends[-1] if self._ends else 0
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer with what lies in one part from here on."""
        number = bisect_right(self._ends, self._place) + 1
        if number > len(self._ends):
            return 0
        content = self._cached.get(number)
        if content is None:
            if len(self._cached) >= PARTS_CACHED_MAX:
                del self._cached[next(iter(self._cached))]
            content = self._cached[number] = self._part(number)
        start = self._place - (self._ends[number - 2] if number > 1 else 0)
        piece = content[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)


class ParquetRows:
    """The rows of a Parquet file, and what its columns are."""

    def __init__(self, file: io.RawIOBase, mapped: Mapping[str, str]) -> None:
        """Opens it.

        Raises:
            Unreadable: no Parquet file, columns that are no fields, types that cannot be read, row groups that are too large.
        """
        try:
            self._file = pq.ParquetFile(io.BufferedReader(file, 1 << 20), pre_buffer=False, buffer_size=1 << 20)
            metadata, schema = self._file.metadata, self._file.schema_arrow
        except (pa.ArrowException, OSError, ValueError):
            raise Unreadable("file", "FORMAT_WRONG", "the file is no Parquet file, or not all of it is there") from None
        fields = resolve(schema.names, mapped)
        self.columns = [(place, name) for place, name in enumerate(fields) if name != IGNORED]
        for place, _ in self.columns:
            _require_readable(schema.field(place))
        for group in range(metadata.num_row_groups):
            if metadata.row_group(group).total_byte_size > ROW_GROUP_BYTES_MAX:
                description = f"row group {group} has more than {ROW_GROUP_BYTES_MAX >> 20} MiB: write smaller ones"
                raise Unreadable("file", "ROW_GROUP_TOO_LARGE", description)
        self.rows_count = metadata.num_rows

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the values in each row."""
        return tuple(name for _, name in self.columns)

    def batches(self, rows_before: int, rows_max: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows after the first `rows_before`, in batches.

        Raises:
            Unreadable: the file is damaged.
        """
        groups: list[int] = []
        skipped = 0
        for group in range(self._file.metadata.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if groups or skipped + rows > rows_before:
                groups.append(group)
            else:
                skipped += rows
        left = rows_before - skipped
        if not groups:
            return
        names = [self._file.schema_arrow.names[place] for place, _ in self.columns]
        try:
            for batch in self._file.iter_batches(rows_max, groups, names, use_threads=False):
                if left >= batch.num_rows:
                    left -= batch.num_rows
                    continue
                columns = [column.to_pylist() for column in batch.slice(left).columns]
                left = 0
                yield list(zip(*columns, strict=True))
        except (pa.ArrowException, OSError, ValueError):
            raise Unreadable("file", "FORMAT_WRONG", "the file is damaged: it cannot be read to its end") from None


def _require_readable(field: Any) -> None:
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in (*texts, pa.types.is_date, pa.types.is_timestamp)):
        description = f"has the type {field.type}; a column must be of string, integer, date or timestamp"
        raise Unreadable(field.name, "COLUMN_TYPE_WRONG", description)
