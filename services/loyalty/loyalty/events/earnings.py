"""What activities earn, and what their reversals take back."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chassis import record_links
from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from concord.common.v1.channel_pb2 import Channel
from concord.customer.v1.activity_pb2 import CounterpartyKind, JourneyEvent, LifeEventKind
from concord.customer.v1.customer_events_pb2 import ActivityRecorded
from loyalty.domain.earn_rules import TRANSACTION, Cap, Doing, Earned, ExpressionRule, caps_of, earn
from loyalty.domain.earning import Transaction
from loyalty.domain.ledger.commands import AnyCommand, Clawback, Earn
from loyalty.domain.ledger.types import ActivityKey, Operation, OperationKind, OrderKey, Outcome
from loyalty.store import activities as activity_store
from loyalty.store import earn_rules as rule_store
from loyalty.store import ledger as ledger_store
from loyalty.store import tiers as tier_store
from loyalty.store.earn_rules import Decision, Earning
from loyalty.store.ledger_loading import known_operations
from loyalty.store.posting import post
from loyalty.store.tiers import Progress


@dataclass(frozen=True, slots=True)
class Activity:
    """What the ledger needs of an activity: what was done, or which other activity it reverses."""

    activity_id: uuid.UUID
    record_id: uuid.UUID
    institution_id: str
    occurred_at: datetime
    doing: Doing | None
    reversed_activity_id: uuid.UUID | None

    @property
    def decides(self) -> uuid.UUID:
        """The activity that is decided by it."""
        return self.reversed_activity_id or self.activity_id


def activity_of(message: ActivityRecorded) -> Activity | None:
    """What concerns the ledger; None of a reversal that does not say of what."""
    detail = message.detail
    occurred_at = detail.occurred_at.ToDatetime(UTC)
    reversal = detail.WhichOneof("kind") == "reversal"
    if reversal and not message.reversed_activity_id:
        return None
    return Activity(
        activity_id=uuid.UUID(message.activity_id),
        record_id=uuid.UUID(message.record_link.record_id),
        institution_id=message.record_link.institution_id,
        occurred_at=occurred_at,
        doing=None if reversal else _doing(detail, message.record_link.institution_id, occurred_at),
        reversed_activity_id=uuid.UUID(message.reversed_activity_id) if reversal else None,
    )


def _doing(detail: Any, institution_id: str, occurred_at: datetime) -> Doing:
    kind = detail.WhichOneof("kind") or ""
    money = counterparty = None
    said = ""
    match kind:
        case "transaction":
            amount = detail.transaction.amount
            money = Transaction(amount.currency_code, amount.minor_units, detail.transaction.category, occurred_at)
            counterparty = _code(CounterpartyKind, detail.transaction.counterparty_kind, "COUNTERPARTY_KIND_")
        case "balance":
            money = Transaction(detail.balance.closing.currency_code, detail.balance.closing.minor_units, "", occurred_at)
        case "journey_step":
            event = _code(JourneyEvent, detail.journey_step.event, "JOURNEY_EVENT_")
            said = f"{detail.journey_step.journey}:{event}"
        case "life_event":
            said = _code(LifeEventKind, detail.life_event.life_event_kind, "LIFE_EVENT_KIND_")
        case "complaint":
            said = detail.complaint.topic
    channel = _code(Channel, detail.channel, "CHANNEL_")
    return Doing(kind.upper(), institution_id, occurred_at, money, channel, detail.department_id, counterparty or "", said)


def _code(codes: Any, number: int, prefix: str) -> str:
    """The code of an enum's value; empty when it is not stated, or newer than this program."""
    try:
        return str(codes.Name(number)).removeprefix(prefix) if number else ""
    except ValueError:
        return ""


