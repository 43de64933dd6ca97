"""Documents of China: resident cards, residence and travel permits, credit codes, passports."""

import re
from datetime import date
from functools import lru_cache
from operator import mul
from typing import NamedTuple

from stdnum import numdb
from stdnum.cn import uscc

RESIDENT_CARD = re.compile(r"[1-9]\d{16}[0-9X]")
OLD_RESIDENT_CARD = re.compile(r"[1-9]\d{14}")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_DIGITS = "10X98765432"
# Residence permits of people from Hong Kong, Macau and Taiwan; python-stdnum refuses their regions.
_PERMIT_REGIONS = {"810000", "820000", "830000"}
FOREIGN_RESIDENT_CARD = re.compile(r"9[1-9]\d{15}[0-9X]")
"""Permanent residents since 2023: 9, province, nationality, the rest as on a resident card."""
OLD_FOREIGN_RESIDENT_CARD = re.compile(r"[A-Z]{3}\d{12}")
HOME_RETURN_PERMIT = re.compile(r"[HM]\d{8}(\d{2})?")
"""Mainland travel permit of a Hong Kong (H) or Macau (M) resident; two digits of renewals may follow."""
TAIWAN_PERMIT = re.compile(r"\d{8}|\d{10}[A-Z]?|T\d{8}")
EXIT_PERMIT = re.compile(r"[CW][A-Z0-9]\d{7}|[LT][A-Z0-9]?\d{7,8}")
"""To Hong Kong and Macau, and to Taiwan."""
PASSPORT = re.compile(r"[EGDSPKHM][A-Z]?\d{7,8}|1[45]\d{7}")
_CODE_ALPHABET = frozenset("0123456789ABCDEFGHJKLMNPQRTUWXY")
_FEMALE, _MALE = 1, 2


class Card(NamedTuple):
    """What a card says; `reason` is empty when it is right."""

    number: str
    reason: str
    birth_date: str = ""
    sex: int = 0


def check_digit(body: str) -> str:
    """The check digit of the first 17 digits of a resident card (ISO 7064 Mod 11-2)."""
    return _CHECK_DIGITS[sum(map(mul, map(int, body), _WEIGHTS)) % 11]


def resident_card(number: str) -> Card:
    """A resident card or residence permit in its 18-digit form; one of 15 digits is completed, unless it fails a check."""
    stated = number
    if OLD_RESIDENT_CARD.fullmatch(number):  # until 1999: two digits of the year, no check digit
        body = f"{number[:6]}19{number[6:]}"
        number = body + check_digit(body)
    if not RESIDENT_CARD.fullmatch(number):
        return Card(stated, "FORM_WRONG" if len(number) in (15, 18) else "LENGTH_WRONG")
    born = _day(number[6:14])
    if not born:
        return Card(stated, "DATE_IMPOSSIBLE")
    foreign = number[0] == "9" and number[1:3] in _provinces()
    if not foreign and number[:6] not in _PERMIT_REGIONS and not is_region(number[:6]):
        return Card(stated, "COMPONENT_WRONG")
    if number[17] != check_digit(number[:17]):
        return Card(stated, "CHECK_DIGIT_WRONG")
    return Card(number, "", born, _MALE if int(number[16]) % 2 else _FEMALE)


def permit(number: str) -> Card | None:
    """A permit of a kind that is known; None for another."""
    if len(number) == 18 or (len(number) == 15 and number.isdecimal()):
        return resident_card(number)
    if number[:1] in ("H", "M") and number[1:].isdecimal():
        return Card(number, "" if HOME_RETURN_PERMIT.fullmatch(number) else "LENGTH_WRONG")
    known = (TAIWAN_PERMIT, EXIT_PERMIT, OLD_FOREIGN_RESIDENT_CARD)
    return Card(number, "") if any(form.fullmatch(number) for form in known) else None


def credit_code(number: str) -> str:
    """Why a number is no unified social credit code (GB 32100); empty when it is one."""
    if len(number) != 18:
        return "LENGTH_WRONG"
    if not number[:8].isalnum() or not set(number) <= _CODE_ALPHABET or not number[2:8].isdecimal():
        return "FORM_WRONG"
    return "" if number[17] == uscc.calc_check_digit(number[:17]) else "CHECK_DIGIT_WRONG"


def _day(digits: str) -> str:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).isoformat()
    except ValueError:
        return ""


@lru_cache(1)
def _provinces() -> frozenset[str]:
    return frozenset(f"{code}" for code in range(11, 83) if numdb.get("cn/loc").info(f"{code}0000")[0][1])


@lru_cache(10_000)
def is_region(code: str) -> bool:
    """Whether a region code is, or ever was, one of GB/T 2260. The year does not matter: a card names the place of its first
    registration, which may be younger than its holder, and python-stdnum would refuse such cards."""
    return any("county" in known for _, known in numdb.get("cn/loc").info(code))
