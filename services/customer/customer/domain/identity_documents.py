"""Numbers of identity documents and registrations: their standard form, whether they obey their scheme, and what they say."""

import importlib
import re
import unicodedata
from datetime import date
from functools import cache, lru_cache
from typing import Any, NamedTuple

from stdnum.exceptions import InvalidChecksum, InvalidFormat, InvalidLength, ValidationError

from customer.domain import chinese_documents
from customer.domain.vocabulary import IdentifierScheme

NUMBER_CHARACTERS_MIN = 4
PASSPORT_CHARACTERS_MAX = 14
PLACEHOLDER_DIGITS_MIN = 6
CHECKED_CACHED_MAX = 1_000
"""A number is asked about more than once while its record is prepared."""
EARLIEST_BIRTH_YEAR = 1850
_WORLDWIDE = "ZZ"
_NOT_PLAIN = re.compile(r"[^0-9A-Z]")
_COUNTING = "01234567890123456789"

# Modules of python-stdnum that know a scheme of a country; the first that accepts a number wins.
# Where neither a module nor a form is named, a number only has to be well formed.
_MODULES: dict[IdentifierScheme, dict[str, str]] = {
    IdentifierScheme.NATIONAL_ID: {
        "AR": "ar.dni", "AT": "at.vnr", "BA": "si.emso", "BE": "be.nn be.bis", "BG": "bg.egn bg.pnf", "BR": "br.cpf",
        "CA": "ca.sin", "CH": "ch.ssn", "CL": "cl.rut", "CR": "cr.cpf cr.cr", "CU": "cu.ni", "CZ": "cz.rc", "DK": "dk.cpr",
        "DO": "do.cedula", "EC": "ec.ci", "EE": "ee.ik", "ES": "es.dni es.nie", "FI": "fi.hetu", "FR": "fr.nir",
        "GR": "gr.amka", "HR": "hr.oib", "ID": "id.nik", "IE": "ie.pps", "IL": "il.idnr", "IN": "in_.aadhaar",
        "IS": "is_.kennitala", "IT": "it.codicefiscale", "JP": "jp.in_", "KR": "kr.rrn", "LT": "lt.asmens", "LV": "lv.pvn",
        "ME": "si.emso", "MK": "si.emso", "MU": "mu.nid", "MX": "mx.curp", "MY": "my.nric", "NL": "nl.bsn",
        "NO": "no.fodselsnummer", "PE": "pe.cui", "PK": "pk.cnic", "PL": "pl.pesel", "PT": "pt.cc", "RO": "ro.cnp",
        "RS": "si.emso", "SE": "se.personnummer", "SI": "si.emso", "SK": "sk.rc", "TH": "th.pin", "TR": "tr.tckimlik",
        "UA": "ua.rntrc", "US": "us.ssn", "ZA": "za.idnr",
    },
    IdentifierScheme.ORGANISATION_REGISTRATION: {
        "AT": "at.businessid", "AU": "au.acn au.abn", "BE": "be.vat", "BG": "bg.vat", "BR": "br.cnpj", "CH": "ch.uid",
        "CZ": "cz.dic", "DK": "dk.cvr", "EE": "ee.registrikood", "ES": "es.cif", "FI": "fi.ytunnus",
        "FR": "fr.siren fr.siret", "IL": "il.hp", "JP": "jp.cn", "KR": "kr.brn", "NO": "no.orgnr", "PL": "pl.regon",
        "RO": "ro.cui", "RU": "ru.ogrn", "SE": "se.orgnr", "SG": "sg.uen", "SI": "si.maticna", "TW": "tw.ubn",
        "UA": "ua.edrpou",
    },
    IdentifierScheme.TAX_NUMBER: {
        "AR": "ar.cuit", "AU": "au.tfn au.abn", "BR": "br.cpf br.cnpj", "CA": "ca.sin ca.bn", "CZ": "cz.dic cz.rc",
        "DE": "de.idnr", "ES": "es.nif", "FR": "fr.nif", "GB": "gb.utr", "GR": "gr.vat", "HU": "hu.anum", "ID": "id.npwp",
        "IE": "ie.pps ie.vat", "IN": "in_.pan", "IT": "it.codicefiscale it.iva", "MX": "mx.rfc", "NL": "nl.bsn nl.btw",
        "NZ": "nz.ird", "PL": "pl.nip pl.pesel", "PT": "pt.nif", "RO": "ro.cui ro.cnp", "RU": "ru.inn",
        "TR": "tr.vkn tr.tckimlik", "US": "us.tin", "VN": "vn.mst", "ZA": "za.tin",
    },
}  # fmt: skip

