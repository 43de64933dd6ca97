"""Takes prepared source records: one transaction and a handful of statements a batch, decided in memory, one after another."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, cast
from uuid import UUID

from chassis.unit_of_work import UnitOfWork
from concord.customer.v1.party_pb2 import Party
from customer.candidates import Holders, evidence
from customer.changes import Changes
from customer.core import Core
from customer.domain.intake import Rejected, outcome_of_state
from customer.domain.vocabulary import LinkOrigin, Outcome, ResolutionReason
from customer.lone import Lone, together, whole
from customer.prepare import Prepared, seal
from customer.resolving import Alone, Resolver
from customer.store import copies, matches, rejections, reviews, states
from customer.store import records as record_store
from customer.store.record_writes import Content, RacedError, Sighting, State
from customer.store.records import Found, Member
from customer.store.states import Statement
from customer.store.vault import DataKey

TAKEN_AT_ONCE_MAX = 50
"""Between so many records the event loop turns."""
NEVER = datetime.min.replace(tzinfo=UTC)
_Key = tuple[int, bytes]
_Said = dict[tuple[bytes, datetime], int]
"""The number of the state, by content and instant of observation."""


class Taken(NamedTuple):
    """What became of a record."""

    outcome: Outcome
    source_system: str
    record_id: UUID
    customer_id: UUID
    reason: ResolutionReason

    @property
    def record(self) -> str:
        """`institutions/{institution}/sourceSystems/{source_system}/records/{record}`."""
        return f"{self.source_system}/records/{self.record_id}"


async def take(unit: UnitOfWork, core: Core, items: Sequence[Prepared]) -> list[Taken | Rejected]:
    """Takes records, in order; each has an outcome of its own.

    Stripes are locked before customers, each in their order, so that batches never wait in a circle.
    """
    connection = unit.connection
    found, erased = await record_store.find_or_erased(connection, {item.key for item in items})
    if any(item.observe_time <= erased.get(item.key, NEVER) for item in items):
        return await _take_but_erased(unit, core, items, erased)
    late = {known.record_id for item in items if (known := found.get(item.key)) and _is_late(item, known)}
    said = await states.statements(connection, late) if late else {}
    # Of a record with one item that brings news every item may: they build on one another.
    news = {item.key for item in items if _brings_news(item, found.get(item.key), said)}
    batch = _Batch(unit, core)
    if news:
        await batch.load([item for item in items if item.key in news], found, said)
    taken: list[tuple[Outcome, Member | Found | Whose, ResolutionReason]] = []
    for place, item in enumerate(items):
        if place % TAKEN_AT_ONCE_MAX == TAKEN_AT_ONCE_MAX - 1:
            await asyncio.sleep(0)
        if item.key not in news:
            taken.append(_unchanged(item, found[item.key]))
        elif batch.leaves_alone(item):
            taken.append((Outcome.CREATED, batch.whose(item), ResolutionReason.NEW_CUSTOMER))
        else:
            taken.append(batch.take(batch.whole(item)))
    if news:
        await batch.write()
    return [
        Taken(outcome, item.source.name, known.record_id, known.customer_id, reason)
        for item, (outcome, known, reason) in zip(items, taken, strict=True)
    ]


async def _take_but_erased(
    unit: UnitOfWork, core: Core, items: Sequence[Prepared], erased: Mapping[_Key, datetime]
) -> list[Taken | Rejected]:
    """What was observed before its record was erased does not bring the record back."""
    late = [item.observe_time <= erased.get(item.key, NEVER) for item in items]
    rest = iter(await take(unit, core, [item for item, is_late in zip(items, late, strict=True) if not is_late]))
    rule = "must be after the erasure of this record; what was observed before is not taken again"
    return [Rejected("observe_time", "ERASED", rule) if is_late else next(rest) for is_late in late]


def _is_late(item: Prepared, known: Found) -> bool:
    if item.content_hash == known.content_hash:
        return item.observe_time < known.observe_time
    return item.observe_time <= known.observe_time


def _brings_news(item: Prepared, known: Found | None, said: Mapping[UUID, Collection[Statement]]) -> bool:
    """Whether anything is written for an item; for what was said before nothing is."""
    if known is None:
        return True
    statement = item.content_hash, item.observe_time
    if statement == (known.content_hash, known.observe_time):
        return False
    return all(statement != (one.content_hash, one.observe_time) for one in said.get(known.record_id, ()))


def _unchanged(item: Prepared, known: Found) -> tuple[Outcome, Found, ResolutionReason]:
    outcome = Outcome.UNCHANGED if item.content_hash == known.content_hash else Outcome.STALE
    return outcome, known, ResolutionReason.SOURCE_KEY


def _alone(item: Prepared, lone: Lone, key: DataKey) -> Alone:
    return Alone(lone.customer_id, item.content_hash, evidence(lone.party(key), item.source.name))


class Whose(NamedTuple):
    """A record that was left alone, and its customer."""

    record_id: UUID
    customer_id: UUID


class _Batch:
    """What a batch knows and changes. Decisions follow one another in memory, then everything is written at once."""

    def __init__(self, unit: UnitOfWork, core: Core) -> None:
        self.unit = unit
        self.core = core
        self.changes = Changes(unit, core)
        self.resolver: Resolver
        self.records: dict[_Key, Member] = {}
        self.keys: dict[UUID, DataKey] = {}
        self.new_keys: dict[str, list[tuple[UUID, DataKey]]] = {}
        self.said: dict[UUID, _Said] = {}
        self.alone: dict[_Key, Prepared] = {}
        self.alone_keys: dict[UUID, _Key] = {}
        self.policy_version = 0

    async def load(self, items: Sequence[Prepared], found: dict[_Key, Found], said: Mapping[UUID, Collection[Statement]]) -> None:
        """Locks what these items may touch, and reads the records of every customer that they may belong to."""
        connection = self.unit.connection
        holders, population = Holders(), 0
        decided = [item for item in items if item.key not in found or item.content_hash != found[item.key].content_hash]
        blocking_keys = sorted({key for item in decided for key in item.blocking_keys})  # near ones lie together in the index
        if blocking_keys:
            population = await matches.lock_stripes(connection, blocking_keys)
            await holders.read(connection, blocking_keys)
        customers = {found[item.key].customer_id for item in items if item.key in found}
        for item in decided:
            customers |= {holders.customers[record_id] for record_id in holders.of(item.blocking_keys)}
        if customers:
            await self.changes.load(customers)
        by_id = {member.record_id: member for members in self.changes.members.values() for member in members.values()}
        for item in items:
            if item.key in found:
                member = by_id.get(found[item.key].record_id)
                if member is None:
                    raise RacedError("a record went to another customer")
                self.records[item.key] = member
                self.said[member.record_id] = {(member.content_hash, member.observe_time): member.state_number} | {
                    (one.content_hash, one.observe_time): one.state_number for one in said.get(member.record_id, ())
                }
        await self._take_keys(items)
        rejected = await rejections.rejected_with(connection, list(by_id)) if by_id else {}
        self.policy_version = (await self.core.policies.at(connection, self.unit.now)).version
        self.resolver = Resolver(self.changes, self.core.models.current(), holders, by_id, rejected, population)

    async def _take_keys(self, items: Sequence[Prepared]) -> None:
        wanted: dict[str, set[_Key]] = {}
        for item in items:
            if item.key not in self.records and item.record_id is None:
                wanted.setdefault(item.source.institution_id, set()).add(item.key)
        for institution_id, keys in wanted.items():
            self.new_keys[institution_id] = await self.core.vault.new(institution_id, len(keys))
        known = [member.record_id for member in self.records.values()]
        brought = [item.record_id for item in items if item.record_id is not None]
        if known or brought:
            self.keys = await self.core.vault.keys([*known, *brought])

    def leaves_alone(self, item: Prepared) -> bool:
        """Whether an item is a new record near to nobody, prepared whole: then nothing more is to be decided about it now."""
        lone, record_id = item.lone, item.record_id
        if lone is None or record_id is None or item.key in self.records or item.key in self.alone:
            return False
        if (lone.policy_version, lone.model_version) != (self.policy_version, self.resolver.model_version):
            return False  # they were replaced since it was prepared
        key = self.keys[record_id]
        if not self.resolver.leaves_alone(record_id, item.blocking_keys, lambda: _alone(item, lone, key)):
            return False
        self.alone[item.key] = item
        self.alone_keys[record_id] = item.key
        return True

    @staticmethod
    def whose(item: Prepared) -> Whose:
        """Of an item that was left alone."""
        return Whose(cast(UUID, item.record_id), cast(Lone, item.lone).customer_id)

    def whole(self, item: Prepared) -> Prepared:
        """An item as it was before it was made bare."""
        return whole(item, self.keys[item.record_id]) if item.record_id else item

    def _meet(self, item: Prepared) -> None:
        """Records that were left alone and are near to this one join what is decided in memory."""
        same = self.alone.get(item.key)
        for record_id in self.resolver.take_back((*item.blocking_keys, *(same.blocking_keys if same else ()))):
            left = self.alone.pop(self.alone_keys[record_id])
            member, content = self._new(self.whole(left))
            self.resolver.add_alone(member, content, self.whose(left).customer_id)

    def take(self, item: Prepared) -> tuple[Outcome, Member, ResolutionReason]:
        """Decides about one item: what becomes of it, its record, and why that belongs to its customer."""
        if self.alone:
            self._meet(item)
        member = self.records.get(item.key)
        if member is None:
            return self._create(item)
        if (item.content_hash, item.observe_time) in self.said[member.record_id]:
            outcome = Outcome.UNCHANGED if item.content_hash == member.content_hash else Outcome.STALE
            return outcome, member, ResolutionReason.SOURCE_KEY
        outcome = outcome_of_state(member.content_hash, member.observe_time, item.content_hash, item.observe_time)
        reason = ResolutionReason.SOURCE_KEY
        if outcome is Outcome.UPDATED:
            reason = self.resolver.resolve_again(member, Party.FromString(item.party), item.blocking_keys)
            self._state(member, item)
        else:
            self._say_late_or_again(member, item, outcome)
        return outcome, member, reason

    def _create(self, item: Prepared) -> tuple[Outcome, Member, ResolutionReason]:
        member, content = self._new(item)
        return Outcome.CREATED, member, self.resolver.resolve(member, content)

    def _new(self, item: Prepared) -> tuple[Member, Content]:
        source, now = item.source, self.changes.now
        if item.sealed is not None and item.record_id is not None:
            record_id, sealed = item.record_id, item.sealed
        else:
            record_id, key = self.new_keys[source.institution_id].pop()
            self.keys[record_id] = key
            sealed = seal(item, key, record_id, 1)
        party = Party.FromString(item.party)
        member = Member(
            record_id, source.number, source.name, source.institution_id, item.source_key, record_id, 1, LinkOrigin.AUTO, 0, 1, 1,
            item.content_hash, item.observe_time, party, now, now, source.ranks, 1,
        )  # fmt: skip
        content = Content(sealed.present_party, item.blocking_keys, item.lookup_keys)
        self.changes.writes.states.append(
            State(record_id, 1, source.institution_id, item.content_hash, item.observe_time, sealed.payload, sealed.stated_party)
        )
        self.records[item.key] = member
        self.said[record_id] = {(item.content_hash, item.observe_time): 1}
        return member, content

    def _state(self, member: Member, item: Prepared) -> None:
        """The record's present state is another one."""
        member.statements_count += 1
        member.state_number = member.statements_count
        member.content_hash, member.observe_time = item.content_hash, item.observe_time
        member.update_time = self.changes.now
        sealed = seal(item, self.keys[member.record_id], member.record_id, member.state_number)
        self._keep(member, item, sealed.payload, sealed.stated_party)
        self.changes.change(member, Content(sealed.present_party, item.blocking_keys, item.lookup_keys))
        self.changes.touch(member.customer_id)

    def _keep(self, member: Member, item: Prepared, payload: bytes, party: bytes) -> None:
        number = member.statements_count
        self.said[member.record_id][item.content_hash, item.observe_time] = number
        self.changes.writes.states.append(
            State(member.record_id, number, member.institution_id, item.content_hash, item.observe_time, payload, party)
        )

    def _say_late_or_again(self, member: Member, item: Prepared, outcome: Outcome) -> None:
        """A state that was known is seen again, or one that is out of date by now arrives: both belong to the history."""
        said = self.said[member.record_id]
        state_number = next((number for (content, _), number in said.items() if content == item.content_hash), None)
        member.statements_count += 1
        if state_number is None:
            sealed = seal(item, self.keys[member.record_id], member.record_id, member.statements_count)
            self._keep(member, item, sealed.payload, sealed.stated_party)
        else:
            said[item.content_hash, item.observe_time] = state_number
            self.changes.writes.sightings.append(
                Sighting(member.record_id, member.statements_count, state_number, item.observe_time)
            )
        if outcome is Outcome.UNCHANGED and item.observe_time > member.observe_time:
            # Recency counts from now on.
            member.observe_time, member.update_time = item.observe_time, self.changes.now
            self.changes.touch(member.customer_id)
        self.changes.change(member)

    async def write(self) -> None:
        """Writes and publishes what changed, and asks stewards what the platform must not decide."""
        await self.changes.write()
        for table, rows in together([cast(Lone, item.lone) for item in self.alone.values()]).items():
            await copies.copy(self.unit.connection, table, rows)
        if self.resolver.questions:
            await reviews.open_items(self.unit.connection, self.resolver.questions, self.changes.now)
