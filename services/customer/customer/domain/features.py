"""What matching looks at: the evidence in one record, in a form that can be compared. Placeholders are left out."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from customer.domain import names, placeholders
from customer.domain.vocabulary import IdentifierScheme

ORGANISATION = 2
RESIDENT_CARD_CHARACTERS = 18
OLD_CZECH_NUMBER_DIGITS = 9
_HAN_LEGAL_FORMS = re.compile("(股份)?(有限)?(责任)?公司$|集团$")
_HAN = re.compile(r"[㐀-䶿一-鿿豈-﫿]")
_LETTERS = re.compile(r"[^\W\d_]+")
_NUMBERS = re.compile(r"\d+")
# ü is written v, yu or u; the same rule for every name keeps names of other languages apart from one another, too.
_UMLAUT = re.compile("(?<=[ln])(?:v|yu)")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")

_WORDS = json.loads(resources.files("customer").joinpath("data/matching.json").read_text(encoding="utf-8"))
LEGAL_FORMS, TITLES, PARTICLES = (frozenset(_WORDS[kind]) for kind in ("legal_forms", "titles", "particles"))
# Schemes whose rule has a check digit: only of these do two different valid numbers mean two parties for certain.
_CHECK_DIGIT_COUNTRIES = {IdentifierScheme[scheme]: set(found) for scheme, found in _WORDS["check_digit_countries"].items()}
# A new one is issued every few years: another number says nothing.
RENEWABLE_SCHEMES = frozenset({IdentifierScheme.PASSPORT, IdentifierScheme.DRIVING_LICENCE, IdentifierScheme.PERMIT})


@dataclass(frozen=True, slots=True)
class NameForm:
    """One reading of a name. Parts are folded, without spaces; an organisation has a family name only."""

    given: str
    family: str


@dataclass(frozen=True, slots=True)
class Names:
    """All readings of a name, and the same in simplified Han letters where there are any; `undivided` for organisations."""

    forms: tuple[NameForm, ...] = ()
    han: str = ""
    undivided: bool = False

    def __bool__(self) -> bool:
        return bool(self.forms or self.han)


@dataclass(frozen=True, slots=True)
class DocumentNumber:
    """The number of a document in its standard form; `checked`: it is valid and its scheme has a check digit."""

    scheme: int
    country_code: str
    number: str
    valid: bool = False
    checked: bool = False


@dataclass(frozen=True, slots=True)
class AddressForm:
    """A postal address in parts that can be compared; each may be empty."""

    streets: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    locality: str = ""
    postcode: str = ""

    def __bool__(self) -> bool:
        return bool(self.streets or self.numbers or self.locality or self.postcode)


@dataclass(frozen=True, slots=True)
class Features:
    """The evidence in one record. `source` is the opaque name of its source system, for the guard of clusters."""

    party_kind: int
    names: Names = Names()
    birth_date: str = ""
    documents: frozenset[DocumentNumber] = frozenset()
    phones: frozenset[str] = frozenset()
    emails: frozenset[str] = frozenset()
    addresses: tuple[AddressForm, ...] = ()
    sex: int = 0
    source: str = ""


# ---- making them


def birth_date(text: str) -> str:
    """Eight digits; empty for a filler. An impossible day is kept: it may be the right one, mistyped."""
    match = _DATE.fullmatch(text)
    digits = "".join(match.groups()) if match else ""
    return "" if placeholders.is_birth_date(digits) else digits


def document(scheme: int, country_code: str, number: str, *, valid: bool) -> DocumentNumber | None:
    """A document as evidence; None for a filler."""
    if placeholders.is_document(number):
        return None
    return DocumentNumber(scheme, country_code, number, valid, valid and has_check_digit(scheme, country_code, number))


def has_check_digit(scheme: int, country_code: str, number: str) -> bool:
    """Whether a valid number of this scheme and country has passed a check digit, not only a form."""
    if country_code not in _CHECK_DIGIT_COUNTRIES.get(IdentifierScheme(scheme), ()):
        return False
    if scheme == IdentifierScheme.PERMIT:  # travel permits have none, residence permits are built as resident cards
        return len(number) == RESIDENT_CARD_CHARACTERS
    return (scheme, country_code) != (IdentifierScheme.NATIONAL_ID, "CZ") or len(number) > OLD_CZECH_NUMBER_DIGITS


def phones(numbers: Iterable[str]) -> frozenset[str]:
    """Numbers as digits, without fillers."""
    digits = ("".join(filter(str.isdigit, number)) for number in numbers)
    return frozenset(number for number in digits if len(number) >= 5 and not placeholders.is_phone(number))


def emails(addresses: Iterable[str]) -> frozenset[str]:
    """Addresses, casefolded, without fillers and shared mailboxes."""
    folded = (address.strip().casefold() for address in addresses)
    return frozenset(address for address in folded if "@" in address and not placeholders.is_email(address))


def person_names(
    full: str = "",
    given: str = "",
    family: str = "",
    latin: str = "",
    aliases: Iterable[str] = (),
    han: str = "",
    pinyin: str = "",
) -> Names:
    """The readings of a person's name.

    Args:
        full: as written, in any script; its order is not known, so it is read both ways.
        given: where kept apart.
        family: where kept apart.
        latin: in Latin letters, read both ways.
        aliases: further spellings, read both ways.
        han: simplified, without spaces.
        pinyin: family name first, `shan wei`.
    """
    letters = "".join(_HAN.findall(han or (full if _HAN.search(full) else f"{family}{given}")))
    if placeholders.is_name(letters):
        return Names()
    forms: dict[NameForm, None] = {}
    given_letters, family_letters = _words(given), _words(family)
    if given_letters or family_letters:
        form = NameForm("".join(given_letters), "".join(family_letters))
        if not placeholders.is_name(f"{form.given} {form.family}".strip()):
            forms[form] = None
    syllables = _words(pinyin)
    if len(syllables) > 1:
        forms[NameForm("".join(syllables[1:]), syllables[0])] = None
    # A whole name beside its parts says nothing new, unless it is in another script.
    for text in ((full,) if not forms else ()) + ((latin,) if latin else ()) + tuple(aliases):
        if not placeholders.is_name(names.folded(text)):
            forms |= dict.fromkeys(_readings(text))
    return Names(tuple(forms), letters)


def organisation_names(full: str, latin: str = "", aliases: Iterable[str] = (), han: str = "") -> Names:
    """The readings of an organisation's name, without its legal form."""
    forms: dict[NameForm, None] = {}
    for text in (full, latin, *aliases):
        words = [word for word in re.findall(r"\w+", names.folded(text).replace(".", "")) if not _HAN.search(word)]
        while len(words) > 1 and words[-1] in LEGAL_FORMS:
            words.pop()
        if words and not placeholders.is_name(" ".join(words)):
            forms[NameForm("", "".join(words))] = None
    letters = "".join(_HAN.findall(han or full))
    return Names(tuple(forms), _HAN_LEGAL_FORMS.sub("", letters) or letters, undivided=True)