# Forms of numbers that python-stdnum does not know.
_FORMS = {
    (IdentifierScheme.NATIONAL_ID, "GB"): re.compile(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]"),
    (IdentifierScheme.NATIONAL_ID, "HK"): re.compile(r"[A-Z]{1,2}\d{6}[0-9A]"),
    (IdentifierScheme.NATIONAL_ID, "MO"): re.compile(r"[157]\d{7}"),
    (IdentifierScheme.NATIONAL_ID, "SG"): re.compile(r"[STFGM]\d{7}[A-Z]"),
    (IdentifierScheme.NATIONAL_ID, "TW"): re.compile(r"[A-Z][1289A-D]\d{8}"),
    (IdentifierScheme.NATIONAL_ID, "VN"): re.compile(r"\d{9}|\d{12}"),
    (IdentifierScheme.PASSPORT, "CN"): chinese_documents.PASSPORT,
    (IdentifierScheme.PASSPORT, "GB"): re.compile(r"\d{9}"),
    (IdentifierScheme.PASSPORT, "HK"): re.compile(r"[HK][A-Z]?\d{8}"),
    (IdentifierScheme.PASSPORT, "IN"): re.compile(r"[A-Z]\d{7}"),
    (IdentifierScheme.PASSPORT, "JP"): re.compile(r"[A-Z]{2}\d{7}"),
    (IdentifierScheme.PASSPORT, "MO"): re.compile(r"M[A-Z]?\d{7,8}"),
    (IdentifierScheme.PASSPORT, "TW"): re.compile(r"\d{9}"),
    (IdentifierScheme.PASSPORT, "US"): re.compile(r"[A-Z]?\d{8,9}"),
}


class Checked(NamedTuple):
    """A number in its standard form; `reason` says which check it fails, empty for none. What it says of its holder follows:
    an ISO 8601 date, and a sex as numbered in the contracts; empty where it says nothing."""

    number: str
    reason: str = ""
    birth_date: str = ""
    sex: int = 0

    @property
    def valid(self) -> bool:
        """Whether it passes its scheme's own rules."""
        return not self.reason


def plain(number: str) -> str:
    """A number without case, width, spaces and punctuation; one that is nothing else is kept as it is."""
    return _NOT_PLAIN.sub("", (number if number.isascii() else unicodedata.normalize("NFKC", number)).upper()) or number


@lru_cache(CHECKED_CACHED_MAX)
def checked(scheme: int, country_code: str, number: str) -> Checked:
    """A number against the rules of its scheme and country. A failing number is only made plain."""
    known = IdentifierScheme(scheme)
    bare = plain(number)
    if country_code == "CN":
        chinese = _chinese(known, bare)
        if chinese is not None:
            return chinese
    modules = "lei" if known is IdentifierScheme.LEI else _MODULES.get(known, {}).get(country_code)
    if modules is not None:
        return _by_modules(modules.split(), number, bare)
    form = _FORMS.get((known, country_code))
    if form is not None and not form.fullmatch(bare):
        return Checked(bare, "FORM_WRONG")
    if known is IdentifierScheme.NATIONAL_ID and country_code in _CHECKS:
        return Checked(bare, "" if _CHECKS[country_code](bare) else "CHECK_DIGIT_WRONG")
    return Checked(bare, _malformed(known, bare))