async def fold_activities(unit: UnitOfWork, activities: Sequence[Activity]) -> None:
    """Posts what activities earn and what their reversals take back, in the order of the stream.

    An activity is decided once, for ever. A reversal that comes first decides its activity: that one earns nothing.
    """
    erased = await record_links.erased(unit.connection, {activity.record_id for activity in activities})
    activities = [activity for activity in activities if activity.record_id not in erased]
    rules = await rule_store.of_institutions(unit.connection, {activity.institution_id for activity in activities})
    kinds = _kinds(rules)
    activities = [activity for activity in activities if activity.doing is None or activity.doing.kind in kinds]
    if not activities:
        return
    fresh = await activity_store.decide(unit.connection, {activity.decides for activity in activities})
    concerned = []
    for activity in activities:
        if (activity.decides in fresh) is (activity.doing is not None):
            concerned.append(activity)
        fresh.discard(activity.decides)
    await _Earnings(unit, rules).post(concerned)


def _kinds(rules: Iterable[Earning]) -> set[str]:
    """Activities of other kinds are not even marked as decided: there are many of them."""
    expressions = (rule for earning in rules for rule in earning.rules if isinstance(rule, ExpressionRule))
    return {TRANSACTION}.union(*(rule.definition.activity_kinds for rule in expressions))


class _Earnings:
    """One batch. Caps are read under the head's lock, and counted for what was posted."""

    def __init__(self, unit: UnitOfWork, rules: Sequence[Earning]) -> None:
        self._unit = unit
        self._rules = rules
        self._earned: dict[uuid.UUID, Earned] = {}
        """By operation."""
        self._doings: dict[uuid.UUID, Doing] = {}
        """By activity."""
        self._subjects: dict[uuid.UUID, str] = {}
        """By account: the one whose caps count, under which it stands."""
        self._zones = {each.program_id: each.zone for each in rules}

    async def post(self, activities: Sequence[Activity]) -> None:
        connection = self._unit.connection
        doing = [activity for activity in activities if activity.doing is not None]
        members = await activity_store.members(connection, {activity.record_id for activity in doing}) if doing else {}
        doing = [activity for activity in doing if activity.record_id in members and self._of(activity)]
        reversed_ids = {activity.reversed_activity_id for activity in activities if activity.reversed_activity_id}
        if not doing and not reversed_ids:
            return
        head = await ledger_store.lock_head(connection)
        earnings = await self._decide(doing, members) if doing else {}
        if not earnings and not reversed_ids:
            return
        known = await known_operations(connection, _keys(earnings.keys() | reversed_ids))
        earned = _earned(known, earnings)
        commands: list[AnyCommand] = []
        for activity in activities:
            if activity.reversed_activity_id is None:
                commands += earnings.get(activity.activity_id, [])
            else:
                commands += [_clawback(each, activity) for each in earned.get(activity.reversed_activity_id, [])]
        results = await post(self._unit, commands, head, known=known)
        await self._count([result for result in results if isinstance(result, Operation)], reversed_ids)

    def _of(self, activity: Activity) -> list[Earning]:
        """The programmes whose rules see an activity."""
        place = activity.institution_id
        return [rules for rules in self._rules if rules.institution_id == place or place in rules.partners]

    async def _decide(
        self, activities: Sequence[Activity], members: Mapping[uuid.UUID, activity_store.Member]
    ) -> dict[uuid.UUID, list[Earn]]:
        """What each activity earns."""
        connection = self._unit.connection
        above = await tier_store.parents(connection, {member.account_id for member in members.values()})
        self._subjects = {account_id: str(row["parent_id"]) for account_id, row in above.items()}
        issuers = {rules.program_id: rules.institution_id for rules in self._rules}
        standings = await tier_store.standings(
            connection,
            {member.customer_id for member in members.values()},
            {row["parent_id"] for row in above.values()},
            issuers,
        )
        caps = set[Cap]()
        for activity in activities:
            subject = self._subjects[members[activity.record_id].account_id]
            for rules in self._of(activity):
                day = activity.occurred_at.astimezone(rules.zone).date()
                caps.update(cap for rule in rules.rules for cap, _ in caps_of(rule, subject, day))
        used = await rule_store.counters(connection, caps)
        earnings: dict[uuid.UUID, list[Earn]] = {}
        for activity in activities:
            assert activity.doing is not None
            member = members[activity.record_id]
            parent_id = above[member.account_id]["parent_id"]
            self._doings[activity.activity_id] = activity.doing
            for rules in self._of(activity):
                standing = standings[member.customer_id, parent_id, rules.program_id]
                earned = earn(rules.rules, rules.institution_id, activity.doing, standing, rules.zone, str(parent_id), used)
                if earned.points:
                    command = _earn(activity, member.account_id, rules.program_id, earned)
                    self._earned[command.operation_id] = earned
                    earnings.setdefault(activity.activity_id, []).append(command)
        return earnings

    async def _count(self, operations: Sequence[Operation], reversed_ids: Iterable[uuid.UUID]) -> None:
        """What was posted counts for caps and qualifies for tiers; what was reversed does no more."""
        made = (operation for operation in operations if operation.operation_id in self._earned)
        decisions = [self._decision(operation) for operation in made if operation.outcome is Outcome.POSTED]
        await rule_store.record(self._unit.connection, decisions)
        progress = [
            Progress(each.account_id, each.program_id, each.month, each.currency_code, each.points, each.amount_minor_units)
            for each in decisions
        ]
        progress += [
            Progress(
                account_id=row["account_id"],
                program_id=row["program_id"],
                month=row["month"],
                currency_code=row["currency_code"],
                points=-row["points"],
                amount_minor_units=-row["amount_minor_units"],
            )
            for row in await rule_store.reverse(self._unit.connection, list(reversed_ids))
        ]
        await tier_store.progress(self._unit, progress)

    def _decision(self, operation: Operation) -> Decision:
        earned, account_id = self._earned[operation.operation_id], operation.account_id
        assert isinstance(operation.key, ActivityKey)
        assert account_id is not None
        doing, subject = self._doings[operation.key.activity_id], self._subjects[account_id]
        day = doing.occurred_at.astimezone(self._zones[earned.program_id]).date()
        money = doing.transaction if doing.kind == TRANSACTION else None
        return Decision(
            activity_id=operation.key.activity_id,
            program_id=earned.program_id,
            account_id=account_id,
            month=day.replace(day=1),
            points=earned.points,
            amount_minor_units=abs(money.amount_minor_units) if money else 0,
            currency_code=money.currency_code if money else "",
            counted=[(cap, line.points) for line in earned.lines if line.points for cap, _ in caps_of(line.rule, subject, day)],
            facts=rule_store.facts_of(doing),
        )


