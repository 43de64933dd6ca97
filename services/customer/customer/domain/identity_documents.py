"""Numbers of identity documents and registrations: their standard form, and whether they obey their scheme."""

import importlib
import re
import unicodedata
from datetime import date
from functools import cache
from typing import Any

from stdnum import numdb
from stdnum.exceptions import ValidationError

from customer.domain.vocabulary import IdentifierScheme

NUMBER_CHARACTERS_MIN = 4
PLACEHOLDER_DIGITS_MIN = 6
EARLIEST_BIRTH_YEAR = 1850
_WORLDWIDE = "ZZ"
_NOT_PLAIN = re.compile(r"[^0-9A-Z]")
_COUNTING = "01234567890123456789"

# Modules of python-stdnum that know a scheme of a country; the first that accepts a number wins.
# Where none is named, a number only has to be well formed.
_MODULES: dict[IdentifierScheme, dict[str, str]] = {
    IdentifierScheme.NATIONAL_ID: {
        "BE": "be.nn", "BG": "bg.egn", "BR": "br.cpf", "CH": "ch.ssn", "CL": "cl.rut", "CZ": "cz.rc", "DK": "dk.cpr",
        "EE": "ee.ik", "ES": "es.dni es.nie", "FI": "fi.hetu", "FR": "fr.nir", "GR": "gr.amka", "IL": "il.idnr",
        "IN": "in_.aadhaar", "IS": "is_.kennitala", "IT": "it.codicefiscale", "KR": "kr.rrn", "LT": "lt.asmens",
        "LV": "lv.pvn", "MY": "my.nric", "NL": "nl.bsn", "NO": "no.fodselsnummer", "PL": "pl.pesel", "RO": "ro.cnp",
        "SE": "se.personnummer", "SK": "sk.rc", "TH": "th.pin", "TR": "tr.tckimlik", "US": "us.ssn", "ZA": "za.idnr",
    },
    IdentifierScheme.ORGANISATION_REGISTRATION: {
        "AU": "au.acn au.abn", "BR": "br.cnpj", "CN": "cn.uscc", "CZ": "cz.dic", "DK": "dk.cvr", "EE": "ee.registrikood",
        "FI": "fi.ytunnus", "FR": "fr.siren fr.siret", "JP": "jp.cn", "KR": "kr.brn", "NO": "no.orgnr", "PL": "pl.regon",
        "SE": "se.orgnr", "SG": "sg.uen", "TW": "tw.ubn",
    },
    IdentifierScheme.TAX_NUMBER: {
        "BR": "br.cpf br.cnpj", "CN": "cn.uscc", "CZ": "cz.dic cz.rc", "DE": "de.idnr", "ES": "es.nif", "FR": "fr.nif",
        "GB": "gb.utr", "IN": "in_.pan", "IT": "it.codicefiscale", "PL": "pl.nip pl.pesel", "PT": "pt.nif",
        "US": "us.tin",
    },
}  # fmt: skip

_RESIDENT_CARD = {IdentifierScheme.NATIONAL_ID, IdentifierScheme.PERMIT}
_RESIDENT_CARD_FORM = re.compile(r"[1-9]\d{16}[0-9X]")
_OLD_RESIDENT_CARD_FORM = re.compile(r"[1-9]\d{14}")
# Residence permits of people from Hong Kong, Macau and Taiwan; python-stdnum refuses their regions.
_PERMIT_REGIONS = {"810000", "820000", "830000"}


def plain(number: str) -> str:
    """A number without case, width, spaces and punctuation; one that is nothing else is kept as it is."""
    return _NOT_PLAIN.sub("", unicodedata.normalize("NFKC", number).upper()) or number


def standardised(scheme: int, country_code: str, number: str) -> tuple[str, bool]:
    """The standard form of a number, and whether it passes its scheme's own rules. A failing number is only made plain."""
    known_scheme = IdentifierScheme(scheme)
    if known_scheme in _RESIDENT_CARD and country_code == "CN":
        card = _resident_card(plain(number))
        if card is not None or known_scheme is IdentifierScheme.NATIONAL_ID:
            return (card, True) if card is not None else (plain(number), False)
    modules = "lei" if known_scheme is IdentifierScheme.LEI else _MODULES.get(known_scheme, {}).get(country_code)
    if modules is None:
        return plain(number), _is_well_formed(plain(number))
    for name in modules.split():
        try:
            return plain(_module(name).validate(unicodedata.normalize("NFKC", number))), True
        except ValidationError:
            continue
    return plain(number), False


def issuing_country(scheme: int, country_code: str) -> str:
    """The country within which a number is unique; an LEI is unique in the world."""
    return _WORLDWIDE if scheme == IdentifierScheme.LEI else country_code


def is_birth_date(text: str, today: date) -> bool:
    """Whether a text is a day on which somebody alive may have been born."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return False
    return day.year >= EARLIEST_BIRTH_YEAR and day <= today


@cache
def _module(name: str) -> Any:
    return importlib.import_module(f"stdnum.{name}")


def _is_well_formed(number: str) -> bool:
    """A number has different digits, is long enough, and is not a placeholder such as 000000 or 123456."""
    digits = "".join(letter for letter in number if letter.isdigit())
    counted = len(digits) >= PLACEHOLDER_DIGITS_MIN and digits in _COUNTING
    return len(number) >= NUMBER_CHARACTERS_MIN and len(set(digits)) > 1 and not counted


def _resident_card(number: str) -> str | None:
    """A valid Chinese resident card or residence permit in its 18-digit form; None when it is not one."""
    if _OLD_RESIDENT_CARD_FORM.fullmatch(number):  # until 1999: two digits of the year, no check digit
        number = f"{number[:6]}19{number[6:]}0"
        number = number[:17] + _module("cn.ric").calc_check_digit(number)
    if not _RESIDENT_CARD_FORM.fullmatch(number):
        return None
    ric = _module("cn.ric")
    try:
        ric.get_birth_date(number)
    except ValidationError:
        return None
    right = number[17] == ric.calc_check_digit(number) and (number[:6] in _PERMIT_REGIONS or _is_chinese_region(number[:6]))
    return number if right else None


def _is_chinese_region(code: str) -> bool:
    """Whether a region code is, or ever was, one of GB/T 2260. The year does not matter: a card names the place of its first
    registration, which may be younger than its holder, and python-stdnum would refuse such cards."""
    return any("county" in known for _, known in numdb.get("cn/loc").info(code))