def _chinese(scheme: IdentifierScheme, bare: str) -> Checked | None:
    if scheme is IdentifierScheme.NATIONAL_ID:
        return Checked(*chinese_documents.resident_card(bare))
    if scheme is IdentifierScheme.PERMIT:
        permit = chinese_documents.permit(bare)
        if permit is None:
            return None
        return Checked(*permit)._replace(reason=permit.reason or _malformed(scheme, bare))
    if scheme in (IdentifierScheme.ORGANISATION_REGISTRATION, IdentifierScheme.TAX_NUMBER):
        # Individuals' tax number is their resident card's.
        if scheme is IdentifierScheme.TAX_NUMBER and not chinese_documents.resident_card(bare).reason:
            return Checked(*chinese_documents.resident_card(bare))
        return Checked(bare, chinese_documents.credit_code(bare))
    return None


def _by_modules(modules: list[str], number: str, bare: str) -> Checked:
    # Some modules read the punctuation; what they refuse may still be right without it.
    reason = ""
    for text in dict.fromkeys((unicodedata.normalize("NFKC", number), bare)):
        reason = ""
        for name in modules:
            module = _module(name)
            try:
                standard = module.validate(text)
            except ValidationError as error:
                reason = reason or _reason(error)
                continue
            return Checked(plain(standard), "", _birth_date(module, standard), _sex(module, standard))
    return Checked(bare, reason)


def _reason(error: ValidationError) -> str:
    if isinstance(error, InvalidChecksum):
        return "CHECK_DIGIT_WRONG"
    if isinstance(error, InvalidLength):
        return "LENGTH_WRONG"
    return "FORM_WRONG" if isinstance(error, InvalidFormat) else "COMPONENT_WRONG"


def _birth_date(module: Any, number: str) -> str:
    read = getattr(module, "get_birth_date", None)
    try:
        born = read(number) if read else None
    except (ValidationError, ValueError):
        return ""
    return born.isoformat() if isinstance(born, date) else ""


def _sex(module: Any, number: str) -> int:
    read = getattr(module, "get_gender", None)
    try:
        return {"F": 1, "M": 2}.get(read(number), 0) if read else 0
    except (ValidationError, ValueError):
        return 0


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


def _malformed(scheme: IdentifierScheme, number: str) -> str:
    """A number has different digits, is long enough, and is not a placeholder such as 000000 or 123456."""
    digits = "".join(letter for letter in number if letter.isdigit())
    if len(number) < NUMBER_CHARACTERS_MIN or (scheme is IdentifierScheme.PASSPORT and len(number) > PASSPORT_CHARACTERS_MAX):
        return "LENGTH_WRONG"
    if len(digits) >= PLACEHOLDER_DIGITS_MIN and digits in _COUNTING:
        return "PLACEHOLDER"
    return "" if len(set(digits)) > 1 else "FORM_WRONG"


def _hong_kong(number: str) -> bool:
    # Letters count from 10, a missing first letter is 36, the check digit 10 is A.
    padded = number if len(number) == 9 else f" {number}"
    values = [36 if sign == " " else int(sign, 36) for sign in padded]
    return sum(value * weight for value, weight in zip(values, range(9, 0, -1), strict=True)) % 11 == 0


def _taiwan(number: str) -> bool:
    letters = "ABCDEFGHJKLMNPQRSTUVXYWZIO"
    area = letters.index(number[0]) + 10
    second = letters.index(number[1]) % 10 if number[1].isalpha() else int(number[1])
    digits = [area // 10, area % 10, second, *map(int, number[2:])]
    return sum(digit * weight for digit, weight in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


def _singapore(number: str) -> bool:
    total = sum(int(digit) * weight for digit, weight in zip(number[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    total += {"T": 4, "G": 4, "M": 3}.get(number[0], 0)
    if number[0] == "M":
        return number[8] == "XWUTRQPNJLK"[total % 11]
    return number[8] == ("JZIHGFEDCBA" if number[0] in "ST" else "XWUTRQPNMLK")[total % 11]


_CHECKS = {"HK": _hong_kong, "SG": _singapore, "TW": _taiwan}
