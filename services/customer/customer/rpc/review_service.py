"""ReviewService: the stewards' queues."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from chassis import clock, pages
from chassis.database import Connection
from chassis.errors import FailedPrecondition, NotFound
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import review_service_pb2 as pb
from concord.customer.v1.review_service_pb2_grpc import ReviewServiceServicer
from customer import golden_customer
from customer.core import Core
from customer.domain.audit import Action
from customer.domain.matching import Explanation
from customer.domain.reviews import LEASE_SECONDS_DEFAULT, Claim, ReviewKind, StoredState
from customer.merging import sees, shown_steward, steward
from customer.messages import timestamp
from customer.rpc.callers import require_unbound, viewing_institution
from customer.rpc.decide_review import Deciding
from customer.store import records as record_store
from customer.store import review_decisions as decision_store
from customer.store import reviews as review_store
from customer.store.review_decisions import Decided
from customer.store.reviews import LEFT, RIGHT, Filter, Item, SideRecord

FIGURES_DAYS_DEFAULT = 30


class ReviewServicer(ReviewServiceServicer):
    """Translates; decisions are carried out in `decide_review`."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core = core
        self._commands = commands

    async def ListReviewItems(self, request: pb.ListReviewItemsRequest, context: Any) -> pb.ListReviewItemsResponse:
        principal, now = current_principal(), clock.now()
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        institution = viewing_institution(principal)
        if request.institution:
            [institution] = resource_segments(request.institution, "institutions", field="institution")
            require_institution(principal, institution)
        heaviest = request.order == pb.REVIEW_ORDER_HEAVIEST
        state = request.state or pb.REVIEW_STATE_OPEN
        wanted = Filter(
            institution,
            now,
            pb.ReviewState.Name(state).removeprefix("REVIEW_STATE_"),
            ReviewKind(request.kind) if request.kind else None,
            resource_id(request.customer, "customers", "customer") if request.customer else None,
            steward(principal) if request.mine else None,
            heaviest,
        )
        async with self._core.database.connection() as connection:
            rows = await review_store.page(connection, wanted, keys, limit + 1)
            shown = await _messages(connection, principal, rows[:limit], now)
        token = pages.encode(review_store.page_keys(rows[limit - 1], heaviest), request) if len(rows) > limit else ""
        return pb.ListReviewItemsResponse(review_items=shown, next_page_token=token)

    async def GetReviewItem(self, request: pb.GetReviewItemRequest, context: Any) -> pb.ReviewItem:
        principal, now = current_principal(), clock.now()
        async with self._core.database.connection() as connection:
            item = await _require_item(connection, principal, request.name, lock=False)
            return await self._whole(connection, principal, item, now)

    async def ClaimReviewItem(self, request: pb.ClaimReviewItemRequest, context: Any) -> pb.ReviewItem:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.ReviewItem:
            item = await _require_item(unit.connection, unit.principal, request.name, lock=True)
            [message] = await _messages(unit.connection, unit.principal, [item], unit.now)
            if message.state in (pb.REVIEW_STATE_DECIDED, pb.REVIEW_STATE_SETTLED):
                raise FailedPrecondition("ITEM_NOT_OPEN", "the item is decided or settled; nothing is left to do")
            who = steward(unit.principal)
            if item.claim.held_by_other(who, unit.now):
                raise FailedPrecondition("ITEM_CLAIMED", "somebody else works on it until their lease ends; take another one")
            # One's own claim keeps its number, so that a renewal does not fence the decision that is being made.
            number = item.claim.number + (0 if item.claim.running(unit.now) else 1)
            lease = timedelta(seconds=request.lease_seconds or LEASE_SECONDS_DEFAULT)
            await review_store.write_claim(unit.connection, item.review_item_id, Claim(number, who, unit.now + lease), unit.now)
            return await self._answer(unit, request.name)

        return await self._commands.run(request, handler)

    async def ReleaseReviewItem(self, request: pb.ReleaseReviewItemRequest, context: Any) -> pb.ReviewItem:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.ReviewItem:
            item = await _require_item(unit.connection, unit.principal, request.name, lock=True)
            _require_claim(unit, item, request.claim_number)
            free = Claim(item.claim.number, None, None)
            await review_store.write_claim(unit.connection, item.review_item_id, free, unit.now)
            return await self._answer(unit, request.name)

        return await self._commands.run(request, handler)

    async def DecideReviewItem(self, request: pb.DecideReviewItemRequest, context: Any) -> pb.ReviewItem:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.ReviewItem:
            item = await _require_item(unit.connection, unit.principal, request.name, lock=True)
            _require_claim(unit, item, request.claim_number)
            await Deciding(unit, self._core, item).decide(request)
            return await self._audited(unit, request.name, request.reason_code)

        return await self._commands.run(request, handler)

    async def UndoDecision(self, request: pb.UndoDecisionRequest, context: Any) -> pb.ReviewItem:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.ReviewItem:
            item = await _require_item(unit.connection, unit.principal, request.name, lock=True)
            await Deciding(unit, self._core, item).undo(request.reason_code)
            return await self._audited(unit, request.name, request.reason_code)

        return await self._commands.run(request, handler)

    async def GetReviewFigures(self, request: pb.GetReviewFiguresRequest, context: Any) -> pb.ReviewFigures:
        principal, now = current_principal(), clock.now()
        institution = viewing_institution(principal)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        since = midnight - timedelta(days=(request.days or FIGURES_DAYS_DEFAULT) - 1)
        async with self._core.database.connection() as connection:
            queues = await decision_store.queues(connection, institution, now)
            throughputs = await decision_store.throughputs(connection, institution, since)
        return pb.ReviewFigures(
            queues=[
                pb.ReviewQueueFigures(
                    kind=row["kind"],
                    open_count=row["open_count"],
                    claimed_count=row["claimed_count"],
                    deferred_count=row["deferred_count"],
                    decided_count=row["decided_count"],
                    age_p50_seconds=int(row["p50"] or 0),
                    age_p90_seconds=int(row["p90"] or 0),
                    age_max_seconds=int(row["oldest"] or 0),
                )
                for row in queues
            ],
            throughputs=[
                pb.ReviewThroughput(
                    date=row["day"].isoformat(), steward=row["decided_by"], kind=row["kind"], decided_count=row["decided_count"]
                )
                for row in throughputs
            ],
        )

    async def _audited(self, unit: UnitOfWork, name: str, reason_code: str) -> pb.ReviewItem:
        message = await self._answer(unit, name)
        customers = {resource_id(side.customer, "customers") for side in (message.left, message.right) if side.customer}
        await self._core.audit.append(unit, Action.REVIEW, customers=sorted(customers), reason_code=reason_code, resource=name)
        return message

    async def _answer(self, unit: UnitOfWork, name: str) -> pb.ReviewItem:
        """The item after a change. Without golden values: answers are kept, and they are personal data."""
        item = await _require_item(unit.connection, unit.principal, name, lock=False)
        return (await _messages(unit.connection, unit.principal, [item], unit.now))[0]

    async def _whole(self, connection: Connection, principal: Principal, item: Item, now: datetime) -> pb.ReviewItem:
        [message] = await _messages(connection, principal, [item], now)
        if item.explanation:
            for one in Explanation.from_bytes(item.explanation).contributions:
                message.attribute_scores.add(attribute=one.attribute, level=one.level, bits=one.bits)
        institution = viewing_institution(principal)
        shown = [side for side in (message.left, message.right) if side.customer]
        wanted = [(resource_id(side.customer, "customers"), institution) for side in shown]
        policy = await self._core.policies.at(connection, now)
        async with self._core.viewers.connection(institution) as viewer:
            found = await record_store.visible(viewer, self._core.vault, wanted, shared=True)
        for side, (customer_id, _), members in zip(shown, wanted, found, strict=True):
            if members:
                side.golden.CopyFrom(golden_customer.customer(customer_id, members, policy, now))
        return message