def _keys(activity_ids: Iterable[uuid.UUID]) -> list[OrderKey]:
    """Keys by which all operations of activities are found, whatever their programme and kind."""
    return [ActivityKey(activity_id, "", OperationKind.EARN) for activity_id in activity_ids]


def _earned(
    known: Mapping[OrderKey, Operation], earnings: Mapping[uuid.UUID, list[Earn]]
) -> dict[uuid.UUID, list[Operation | Earn]]:
    """All that activities earned, in this batch or before it."""
    earned: dict[uuid.UUID, list[Operation | Earn]] = {activity_id: list(made) for activity_id, made in earnings.items()}
    for operation in known.values():
        posted = operation.kind is OperationKind.EARN and operation.outcome is Outcome.POSTED
        if posted and isinstance(operation.key, ActivityKey):
            earned.setdefault(operation.key.activity_id, []).append(operation)
    return earned


def _earn(activity: Activity, account_id: uuid.UUID, program_id: str, earned: Earned) -> Earn:
    return Earn(
        operation_id=new_id(),
        key=ActivityKey(activity.activity_id, program_id, OperationKind.EARN),
        account_id=account_id,
        institution_id=activity.institution_id,
        effective_time=activity.occurred_at,
        program_id=program_id,
        amount_points=earned.points,
        rule=earned.rule,
    )


def _clawback(earned: Operation | Earn, reversal: Activity) -> Clawback:
    assert isinstance(earned.key, ActivityKey)
    assert earned.program_id is not None
    return Clawback(
        operation_id=new_id(),
        key=ActivityKey(earned.key.activity_id, earned.program_id, OperationKind.CLAWBACK),
        account_id=earned.account_id,
        institution_id=earned.institution_id,
        effective_time=reversal.occurred_at,
        earning_id=earned.operation_id,
        rule=earned.rule,
    )
