"""What a standardised party states, as survivorship takes it. No I/O."""

import hashlib
from collections.abc import Hashable, Iterable
from datetime import UTC, date, datetime
from typing import Any

from concord.customer.v1.party_pb2 import Employment, Party, PartyName, PostalAddress
from customer.domain import identity_documents, names
from customer.domain.golden import RecordView, Stated
from customer.domain.survivorship import Verified
from customer.domain.vocabulary import Attribute
from customer.standards import reasons_by_value, time_zones
from customer.store.records import Member

_EMPLOYMENT = tuple(field.name for field in Employment.DESCRIPTOR.fields)
_ADDRESS_TEXTS = ("locality", "administrative_area", "postal_code", "country_code")
_DEMOGRAPHICS_TEXTS = ("marital_status_code", "education_level_code", "nationality_country_code")
DIGEST_BYTES = 16
_NO_FLAGS: dict[str, tuple[str, ...]] = {}


def view(member: Member) -> RecordView:
    """A record for survivorship."""
    party = member.party
    stated, said = statements(party), verifications(party) if party.verifications else {}
    for attribute, one in member.verified.items():
        # A value that the source has changed since is not the one that was verified.
        for key in {value.key for value in stated.get(attribute, ()) if digest(value.key) == one.digest}:
            said.setdefault(attribute, []).append(Verified(one.method, one.on, key))
    return RecordView(
        member.record_id, member.source_system, member.observe_time, member.ranks, stated, member.pins, said,
        member.shared_attributes,
    )  # fmt: skip


def digest(key: Hashable) -> bytes:
    """Tells values of an attribute apart, without saying them."""
    return hashlib.blake2b(repr(key).encode(), digest_size=DIGEST_BYTES).digest()


def verifications(party: Party) -> dict[Attribute, list[Verified]]:
    """What a party's source says it has verified. A date that does not exist verifies nothing."""
    said: dict[Attribute, list[Verified]] = {}
    for one in party.verifications:
        try:
            verified = Verified(one.method, date.fromisoformat(one.verify_date))
        except ValueError:
            continue
        said.setdefault(Attribute(one.attribute), []).append(verified)
    return said


def statements(party: Party) -> dict[Attribute, list[Stated]]:
    """What a standardised party states. Empty fields state nothing."""
    failed = reasons_by_value(party) if party.value_flags else _NO_FLAGS
    said: dict[Attribute, list[Stated]] = {Attribute.PARTY_KIND: [Stated(party.party_kind, party.party_kind)]}
    if party.HasField("party_name"):
        said[Attribute.NAME] = [_name(party.party_name, failed.get("party_name", ()))]
    if party.birth_date:
        valid = identity_documents.is_birth_date(party.birth_date, datetime.now(UTC).date())
        said[Attribute.BIRTH_DATE] = [Stated(party.birth_date, party.birth_date, valid, failed.get("birth_date", ()))]
    if party.sex:
        said[Attribute.SEX] = [Stated(party.sex, party.sex, True, failed.get("sex", ()))]
    if party.identifiers:
        said[Attribute.IDENTIFIER] = [
            Stated(value, (value.scheme, value.country_code, value.value), value.valid, failed.get(f"identifiers[{place}]", ()))
            for place, value in enumerate(party.identifiers)
        ]
    if party.phones:
        said[Attribute.PHONE] = [
            Stated(value, value.number, value.valid, failed.get(f"phones[{place}]", ()))
            for place, value in enumerate(party.phones)
        ]
    if party.emails:
        said[Attribute.EMAIL] = [
            Stated(value, value.address.casefold(), value.valid, failed.get(f"emails[{place}]", ()))
            for place, value in enumerate(party.emails)
        ]
    if party.HasField("postal_address"):
        said[Attribute.ADDRESS] = [_address(party.postal_address, failed.get("postal_address", ()))]
    if party.language_code:
        said[Attribute.LANGUAGE] = [_text(party.language_code, failed.get("language_code", ()))]
    if party.time_zone:
        valid = party.time_zone in time_zones()
        said[Attribute.TIME_ZONE] = [Stated(party.time_zone, party.time_zone, valid, failed.get("time_zone", ()))]
    if party.occupation:
        said[Attribute.OCCUPATION] = [_text(party.occupation, failed.get("occupation", ()))]
    _add_groups(said, party, failed)
    return said


def _add_groups(said: dict[Attribute, list[Stated]], party: Party, failed: dict[str, tuple[str, ...]]) -> None:
    if party.HasField("employment"):
        texts = [getattr(party.employment, field) for field in _EMPLOYMENT]
        said[Attribute.EMPLOYMENT] = [_group(party.employment, texts, failed.get("employment", ()))]
    if party.HasField("demographics"):
        demographics = party.demographics
        texts = [getattr(demographics, field) for field in _DEMOGRAPHICS_TEXTS]
        texts.append(str(demographics.dependants_count) if demographics.dependants_count else "")
        said[Attribute.DEMOGRAPHICS] = [_group(demographics, texts, failed.get("demographics", ()))]
    if party.additional_addresses:
        said[Attribute.ADDITIONAL_ADDRESS] = [
            _address(value, failed.get(f"additional_addresses[{place}]", ()))
            for place, value in enumerate(party.additional_addresses)
        ]
    if party.roles:
        said[Attribute.ROLE] = [
            Stated(value, value.kind, f"roles[{place}]" not in failed, failed.get(f"roles[{place}]", ()))
            for place, value in enumerate(party.roles)
        ]


def _text(text: str, failed: tuple[str, ...]) -> Stated:
    return Stated(text, text.casefold(), not failed, failed)


def _name(name: PartyName, failed: tuple[str, ...]) -> Stated:
    parts = (name.full_name, name.given_name, name.family_name, name.latin_name)
    written = name.han_simplified_name or name.full_name or f"{name.given_name} {name.family_name}".strip() or name.latin_name
    key = names.folded(written)
    return Stated(name, key, any(map(str.isalpha, key)) and not failed, failed, sum(map(bool, parts)) + bool(name.aliases))


def _address(address: PostalAddress, failed: tuple[str, ...]) -> Stated:
    return _group(address, [*address.address_lines, *(getattr(address, field) for field in _ADDRESS_TEXTS)], failed)


def _group(value: Any, texts: Iterable[str], failed: tuple[str, ...]) -> Stated:
    """A value that moves whole: it says the same when all its parts do, and nothing when none says anything."""
    parts = tuple(map(str.casefold, texts))
    key: Hashable = parts if any(parts) else ()
    return Stated(value, key, not failed, failed, sum(map(bool, parts)))
