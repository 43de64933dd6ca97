"""How far two values agree: for each attribute one scale of levels, from "differs" (0) upwards. None: nothing to compare.

Every function is symmetric, and compares letters, not bytes: Han letters are equal or not, pinyin and Latin letters may be close.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from itertools import product
from typing import Any

from rapidfuzz.distance import OSA, JaroWinkler

from customer.domain.features import RENEWABLE_SCHEMES, AddressForm, DocumentNumber, Features, NameForm, Names

WHOLE_NAME_CLOSE_MIN = 0.92
PART_CLOSE_MIN = 0.9
STREET_CLOSE_MIN = 0.88
INITIAL_LETTERS_MAX = 1
NUMBERS_OF_TWINS_APART_MAX = 3


class NameLevel(IntEnum):
    """Of names. One scale, because a name and its parts are one fact."""

    DIFFERENT = 0
    PART_CLOSE = 1
    FAMILY_SAME = 2
    GIVEN_SAME = 3
    ONE_PART_ONLY = 4
    CLOSE = 5
    SWAPPED = 6
    SAME = 7
    SAME_HAN = 8


class DateLevel(IntEnum):
    """Of birth dates."""

    DIFFERENT = 0
    ONE_PART_SAME = 1
    TWO_PARTS_SAME = 2
    ONE_EDIT = 3
    SAME = 4


class NumberLevel(IntEnum):
    """Of document numbers."""

    DIFFERENT = 0
    TWO_EDITS = 1
    ONE_EDIT = 2
    SAME = 3


class PhoneLevel(IntEnum):
    """Of telephone numbers."""

    DIFFERENT = 0
    ONE_EDIT = 1
    SAME = 2


class EmailLevel(IntEnum):
    """Of e-mail addresses."""

    DIFFERENT = 0
    CLOSE = 1
    SAME_LOCAL_PART = 2
    SAME = 3


class AddressLevel(IntEnum):
    """Of postal addresses. One scale, because street, town and postcode are one fact."""

    DIFFERENT = 0
    AREA_ONLY = 1
    PARTLY = 2
    AREA = 3
    STREET_AND_AREA = 4
    STREET_AND_NUMBER = 5
    WHOLE = 6


class SexLevel(IntEnum):
    """Of the sex."""

    DIFFERENT = 0
    SAME = 1


# ---- names


def name_level(one: Names, other: Names) -> NameLevel | None:
    """The best agreement of any two readings. Different Han letters that sound alike are only close."""
    if one.han and one.han == other.han and len(one.han) > 1:
        return NameLevel.SAME_HAN
    if not (one.forms and other.forms):
        return NameLevel.DIFFERENT if one.han and other.han else None
    level = max(_form_level(mine, theirs) for mine, theirs in product(one.forms, other.forms))
    if one.undivided and other.undivided and level is NameLevel.ONE_PART_ONLY:
        return NameLevel.SAME
    if one.han and other.han and level >= NameLevel.CLOSE:
        # Brothers share a letter of the given name, and sound alike: letters decide, as far as both have them.
        if level > NameLevel.CLOSE or _letters_shared(one.han, other.han):
            return NameLevel.CLOSE
        return NameLevel.FAMILY_SAME if one.han[0] == other.han[0] else NameLevel.PART_CLOSE
    return level


def _letters_shared(one: str, other: str) -> bool:
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) <= 1


def _form_level(one: NameForm, other: NameForm) -> NameLevel:
    if one.given == other.given and one.family == other.family:
        return NameLevel.SAME if one.family and one.given else NameLevel.ONE_PART_ONLY
    if one.given and one.family and one.given == other.family and one.family == other.given:
        return NameLevel.SWAPPED
    if not (one.given and one.family and other.given and other.family):
        return _incomplete_level(one, other)
    family, given = _part_agreement(one.family, other.family), _part_agreement(one.given, other.given)
    if family + given >= 3 or (family and given):
        return NameLevel.CLOSE
    if given == 2:
        return NameLevel.GIVEN_SAME
    if family == 2:
        return NameLevel.FAMILY_SAME
    if _whole_close(one, other):
        return NameLevel.CLOSE
    return NameLevel.PART_CLOSE if family or given else NameLevel.DIFFERENT


def _incomplete_level(one: NameForm, other: NameForm) -> NameLevel:
    """Of a reading that lacks a part: organisations, single names, and what got lost."""
    mine, theirs = f"{one.given}{one.family}", f"{other.given}{other.family}"
    if (one.given and one.given in (other.given, other.family)) or (one.family and one.family in (other.family, other.given)):
        return NameLevel.ONE_PART_ONLY
    if JaroWinkler.similarity(mine, theirs) >= WHOLE_NAME_CLOSE_MIN:
        return NameLevel.CLOSE
    close = (_part_agreement(a, b) for a in (one.given, one.family) for b in (other.given, other.family) if a and b)
    return NameLevel.PART_CLOSE if any(close) else NameLevel.DIFFERENT


def given_close(one: NameForm, other: NameForm) -> bool:
    """Whether the given names of two readings agree, perhaps but for a slip, or stand where the other has the family name."""
    if one.family and other.family and _part_agreement(one.given, other.family) and _part_agreement(one.family, other.given):
        return True
    if not (one.given and other.given):
        return not one.given and not other.given
    return _part_agreement(one.given, other.given) > 0 or (
        min(len(one.given), len(other.given)) >= 3 and OSA.distance(one.given, other.given, score_cutoff=1) <= 1
    )


def _part_agreement(one: str, other: str) -> int:
    """2: the same; 1: close (one edit, a spelling, an initial, a first of several given names); 0: neither."""
    if one == other:
        return 2
    short, long = sorted((one, other), key=len)
    if len(short) <= INITIAL_LETTERS_MAX:
        return int(long.startswith(short))
    if len(short) >= 3 and long.startswith(short):
        return 1
    if len(short) >= 4 and OSA.distance(one, other, score_cutoff=1) <= 1:
        return 1
    return int(JaroWinkler.similarity(one, other, score_cutoff=PART_CLOSE_MIN) > 0)


def _whole_close(one: NameForm, other: NameForm) -> bool:
    mine = one.family + one.given
    return any(
        JaroWinkler.similarity(mine, theirs, score_cutoff=WHOLE_NAME_CLOSE_MIN) > 0
        for theirs in (other.family + other.given, other.given + other.family)
    )


# ---- dates, numbers, contact points


def date_level(one: str, other: str) -> DateLevel | None:
    """Of dates of eight digits."""
    if not (one and other):
        return None
    if one == other:
        return DateLevel.SAME
    swapped = one[:4] == other[:4] and one[4:6] == other[6:] and one[6:] == other[4:6]
    if swapped or OSA.distance(one, other, score_cutoff=1) <= 1:
        return DateLevel.ONE_EDIT
    same = (one[:4] == other[:4]) + (one[4:6] == other[4:6]) + (one[6:] == other[6:])
    return DateLevel(min(same, DateLevel.TWO_PARTS_SAME))


def document_level(one: Iterable[DocumentNumber], other: Iterable[DocumentNumber]) -> NumberLevel | None:
    """The best agreement of two documents of one scheme and country. Another passport says nothing: it may be the next one."""
    best: NumberLevel | None = None
    for mine, theirs in product(one, other):
        if mine.scheme != theirs.scheme or mine.country_code != theirs.country_code:
            continue
        level = _number_level(mine, theirs)
        if level is not None and (best is None or level > best):
            best = level
    return best


def _number_level(one: DocumentNumber, other: DocumentNumber) -> NumberLevel | None:
    if one.number == other.number:
        return NumberLevel.SAME
    if one.scheme in RENEWABLE_SCHEMES:
        return None
    if one.checked and other.checked:  # both passed their check digits: no slip of a finger lies between them
        return NumberLevel.DIFFERENT
    edits = OSA.distance(one.number, other.number, score_cutoff=2)
    return (NumberLevel.SAME, NumberLevel.ONE_EDIT, NumberLevel.TWO_EDITS, NumberLevel.DIFFERENT)[edits]


def one_slip(one: Iterable[DocumentNumber], other: Iterable[DocumentNumber]) -> bool:
    """Whether two documents are one, a slip apart. Numbers that follow one another are no slip: twins get them."""
    return any(
        mine.scheme == theirs.scheme
        and mine.country_code == theirs.country_code
        and _number_level(mine, theirs) == NumberLevel.ONE_EDIT
        and not _follow_one_another(mine.number, theirs.number)
        for mine, theirs in product(one, other)
    )


def _follow_one_another(one: str, other: str) -> bool:
    mine, theirs = "".join(filter(str.isdigit, one)), "".join(filter(str.isdigit, other))
    return len(mine) == len(theirs) and abs(int(mine or 0) - int(theirs or 0)) <= NUMBERS_OF_TWINS_APART_MAX


def phone_level(one: frozenset[str], other: frozenset[str]) -> PhoneLevel | None:
    """The best agreement of two numbers."""
    if not (one and other):
        return None
    if not one.isdisjoint(other):
        return PhoneLevel.SAME
    close = any(OSA.distance(mine, theirs, score_cutoff=1) <= 1 for mine, theirs in product(one, other))
    return PhoneLevel.ONE_EDIT if close else PhoneLevel.DIFFERENT


def email_level(one: frozenset[str], other: frozenset[str]) -> EmailLevel | None:
    """The best agreement of two addresses."""
    if not (one and other):
        return None
    if not one.isdisjoint(other):
        return EmailLevel.SAME
    return max(_address_level(mine, theirs) for mine, theirs in product(one, other))


def _address_level(one: str, other: str) -> EmailLevel:
    mine, theirs = one.rpartition("@"), other.rpartition("@")
    if mine[0] == theirs[0] and len(mine[0]) >= 5:
        return EmailLevel.SAME_LOCAL_PART
    return EmailLevel.CLOSE if OSA.distance(one, other, score_cutoff=1) <= 1 else EmailLevel.DIFFERENT


def sex_level(one: int, other: int) -> SexLevel | None:
    """Of stated sexes."""
    return SexLevel(one == other) if one and other else None


# ---- addresses


def address_level(one: Iterable[AddressForm], other: Iterable[AddressForm]) -> AddressLevel | None:
    """The best agreement of two addresses."""
    levels = [level for mine, theirs in product(one, other) if (level := _place_level(mine, theirs)) is not None]
    return max(levels, default=None)


def _place_level(one: AddressForm, other: AddressForm) -> AddressLevel | None:
    parts = (
        _stated(one.streets, other.streets, _same_street),
        _stated(one.numbers, other.numbers, _same_numbers),
        _stated(one.postcode, other.postcode, str.__eq__),
        _stated(one.locality, other.locality, _same_words),
    )
    if all(part is None for part in parts):
        return None
    street, number, postcode, locality = map(bool, parts)
    area = postcode or locality
    if street and number:
        return AddressLevel.WHOLE if area else AddressLevel.STREET_AND_NUMBER
    agree = not any(part is False for part in parts)
    if street and (area or agree):
        return AddressLevel.STREET_AND_AREA
    if agree:  # as far as both state it
        return AddressLevel.AREA
    if street or (number and area) or (postcode and locality):
        return AddressLevel.PARTLY
    return AddressLevel.AREA_ONLY if area else AddressLevel.DIFFERENT


def _stated(one: Any, other: Any, same: Callable[[Any, Any], bool]) -> bool | None:
    return same(one, other) if one and other else None


def _same_numbers(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    mine, theirs = set(one), set(other)
    return mine <= theirs or theirs <= mine


def _same_words(one: str, other: str) -> bool:
    return one == other or (len(min(one, other, key=len)) >= 4 and JaroWinkler.similarity(one, other) >= PART_CLOSE_MIN)


def _same_street(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return any(
        mine == theirs or (min(len(mine), len(theirs)) >= 5 and JaroWinkler.similarity(mine, theirs) >= STREET_CLOSE_MIN)
        for mine, theirs in product(one, other)
    )


# ---- all together

COMPARISONS: dict[str, tuple[type[IntEnum], Callable[[Features], Any], Callable[[Any, Any], IntEnum | None]]] = {
    "name": (NameLevel, lambda features: features.names, name_level),
    "birth_date": (DateLevel, lambda features: features.birth_date, date_level),
    "identifier": (NumberLevel, lambda features: features.documents, document_level),
    "phone": (PhoneLevel, lambda features: features.phones, phone_level),
    "email": (EmailLevel, lambda features: features.emails, email_level),
    "address": (AddressLevel, lambda features: features.addresses, address_level),
    "sex": (SexLevel, lambda features: features.sex, sex_level),
}
"""By attribute: its levels, the part of the evidence that it compares, and how."""


def levels(one: Features, other: Features) -> dict[str, IntEnum]:
    """The level of every attribute that both state."""
    found = {attribute: compare(part(one), part(other)) for attribute, (_, part, compare) in COMPARISONS.items()}
    return {attribute: level for attribute, level in found.items() if level is not None}
