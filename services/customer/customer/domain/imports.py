"""Bulk imports: the words of their contract, and what is counted."""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from customer.domain.vocabulary import Outcome

PART_BYTES_MAX = 3 << 20
STARTED_WITHIN = timedelta(days=7)
"""An import that is not started is cancelled then, and its parts destroyed."""
REJECTIONS_KEPT = timedelta(days=30)


class Format(IntEnum):
    """Formats of files."""

    CSV = 1
    PARQUET = 2
    JSON_LINES = 3


class Encoding(IntEnum):
    """Encodings of text."""

    UTF_8 = 1
    GB_18030 = 2


CODECS = {0: "utf-8", Encoding.UTF_8: "utf-8", Encoding.GB_18030: "gb18030"}


class State(IntEnum):
    """Where an import is."""

    CREATED = 1
    QUEUED = 2
    RUNNING = 3
    SUCCEEDED = 4
    FAILED = 5
    CANCELLED = 6


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


@dataclass(slots=True)
class Counts:
    """What became of rows."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    stale: int = 0
    rejected: int = 0

    def add(self, outcome: Outcome) -> None:
        """One row more."""
        name = outcome.name.lower()
        setattr(self, name, getattr(self, name) + 1)

    @property
    def total(self) -> int:
        """All rows."""
        return self.created + self.updated + self.unchanged + self.stale + self.rejected


def progress_percent(state: int, read: int, total: int | None) -> int:
    """How much is read, 0 to 100; 100 only when every row is."""
    if state == State.SUCCEEDED:
        return 100
    return min(99, 100 * read // total) if total else 0
