"""What can be done with a source record before any database is asked: standard form, keys, hashes. No I/O."""

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from concord.customer.v1 import intake_service_pb2 as pb
from concord.customer.v1.party_pb2 import Party
from customer.domain.blind_index import BlindIndex
from customer.domain.blocking import blocking_keys
from customer.domain.intake import instant
from customer.features import features_of
from customer.search_keys import search_keys
from customer.standards import canonical, standardised
from customer.store.institutions import SourceSystem
from customer.store.records import PRESENT_PARTY, STATED_PARTY, STATED_PAYLOAD
from customer.store.vault import DataKey, bound_to

if TYPE_CHECKING:
    from customer.lone import Lone


class Sealed(NamedTuple):
    """A state, sealed under the data key of its record."""

    payload: bytes
    stated_party: bytes
    present_party: bytes


class Prepared(NamedTuple):
    """A source record, ready to be decided on. Small, and a plain tuple, because millions travel between processes.

    Args:
        party: standardised, serialised.
        blocking_keys: the strongest first.
        record_id: with `sealed` for its first state: to be used if the record turns out to be new.
        lone: what it brings if it turns out to be new and near to nobody; `payload`, `party`, `lookup_keys` and `sealed` are
            in there then, and empty here.
    """

    source: SourceSystem
    source_key: bytes
    observe_time: datetime
    content_hash: bytes
    payload: bytes
    party: bytes
    blocking_keys: tuple[int, ...]
    lookup_keys: tuple[int, ...]
    record_id: UUID | None = None
    sealed: Sealed | None = None
    lone: "Lone | None" = None

    @property
    def key(self) -> tuple[int, bytes]:
        """What it is known by."""
        return self.source.number, self.source_key


def prepare(now: datetime, index: BlindIndex, source: SourceSystem, record: pb.SourceRecord) -> Prepared:
    """A source record as it came in, ready to be decided on.

    Raises:
        Rejected: naming the field and the rule.
    """
    return prepare_with_party(now, index, source, record)[0]


def prepare_with_party(
    now: datetime, index: BlindIndex, source: SourceSystem, record: pb.SourceRecord, *, is_canonical: bool = False
) -> tuple[Prepared, Party]:
    """A source record ready to be decided on, with its standardised party.

    Args:
        now: the instant of the intake.
        index: for keyed hashes.
        source: the record's source system.
        record: as it came in.
        is_canonical: its texts are composed and have single spaces.

    Raises:
        Rejected: naming the field and the rule.
    """
    observe_time = instant(record.observe_time.seconds, record.observe_time.nanos, "observe_time", now)
    stated = record.party if is_canonical else canonical(record.party)
    standard = standardised(stated, source.country_code, now.date())
    features = features_of(standard, source=source.name)
    prepared = Prepared(
        source=source,
        source_key=index.source_key(source.name, record.source_record_key),
        observe_time=observe_time,
        content_hash=index.content(stated.SerializeToString(deterministic=True)),
        payload=record.SerializeToString(),
        party=standard.SerializeToString(),
        blocking_keys=tuple(dict.fromkeys(index.blocking_keys(blocking_keys(features)))),
        lookup_keys=tuple(search_keys(index, source.institution_id, stated, standard)),
    )
    return prepared, standard


def seal(item: Prepared, key: DataKey, record_id: UUID, state_number: int) -> Sealed:
    """A state of a record, sealed for the three places where it stands."""
    return Sealed(
        key.seal(item.payload, bound_to(STATED_PAYLOAD, record_id, state_number)),
        key.seal(item.party, bound_to(STATED_PARTY, record_id, state_number)),
        key.seal(item.party, bound_to(PRESENT_PARTY, record_id, state_number)),
    )
