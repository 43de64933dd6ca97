"""Screening of parties against the lists that are loaded: the adapter between the master's names and the index of entries.

Another engine takes the place of `Lists` by offering the same `screen`.
"""

import asyncio
import json
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Protocol

from chassis.database import Connection
from concord.customer.v1.attribute_pb2 import PartyKind
from concord.customer.v1.party_pb2 import Party, PartyName
from customer import standards
from customer.domain import names
from customer.domain.blind_index import BlindIndex
from customer.domain.identity_documents import is_birth_date
from customer.domain.screening import Form, Resemblance, Screened, comparable
from customer.domain.screening_index import ListedEntry, ScreeningIndex
from customer.store import screening_lists


class Screening(Protocol):
    """What KYC needs of a screening engine."""

    async def screen(self, connection: Connection, subject: Screened) -> Sequence[tuple[ListedEntry, Resemblance]]:
        """The listed entries that resemble, the most alike first."""
        ...


class Lists:
    """Screens against the active versions of the lists in the database, which are kept in memory until another is activated."""

    def __init__(self) -> None:
        self._versions: frozenset[tuple[str, str]] = frozenset()
        self._index = ScreeningIndex([])
        self._loading = asyncio.Lock()

    async def screen(self, connection: Connection, subject: Screened) -> Sequence[tuple[ListedEntry, Resemblance]]:
        """The listed entries that resemble, the most alike first."""
        async with self._loading:
            active = await screening_lists.active_versions(connection)
            if active != self._versions:
                self._index = await screening_lists.load_index(connection)
                self._versions = active
        # Tens of thousands of comparisons would hold up every other call.
        return await asyncio.to_thread(self._index.screen, subject)


def forms_of(names_: Iterable[PartyName]) -> dict[Form, frozenset[str]]:
    """Names in the forms that are compared. A name in Han letters is compared in pinyin too."""
    found: dict[Form, set[str]] = {Form.HAN: set(), Form.PINYIN: set(), Form.LATIN: set()}
    for name in names_:
        if name.han_simplified_name:
            found[Form.HAN].add("".join(name.han_simplified_name.split()))
        if name.pinyin_name:
            found[Form.PINYIN] |= {comparable(name.pinyin_name), "".join(name.pinyin_name.split())}
        parts = f"{name.given_name} {name.family_name}".strip()
        for text in (name.full_name, name.latin_name, parts, *name.aliases):
            folded = " ".join(names.words(text))
            if folded and not _has_han(folded):
                found[Form.LATIN] |= {comparable(folded), "".join(folded.split())}
    return {form: frozenset(values) for form, values in found.items() if values}


def _has_han(text: str) -> bool:
    return any(unicodedata.name(letter, "").startswith("CJK") for letter in text)


def subject_of(parties: Sequence[Party], today: date) -> Screened:
    """A customer for screening: every name, birth year and country that the records state."""
    years = {int(party.birth_date[:4]) for party in parties if is_birth_date(party.birth_date, today)}
    countries = {party.postal_address.country_code for party in parties}
    countries |= {party.demographics.nationality_country_code for party in parties}
    countries |= {identifier.country_code for party in parties for identifier in party.identifiers}
    return Screened(
        forms_of(party.party_name for party in parties),
        frozenset(years),
        frozenset(countries - {""}),
        any(party.party_kind == PartyKind.PARTY_KIND_ORGANISATION for party in parties),
    )


def entry_forms(listed_names: Sequence[str]) -> str:
    """The names of an entry in the forms that are compared, as JSON."""
    standard = [standards.standardised(Party(party_name=PartyName(full_name=name)), "").party_name for name in listed_names]
    return json.dumps({form: sorted(values) for form, values in forms_of(standard).items()}, ensure_ascii=False)


def compared(index: BlindIndex, subject: Screened, entry: ListedEntry) -> bytes:
    """A keyed hash of what was compared: a disposition is remembered as long as it is the same."""
    parts = [
        [
            sorted((form, sorted(values)) for form, values in side.names.items()),
            sorted(side.birth_years),
            sorted(side.country_codes),
        ]
        for side in (subject, entry.screened)
    ]
    return index.content(json.dumps(parts, ensure_ascii=False).encode())
