"""Values that stand for "not known": no evidence, and never a key. The list is data: `customer/data/placeholders.json`."""

import json
from functools import cache
from importlib import resources

REPEATED_CHARACTERS_MIN = 4
"""From so many on, one repeated character is nobody's value: 0000, 99999999."""
_COUNTING = ("01234567890123456789", "98765432109876543210")
COUNTED_DIGITS_MIN = 6


@cache
def _known(kind: str) -> frozenset[str]:
    listed = json.loads(resources.files("customer").joinpath("data/placeholders.json").read_text(encoding="utf-8"))
    return frozenset(listed[kind])


def is_birth_date(digits: str) -> bool:
    """Whether eight digits of a date, `19000101`, are what people enter when they do not know."""
    return digits in _known("birth_dates") or _is_repeated(digits)


def is_phone(number: str) -> bool:
    """Whether a telephone number is a well-known filler, in national or international form."""
    bare = number.removeprefix("+")
    digits = bare if bare.isdigit() else "".join(filter(str.isdigit, number))
    known = _known("phone_digits")
    # Country prefixes have one to three digits; the filler is what follows.
    tails = (digits, digits[1:], digits[2:], digits[3:])
    ends_alike = digits[-2:-1] == digits[-1:]
    return not known.isdisjoint(tails) or (ends_alike and any(map(_is_repeated, tails))) or _is_counted(digits)


def is_email(address: str) -> bool:
    """Whether an address (casefolded) is a filler, or a mailbox that many share."""
    local, _, domain = address.partition("@")
    known = _known("email_locals") | _known("shared_email_locals")
    return local in known or domain in _known("email_domains") or _is_repeated(local)


def is_document(number: str) -> bool:
    """Whether the plain number of a document is a filler or the example of a standard."""
    digits = number if number.isdigit() else "".join(filter(str.isdigit, number))
    return number in _known("document_numbers") or not digits or _is_repeated(digits) or _is_counted(digits)


def is_name(folded: str) -> bool:
    """Whether a folded name names nobody."""
    return folded in _known("names") or (len(folded) >= REPEATED_CHARACTERS_MIN and len(set(folded)) == 1)


def _is_repeated(text: str) -> bool:
    return len(text) >= REPEATED_CHARACTERS_MIN and text[0] == text[1] and text == text[0] * len(text)


def _is_counted(digits: str) -> bool:
    return len(digits) >= COUNTED_DIGITS_MIN and any(digits in row for row in _COUNTING)
