"""A row of a bulk import as a source record. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis import rules
from concord.customer.v1 import intake_service_pb2 as pb
from concord.customer.v1.party_pb2 import IdentifierScheme, Party, PartyRoleKind
from customer.domain import import_rows
from customer.domain.intake import Rejected

_DOCUMENTS = {
    "national_id": IdentifierScheme.IDENTIFIER_SCHEME_NATIONAL_ID,
    "passport": IdentifierScheme.IDENTIFIER_SCHEME_PASSPORT,
    "permit": IdentifierScheme.IDENTIFIER_SCHEME_PERMIT,
    "driving_licence": IdentifierScheme.IDENTIFIER_SCHEME_DRIVING_LICENCE,
    "registration": IdentifierScheme.IDENTIFIER_SCHEME_ORGANISATION_REGISTRATION,
    "lei": IdentifierScheme.IDENTIFIER_SCHEME_LEI,
    "tax_number": IdentifierScheme.IDENTIFIER_SCHEME_TAX_NUMBER,
}
_DOCUMENT_COUNTRIES = {name: f"{name}_country" for name in _DOCUMENTS if name != "lei"}
_LEI_COUNTRY = "ZZ"
_PHONES = ("phone", "phone_2", "phone_3")
_EMAILS = ("email", "email_2")
_LINES = ("address_line_1", "address_line_2", "address_line_3")
_NAMES = {"full_name": "full_name", "given_name": "given_name", "family_name": "family_name", "latin_name": "latin_name"}
_ADDRESS = {"locality": "locality", "administrative_area": "administrative_area", "postal_code": "postal_code"}
_PLACES = (*_ADDRESS, "country_code")
_PARTY = {"language": "language_code", "time_zone": "time_zone", "occupation": "occupation"}
_EMPLOYMENT = {
    "employer_name": "employer_name",
    "job_title": "job_title",
    "occupation_code": "occupation_code",
    "industry_code": "industry_code",
    "employment_status": "employment_status_code",
}
_DEMOGRAPHICS = {"marital_status": "marital_status_code", "education_level": "education_level_code"}

Texts = Mapping[str, str]
"""What a row says, by field; empty texts are left out."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for rows that do not say it."""

    observe_seconds: int
    country_code: str
    """Of documents and telephone numbers."""
    address_country_code: str = ""


def source_record(texts: Texts, defaults: Defaults) -> pb.SourceRecord:
    """The record that a row states.

    Raises:
        Rejected: naming the field (column), the rule and what would be right.
    """
    record = pb.SourceRecord(source_record_key=import_rows.key(texts.get("source_record_key", "")))
    if text := texts.get("observe_time"):
        record.observe_time.FromDatetime(import_rows.instant("observe_time", text))
    else:
        record.observe_time.seconds = defaults.observe_seconds
    _fill(record.party, texts, defaults)
    if broken := rules.broken(record):
        path, rule = broken[0]
        raise Rejected(_column(path, texts), "FIELD_INVALID", rule)
    return record


def _fill(party: Party, texts: Texts, defaults: Defaults) -> None:
    get = texts.get
    party.party_kind = import_rows.party_kind(get("party_kind", ""))  # type: ignore[assignment]
    _set(party, _PARTY, texts)
    if not texts.keys().isdisjoint(_NAMES):
        _set(party.party_name, _NAMES, texts)
    if text := get("alias"):
        party.party_name.aliases.append(text)
    if text := get("birth_date"):
        party.birth_date = import_rows.day("birth_date", text)
    if text := get("sex"):
        party.sex = import_rows.sex(text)  # type: ignore[assignment]
    for column, scheme in _DOCUMENTS.items():
        if text := get(column):
            party.identifiers.add(scheme=scheme, country_code=_document_country(column, texts, defaults), value=text)
    if not texts.keys().isdisjoint(_PHONES):
        country = _country("phone_country", texts, defaults.country_code)
        for column in _PHONES:
            if text := get(column):
                party.phones.add(number=text, country_code=country)
    for column in _EMAILS:
        if text := get(column):
            party.emails.add(address=text)
    _fill_address(party, texts, defaults)
    _fill_social(party, texts)


def _fill_address(party: Party, texts: Texts, defaults: Defaults) -> None:
    lines = [texts[column] for column in _LINES if column in texts]
    if not lines and texts.keys().isdisjoint(_PLACES):
        return
    address = party.postal_address
    address.address_lines.extend(lines)
    _set(address, _ADDRESS, texts)
    address.country_code = _country("country_code", texts, defaults.address_country_code)


def _fill_social(party: Party, texts: Texts) -> None:
    if not texts.keys().isdisjoint(_EMPLOYMENT):
        _set(party.employment, _EMPLOYMENT, texts)
    if not texts.keys().isdisjoint(_DEMOGRAPHICS):
        _set(party.demographics, _DEMOGRAPHICS, texts)
    if text := texts.get("nationality"):
        party.demographics.nationality_country_code = import_rows.country("nationality", text)
    if text := texts.get("dependants_count"):
        party.demographics.dependants_count = import_rows.count("dependants_count", text)
    if text := texts.get("role"):
        role = party.roles.add(kind=_role(text))
        if begin := texts.get("role_begin_date"):
            role.begin_date = import_rows.day("role_begin_date", begin)


def _set(message: Any, fields: Mapping[str, str], texts: Texts) -> None:
    for column, name in fields.items():
        if column in texts:
            setattr(message, name, texts[column])


def _country(field: str, texts: Texts, default: str) -> str:
    text = texts.get(field)
    return import_rows.country(field, text) if text else default


def _document_country(column: str, texts: Texts, defaults: Defaults) -> str:
    field = _DOCUMENT_COUNTRIES.get(column)
    return _country(field, texts, defaults.country_code) if field else _LEI_COUNTRY


def _role(text: str) -> "PartyRoleKind.ValueType":
    name = f"PARTY_ROLE_KIND_{import_rows.field_name(text).upper().removeprefix('PARTY_ROLE_KIND_')}"
    if name not in PartyRoleKind.keys() or name == "PARTY_ROLE_KIND_UNSPECIFIED":  # noqa: SIM118 - an enum, no mapping
        known = ", ".join(key.removeprefix("PARTY_ROLE_KIND_").lower() for key in PartyRoleKind.keys()[1:])
        raise Rejected("role", "ROLE_UNKNOWN", f"must be one of {known}")
    return PartyRoleKind.Value(name)


def _column(path: str, texts: Texts) -> str:
    """The column that a path in the message was filled from."""
    last = path.rpartition(".")[2]
    for prefix, columns in (
        ("party.identifiers[", tuple(_DOCUMENTS)),
        ("party.phones[", _PHONES),
        ("party.emails[", _EMAILS),
        ("party.postal_address.address_lines[", _LINES),
    ):
        if path.startswith(prefix):
            filled = [column for column in columns if column in texts]
            place = int(path.removeprefix(prefix).partition("]")[0])
            if place < len(filled):
                return _DOCUMENT_COUNTRIES.get(filled[place], filled[place]) if last == "country_code" else filled[place]
    for columns_of in (_PARTY, _EMPLOYMENT, _DEMOGRAPHICS):
        for column, name in columns_of.items():
            if name == last:
                return column
    return {"aliases[0]": "alias", "nationality_country_code": "nationality"}.get(last, last)
