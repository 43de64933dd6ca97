"""Takes source records: one transaction and a handful of statements for a batch of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1 import intake_service_pb2 as pb
from concord.customer.v1.party_pb2 import Party
from customer import messages, published
from customer.domain.blind_index import BlindIndex
from customer.domain.intake import Rejected, instant, outcome_of_state
from customer.domain.resolution import Customers, Identity
from customer.domain.vocabulary import Outcome, ResolutionReason
from customer.store import customers as customer_store
from customer.store import records as record_store
from customer.store.customers import CustomerRow
from customer.store.institutions import SourceSystem
from customer.store.records import Member, SearchKeys, State

PREPARED_AT_ONCE_MAX = 25
"""Standardising takes about 0.1 ms a record; between so many the event loop turns."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A record as it came in."""

    source: SourceSystem
    record: pb.SourceRecord


@dataclass(frozen=True, slots=True)
class _Prepared:
    place: int
    source: SourceSystem
    source_key: bytes
    payload: bytes
    content_hash: bytes
    observe_time: datetime
    stated: Party
    standard: Party
    identity: Identity
    document_keys: set[bytes]

    @property
    def key(self) -> tuple[int, bytes]:
        return self.source.number, self.source_key


async def ingest(unit: UnitOfWork, index: BlindIndex, items: Sequence[Stated]) -> list[pb.IngestRecordResult]:
    """Takes records, in order; each has an outcome of its own.

    Locks are taken in the order records, documents, customers, each sorted by its key, so that batches never wait in a circle.
    """
    results: list[pb.IngestRecordResult] = [
        pb.IngestRecordResult(source_record_key=item.record.source_record_key) for item in items
    ]
    prepared = await _prepare(unit, index, items, results)
    if not prepared:
        return results
    batch = _Batch(unit, index)
    known = await record_store.lock_by_source_key(unit.connection, {item.key for item in prepared})
    batch.records = {(member.source_system_number, member.source_key): member for member in known}
    # Of a key with one item that may change something, every item may: they build on one another.
    news = {item.key for item in prepared if batch.brings_news(item)}
    if news:
        await batch.load([item for item in prepared if item.key in news])
    for item in prepared:
        _answer(results[item.place], *batch.take(item))
    await batch.write()
    return results


async def _prepare(
    unit: UnitOfWork, index: BlindIndex, items: Sequence[Stated], results: Sequence[pb.IngestRecordResult]
) -> list[_Prepared]:
    prepared = []
    for place, item in enumerate(items):
        if place % PREPARED_AT_ONCE_MAX == PREPARED_AT_ONCE_MAX - 1:
            await asyncio.sleep(0)
        try:
            prepared.append(_prepared(unit.now, index, place, item))
        except Rejected as rejected:
            results[place].outcome = pb.INGEST_OUTCOME_REJECTED
            results[place].error.field = rejected.field
            results[place].error.reason = rejected.reason
            results[place].error.description = rejected.description
    return prepared


def _prepared(now: datetime, index: BlindIndex, place: int, item: Stated) -> _Prepared:
    record, source = item.record, item.source
    observe_time = instant(record.observe_time.seconds, record.observe_time.nanos, "observe_time", now)
    stated = messages.canonical(record.party)
    standard = messages.standardised(stated, source.country_code)
    identity = messages.identity_of(standard, now.date())
    return _Prepared(
        place=place,
        source=source,
        source_key=index.source_key(source.name, record.source_record_key),
        payload=record.SerializeToString(),
        content_hash=index.content(stated.SerializeToString(deterministic=True)),
        observe_time=observe_time,
        stated=stated,
        standard=standard,
        identity=identity,
        document_keys=messages.document_keys(index, identity),
    )


def _answer(result: pb.IngestRecordResult, outcome: Outcome, member: Member, reason: ResolutionReason) -> None:
    result.outcome = pb.IngestOutcome.ValueType(outcome)
    result.record = member.name
    result.customer = f"customers/{member.customer_id}"
    result.resolution_reason = pb.ResolutionReason.ValueType(reason)