def address(lines: Sequence[str], locality: str = "", postcode: str = "") -> AddressForm:
    """An address in parts: words line by line, numbers of all lines."""
    texts = [names.folded(line) for line in lines]
    streets = ["".join(_LETTERS.findall(text)) for text in texts]
    return AddressForm(
        streets=tuple(filter(None, streets)),
        numbers=tuple(number for text in texts for number in _NUMBERS.findall(text)),
        locality="".join(_LETTERS.findall(names.folded(locality))),
        postcode="".join(filter(str.isalnum, names.folded(postcode))),
    )


@lru_cache(names.CACHED_MAX)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_UMLAUT.sub("u", word) for word in _LETTERS.findall(names.folded(text)) if not _HAN.search(word))


def _readings(text: str) -> list[NameForm]:
    """A whole name read with the family name last, and with the family name first; a comma says which it is."""
    before, comma, after = text.partition(",")
    if comma and _words(after) and not set(_words(after)) <= TITLES:
        return [NameForm("".join(_words(after)), "".join(_words(before)))]
    words = tuple(word for word in _words(text) if word not in TITLES) or _words(text)
    if len(words) < 2:
        return [NameForm("", word) for word in words] + [NameForm(word, "") for word in words]
    last = next((place for place, word in enumerate(words[1:-1], 1) if word in PARTICLES), len(words) - 1)
    return [
        NameForm("".join(words[:last]), "".join(words[last:])),
        NameForm("".join(words[1:]), words[0]),
    ]
