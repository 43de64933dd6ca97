"""The one way to change what belongs to customers: lock, change in memory, write and publish at once."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from customer import findings, published, publishing
from customer.core import Core
from customer.domain.golden import Golden
from customer.domain.vocabulary import LinkOrigin, MoveReason, ResolutionReason
from customer.store import anchors, record_writes
from customer.store import customers as customer_store
from customer.store import merges as merge_store
from customer.store import quality as quality_store
from customer.store import records as record_store
from customer.store.customers import CustomerRow
from customer.store.links import Link
from customer.store.merges import Merge
from customer.store.record_writes import Content, Writes
from customer.store.records import Member


@dataclass(frozen=True, slots=True)
class Why:
    """Why a record belongs to its customer.

    `explanation` holds attributes, levels and bits, no values; `decided_by` is an opaque id, empty for the platform.
    """

    reason: ResolutionReason
    origin: LinkOrigin = LinkOrigin.AUTO
    model_version: str = ""
    weight_bits: float | None = None
    explanation: bytes = b""
    decided_by: str = ""


class Changes:
    """What one transaction knows of the customers it holds the locks of, and changes.

    `rows` and `members` (by customer, then record) hold what was loaded and what was made; `now` is the instant of the change,
    which is never before the last change of a customer that was loaded.
    """

    def __init__(self, unit: UnitOfWork, core: Core) -> None:
        self.unit = unit
        self.core = core
        self.now: datetime = unit.now
        self.rows: dict[UUID, CustomerRow] = {}
        self.members: dict[UUID, dict[UUID, Member]] = {}
        self.writes = Writes()
        self._touched: dict[UUID, None] = {}
        self._new_links: dict[UUID, Link] = {}
        self._came_from: dict[UUID, UUID] = {}
        self._moved: dict[UUID, tuple[Member, MoveReason]] = {}

    async def load(self, customer_ids: Collection[UUID]) -> None:
        """Locks customers and reads all their records. A second load in one transaction may wait in a circle with another's."""
        rows = await customer_store.lock(self.unit.connection, customer_ids)
        self.rows |= rows
        self.now = max([self.now, *(row.update_time for row in rows.values())])
        wanted = [(customer_id, None) for customer_id in rows]
        found = await record_store.visible(self.unit.connection, self.core.vault, wanted)
        for customer_id, members in zip(rows, found, strict=True):
            self.members[customer_id] = {member.record_id: member for member in members}

    def new_customer(self, customer_id: UUID | None = None) -> UUID:
        """A customer that is written when it is touched; with an id that was made before, if given."""
        customer_id = customer_id or new_id()
        self.rows[customer_id] = CustomerRow(customer_id, 0, self.now, self.now)
        self.members[customer_id] = {}
        return customer_id

    def touch(self, customer_id: UUID) -> None:
        """The customer is published again."""
        self._touched[customer_id] = None

    def add(self, member: Member, content: Content, why: Why) -> None:
        """A new record with its first link."""
        self.writes.new[member.record_id] = member, content
        self.members[member.customer_id][member.record_id] = member
        self._link(member, why)
        self.touch(member.customer_id)

    def change(self, member: Member, content: Content | None = None) -> None:
        """A known record changed; `content` with a new state."""
        new = self.writes.new.get(member.record_id)
        if new is not None:
            self.writes.new[member.record_id] = member, content or new[1]
        else:
            known = self.writes.changed.get(member.record_id)
            self.writes.changed[member.record_id] = member, content or (known[1] if known else None)

    def move(self, member: Member, to_customer_id: UUID, why: Why, reason: MoveReason) -> None:
        """A record goes to another customer, loaded or new."""
        former = member.customer_id
        if former == to_customer_id:
            return
        del self.members[former][member.record_id]
        self.members[to_customer_id][member.record_id] = member
        if member.record_id not in self.writes.new:
            self._came_from.setdefault(member.record_id, former)
            self._moved[member.record_id] = member, reason
        member.customer_id, member.update_time = to_customer_id, self.now
        self._link(member, why)
        self.change(member)
        self.touch(former)
        self.touch(to_customer_id)

    def decide(self, member: Member, why: Why) -> None:
        """Confirms where a record is, for another reason: a new link to the same customer."""
        member.update_time = self.now
        self._link(member, why)
        self.change(member)
        self.touch(member.customer_id)

    def _link(self, member: Member, why: Why) -> None:
        """A link of this transaction is replaced by a later one: it never held for any time."""
        member.origin, member.resolution_reason = why.origin, why.reason
        written = self._new_links.get(member.record_id)
        if written is None and member.record_id not in self.writes.new:
            self.writes.ended_links.append((member.record_id, member.link_version))
            member.link_version += 1
        self._new_links[member.record_id] = Link(
            member.record_id, member.link_version, member.customer_id, why.origin, why.reason, why.model_version, why.weight_bits,
            why.explanation, self.now, None, why.decided_by,
        )  # fmt: skip

    async def write(self) -> None:
        """Writes and publishes: each touched customer once, in its final state, and each move between two customers once.

        What stewards should look at in the touched customers is brought up to date.
        """
        connection, epoch = self.unit.connection, self.unit.epoch
        emptied: dict[UUID, list[Member]] = {}
        for record_id, former in self._came_from.items():
            if not self.members[former]:
                member = self._moved[record_id][0]
                self.rows[former].merged_into = member.customer_id
                emptied.setdefault(former, []).append(member)
        await self._let_follow()
        rows = [self.rows[customer_id] for customer_id in self._touched if self._is_real(customer_id)]
        for row in rows:
            row.version += 1
            row.update_time = self.now
            if self.members[row.customer_id]:
                row.merged_into = None
        self.writes.customers = rows
        self.writes.links = list(self._new_links.values())
        policy = await self.core.policies.at(connection, self.unit.now)
        changed = [(row, list(self.members[row.customer_id].values())) for row in rows]
        believed: list[Golden] = []
        if is_new := self._is_all_new():  # what is published of these rests on nothing in the database: written in one statement
            believed, self.writes.qualities = await publishing.customers_changed(self.unit, policy, changed)
        await record_writes.write(connection, self.writes, self.now)
        for loser_id, moved in emptied.items():
            link = self._new_links[moved[-1].record_id]
            await merge_store.insert_unless_known(
                connection,
                Merge(new_id(), loser_id, link.customer_id, ResolutionReason(link.reason).name, "", link.decided_by, self.now),
                [member.record_id for member in moved],
            )
        if not is_new:
            believed, crossed = await publishing.customers_changed(self.unit, policy, changed)
            await quality_store.remember(connection, crossed)
        moves: dict[tuple[UUID, UUID, MoveReason], list[Member]] = {}
        for member, reason in self._moved.values():
            former = self._came_from[member.record_id]
            if former != member.customer_id:
                moves.setdefault((former, member.customer_id, reason), []).append(member)
        for (former, to, reason), members in moves.items():
            self.unit.publish(published.records_moved(former, to, members, reason.name, epoch))
        known = [member.record_id for _, members in changed for member in members if member.record_id not in self.writes.new]
        await findings.ask(connection, self.core.index, believed, known, self.now)

    def _is_all_new(self) -> bool:
        """Whether every touched customer is new and rests on no weighed link."""
        members = [member for customer_id in self._touched for member in self.members[customer_id].values()]
        is_new = all(self.rows[customer_id].version <= 1 for customer_id in self._touched)
        return is_new and not self._moved and not any(map(publishing.by_match, members))

    async def _let_follow(self) -> None:
        """Consents and restrictions follow moved records; a new record may free a customer of its restriction."""
        moved = {record_id: member for record_id, (member, _) in self._moved.items()}
        concerned = [one for one in self._touched if moved or (self.rows[one].restricted and self.writes.new)]
        if not concerned:
            return
        institutions = {one: {member.institution_id for member in self.members[one].values()} for one in concerned}
        to = {record_id: member.customer_id for record_id, member in moved.items()}
        restricted, consents = await anchors.follow(self.unit.connection, to, institutions)
        for customer_id, whether in restricted.items():
            self.rows[customer_id].restricted = whether
        for consent in consents:
            member = moved[consent.record_id]
            event = published.sharing_consent_changed(consent, member.customer_id, member.link_version, self.unit.epoch)
            self.unit.publish(event)

    def _is_real(self, customer_id: UUID) -> bool:
        """Not one that was made and left empty in this transaction."""
        return self.rows[customer_id].version > 0 or bool(self.members[customer_id])