class _Batch:
    """What a batch knows and changes. Decisions follow one another in memory, then everything is written at once."""

    def __init__(self, unit: UnitOfWork, index: BlindIndex) -> None:
        self.unit = unit
        self.index = index
        self.records: dict[tuple[int, bytes], Member] = {}
        self.members: dict[UUID, dict[UUID, Member]] = {}
        self.rows: dict[UUID, CustomerRow] = {}
        self.identities = Customers()
        self.changed: dict[UUID, Member] = {}
        self.states: list[State] = []
        self.search: dict[UUID, SearchKeys] = {}
        self.touched: dict[UUID, None] = {}
        self.moves: list[tuple[UUID, Member]] = []

    def brings_news(self, item: _Prepared) -> bool:
        """Whether an item may change something, by itself; most of a repeated feed does not."""
        member = self.records.get(item.key)
        if member is None:
            return True
        return item.observe_time > member.observe_time or (
            item.observe_time == member.observe_time and item.content_hash != member.content_hash
        )

    async def load(self, items: Sequence[_Prepared]) -> None:
        """Locks the documents and customers that these items may touch, and reads all records of those customers."""
        connection = self.unit.connection
        documents = sorted(set().union(*(item.document_keys for item in items)))
        candidates = {self.records[item.key].customer_id for item in items if item.key in self.records}
        if documents:
            await record_store.lock_documents(connection, documents)
            candidates |= set(await record_store.customers_by_document(connection, documents))
        if not candidates:
            return
        self.rows = await customer_store.lock(connection, candidates)
        by_id = {member.record_id: key for key, member in self.records.items()}
        today = self.unit.now.date()
        for members in await record_store.visible(connection, [(customer_id, None) for customer_id in self.rows]):
            for member in members:
                if member.record_id in by_id:
                    self.records[by_id[member.record_id]] = member
                self.members.setdefault(member.customer_id, {})[member.record_id] = member
                identity = messages.identity_of(Party.FromString(member.party), today)
                self.identities.link(member.customer_id, member.record_id, identity)

    def take(self, item: _Prepared) -> tuple[Outcome, Member, ResolutionReason]:
        """Decides about one item: what becomes of it, its record, and why that belongs to its customer."""
        member = self.records.get(item.key)
        if member is None:
            return self._create(item)
        outcome = outcome_of_state(member.content_hash, member.observe_time, item.content_hash, item.observe_time)
        reason = ResolutionReason.SOURCE_KEY
        if outcome is Outcome.UPDATED:
            reason = self._update(member, item)
        elif outcome is Outcome.UNCHANGED and item.observe_time > member.observe_time:
            # The same content was seen again: it is no new state, but recency counts from now on.
            self._touch(member, item)
        return outcome, member, reason

    def _create(self, item: _Prepared) -> tuple[Outcome, Member, ResolutionReason]:
        customer_id, reason = self.identities.resolve(item.identity)
        source, now = item.source, self.unit.now
        member = Member(
            new_id(), source.number, source.name, source.institution_id, item.source_key, customer_id or self._new_customer(),
            1, reason, 0, b"", item.observe_time, b"", now, now, source.ranks, 1,
        )  # fmt: skip
        self.records[item.key] = member
        self._state(member, item)
        return Outcome.CREATED, member, reason

    def _update(self, member: Member, item: _Prepared) -> ResolutionReason:
        former = self.identities.members[member.customer_id][member.record_id]
        target, reason = self.identities.resolve_again(item.identity, former, member.record_id, member.customer_id)
        if target != member.customer_id:
            self._move(member, target or self._new_customer(), reason)
        self._state(member, item)
        return reason

    def _move(self, member: Member, target: UUID, reason: ResolutionReason) -> None:
        former = member.customer_id
        self.identities.unlink(former, member.record_id)
        del self.members[former][member.record_id]
        self.touched[former] = None
        member.customer_id, member.resolution_reason = target, reason
        member.link_version += 1
        self.moves.append((former, member))

    def _state(self, member: Member, item: _Prepared) -> None:
        member.state_number += 1
        member.content_hash = item.content_hash
        member.party = item.standard.SerializeToString()
        self.states.append(State(member.record_id, member.state_number, item.content_hash, item.observe_time, item.payload))
        self.search[member.record_id] = messages.search_keys(
            member.record_id, self.index, item.stated, item.standard, item.document_keys
        )
        self._touch(member, item)

    def _touch(self, member: Member, item: _Prepared) -> None:
        member.observe_time = item.observe_time
        member.update_time = self.unit.now
        self.members.setdefault(member.customer_id, {})[member.record_id] = member
        self.identities.link(member.customer_id, member.record_id, item.identity)
        self.changed[member.record_id] = member
        self.touched[member.customer_id] = None

    def _new_customer(self) -> UUID:
        customer_id = new_id()
        self.rows[customer_id] = CustomerRow(customer_id, 0, self.unit.now)
        return customer_id

    async def write(self) -> None:
        """Writes what changed and publishes it: each touched customer once, in its final state."""
        if not self.changed:
            return
        rows = [self.rows[customer_id] for customer_id in self.touched]
        for row in rows:
            row.version += 1
        connection, epoch = self.unit.connection, self.unit.epoch
        await customer_store.write(connection, rows, self.unit.now)
        await record_store.write(connection, list(self.changed.values()), self.states, list(self.search.values()))
        for row in rows:
            members = list(self.members.get(row.customer_id, {}).values())
            self.unit.publish(published.customer_changed(row, members, epoch))
        for former, member in self.moves:
            self.unit.publish(published.records_moved(former, member, "RELINK", epoch))
