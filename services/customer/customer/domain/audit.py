"""The chain of the audit trail: each entry's hash is over the entry and the hash before, under a key that the database lacks."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

GENESIS = b""
"""What stands before the first entry."""


class Action(StrEnum):
    """What is entered in the trail."""

    REVEAL = "REVEAL"
    EXPORT = "EXPORT"
    ERASE = "ERASE"
    ERASE_CANCEL = "ERASE_CANCEL"
    ERASED = "ERASED"
    RESTRICT = "RESTRICT"
    LIFT = "LIFT"
    SHARE = "SHARE"
    SHARE_REVOKE = "SHARE_REVOKE"
    MERGE = "MERGE"
    UNMERGE = "UNMERGE"
    RELINK = "RELINK"
    REJECT = "REJECT"
    REVIEW = "REVIEW"
    PIN = "PIN"
    POLICY = "POLICY"
    MATCH_MODEL = "MATCH_MODEL"
    KYC = "KYC"
    PORTFOLIO = "PORTFOLIO"


@dataclass(frozen=True, slots=True)
class Entry:
    """What was done. No personal value: `sealed_text` is under the key of the first record, and unreadable with it."""

    number: int
    recorded_at: datetime
    institution_id: str
    client: str
    subject: str
    action: str
    reason_code: str
    customer_ids: tuple[UUID, ...]
    record_ids: tuple[UUID, ...]
    resource: str
    sealed_text: bytes
    chain_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class Finding:
    """The first entry that is wrong: its number, and a code that says what is."""

    number: int
    reason: str


def chained(key: bytes, before: bytes, entry: Entry) -> bytes:
    """The hash of an entry that follows one with the hash `before`."""
    parts = (
        before, entry.number.to_bytes(8, "big"), str(round(entry.recorded_at.timestamp() * 1_000_000)).encode(),
        entry.institution_id.encode(), entry.client.encode(), entry.subject.encode(), entry.action.encode(),
        entry.reason_code.encode(), b"".join(each.bytes for each in entry.customer_ids),
        b"".join(each.bytes for each in entry.record_ids), entry.resource.encode(), entry.sealed_text,
    )  # fmt: skip
    return hmac.digest(key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), hashlib.sha256)


class Verification:
    """Walks the chain from its beginning, in pages; `finding` is the first thing that is wrong."""

    def __init__(self, key: bytes, known_count: int = 0, known_hash: bytes = b"") -> None:
        self._key = key
        self._known = known_count, known_hash
        self.count = 0
        self.hash = GENESIS
        self.finding: Finding | None = None

    def take(self, entries: Iterable[Entry]) -> None:
        """The next entries, in order."""
        for entry in entries:
            if self.finding is not None:
                return
            if entry.number != self.count + 1:
                self.finding = Finding(self.count + 1, "ENTRY_MISSING")
            elif entry.chain_hash != chained(self._key, self.hash, entry):
                self.finding = Finding(entry.number, "ENTRY_CHANGED")
            else:
                self.count, self.hash = entry.number, entry.chain_hash
                if self.count == self._known[0] and self.hash != self._known[1]:
                    self.finding = Finding(self.count, "HISTORY_REPLACED")

    def end(self, head_count: int, head_hash: bytes) -> None:
        """There are no more entries; the head says so."""
        if self.finding is not None:
            return
        if self.count < max(head_count, self._known[0]):
            self.finding = Finding(self.count + 1, "ENTRY_MISSING")
        elif self.count > head_count:
            self.finding = Finding(head_count + 1, "ENTRY_BEYOND_HEAD")
        elif self.hash != head_hash:
            self.finding = Finding(self.count, "ENTRY_CHANGED")
