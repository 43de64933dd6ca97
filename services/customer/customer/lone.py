"""A record that turns out to be new and near to nobody: everything that its transaction writes and publishes, made beforehand.

Most rows of a bulk load end so. What is written is what `Changes` would write; only the work is done elsewhere, and earlier.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from chassis.ids import new_id
from concord.common.v1.event_pb2 import StateVersion
from concord.customer.v1 import customer_events_pb2 as pb
from concord.customer.v1.party_pb2 import Party
from customer import findings, published, publishing
from customer.domain import identity_documents, quality
from customer.domain.blind_index import BlindIndex
from customer.domain.features import Features
from customer.domain.golden import golden
from customer.domain.survivorship import Policy
from customer.domain.vocabulary import LinkOrigin, ResolutionReason
from customer.prepare import Prepared, Sealed
from customer.standards import time_zones
from customer.statements import view
from customer.store import copies
from customer.store.copies import encoded, encoded_keys
from customer.store.customers import CustomerRow
from customer.store.quality import Remembered
from customer.store.records import Member
from customer.survivorship_standard import quality_standard

SHAPES_REMEMBERED_MAX = 20_000
_ONE_RECORD = Remembered()
_ADDRESS_TEXTS = ("locality", "administrative_area", "postal_code", "country_code")


@dataclass(frozen=True, slots=True)
class Moment:
    """When and under what rules rows are prepared. What is prepared under others is not used."""

    now: datetime
    epoch: int
    policy: Policy
    model_version: str


class Lone(NamedTuple):
    """What a record brings when it stays alone. A plain tuple, because it travels between processes.

    Args:
        customer_id: of its new customer.
        policy_version: by which it was made.
        model_version: of the match model, likewise.
        rows: the rows of the customer and its record, encoded, by table.
        kept: payload, party, look-up keys and sealed state of the record, for the case that another record belongs to it.
        evidence: what matching looks at, pickled, for the case that others come near.
    """

    customer_id: UUID
    policy_version: int
    model_version: str
    rows: tuple[tuple[str, bytes], ...]
    kept: tuple[bytes, bytes, tuple[int, ...], tuple[bytes, bytes, bytes]]
    evidence: bytes

    def features(self) -> Features:
        """What matching looks at."""
        found: Features = pickle.loads(self.evidence)  # from our own process only
        return found


def bare(item: Prepared, lone: Lone) -> Prepared:
    """A prepared record without what its `Lone` has."""
    return replace(item, payload=b"", party=b"", lookup_keys=(), sealed=None, lone=lone)


def whole(item: Prepared) -> Prepared:
    """A prepared record as it was before it was made bare."""
    if item.lone is None:
        return item
    payload, party, lookup_keys, sealed = item.lone.kept
    return replace(item, payload=payload, party=party, lookup_keys=lookup_keys, sealed=Sealed(*sealed), lone=None)


@dataclass(frozen=True, slots=True)
class _Assessed:
    """What holds for every sole record of one shape: qualities of attributes, serialised, and the two scores."""

    attribute_qualities: bytes
    completeness_percent: int
    credibility_percent: int
    crosses: bool


class LoneMaker:
    """Makes `Lone`s; remembers by the shape of a party what does not depend on its values."""

    def __init__(self, index: BlindIndex) -> None:
        self._index = index
        self._shapes: dict[tuple[Any, ...], _Assessed | None] = {}
        self._moment: Moment | None = None

    def make(self, item: Prepared, party: Party, features: Features, moment: Moment) -> Lone | None:
        """What this record would bring; None when stewards would have something to look at.

        Args:
            item: sealed, with its id.
            party: of the record, standardised.
            features: of the party.
            moment: when, and under what rules.
        """
        if item.record_id is None or item.sealed is None:
            return None
        if moment is not self._moment or len(self._shapes) > SHAPES_REMEMBERED_MAX:
            self._shapes, self._moment = {}, moment
        customer_id = new_id()
        member = Member(
            item.record_id, item.source.number, item.source.name, item.source.institution_id, item.source_key, customer_id, 1,
            LinkOrigin.AUTO, ResolutionReason.NEW_CUSTOMER, 1, 1, item.content_hash, item.observe_time, party, moment.now,
            moment.now, item.source.ranks, 1,
        )  # fmt: skip
        shape = shape_of(party)
        assessed = self._assessed(member, moment, shape)
        if assessed is None:
            return None
        row = CustomerRow(customer_id, 1, moment.now, moment.now)
        changed = _changed(row, member, moment.epoch).SerializeToString() + assessed.attribute_qualities
        rows = _rows(item, member, moment, changed, assessed)
        sealed = item.sealed.payload, item.sealed.stated_party, item.sealed.present_party
        kept = item.payload, item.party, item.lookup_keys, sealed
        evidence = pickle.dumps(features, pickle.HIGHEST_PROTOCOL)
        return Lone(customer_id, moment.policy.version, moment.model_version, rows, kept, evidence)

    def _assessed(self, member: Member, moment: Moment, shape: tuple[Any, ...] | None) -> _Assessed | None:
        if shape is None:
            return assess(self._index, member, moment)
        key = (*shape, member.observe_time, member.source_system)
        if key not in self._shapes:
            self._shapes[key] = assess(self._index, member, moment)
        return self._shapes[key]


def assess(index: BlindIndex, member: Member, moment: Moment) -> _Assessed | None:
    """What is believed of a customer with this record alone, and how good it is; None when stewards should look at it."""
    believed = golden([view(member)], moment.policy, moment.now)
    if findings.new_items(index, believed):
        return None
    row = CustomerRow(member.customer_id, 1, moment.now, moment.now)
    message = published.customer_changed(row, [member], believed, moment.now, moment.epoch).message
    assert isinstance(message, pb.CustomerChanged)
    standard = quality_standard()
    found = quality.assess(believed, (), {}, standard, moment.now)
    only = pb.CustomerChanged(attribute_qualities=message.attribute_qualities, role_kinds=message.role_kinds)
    crosses = publishing.crosses(_ONE_RECORD, found, standard)
    return _Assessed(only.SerializeToString(), found.completeness_percent, found.credibility_percent, crosses)


def shape_of(party: Party) -> tuple[Any, ...] | None:
    """What belief and quality depend on, of a plain party; None for one that is not plain."""
    if party.value_flags or party.additional_addresses or party.verifications or party.roles:
        return None
    if party.HasField("employment") or party.HasField("demographics"):
        return None
    name, address = party.party_name, party.postal_address
    written = name.han_simplified_name or name.full_name or f"{name.given_name} {name.family_name}".strip() or name.latin_name
    documents = []
    for one in party.identifiers:
        found = identity_documents.checked(one.scheme, one.country_code, one.value)
        agrees = found.birth_date == party.birth_date, found.sex == party.sex
        documents.append((one.scheme, one.country_code, one.valid, bool(found.birth_date), bool(found.sex), *agrees))
    return (
        party.party_kind,
        any(map(str.isalpha, written)) if party.HasField("party_name") else None,
        _is_day(party.birth_date),
        bool(party.sex),
        tuple(documents),
        tuple(one.valid for one in party.phones),
        tuple(one.valid for one in party.emails),
        any(address.address_lines) or any(getattr(address, field) for field in _ADDRESS_TEXTS),
        bool(party.language_code),
        party.time_zone in time_zones() if party.time_zone else None,
        bool(party.occupation),
    )


def _is_day(text: str) -> bool | None:
    return identity_documents.is_birth_date(text, datetime.now(UTC).date()) if text else None


def _changed(row: CustomerRow, member: Member, epoch: int) -> pb.CustomerChanged:
    """The part of the event that depends on the values."""
    party = member.party
    address = party.postal_address
    return pb.CustomerChanged(
        customer_id=str(row.customer_id),
        state_version=StateVersion(epoch=epoch, version=row.version),
        party_kind=party.party_kind,
        birth_year=int(party.birth_date[:4]) if _is_day(party.birth_date) else 0,
        sex=party.sex,
        country_code=address.country_code,
        administrative_area=address.administrative_area,
        language_code=party.language_code,
        time_zone=party.time_zone if party.time_zone in time_zones() else "",
        record_links=[published.record_link(member.record_id, member.institution_id, row.customer_id, 1, epoch)],
        create_time_seconds=int(row.create_time.timestamp()),
    )


def _rows(item: Prepared, member: Member, moment: Moment, changed: bytes, assessed: _Assessed) -> tuple[tuple[str, bytes], ...]:
    record_id, customer_id, sealed = member.record_id.bytes, member.customer_id.bytes, item.sealed
    now, observed_at = copies.microseconds(moment.now), copies.microseconds(member.observe_time)
    assert sealed is not None
    events: list[tuple[str, bytes]] = [(published.CUSTOMER_UPDATED, changed)]
    rows = [
        ("customers", encoded("customers", (customer_id, 1, now, now, False))),
        (
            "records",
            encoded(
                "records",
                (record_id, member.source_system_number, member.source_key, member.institution_id, customer_id, 1,
                 LinkOrigin.AUTO, ResolutionReason.NEW_CUSTOMER, 1, 1, member.content_hash, observed_at, now, now,
                 sealed.present_party, item.blocking_keys, item.lookup_keys),
            ),
        ),
        (
            "source_records",
            encoded(
                "source_records",
                (record_id, 1, member.institution_id, member.content_hash, observed_at, sealed.payload,
                 sealed.stated_party, now),
            ),
        ),
        (
            "links",
            encoded(
                "links",
                (record_id, 1, customer_id, LinkOrigin.AUTO, ResolutionReason.NEW_CUSTOMER, moment.model_version, None, b"", now,
                 None, ""),
            ),
        ),
        ("blocking_keys", encoded_keys(item.blocking_keys, record_id)),
    ]  # fmt: skip
    if assessed.crosses:
        scores = Remembered(1, assessed.completeness_percent, assessed.credibility_percent)
        percents = scores.completeness_percent, scores.credibility_percent
        rows.append(("customer_qualities", encoded("customer_qualities", (customer_id, 1, *percents))))
        message = published.quality_changed(member.customer_id, scores, moment.epoch).message
        events.append((published.QUALITY_CHANGED, message.SerializeToString()))
    rows.append(("outbox", b"".join(_event(kind, member.customer_id, payload, now) for kind, payload in events)))
    return tuple(rows)


def _event(kind: str, customer_id: UUID, payload: bytes, now: int) -> bytes:
    return encoded("outbox", (new_id().bytes, new_id().bytes, kind, None, str(customer_id), payload, now, None))


def together(lones: Sequence[Lone]) -> dict[str, list[bytes]]:
    """The rows of many, by table."""
    tables: dict[str, list[bytes]] = {}
    for lone in lones:
        for table, rows in lone.rows:
            tables.setdefault(table, []).append(rows)
    return tables
