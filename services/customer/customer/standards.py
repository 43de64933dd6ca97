"""Parties in standard form: each value marked valid or flagged, nothing dropped. No I/O."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from typing import Any
from zoneinfo import available_timezones

from concord.customer.v1.attribute_pb2 import PartyKind, Sex
from concord.customer.v1.party_pb2 import ContactPointKind, Identifier, Party, PostalAddress, ValueFlag
from customer.domain import addresses, code_tables, contact_points, identity_documents, names, placeholders
from customer.domain.flags import Flag

AGE_YEARS_MAX = 120
_LETTERS = re.compile(r"[^\W\d_]")
_PARTY_TEXTS = ("birth_date", "language_code", "time_zone", "occupation")
_NAME_TEXTS = ("full_name", "given_name", "family_name", "latin_name")
_ADDRESS_TEXTS = ("locality", "administrative_area", "postal_code", "country_code")
_EMPLOYMENT_TEXTS = ("employer_name", "job_title", "occupation_code", "industry_code", "employment_status_code")
_DEMOGRAPHICS_TEXTS = ("marital_status_code", "education_level_code", "nationality_country_code")


def canonical(party: Party) -> Party:
    """What a source says, without differences that say nothing: composed letters, single spaces, nothing of ours."""
    same = Party()
    same.CopyFrom(party)
    same.DiscardUnknownFields()  # type: ignore[no-untyped-call,unused-ignore]
    _clean(same, _PARTY_TEXTS)
    if same.HasField("party_name"):
        name = same.party_name
        _clean(name, _NAME_TEXTS)
        name.han_simplified_name = name.pinyin_name = ""
        if name.aliases:
            name.aliases[:] = [alias for alias in map(_text, name.aliases) if alias]
    for address in (
        (same.postal_address, *same.additional_addresses) if same.HasField("postal_address") else same.additional_addresses
    ):
        _clean(address, _ADDRESS_TEXTS)
        address.address_lines[:] = [line for line in map(_text, address.address_lines) if line]
    for identifier in same.identifiers:
        identifier.value, identifier.issuer, identifier.valid = _text(identifier.value), _text(identifier.issuer), False
    for phone in same.phones:
        phone.number, phone.valid = _text(phone.number), False
    for email in same.emails:
        email.address, email.valid = _text(email.address), False
    if same.HasField("employment"):
        _clean(same.employment, _EMPLOYMENT_TEXTS)
    if same.HasField("demographics"):
        _clean(same.demographics, _DEMOGRAPHICS_TEXTS)
    del same.value_flags[:]
    return same


def _clean(message: Any, fields: Iterable[str]) -> None:
    for field in fields:
        before = getattr(message, field)
        if before:
            after = _text(before)
            if after != before:
                setattr(message, field, after)


def _text(text: str) -> str:
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


def standardised(party: Party, country_code: str, today: date | None = None) -> Party:
    """A canonical party in standard form. What fails a check is kept and flagged. Idempotent.

    Args:
        party: canonical.
        country_code: of the institution, for telephone numbers without prefix.
        today: against which expiry and ages are judged; the present day in UTC when not given.
    """
    day = today or datetime.now(UTC).date()
    standard = Party()
    standard.CopyFrom(party)
    flags = [
        *_identifiers(standard, day),
        *_birth_date(standard, day),
        *_name(standard),
        *_contact_points(standard, country_code),
        *_addresses(standard),
        *_language_and_zone(standard),
        *_employment_and_demographics(standard),
        *_dated(standard, day),
    ]
    del standard.value_flags[:]
    for flag in flags:
        standard.value_flags.add(field=flag.field, reason=flag.reason, description=flag.description)
    return standard


def reasons_by_value(party: Party) -> dict[str, tuple[str, ...]]:
    """The reasons for which values of a standardised party fail, by value: `identifiers[0]`, `birth_date`, `postal_address`."""
    reasons: dict[str, tuple[str, ...]] = {}
    for flag in party.value_flags:
        value = flag.field.partition(".")[0]
        reasons[value] = (*reasons.get(value, ()), flag.reason)
    return reasons


def flags_of(party: Party, stated: str, shown: str, today: date) -> Iterator[ValueFlag]:
    """What is wrong with one value of a standardised party: its flags, under the name by which the value is shown.

    Args:
        stated: the value's place in the party, `identifiers[2]`.
        shown: its place where it is shown, `identifiers[0]`.
        today: a document that was valid when it was standardised may have expired since.
    """
    expired = False
    for flag in party.value_flags:
        value, dot, part = flag.field.partition(".")
        if value == stated:
            expired |= flag.reason == "EXPIRED"
            yield ValueFlag(field=f"{shown}{dot}{part}", reason=flag.reason, description=flag.description)
    if stated.startswith("identifiers[") and not expired:
        end = party.identifiers[int(stated.removeprefix("identifiers[").removesuffix("]"))].valid_until_date
        ends = _day(end)
        if ends is not None and ends < today:
            late = Flag(f"{shown}.valid_until_date", "EXPIRED")
            yield ValueFlag(field=late.field, reason=late.reason, description=late.description)


@cache
def time_zones() -> frozenset[str]:
    """The names of the IANA time zones."""
    return frozenset(available_timezones())


# ---- documents, and what they say of their holder


def _identifiers(party: Party, today: date) -> Iterator[Flag]:
    for place, identifier in enumerate(party.identifiers):
        field = f"identifiers[{place}]"
        identifier.country_code = code_tables.COUNTRY_ALIASES.get(identifier.country_code, identifier.country_code)
        checked = identity_documents.checked(identifier.scheme, identifier.country_code, identifier.value)
        identifier.value = checked.number
        known_country = code_tables.is_country(identifier.country_code)
        identifier.valid = checked.valid and known_country
        if not known_country:
            yield Flag(f"{field}.country_code", "COUNTRY_UNKNOWN")
        if checked.reason:
            yield Flag(f"{field}.value", checked.reason)
        elif placeholders.is_document(checked.number):
            yield Flag(f"{field}.value", "PLACEHOLDER")
        else:
            yield from _holder(party, checked)
        yield from _validity(identifier, field, today)


def _holder(party: Party, checked: identity_documents.Checked) -> Iterator[Flag]:
    if checked.birth_date and party.birth_date and checked.birth_date != party.birth_date:
        yield Flag("birth_date", "BIRTH_DATE_DIFFERS")
    if checked.sex and party.sex in (Sex.SEX_FEMALE, Sex.SEX_MALE) and checked.sex != party.sex:
        yield Flag("sex", "SEX_DIFFERS")


def _validity(identifier: Identifier, field: str, today: date) -> Iterator[Flag]:
    if not identifier.valid_from_date and not identifier.valid_until_date:
        return
    begin, end = _day(identifier.valid_from_date), _day(identifier.valid_until_date)
    if identifier.valid_from_date and begin is None:
        yield Flag(f"{field}.valid_from_date", "DATE_IMPOSSIBLE")
    if identifier.valid_until_date and end is None:
        yield Flag(f"{field}.valid_until_date", "DATE_IMPOSSIBLE")
    if begin and begin > today:
        yield Flag(f"{field}.valid_from_date", "DATE_IN_FUTURE")
    if begin and end and end < begin:
        yield Flag(f"{field}.valid_until_date", "END_BEFORE_BEGIN")
    elif end and end < today:
        yield Flag(f"{field}.valid_until_date", "EXPIRED")


# ---- person


def _birth_date(party: Party, today: date) -> Iterator[Flag]:
    if not party.birth_date:
        return
    born = _day(party.birth_date)
    if born is None:
        yield Flag("birth_date", "DATE_IMPOSSIBLE")
    elif born > today:
        yield Flag("birth_date", "DATE_IN_FUTURE")
    elif party.party_kind != PartyKind.PARTY_KIND_ORGANISATION and born.year < today.year - AGE_YEARS_MAX:
        yield Flag("birth_date", "AGE_IMPLAUSIBLE")
    elif placeholders.is_birth_date(party.birth_date.replace("-", "")):
        yield Flag("birth_date", "PLACEHOLDER")


def _name(party: Party) -> Iterator[Flag]:
    if not party.HasField("party_name"):
        return
    name = party.party_name
    organisation = party.party_kind == PartyKind.PARTY_KIND_ORGANISATION
    forms = names.standard(name.full_name, name.family_name, name.given_name, organisation=organisation)
    name.han_simplified_name, name.pinyin_name = forms.han_simplified_name, forms.pinyin_name
    for field in _NAME_TEXTS:
        text = getattr(name, field)
        if text and (reason := _reason_of_name(text)):
            yield Flag(f"party_name.{field}", reason)


@lru_cache(names.CACHED_MAX)
def _reason_of_name(text: str) -> str:
    if not _LETTERS.search(text):
        return "NOT_A_NAME"
    return "PLACEHOLDER" if placeholders.is_name(names.folded(text)) else ""


# ---- contact points and addresses


def _contact_points(party: Party, country_code: str) -> Iterator[Flag]:
    for place, phone in enumerate(party.phones):
        if phone.country_code:
            phone.country_code = code_tables.COUNTRY_ALIASES.get(phone.country_code, phone.country_code)
            if not code_tables.is_country(phone.country_code):
                yield Flag(f"phones[{place}].country_code", "COUNTRY_UNKNOWN")
        standard = contact_points.phone(phone.number, phone.country_code or country_code)
        phone.number, phone.valid = standard.number, standard.valid
        if standard.mobile and not phone.kind:
            phone.kind = ContactPointKind.CONTACT_POINT_KIND_MOBILE
        if not standard.valid:
            yield Flag(f"phones[{place}].number", "FORM_WRONG")
        elif placeholders.is_phone(standard.number):
            yield Flag(f"phones[{place}].number", "PLACEHOLDER")
    for place, email in enumerate(party.emails):
        email.address, email.valid = contact_points.email(email.address)
        if not email.valid:
            yield Flag(f"emails[{place}].address", "FORM_WRONG")


def _addresses(party: Party) -> Iterator[Flag]:
    if party.HasField("postal_address"):
        yield from _address(party.postal_address, "postal_address")
    for place, address in enumerate(party.additional_addresses):
        yield from _address(address, f"additional_addresses[{place}]")


def _address(address: PostalAddress, field: str) -> Iterator[Flag]:
    country = code_tables.COUNTRY_ALIASES.get(address.country_code, address.country_code)
    if not country:
        return
    address.country_code = country
    if not code_tables.is_country(country):
        yield Flag(f"{field}.country_code", "COUNTRY_UNKNOWN")
    if address.postal_code:
        address.postal_code, reason = addresses.postal_code(address.postal_code, country)
        if reason:
            yield Flag(f"{field}.postal_code", reason)
    if address.administrative_area:
        address.administrative_area, reason = addresses.administrative_area(address.administrative_area, country)
        if reason:
            yield Flag(f"{field}.administrative_area", reason)


def _language_and_zone(party: Party) -> Iterator[Flag]:
    if party.language_code:
        party.language_code = code_tables.language(party.language_code)
        if not code_tables.is_language(party.language_code):
            yield Flag("language_code", "LANGUAGE_UNKNOWN")
    if party.time_zone and party.time_zone not in time_zones():
        yield Flag("time_zone", "TIME_ZONE_UNKNOWN")


# ---- codes and dated facts


def _employment_and_demographics(party: Party) -> Iterator[Flag]:
    if party.HasField("employment"):
        job = party.employment
        job.industry_code, job.employment_status_code = job.industry_code.upper(), job.employment_status_code.upper()
        if job.occupation_code and job.occupation_code not in code_tables.table("occupations"):
            yield Flag("employment.occupation_code", "CODE_UNKNOWN")
        if job.industry_code and not code_tables.is_industry(job.industry_code):
            yield Flag("employment.industry_code", "CODE_UNKNOWN")
        if job.employment_status_code and job.employment_status_code not in code_tables.table("employment_statuses"):
            yield Flag("employment.employment_status_code", "CODE_UNKNOWN")
    if party.HasField("demographics"):
        about = party.demographics
        about.marital_status_code = about.marital_status_code.upper()
        nationality = about.nationality_country_code.upper()
        about.nationality_country_code = code_tables.COUNTRY_ALIASES.get(nationality, nationality)
        if about.marital_status_code and about.marital_status_code not in code_tables.table("marital_statuses"):
            yield Flag("demographics.marital_status_code", "CODE_UNKNOWN")
        if about.education_level_code and about.education_level_code not in code_tables.table("education_levels"):
            yield Flag("demographics.education_level_code", "CODE_UNKNOWN")
        if about.nationality_country_code and not code_tables.is_country(about.nationality_country_code):
            yield Flag("demographics.nationality_country_code", "COUNTRY_UNKNOWN")


def _dated(party: Party, today: date) -> Iterator[Flag]:
    for place, role in enumerate(party.roles):
        begin, end = _day(role.begin_date), _day(role.end_date)
        if role.begin_date and begin is None:
            yield Flag(f"roles[{place}].begin_date", "DATE_IMPOSSIBLE")
        if role.end_date and end is None:
            yield Flag(f"roles[{place}].end_date", "DATE_IMPOSSIBLE")
        if begin and end and end < begin:
            yield Flag(f"roles[{place}].end_date", "END_BEFORE_BEGIN")
    for place, verification in enumerate(party.verifications):
        verified = _day(verification.verify_date)
        if verified is None:
            yield Flag(f"verifications[{place}].verify_date", "DATE_IMPOSSIBLE")
        elif verified > today:
            yield Flag(f"verifications[{place}].verify_date", "DATE_IN_FUTURE")


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None
