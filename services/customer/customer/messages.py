"""Between the contracts' messages and the domain: parties in, golden customers out. No I/O."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from math import floor
from typing import Any, cast
from uuid import UUID
from zoneinfo import available_timezones

from google.protobuf.timestamp_pb2 import Timestamp

from concord.customer.v1 import customer_service_pb2 as pb
from concord.customer.v1.attribute_pb2 import Attribute as ProtoAttribute
from concord.customer.v1.party_pb2 import Party
from customer.domain import contact_points, identity_documents, names
from customer.domain.blind_index import BlindIndex
from customer.domain.golden import Believed, RecordView, Stated, golden
from customer.domain.resolution import Document, Identity
from customer.domain.vocabulary import Attribute, ResolutionReason
from customer.store.records import Member, SearchKeys

ETAG_BYTES = 12
_PARTY_TEXTS = ("birth_date", "language_code", "time_zone", "occupation")
_NAME_TEXTS = ("full_name", "given_name", "family_name", "latin_name")
_ADDRESS_TEXTS = ("locality", "administrative_area", "postal_code", "country_code")
_SINGLE_FIELDS = {
    Attribute.PARTY_KIND: "party_kind",
    Attribute.NAME: "party_name",
    Attribute.BIRTH_DATE: "birth_date",
    Attribute.SEX: "sex",
    Attribute.ADDRESS: "postal_address",
    Attribute.LANGUAGE: "language_code",
    Attribute.TIME_ZONE: "time_zone",
    Attribute.OCCUPATION: "occupation",
}
_REPEATED_FIELDS = {Attribute.IDENTIFIER: "identifiers", Attribute.PHONE: "phones", Attribute.EMAIL: "emails"}


def timestamp(instant: datetime) -> Timestamp:
    """An instant as protobuf has it."""
    return Timestamp(seconds=floor(instant.timestamp()), nanos=instant.microsecond * 1000)


# ---- what a source says


def canonical(party: Party) -> Party:
    """What a source says, without differences that say nothing: composed letters, single spaces, no flags of ours."""
    same = Party()
    same.CopyFrom(party)
    same.DiscardUnknownFields()  # type: ignore[no-untyped-call,unused-ignore]
    _clean(same, _PARTY_TEXTS)
    if same.HasField("party_name"):
        _clean(same.party_name, _NAME_TEXTS)
    if same.HasField("postal_address"):
        _clean(same.postal_address, _ADDRESS_TEXTS)
        lines = [_text(line) for line in same.postal_address.address_lines]
        same.postal_address.address_lines[:] = [line for line in lines if line]
    for identifier in same.identifiers:
        identifier.value, identifier.valid = _text(identifier.value), False
    for phone in same.phones:
        phone.number, phone.valid = _text(phone.number), False
    for email in same.emails:
        email.address, email.valid = _text(email.address), False
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


def standardised(party: Party, country_code: str) -> Party:
    """A canonical party in standard form, each document and contact point marked valid or not. Nothing is dropped.

    Args:
        party: canonical.
        country_code: of the institution, for telephone numbers without prefix.
    """
    standard = Party()
    standard.CopyFrom(party)
    for identifier in standard.identifiers:
        identifier.value, identifier.valid = identity_documents.standardised(
            identifier.scheme, identifier.country_code, identifier.value
        )
    for phone in standard.phones:
        phone.number, phone.valid = contact_points.phone(phone.number, phone.country_code or country_code)
    for email in standard.emails:
        email.address, email.valid = contact_points.email(email.address)
    return standard


def identity_of(standard: Party, today: date) -> Identity:
    """What a standardised party proves about identity."""
    country = identity_documents.issuing_country
    return Identity(
        standard.party_kind,
        standard.birth_date if identity_documents.is_birth_date(standard.birth_date, today) else "",
        frozenset(
            Document(document.scheme, country(document.scheme, document.country_code), document.value)
            for document in standard.identifiers
            if document.valid
        ),
    )


def document_keys(index: BlindIndex, identity: Identity) -> set[bytes]:
    """The keys of the documents in an identity."""
    return {index.document(document.scheme, document.country_code, document.number) for document in identity.documents}


def search_keys(record_id: UUID, index: BlindIndex, stated: Party, standard: Party, documents: Iterable[bytes]) -> SearchKeys:
    """What a record is found by: documents, their numbers as stated and as standardised, phones, e-mails, words of names."""
    keys = set(documents)
    for party in (stated, standard):
        keys |= {index.identifier(identifier.value) for identifier in party.identifiers}
    keys |= {index.phone(phone.number) for phone in standard.phones}
    keys |= {index.email(email.address) for email in standard.emails}
    name = standard.party_name
    whole = (name.full_name, name.given_name, name.family_name, name.latin_name, f"{name.family_name}{name.given_name}")
    return SearchKeys(record_id, frozenset(keys), names.search_tokens(whole if _is_han(name.family_name) else whole[:4]))


def _is_han(text: str) -> bool:
    # A Han name kept in two parts is also written, and looked for, as one word.
    return bool(text) and unicodedata.name(text[0], "").startswith("CJK")


# ---- what is believed


def view(member: Member) -> RecordView:
    """A record for survivorship."""
    return RecordView(
        member.record_id, member.source_system, member.observe_time, member.ranks, statements(Party.FromString(member.party))
    )


def statements(party: Party) -> dict[Attribute, list[Stated]]:
    """What a standardised party states. Empty fields state nothing."""
    said: dict[Attribute, list[Stated]] = {Attribute.PARTY_KIND: [Stated(party.party_kind, party.party_kind)]}
    if party.HasField("party_name"):
        name = party.party_name
        key = names.folded(name.full_name or f"{name.given_name} {name.family_name}".strip() or name.latin_name)
        said[Attribute.NAME] = [Stated(name, key, any(map(str.isalpha, key)))]
    if party.birth_date:
        valid = identity_documents.is_birth_date(party.birth_date, datetime.now(UTC).date())
        said[Attribute.BIRTH_DATE] = [Stated(party.birth_date, party.birth_date, valid)]
    if party.sex:
        said[Attribute.SEX] = [Stated(party.sex, party.sex)]
    if party.identifiers:
        said[Attribute.IDENTIFIER] = [
            Stated(value, (value.scheme, value.country_code, value.value), value.valid) for value in party.identifiers
        ]
    if party.phones:
        said[Attribute.PHONE] = [Stated(value, value.number, value.valid) for value in party.phones]
    if party.emails:
        said[Attribute.EMAIL] = [Stated(value, value.address.casefold(), value.valid) for value in party.emails]
    if party.HasField("postal_address"):
        address = party.postal_address
        parts = (*address.address_lines, *(getattr(address, field) for field in _ADDRESS_TEXTS))
        said[Attribute.ADDRESS] = [Stated(address, tuple(map(str.casefold, parts)) if any(parts) else ())]
    if party.language_code:
        said[Attribute.LANGUAGE] = [Stated(party.language_code, party.language_code.casefold())]
    if party.time_zone:
        said[Attribute.TIME_ZONE] = [Stated(party.time_zone, party.time_zone, party.time_zone in time_zones())]
    if party.occupation:
        said[Attribute.OCCUPATION] = [Stated(party.occupation, party.occupation.casefold())]
    return said


@cache
def time_zones() -> frozenset[str]:
    """The names of the IANA time zones."""
    return frozenset(available_timezones())


def customer(customer_id: UUID, members: Sequence[Member]) -> pb.Customer:
    """The golden customer over the records that the caller may see; at least one."""
    members = sorted(members, key=lambda member: member.record_id)
    # Most values of a customer come from a few records: what is said of each record is made once.
    origins = {
        member.record_id: pb.Provenance(
            source_system=member.source_system, record=member.name, observe_time=timestamp(member.observe_time)
        )
        for member in members
    }
    message = pb.Customer(
        name=f"customers/{customer_id}",
        etag=_etag(members),
        create_time=timestamp(min(member.create_time for member in members)),
        update_time=timestamp(max(member.update_time for member in members)),
        linked_records=[
            pb.LinkedRecord(
                record=member.name,
                observe_time=origins[member.record_id].observe_time,
                resolution_reason=ResolutionReason(member.resolution_reason).name,
            )
            for member in members
        ],
    )
    for attribute, values in golden([view(member) for member in members]).items():
        field = _SINGLE_FIELDS.get(attribute)
        if field is None:
            field = _REPEATED_FIELDS[attribute]
            getattr(message, field).extend([believed.value for believed in values])
            for place, believed in enumerate(values):
                _add_provenance(message, origins, f"{field}[{place}]", attribute, believed)
            continue
        best = values[0]
        if attribute in (Attribute.NAME, Attribute.ADDRESS):
            getattr(message, field).CopyFrom(best.value)
        else:
            setattr(message, field, best.value)
        _add_provenance(message, origins, field, attribute, best)
    return message


def _add_provenance(
    message: pb.Customer, origins: Mapping[UUID, pb.Provenance], field: str, attribute: Attribute, believed: Believed
) -> None:
    provenance = message.provenances.add()
    provenance.CopyFrom(origins[believed.record.record_id])
    provenance.field = field
    provenance.attribute = cast("ProtoAttribute.ValueType", attribute)
    provenance.rank = believed.rank
    provenance.rule = cast("pb.SurvivorshipRule.ValueType", believed.rule)
    provenance.rivals_count = believed.rivals_count


def _etag(members: Sequence[Member]) -> str:
    """Of the states, links and ranks that the caller sees: it does not move when others' records do."""
    seen = [
        (member.record_id.int, member.state_number, member.link_version, member.ranks_version, member.observe_time.timestamp())
        for member in members
    ]
    return f'"{hashlib.blake2b(repr(seen).encode(), digest_size=ETAG_BYTES).hexdigest()}"'