async def _require_item(connection: Connection, principal: Principal, name: str, *, lock: bool) -> Item:
    review_item_id = resource_id(name, "reviewItems")
    item = await review_store.get(connection, review_item_id, viewing_institution(principal), lock=lock)
    if item is None:
        raise NotFound(
            "REVIEW_ITEM_NOT_FOUND", f"{name} does not exist, or your institution is not linked with both of its sides"
        )
    return item


def _require_claim(unit: UnitOfWork, item: Item, number: int) -> None:
    if item.state is not StoredState.OPEN:
        raise FailedPrecondition("ITEM_NOT_OPEN", "the item is decided or settled; nothing is left to do")
    if not item.claim.permits(steward(unit.principal), number, unit.now):
        raise FailedPrecondition(
            "CLAIM_LOST", "the lease ended, the item changed, or somebody else claimed it; look at it and claim it again"
        )


async def _messages(connection: Connection, principal: Principal, items: Sequence[Item], now: datetime) -> list[pb.ReviewItem]:
    ids = [item.review_item_id for item in items]
    sides, decisions = await review_store.sides(connection, ids), await decision_store.last(connection, ids)
    return [_message(principal, item, sides[item.review_item_id], decisions.get(item.review_item_id), now) for item in items]


def _message(
    principal: Principal, item: Item, records: Sequence[SideRecord], decided: Decided | None, now: datetime
) -> pb.ReviewItem:
    claimed, deferred = item.claim.running(now), item.defer_until > now
    message = pb.ReviewItem(
        name=f"reviewItems/{item.review_item_id}",
        kind=cast("pb.ReviewKind.ValueType", int(item.kind)),
        state=_state(item, records, claimed, deferred),
        weight_bits=item.weight_bits,
        model_version=item.model_version,
        attribute=cast(Any, item.attribute),
        codes=item.codes,
        create_time=timestamp(item.create_time),
        defer_time=timestamp(item.defer_until) if deferred and item.state is StoredState.OPEN else None,
        claim_number=item.claim.number if claimed else 0,
        claimed_by=shown_steward(principal, item.claim.claimed_by or "") if claimed else "",
        lease_expire_time=timestamp(item.claim.lease_until) if claimed and item.claim.lease_until else None,
    )
    for side, target in ((LEFT, message.left), (RIGHT, message.right)):
        mine = [record for record in records if record.side == side]
        if mine:
            target.customer = f"customers/{mine[0].customer_id}"
            target.records.extend(record.name for record in mine if sees(principal, record.institution_id))
            target.records_count = len(target.records)
    if decided is not None and (item.state is StoredState.DECIDED or deferred):
        message.decision = cast("pb.ReviewDecision.ValueType", int(decided.decision))
        message.reason_code = decided.reason_code
        message.decided_by = shown_steward(principal, decided.decided_by)
        message.decide_time.CopyFrom(timestamp(decided.decided_at))
    return message


def _state(item: Item, records: Sequence[SideRecord], claimed: bool, deferred: bool) -> "pb.ReviewState.ValueType":
    if item.state is StoredState.DECIDED:
        return pb.REVIEW_STATE_DECIDED
    if item.state is StoredState.SETTLED or not review_store.in_question(item.kind, records):
        return pb.REVIEW_STATE_SETTLED
    if claimed:
        return pb.REVIEW_STATE_CLAIMED
    return pb.REVIEW_STATE_DEFERRED if deferred else pb.REVIEW_STATE_OPEN
