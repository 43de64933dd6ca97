"""Carries out what a steward decides about an item, and undoes it exactly."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from chassis.errors import FailedPrecondition, InvalidArgument
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1 import review_service_pb2 as pb
from customer import merging, pinning
from customer.changes import Changes
from customer.core import Core
from customer.domain.reviews import ALLOWED, DEFER_MAX, Decision, StoredState
from customer.domain.vocabulary import Attribute
from customer.merging import Merging, Side, steward
from customer.rpc.link_service import require_record
from customer.store import merges as merge_store
from customer.store import review_decisions as decision_store
from customer.store import reviews as review_store
from customer.store.review_decisions import Decided
from customer.store.reviews import LEFT, RIGHT, Item


class Deciding:
    """One decision about a locked item, for the caller of a unit of work."""

    def __init__(self, unit: UnitOfWork, core: Core, item: Item) -> None:
        self.unit = unit
        self.core = core
        self.item = item
        self.by = steward(unit.principal)

    async def decide(self, request: pb.DecideReviewItemRequest) -> None:
        """Carries out a decision and keeps what it did.

        Raises:
            InvalidArgument: DECISION_NOT_ALLOWED for this kind, DEFER_TIME_INVALID, CHOSEN_RECORD_INVALID.
            FailedPrecondition: what merging refuses, and ITEM_SETTLED.
        """
        item, decision = self.item, Decision(request.decision)
        if decision not in ALLOWED[item.kind]:
            allowed = ", ".join(sorted(one.name for one in ALLOWED[item.kind]))
            raise _invalid("DECISION_NOT_ALLOWED", "decision", f"must be one of {allowed} for a {item.kind.name}")
        if request.override_reason and decision is not Decision.MERGE:
            raise _invalid("OVERRIDE_NOT_ALLOWED", "override_reason", "goes with MERGE only")
        decided = Decided(item.review_item_id, item.decision_number + 1, decision, request.reason_code, self.by, self.unit.now)
        defer_until = None
        if decision is Decision.DEFER:
            defer_until = self._defer_until(request)
        elif decision is Decision.CHOOSE:
            decided = await self._choose(request, decided)
        elif decision is not Decision.ACKNOWLEDGE:
            decided = await self._link(request, decided)
        await decision_store.insert(self.unit.connection, decided, defer_until)

    def _defer_until(self, request: pb.DecideReviewItemRequest) -> datetime:
        until = datetime.fromtimestamp(request.defer_time.seconds, UTC)
        if not self.unit.now < until <= self.unit.now + DEFER_MAX:
            raise _invalid("DEFER_TIME_INVALID", "defer_time", f"must lie ahead, by {DEFER_MAX.days} days at most")
        return until

    async def _link(self, request: pb.DecideReviewItemRequest, decided: Decided) -> Decided:
        records = (await review_store.sides(self.unit.connection, [self.item.review_item_id]))[self.item.review_item_id]
        left = [one for one in records if one.side == LEFT]
        right = [one for one in records if one.side == RIGHT]
        if not left or not right:
            raise FailedPrecondition("ITEM_SETTLED", "a side of it was erased; nothing is left to decide")
        work = Merging(self.unit, self.core, request.reason_code, request.override_reason)
        customers = left[0].customer_id, right[0].customer_id
        if decided.decision is Decision.SPLIT:
            split_id, rejection = await work.split([one.record_id for one in left], [one.record_id for one in right])
            return replace(decided, split_customer_id=split_id, rejection_id=rejection.rejection_id)
        if customers[0] == customers[1]:
            raise FailedPrecondition("ITEM_SETTLED", "both sides are one customer by now; nothing is left to decide")
        if decided.decision is Decision.MERGE:
            _, merges = await work.merge(customers)
            return replace(decided, merge_ids=[merge.merge_id for merge in merges])
        rejection = await work.reject(Side(customer_id=customers[0]), Side(customer_id=customers[1]))
        return replace(decided, rejection_id=rejection.rejection_id)

    async def _choose(self, request: pb.DecideReviewItemRequest, decided: Decided) -> Decided:
        if not request.chosen_record:
            raise _invalid("CHOSEN_RECORD_INVALID", "chosen_record", "must name the record whose value is right")
        connection = self.unit.connection
        record_id = await require_record(connection, self.unit.principal, request.chosen_record, "chosen_record")
        changes, customer_id = await self._load_customer()
        member = changes.members[customer_id].get(record_id)
        if member is None:
            raise _invalid("CHOSEN_RECORD_INVALID", "chosen_record", "must be a record of this customer")
        before = member.pins.get(Attribute(self.item.attribute))
        await pinning.pin(changes, member, self.item.attribute, request.reason_code, self.by)
        await changes.write()
        return replace(decided, chosen_record_id=record_id, pinned_before=before)

    async def _load_customer(self) -> tuple[Changes, UUID]:
        """The one customer of the item's records, locked."""
        records = (await review_store.sides(self.unit.connection, [self.item.review_item_id]))[self.item.review_item_id]
        owners = {one.customer_id for one in records}
        if len(owners) != 1:
            raise FailedPrecondition("NOT_ONE_CUSTOMER", "its records belong to several customers by now; acknowledge it instead")
        [customer_id] = owners
        changes = Changes(self.unit, self.core)
        await changes.load([customer_id])
        return changes, customer_id

    async def undo(self, reason_code: str) -> None:
        """Undoes the decision that stands, with everything it did, and opens the item again.

        Raises:
            FailedPrecondition: ITEM_NOT_DECIDED, ITEM_OPEN_AGAIN, and what merging refuses.
        """
        connection, item = self.unit.connection, self.item
        decided = (await decision_store.last(connection, [item.review_item_id])).get(item.review_item_id)
        deferred = item.state is StoredState.OPEN and item.defer_until > self.unit.now
        if decided is None or (item.state is not StoredState.DECIDED and not deferred):
            raise FailedPrecondition("ITEM_NOT_DECIDED", "the item has no decision that stands; nothing to undo")
        try:
            await decision_store.undo(connection, decided, self.by, reason_code, self.unit.now)
        except asyncpg.UniqueViolationError:
            raise FailedPrecondition(
                "ITEM_OPEN_AGAIN", "the content changed and another item about it is open; decide that one"
            ) from None
        if decided.rejection_id:
            await merging.withdraw(self.unit, decided.rejection_id)
        for merge in await merge_store.standing(connection, decided.merge_ids):
            await Merging(self.unit, self.core, reason_code).unmerge(merge.loser_id)
        if decided.split_customer_id:
            records = (await review_store.sides(connection, [item.review_item_id]))[item.review_item_id]
            await Merging(self.unit, self.core, reason_code).unsplit(
                [one.record_id for one in records if one.side == RIGHT],
                decided.split_customer_id,
                [one.record_id for one in records if one.side == LEFT],
            )
        if decided.chosen_record_id:
            await self._unchoose(decided, decided.chosen_record_id, reason_code)

    async def _unchoose(self, decided: Decided, record_id: UUID, reason_code: str) -> None:
        changes, customer_id = await self._load_customer()
        member = changes.members[customer_id].get(record_id)
        if member is not None:
            await pinning.unpin(changes, member, self.item.attribute, reason_code, self.by)
            if decided.pinned_before is not None:
                await pinning.pin(changes, member, self.item.attribute, reason_code, self.by, decided.pinned_before)
            await changes.write()


def _invalid(reason: str, field: str, rule: str) -> InvalidArgument:
    return InvalidArgument(reason, f"{field} {rule}", field_violations=[(field, rule)])
