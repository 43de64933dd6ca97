"""A record that turns out to be new and near to nobody: everything that its transaction writes and publishes, made beforehand.

Most rows of a bulk load end so. What is written is what `Changes` would write; only the work is done elsewhere, and earlier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from chassis.ids import new_id, new_id_bytes
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.customer.v1 import customer_events_pb2 as pb
from concord.customer.v1.party_pb2 import Party
from customer import findings, published, publishing
from customer.domain import identity_documents, quality
from customer.domain.blind_index import BlindIndex
from customer.domain.golden import golden
from customer.domain.survivorship import Policy
from customer.domain.vocabulary import LinkOrigin, ResolutionReason
from customer.prepare import Prepared, Sealed
from customer.standards import time_zones
from customer.statements import view
from customer.store import copies
from customer.store.copies import (
    KEY_ROW_BYTES,
    TABLES,
    VARIES,
    Form,
    bigints,
    instant,
    key_rows,
    read_bigints,
    sized,
    values,
)
from customer.store.customers import CustomerRow
from customer.store.institutions import SourceSystem
from customer.store.quality import Remembered
from customer.store.records import STATED_PARTY, STATED_PAYLOAD, Member
from customer.store.vault import DataKey, bound_to
from customer.survivorship_standard import quality_standard

SHAPES_REMEMBERED_MAX = 20_000
_ONE_RECORD = Remembered()
_PLACES = {table: place for place, table in enumerate(TABLES)}
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
        customer: the 16 bytes of its new customer's id.
        policy_version: by which it was made.
        model_version: of the match model, likewise.
        rows: of the customer and its record, encoded, in the order of `copies.TABLES`.
    """

    customer: bytes
    policy_version: int
    model_version: str
    rows: tuple[bytes, ...]

    @property
    def customer_id(self) -> UUID:
        """Of its new customer."""
        return UUID(bytes=self.customer)

    def row(self, table: str) -> dict[str, bytes]:
        """The values of its one row in a table, by column."""
        return dict(zip(TABLES[table][0], values(self.rows[_PLACES[table]]), strict=True))

    def party(self, key: DataKey) -> Party:
        """The standardised party, with the key of the record."""
        state = self.row("source_records")
        return Party.FromString(key.open(state["party"], bound_to(STATED_PARTY, UUID(bytes=state["record_id"]), 1)))


def bare(item: Prepared, lone: Lone) -> Prepared:
    """A prepared record without what its `Lone` has."""
    return item._replace(payload=b"", party=b"", lookup_keys=(), sealed=None, lone=lone)


def whole(item: Prepared, key: DataKey) -> Prepared:
    """A prepared record as it was before it was made bare, with the key of the record."""
    if item.lone is None or item.record_id is None:
        return item
    state, record = item.lone.row("source_records"), item.lone.row("records")
    return item._replace(
        payload=key.open(state["payload"], bound_to(STATED_PAYLOAD, item.record_id, 1)),
        party=key.open(state["party"], bound_to(STATED_PARTY, item.record_id, 1)),
        lookup_keys=read_bigints(record["lookup_keys"]),
        sealed=Sealed(state["payload"], state["party"], record["party"]),
        lone=None,
    )


@dataclass(frozen=True, slots=True)
class _Assessed:
    """What holds for every sole record of one shape.

    Args:
        event: the part of the customer's event that says what is believed how well, serialised.
        scores: completeness and credibility, two bytes each; none where they are in no band that is told.
        quality_event: the part of the event about the scores, serialised.
    """

    event: bytes
    scores: tuple[bytes, ...] = ()
    quality_event: bytes = b""


