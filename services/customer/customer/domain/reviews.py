"""Rules of the stewards' queues: what an item is about, what may be decided, who holds it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from uuid import UUID

KEY_BYTES = 16
LEASE_SECONDS_DEFAULT = 1800
DEFER_MAX = timedelta(days=366)


class ReviewKind(IntEnum):
    """The queues, numbered as in the contract."""

    POSSIBLE_MATCH = 1
    CONFLICT = 2
    DOUBTFUL_CLUSTER = 3
    FAILED_VALIDATION = 4


class StoredState(IntEnum):
    """Where an item stands; claimed and deferred ones are open with a lease or a time."""

    OPEN = 1
    DECIDED = 2
    SETTLED = 3


class Decision(IntEnum):
    """What a steward may decide, numbered as in the contract."""

    MERGE = 1
    NOT_SAME = 2
    DEFER = 3
    CHOOSE = 4
    ACKNOWLEDGE = 5
    SPLIT = 6


ALLOWED: dict[ReviewKind, frozenset[Decision]] = {
    ReviewKind.POSSIBLE_MATCH: frozenset({Decision.MERGE, Decision.NOT_SAME, Decision.DEFER}),
    ReviewKind.CONFLICT: frozenset({Decision.CHOOSE, Decision.ACKNOWLEDGE, Decision.DEFER}),
    ReviewKind.DOUBTFUL_CLUSTER: frozenset({Decision.SPLIT, Decision.ACKNOWLEDGE, Decision.DEFER}),
    ReviewKind.FAILED_VALIDATION: frozenset({Decision.CHOOSE, Decision.ACKNOWLEDGE, Decision.DEFER}),
}
OWN_RECORDS_ONLY = frozenset({ReviewKind.CONFLICT, ReviewKind.FAILED_VALIDATION})
"""What these say about a record tells about its values, so only its own institution may see it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds an item."""

    number: int
    claimed_by: str | None
    lease_until: datetime | None

    def held_by_other(self, steward: str, now: datetime) -> bool:
        """Whether somebody else works on it."""
        return self.running(now) and self.claimed_by != steward

    def running(self, now: datetime) -> bool:
        """Whether somebody works on it."""
        return self.lease_until is not None and now < self.lease_until

    def permits(self, steward: str, number: int, now: datetime) -> bool:
        """Whether this steward holds this very claim now. A later claim, by anybody, has another number."""
        return self.running(now) and self.claimed_by == steward and self.number == number


def subject_key(kind: ReviewKind, records: Iterable[UUID], rivals: Iterable[UUID]) -> bytes:
    """What an item is about: only one is open for it.

    A possible match: the pair, whichever way round. Else the records that are in question: those that contradict or are to be
    split off, or for a failed validation the record itself.
    """
    left, right = sorted(records), sorted(rivals)
    about = sorted(left + right) if kind is ReviewKind.POSSIBLE_MATCH else right or left
    return _hash(bytes([kind]), *(record_id.bytes for record_id in about))


def content_key(*parts: bytes) -> bytes:
    """What was judged, as a hash."""
    return _hash(*parts)


def pair_content(content: bytes, other: bytes) -> bytes:
    """The content of a possible match: that of both records, whichever way round."""
    return b"".join(sorted((content, other)))


def _hash(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()
