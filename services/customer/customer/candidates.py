"""Whom a record may belong to: the customers of records that share a blocking key, judged by the match model."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from uuid import UUID

from opentelemetry import metrics

from chassis.database import Connection
from concord.customer.v1.party_pb2 import Party
from customer.domain.features import Features
from customer.features import features_of
from customer.store import matches
from customer.store.records import Member

CANDIDATES_MAX = 50
"""Records that are compared with one record: those that share most keys with it."""
_hot_keys = metrics.get_meter("concord").create_counter(
    "customer.hot_blocking_keys", description="Blocking keys that more records share than are read"
)


class Holders:
    """Which records hold which blocking keys: those of the database, and those that a transaction brings."""

    def __init__(self) -> None:
        self._records: dict[int, list[UUID]] = {}
        self.customers: dict[UUID, UUID] = {}
        """Of the records read from the database, as they were then."""

    async def read(self, connection: Connection, keys: Collection[int], institution_id: str | None = None) -> None:
        """Reads who holds these keys; of one institution's records, or (None) of all."""
        for key, record_id, customer_id in await matches.holders(connection, keys, institution_id):
            self._records.setdefault(key, []).append(record_id)
            self.customers[record_id] = customer_id
        hot = [held for held in self._records.values() if len(held) > matches.RECORDS_OF_A_KEY_MAX]
        for held in hot:
            held.pop()
        if hot:
            _hot_keys.add(len(hot))

    def add(self, keys: Iterable[int], record_id: UUID) -> None:
        """A record holds these keys."""
        for key in keys:
            held = self._records.setdefault(key, [])
            if len(held) < matches.RECORDS_OF_A_KEY_MAX:
                held.append(record_id)

    def of(self, keys: Sequence[int], record_id: UUID | None = None) -> list[UUID]:
        """The records that share most keys with these; without the record itself. Of equals those with the stronger key."""
        held = [records for key in keys if (records := self._records.get(key))]
        if not held:
            return []
        shared = Counter(chain.from_iterable(held))
        shared.pop(record_id, None)  # type: ignore[arg-type]
        return [found for found, _ in shared.most_common(CANDIDATES_MAX)]


class Evidence:
    """The features of records, made when they are first asked for."""

    def __init__(self) -> None:
        self._made: dict[UUID, Features] = {}

    def of(self, member: Member) -> Features:
        """The features of a record in its present state."""
        made = self._made.get(member.record_id)
        if made is None:
            made = self._made[member.record_id] = evidence(member.party, member.source_system)
        return made

    def replace(self, member: Member, features: Features) -> None:
        """A record has a new state."""
        self._made[member.record_id] = features

    def of_customer(self, members: Mapping[UUID, Member], without: UUID | None = None) -> dict[UUID, Features]:
        """The features of a customer's records."""
        return {record_id: self.of(member) for record_id, member in members.items() if record_id != without}


def evidence(party: Party, source_system: str) -> Features:
    """The features of a standardised party."""
    return features_of(party, source=source_system)