class _Forms:
    """Everything about the rows of a source system's new records that is alike for all of them."""

    def __init__(self, source: SourceSystem, moment: Moment) -> None:
        now, institution_id = copies.microseconds(moment.now), source.institution_id
        self.customers = Form("customers", (VARIES, 1, now, now, False))
        self.records = Form(
            "records",
            (VARIES, source.number, VARIES, institution_id, VARIES, 1, LinkOrigin.AUTO, ResolutionReason.NEW_CUSTOMER, 1, 1,
             VARIES, VARIES, now, now, VARIES, VARIES, VARIES),
        )  # fmt: skip
        self.source_records = Form("source_records", (VARIES, 1, institution_id, VARIES, VARIES, VARIES, VARIES, now))
        self.links = Form(
            "links",
            (VARIES, 1, VARIES, LinkOrigin.AUTO, ResolutionReason.NEW_CUSTOMER, moment.model_version, None, b"", now, None, ""),
        )
        self.qualities = Form("customer_qualities", (VARIES, 1, VARIES, VARIES))
        self.updated = Form("outbox", (VARIES, VARIES, published.CUSTOMER_UPDATED, None, VARIES, VARIES, now, None))
        self.assessed = Form("outbox", (VARIES, VARIES, published.QUALITY_CHANGED, None, VARIES, VARIES, now, None))
        self.version = StateVersion(epoch=moment.epoch, version=1)
        self.create_time_seconds = int(moment.now.timestamp())


class LoneMaker:
    """Makes `Lone`s; remembers by the shape of a party what does not depend on its values."""

    def __init__(self, index: BlindIndex) -> None:
        self._index = index
        self._shapes: dict[tuple[Any, ...], _Assessed | None] = {}
        self._rules: tuple[Any, ...] = ()
        self._forms: tuple[SourceSystem, Moment, _Forms] | None = None

    def make(self, item: Prepared, party: Party, moment: Moment) -> Lone | None:
        """What this record would bring; None when stewards would have something to look at.

        Args:
            item: sealed, with its id.
            party: of the record, standardised.
            moment: when, and under what rules.
        """
        if item.record_id is None or item.sealed is None:
            return None
        assessed = self._assessed(item, party, moment)
        if assessed is None:
            return None
        if self._forms is None or self._forms[0] is not item.source or self._forms[1] is not moment:
            self._forms = item.source, moment, _Forms(item.source, moment)
        forms, customer_id = self._forms[2], new_id()
        rows = _rows(item, customer_id, forms, _changed(item, customer_id, party, forms, moment) + assessed.event, assessed)
        return Lone(customer_id.bytes, moment.policy.version, moment.model_version, rows)

    def _assessed(self, item: Prepared, party: Party, moment: Moment) -> _Assessed | None:
        shape = shape_of(party, moment.now.date())
        if shape is None:
            return assess(self._index, item, party, moment)
        # Trust fades by the day: what was assessed within the minute holds.
        rules = moment.epoch, moment.policy.version, moment.model_version, moment.now.replace(second=0, microsecond=0)
        if rules != self._rules or len(self._shapes) > SHAPES_REMEMBERED_MAX:
            self._shapes, self._rules = {}, rules
        key = (*shape, item.observe_time, item.source.name)
        if key not in self._shapes:
            self._shapes[key] = assess(self._index, item, party, moment)
        return self._shapes[key]


def assess(index: BlindIndex, item: Prepared, party: Party, moment: Moment) -> _Assessed | None:
    """What is believed of a customer with this record alone, and how good it is; None when stewards should look at it."""
    source, now = item.source, moment.now
    row = CustomerRow(new_id(), 1, now, now)
    member = Member(
        item.record_id or row.customer_id, source.number, source.name, source.institution_id, item.source_key, row.customer_id,
        1, LinkOrigin.AUTO, ResolutionReason.NEW_CUSTOMER, 1, 1, item.content_hash, item.observe_time, party, now, now,
        source.ranks, 1,
    )  # fmt: skip
    believed = golden([view(member)], moment.policy, now)
    if findings.new_items(index, believed):
        return None
    message = published.customer_changed(row, [member], believed, now, moment.epoch).message
    assert isinstance(message, pb.CustomerChanged)
    standard = quality_standard()
    found = quality.assess(believed, (), {}, standard, now)
    only = pb.CustomerChanged(attribute_qualities=message.attribute_qualities, role_kinds=message.role_kinds)
    if not publishing.crosses(_ONE_RECORD, found, standard):
        return _Assessed(only.SerializeToString())
    percents = found.completeness_percent, found.credibility_percent
    told = published.quality_changed(row.customer_id, Remembered(1, *percents), moment.epoch).message
    told.ClearField("customer_id")
    scores = tuple(percent.to_bytes(2, "big") for percent in percents)
    return _Assessed(only.SerializeToString(), scores, told.SerializeToString())


