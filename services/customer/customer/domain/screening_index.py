"""An index of all entries of the active lists, in memory: tens of thousands of names are compared in milliseconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from customer.domain.kyc import Topic
from customer.domain.screening import (
    DIFFERENT_BIRTH_YEAR_PERCENT,
    SCORE_PERCENT_MIN,
    Form,
    Resemblance,
    Screened,
    resemblance,
    worst_first,
)


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """An entry of the active version of a list."""

    list_id: str
    list_version: str
    entry_id: str
    topic: Topic
    name: str
    screened: Screened

    @property
    def key(self) -> str:
        """Distinct over all lists."""
        return f"{self.list_id}/{self.entry_id}"


class ScreeningIndex:
    """Compares a party with every entry. Han names are compared with Han names; pinyin and Latin names with one another."""

    def __init__(self, entries: Iterable[ListedEntry]) -> None:
        self.entries: Mapping[str, ListedEntry] = {entry.key: entry for entry in entries}
        self._han: list[tuple[str, str, Form]] = []
        self._latin: list[tuple[str, str, Form]] = []
        for key, entry in self.entries.items():
            for form, names in entry.screened.names.items():
                target = self._han if form is Form.HAN else self._latin
                target += [(name, key, form) for name in names]

    def screen(self, subject: Screened) -> list[tuple[ListedEntry, Resemblance]]:
        """The entries that resemble, the most alike first."""
        found: list[tuple[str, Resemblance]] = []
        for form, names in subject.names.items():
            listed = self._han if form is Form.HAN else self._latin
            choices = [name for name, _, _ in listed]
            for name in names:
                alike = process.extract(name, choices, scorer=fuzz.ratio, limit=None, score_cutoff=SCORE_PERCENT_MIN)
                for _, percent, place in alike:
                    _, key, other_form = listed[place]
                    entry = self.entries[key]
                    if entry.screened.organisation == subject.organisation:
                        seen = Form.PINYIN if Form.PINYIN in (form, other_form) else form
                        found.append((key, resemblance(percent, seen, subject, entry.screened)))
        return [(self.entries[key], seen) for key, seen in worst_first(found)]


assert DIFFERENT_BIRTH_YEAR_PERCENT <= 100 - SCORE_PERCENT_MIN, "a name alike in every letter stays a hit whatever the year says"
