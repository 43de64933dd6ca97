"""The golden customer, as the contract has it: what is believed, and why. No I/O."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from concord.customer.v1 import customer_service_pb2 as pb
from concord.customer.v1.attribute_pb2 import Attribute as ProtoAttribute
from concord.customer.v1.party_pb2 import Employment, PartyName, PostalAddress
from customer.domain.golden import Believed, golden
from customer.domain.survivorship import Policy
from customer.domain.vocabulary import Attribute, ResolutionReason
from customer.messages import timestamp
from customer.standards import flags_of
from customer.statements import view
from customer.store.records import Member

ETAG_BYTES = 12
RIVALS_SHOWN_MAX = 10
_SINGLE_FIELDS = {
    Attribute.PARTY_KIND: "party_kind",
    Attribute.NAME: "party_name",
    Attribute.BIRTH_DATE: "birth_date",
    Attribute.SEX: "sex",
    Attribute.ADDRESS: "postal_address",
    Attribute.LANGUAGE: "language_code",
    Attribute.TIME_ZONE: "time_zone",
    Attribute.OCCUPATION: "occupation",
    Attribute.EMPLOYMENT: "employment",
    Attribute.DEMOGRAPHICS: "demographics",
}
_REPEATED_FIELDS = {
    Attribute.IDENTIFIER: "identifiers",
    Attribute.PHONE: "phones",
    Attribute.EMAIL: "emails",
    Attribute.ADDITIONAL_ADDRESS: "additional_addresses",
    Attribute.ROLE: "roles",
}
_WHOLE = frozenset({Attribute.NAME, Attribute.ADDRESS, Attribute.EMPLOYMENT, Attribute.DEMOGRAPHICS})
FULL = pb.CUSTOMER_VIEW_FULL


def customer(
    customer_id: UUID,
    members: Sequence[Member],
    policy: Policy,
    instant: datetime,
    how_much: "pb.CustomerView.ValueType" = pb.CUSTOMER_VIEW_BASIC,
) -> pb.Customer:
    """The golden customer at an instant, over the records that the caller may see; at least one of its own."""
    members = sorted(members, key=lambda member: member.record_id)
    own = [member for member in members if member.shared_attributes is None]
    # Most values of a customer come from a few records: what is said of each record is made once.
    origins = {
        member.record_id: pb.Provenance(
            source_system=member.source_system, record=member.name, observe_time=timestamp(member.observe_time)
        )
        for member in members
    }
    parties = {member.record_id: member.party for member in members}
    believed = golden([view(member) for member in members], policy, instant)
    message = pb.Customer(
        name=f"customers/{customer_id}",
        etag=_etag(own, policy, believed),
        create_time=timestamp(min(member.create_time for member in own)),
        update_time=timestamp(max(member.update_time for member in own)),
        linked_records=[
            pb.LinkedRecord(
                record=member.name,
                observe_time=origins[member.record_id].observe_time,
                resolution_reason=ResolutionReason(member.resolution_reason).name,
            )
            for member in own
        ],
        policy_version=policy.version,
        restricted=all(member.restricted for member in own),
    )
    for attribute, values in believed.items():
        field = _SINGLE_FIELDS.get(attribute)
        if field is None:
            field = _REPEATED_FIELDS[attribute]
            getattr(message, field).extend([one.value for one in values])
            for place, one in enumerate(values):
                provenance = _add_provenance(message, origins, f"{field}[{place}]", attribute, one)
                stated = f"{field}[{one.candidate.place}]"
                message.value_flags.extend(flags_of(parties[one.record.record_id], stated, f"{field}[{place}]", instant.date()))
                if how_much == FULL:
                    _explain(provenance, one, origins, attribute, ())
            continue
        best = values[0]
        if attribute in _WHOLE:
            getattr(message, field).CopyFrom(best.value)
        else:
            setattr(message, field, best.value)
        provenance = _add_provenance(message, origins, field, attribute, best)
        message.value_flags.extend(flags_of(parties[best.record.record_id], field, field, instant.date()))
        if how_much == FULL:
            _explain(provenance, best, origins, attribute, values[1 : 1 + RIVALS_SHOWN_MAX])
    return message


def _add_provenance(
    message: pb.Customer, origins: Mapping[UUID, pb.Provenance], field: str, attribute: Attribute, believed: Believed
) -> pb.Provenance:
    provenance = message.provenances.add()
    provenance.CopyFrom(origins[believed.record.record_id])
    provenance.field = field
    provenance.attribute = cast("ProtoAttribute.ValueType", attribute)
    provenance.rank = believed.rank
    provenance.rule = cast("pb.SurvivorshipRule.ValueType", believed.rule)
    provenance.rivals_count = believed.rivals_count
    return provenance


def _explain(
    provenance: pb.Provenance,
    believed: Believed,
    origins: Mapping[UUID, pb.Provenance],
    attribute: Attribute,
    rivals: Sequence[Believed],
) -> None:
    candidate, trust = believed.candidate, believed.trust
    provenance.trust_points = trust.points
    provenance.trust_parts.base_trust_points = trust.base_points
    provenance.trust_parts.decay_factor = trust.decay
    provenance.trust_parts.validation_factor = trust.validation
    provenance.sources_agreeing_count = believed.agreeing_count
    provenance.sources_conflicting_count = believed.conflicting_count
    if candidate.verified is not None:
        provenance.verify_date = candidate.verified.on.isoformat()
    if candidate.pinned_at is not None:
        provenance.pin_time.CopyFrom(timestamp(candidate.pinned_at))
    for rival in rivals:
        origin = origins[rival.record.record_id]
        provenance.rivals.add(
            source_system=origin.source_system,
            record=origin.record,
            trust_points=rival.trust.points,
            valid=rival.valid,
            observe_time=origin.observe_time,
            value=_one_line(attribute, rival.value),
        )


def _one_line(attribute: Attribute, value: Any) -> str:
    """A value as a steward reads it beside another."""
    if attribute is Attribute.NAME:
        name: PartyName = value
        return name.full_name or f"{name.given_name} {name.family_name}".strip() or name.latin_name
    if attribute is Attribute.ADDRESS:
        address: PostalAddress = value
        parts = (*address.address_lines, address.postal_code, address.locality, address.administrative_area, address.country_code)
        return ", ".join(part for part in parts if part)
    if attribute is Attribute.EMPLOYMENT:
        employment: Employment = value
        return ", ".join(str(text) for _, text in employment.ListFields())
    if attribute is Attribute.DEMOGRAPHICS:
        return ", ".join(f"{field.name} {one}" for field, one in value.ListFields())
    if attribute is Attribute.SEX:
        return _SEXES[value]
    return str(value)


_SEXES = {1: "female", 2: "male", 3: "other"}


def _etag(members: Sequence[Member], policy: Policy, believed: Mapping[Attribute, Sequence[Believed]]) -> str:
    """Of the states, links, ranks and pins of the caller's own records, and of what is chosen.

    Others' records do not move it, but by a value that they share.
    """
    seen = [
        (member.record_id.int, member.state_number, member.link_version, member.ranks_version, member.observe_time.timestamp())
        for member in members
    ]
    # Age and expiry may change what is chosen without a change of any record.
    chosen = [(values[0].record.record_id.int, values[0].candidate.place) for values in believed.values()]
    shared = [
        (one.record.record_id.int, one.candidate.stated.key)
        for values in believed.values()
        for one in values
        if one.record.shared is not None
    ]
    pins = [sorted(member.pins.items()) for member in members if member.pins]
    content = repr((seen, policy.version, chosen, shared, pins)).encode()
    return f'"{hashlib.blake2b(content, digest_size=ETAG_BYTES).hexdigest()}"'