def shape_of(party: Party, today: date) -> tuple[Any, ...] | None:
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
        identity_documents.is_birth_date(party.birth_date, today) if party.birth_date else None,
        bool(party.sex),
        tuple(documents),
        tuple(one.valid for one in party.phones),
        tuple(one.valid for one in party.emails),
        any(address.address_lines) or any(getattr(address, field) for field in _ADDRESS_TEXTS),
        bool(party.language_code),
        party.time_zone in time_zones() if party.time_zone else None,
        bool(party.occupation),
    )


def _changed(item: Prepared, customer_id: UUID, party: Party, forms: _Forms, moment: Moment) -> bytes:
    """The part of the event that depends on the values."""
    address, birth_date, text = party.postal_address, party.birth_date, str(customer_id)
    is_day = identity_documents.is_birth_date(birth_date, moment.now.date())
    link = RecordLink(
        record_id=str(item.record_id), institution_id=item.source.institution_id, customer_id=text, state_version=forms.version
    )
    return pb.CustomerChanged(
        customer_id=text,
        state_version=forms.version,
        party_kind=party.party_kind,
        birth_year=int(birth_date[:4]) if is_day else 0,
        sex=party.sex,
        country_code=address.country_code,
        administrative_area=address.administrative_area,
        language_code=party.language_code,
        time_zone=party.time_zone if party.time_zone in time_zones() else "",
        record_links=[link],
        create_time_seconds=forms.create_time_seconds,
    ).SerializeToString()


def _rows(item: Prepared, customer_id: UUID, forms: _Forms, changed: bytes, assessed: _Assessed) -> tuple[bytes, ...]:
    """In the order of `copies.TABLES`."""
    assert item.record_id is not None
    assert item.sealed is not None
    record, customer, name, sealed = item.record_id.bytes, customer_id.bytes, sized(str(customer_id).encode()), item.sealed
    content_hash, observed_at = sized(item.content_hash), instant(item.observe_time)
    events, qualities = forms.updated.row(new_id_bytes(), new_id_bytes(), name, sized(changed)), b""
    if assessed.scores:
        qualities = forms.qualities.row(customer, *assessed.scores)
        told = pb.QualityChanged(customer_id=str(customer_id)).SerializeToString() + assessed.quality_event
        events += forms.assessed.row(new_id_bytes(), new_id_bytes(), name, sized(told))
    return (
        forms.customers.row(customer),
        forms.records.row(
            record, sized(item.source_key), customer, content_hash, observed_at, sized(sealed.present_party),
            bigints(item.blocking_keys), bigints(item.lookup_keys),
        ),
        forms.source_records.row(record, content_hash, observed_at, sized(sealed.payload), sized(sealed.stated_party)),
        forms.links.row(record, customer),
        key_rows(item.blocking_keys, record),
        qualities,
        events,
    )  # fmt: skip


def together(lones: Sequence[Lone]) -> dict[str, list[bytes]]:
    """The rows of many, by table. Blocking keys are sorted: their index is larger than memory, and twice as fast in order."""
    tables = {table: list(rows) for table, rows in zip(TABLES, zip(*(lone.rows for lone in lones), strict=True), strict=False)}
    if keys := b"".join(tables.get("blocking_keys", ())):
        tables["blocking_keys"] = sorted(keys[place : place + KEY_ROW_BYTES] for place in range(0, len(keys), KEY_ROW_BYTES))
    return tables
