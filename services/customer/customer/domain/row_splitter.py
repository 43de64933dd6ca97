"""Cuts bytes into rows: lines, or in CSV lines joined by quoted line ends. A broken row never swallows its neighbours."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ROW_BYTES_MAX = 256 << 10
ROW_LINES_MAX = 200
"""A quoted field may have line ends, so many at most: a quote that is never closed must not reject the rest of the file."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it stands in the file, without its line end."""

    line_number: int
    content: bytes
    reason: str = ""
    """Why it cannot be read: ROW_TOO_LARGE (the content is left out) or QUOTE_NOT_CLOSED."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the file the next row begins."""

    offset_bytes: int = 0
    line_number: int = 1


class RowSplitter:
    """Feed it the bytes of a file in order, from a place where a row begins; it gives rows. Empty lines are no rows."""

    def __init__(self, place: Place, delimiter: str | None) -> None:
        """`delimiter` is that of a CSV file; None for lines that are rows as they are."""
        self._delimiter = delimiter.encode() if delimiter else None
        self._line_number = place.line_number
        self._offset = place.offset_bytes
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._dropped_bytes = 0
        self._open: list[tuple[bytes, int]] = []
        self._open_bytes = 0

    @property
    def place(self) -> Place:
        """Where the row after the last one that was given begins."""
        return Place(self._offset, self._line_number)

    def rows(self, pieces: Iterable[bytes]) -> Iterator[Row]:
        """The rows of the rest of the file. `place` is right whenever this generator has given a row."""
        for piece in pieces:
            yield from self.feed(piece)
        yield from self.end()

    def feed(self, piece: bytes) -> Iterator[Row]:
        """The rows that end in this piece."""
        lines = piece.split(b"\n")
        rest = lines.pop()
        if lines:
            self._tail.append(lines[0])
            yield from self._end_line(1)
            for line in lines[1:]:
                yield from self._line(line, 1)
        self._tail.append(rest)
        self._tail_bytes += len(rest)
        if self._tail_bytes > ROW_BYTES_MAX:
            while self._open:
                yield from self._give_up()
            self._dropped_bytes += self._tail_bytes
            self._tail, self._tail_bytes = [], 0

    def end(self) -> Iterator[Row]:
        """What is left when the file is over."""
        yield from self._end_line(0)
        while self._open:
            yield from self._give_up()

    def _end_line(self, end_bytes: int) -> Iterator[Row]:
        """The line that was begun in an earlier piece ends."""
        line, dropped_bytes = b"".join(self._tail), self._dropped_bytes
        self._tail, self._tail_bytes, self._dropped_bytes = [], 0, 0
        if dropped_bytes:
            yield from self._row(b"", 1, dropped_bytes + len(line) + end_bytes)
        elif line or end_bytes:
            yield from self._line(line, end_bytes)

    def _line(self, line: bytes, end_bytes: int) -> Iterator[Row]:
        # Quotes in pairs leave nothing open.
        if self._delimiter is None or (not self._open and line.count(b'"') % 2 == 0):
            yield from self._row(line, 1, len(line) + end_bytes)
            return
        still_open = _leaves_open(line, self._delimiter, bool(self._open))
        self._open.append((line, end_bytes))
        self._open_bytes += len(line) + end_bytes
        if still_open is None:
            yield from self._give_up()
        elif not still_open:
            content, lines_count, size_bytes = b"\n".join(line for line, _ in self._open), len(self._open), self._open_bytes
            self._open, self._open_bytes = [], 0
            yield from self._row(content, lines_count, size_bytes)
        elif len(self._open) > ROW_LINES_MAX or self._open_bytes > ROW_BYTES_MAX:
            yield from self._give_up()

    def _give_up(self) -> Iterator[Row]:
        """The quote in the first open line is never closed: that line is a bad row, and the others are looked at again."""
        (first, end_bytes), *others = self._open
        self._open, self._open_bytes = [], 0
        yield from self._row(first, 1, len(first) + end_bytes, "QUOTE_NOT_CLOSED")
        for line, line_end_bytes in others:
            yield from self._line(line, line_end_bytes)

    def _row(self, content: bytes, lines_count: int, size_bytes: int, reason: str = "") -> Iterator[Row]:
        first = self._line_number
        self._line_number += lines_count
        self._offset += size_bytes
        if size_bytes > ROW_BYTES_MAX:
            yield Row(first, b"", "ROW_TOO_LARGE")
            return
        if content.endswith(b"\r"):
            content = content[:-1]
        if first == 1 and content.startswith(_BOM):
            content = content[len(_BOM) :]
        if content.strip():
            yield Row(first, content, reason)


def _leaves_open(line: bytes, delimiter: bytes, was_open: bool) -> bool | None:
    """Whether a quoted field is open at the end of a line; None when one that was open ends where no field can end."""
    start, is_open = 0, was_open
    while True:
        if is_open or line[start : start + 1] == b'"':
            end = _closing_quote(line, start if is_open else start + 1)
            if end < 0:
                return True
            if is_open and line[end + 1 : end + 2] not in (b"", b"\r", delimiter):
                return None
            start, is_open = end + 1, False
        start = line.find(delimiter, start)
        if start < 0:
            return False
        start += 1


def _closing_quote(line: bytes, start: int) -> int:
    while True:
        quote = line.find(b'"', start)
        if quote < 0 or line[quote + 1 : quote + 2] != b'"':
            return quote
        start = quote + 2
