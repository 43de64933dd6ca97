"""Telephone numbers and e-mail addresses: their standard form, whether they can exist, and what a number is used for."""

import re
import unicodedata
from functools import cache, lru_cache
from typing import Any, NamedTuple

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers import PhoneNumberType

LOCAL_CHARACTERS_MAX = 64
ADDRESS_CHARACTERS_MAX = 254
DOMAINS_CACHED_MAX = 50_000
_PLAIN_LOCAL = re.compile(r"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*")
_INTERNATIONAL = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
COUNTRY_DIGITS_MAX = 3
_OTHER_KINDS = ("fixed_line", "toll_free", "premium_rate", "shared_cost", "voip", "uan", "voicemail")
_MOBILE = frozenset({PhoneNumberType.MOBILE, PhoneNumberType.PAGER, PhoneNumberType.PERSONAL_NUMBER})


class Phone(NamedTuple):
    """A number as E.164 where it is valid, otherwise as stated; `mobile` where it is surely one."""

    number: str
    valid: bool
    mobile: bool = False


def phone(number: str, country_code: str) -> Phone:
    """A telephone number in standard form. One without prefix is read as one of the country."""
    text = (number if number.isascii() else unicodedata.normalize("NFKC", number)).strip()
    if _INTERNATIONAL.fullmatch(text) and _is_mobile(text):
        return Phone(text, True, mobile=True)
    try:
        parsed = phonenumbers.parse(text, country_code or None)
    except phonenumbers.NumberParseException:
        return Phone(text, False)
    kind = phonenumbers.number_type(parsed)
    if kind == PhoneNumberType.UNKNOWN:  # the same as is_valid_number, without matching all patterns a second time for the kind
        return Phone(text, False)
    return Phone(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164), True, kind in _MOBILE)


def _is_mobile(text: str) -> bool:
    """Whether a number in E.164 is surely a mobile one, told at sight: reading a number in full takes ten times as long."""
    for place in range(2, 2 + COUNTRY_DIGITS_MAX):
        forms = _forms(text[1:place])
        if forms is not None:
            mobile, others = forms
            return bool(mobile.fullmatch(text, place)) and not any(other.fullmatch(text, place) for other in others)
    return False


@cache
def _forms(country_digits: str) -> tuple[re.Pattern[str], tuple[re.Pattern[str], ...]] | None:
    """The forms of mobile and of other numbers behind a country's digits; None where a form alone does not tell."""
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(country_digits), ())
    country = phonenumbers.PhoneMetadata.metadata_for_region(regions[0], None) if len(regions) == 1 else None
    mobile, *others = [_form(getattr(country, kind, None)) for kind in ("mobile", *_OTHER_KINDS)]
    return (mobile, tuple(other for other in others if other)) if mobile else None


def _form(kind: Any) -> re.Pattern[str] | None:
    form = kind.national_number_pattern if kind is not None else None
    return re.compile(form) if form and form != "NA" else None


def email(address: str) -> tuple[str, bool]:
    """An address in its normal form where it is well formed, otherwise as stated. Nobody is asked whether it exists."""
    text = (address if address.isascii() else unicodedata.normalize("NFC", address)).strip()
    local, _, domain = text.partition("@")
    if len(local) <= LOCAL_CHARACTERS_MAX and _PLAIN_LOCAL.fullmatch(local):
        # Most parts before the @ obey every rule at sight, and most domains come again and again.
        normal = _domain(domain)
        if normal and len(local) + len(normal) < ADDRESS_CHARACTERS_MAX:
            return f"{local}@{normal}", True
    try:
        return validate_email(text, check_deliverability=False).normalized, True
    except EmailNotValidError:
        return text, False


@lru_cache(DOMAINS_CACHED_MAX)
def _domain(domain: str) -> str:
    try:
        return validate_email(f"a@{domain}", check_deliverability=False).domain
    except EmailNotValidError:
        return ""
