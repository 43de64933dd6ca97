"""EarnRuleService: earn rules as expressions."""

import json
import uuid
from datetime import UTC, datetime

import asyncpg
import grpc

from chassis import clock, customer_states, pages
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.identity import current_principal
from chassis.ids import resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.common.v1.channel_pb2 import Channel
from concord.loyalty.v1 import earn_rule_service_pb2 as pb
from concord.loyalty.v1.earn_rule_service_pb2_grpc import EarnRuleServiceServicer
from loyalty.domain.earn_rules import (
    ACTIVITY_KINDS,
    TRANSACTION,
    Cap,
    Caps,
    Definition,
    Doing,
    Earned,
    ExpressionRule,
    RuleKind,
    Stacking,
    Standing,
    Why,
    caps_of,
    earn,
    violations,
)
from loyalty.domain.earning import Transaction
from loyalty.rpc.decisions import PAGE_DEFAULT, PAGE_MAX, invalid, require_another, require_draft, require_own_program
from loyalty.rpc.errors import account_not_found
from loyalty.store import accounts, earn_rules, programs, tiers
from loyalty.store.earn_rules import Earning

KINDS = {kind: pb.EarnRuleKind.Value(f"EARN_RULE_KIND_{kind}") for kind in RuleKind}
KIND_OF = {number: kind for kind, number in KINDS.items()}
STACKINGS = {stacking: pb.EarnStacking.Value(f"EARN_STACKING_{stacking}") for stacking in Stacking}
STACKING_OF = {number: stacking for stacking, number in STACKINGS.items()}
ACTIVITIES = {kind: pb.EarnActivityKind.Value(f"EARN_ACTIVITY_KIND_{kind}") for kind in ACTIVITY_KINDS}
ACTIVITY_OF = {number: kind for kind, number in ACTIVITIES.items()}
EFFECTS = {why: pb.EarnRuleEffect.Value(f"EARN_RULE_EFFECT_{why}") for why in Why}
STATES = {state: pb.DecisionState.Value(f"DECISION_STATE_{state}") for state in ("DRAFT", "ACTIVE", "WITHDRAWN")}
FACTS_CHARACTERS_MAX = 64
Context = grpc.aio.ServicerContext[object, object]


class EarnRuleServicer(EarnRuleServiceServicer):
    """Drafts, approves, ends and tries earn rules."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def DraftEarnRule(self, request: pb.DraftEarnRuleRequest, context: Context) -> pb.EarnRule:
        program_id, rule_id = resource_segments(request.parent, "programs", "earnRules", field="parent")
        wanted = request.earn_rule
        definition = _definition(wanted)
        wrong = violations(definition)
        end_time = wanted.end_time.ToDatetime(UTC) if wanted.HasField("end_time") else None
        if end_time is not None and wanted.HasField("effective_time") and end_time <= wanted.effective_time.ToDatetime(UTC):
            wrong.append(("end_time", "must be after effective_time"))
        if wrong:
            raise invalid(wrong, "RULE_INVALID", "earn_rule")

        async def handler(unit: UnitOfWork) -> pb.EarnRule:
            await require_own_program(unit.connection, unit.principal, program_id, lock=True)
            for institution_id in sorted(definition.institution_ids):
                if not await programs.institution_exists(unit.connection, institution_id):
                    rule = f"names institutions/{institution_id}, which does not exist"
                    raise invalid([("institutions", rule)], "RULE_INVALID", "earn_rule")
            effective_time = wanted.effective_time.ToDatetime(UTC) if wanted.HasField("effective_time") else unit.now
            version = await earn_rules.draft(
                unit.connection, program_id, rule_id, definition, effective_time, end_time, unit.principal.subject, unit.now
            )
            return to_message(await _require(unit.connection, (program_id, rule_id, version)))

        return await self._commands.run(request, handler)

    async def ApproveEarnRule(self, request: pb.ApproveEarnRuleRequest, context: Context) -> pb.EarnRule:
        async def handler(unit: UnitOfWork) -> pb.EarnRule:
            row = await _require_own(unit, request.name)
            require_draft(row, "version")
            require_another(row["drafted_by"], unit.principal)
            if row["end_time"] is not None and row["end_time"] <= unit.now:
                raise FailedPrecondition("RULE_INVALID", "the version would end before it began; draft another")
            # Not for the past: what was decided then stays as it was.
            await earn_rules.approve(unit.connection, row, unit.principal.subject, max(row["effective_time"], unit.now))
            return to_message(await _require(unit.connection, _key(row)))

        return await self._commands.run(request, handler)

    async def WithdrawEarnRule(self, request: pb.WithdrawEarnRuleRequest, context: Context) -> pb.EarnRule:
        async def handler(unit: UnitOfWork) -> pb.EarnRule:
            row = await _require_own(unit, request.name)
            require_draft(row, "version")
            await earn_rules.withdraw(unit.connection, row)
            return to_message(await _require(unit.connection, _key(row)))

        return await self._commands.run(request, handler)

    async def EndEarnRule(self, request: pb.EndEarnRuleRequest, context: Context) -> pb.EarnRule:
        async def handler(unit: UnitOfWork) -> pb.EarnRule:
            row = await _require_own(unit, request.name)
            if row["state"] != "ACTIVE" or (row["end_time"] is not None and row["end_time"] <= unit.now):
                raise FailedPrecondition("RULE_NOT_ACTIVE", f"{request.name} does not hold; there is nothing to end")
            await earn_rules.end(unit.connection, row, unit.now)
            return to_message(await _require(unit.connection, _key(row)))

        return await self._commands.run(request, handler)

    async def GetEarnRule(self, request: pb.GetEarnRuleRequest, context: Context) -> pb.EarnRule:
        key = _parsed(request.name)
        async with self._database.connection() as connection:
            await require_own_program(connection, current_principal(), key[0])
            return to_message(await _require(connection, key))

    async def ListEarnRules(self, request: pb.ListEarnRulesRequest, context: Context) -> pb.ListEarnRulesResponse:
        (program_id,) = resource_segments(request.parent, "programs", field="parent")
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            await require_own_program(connection, current_principal(), program_id)
            after = (keys[0], int(keys[1])) if keys else ("", 0)
            rows = await earn_rules.list_after(connection, program_id, after, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        token = pages.encode([last["rule_id"], str(last["version"])], request) if last else ""
        return pb.ListEarnRulesResponse(earn_rules=[to_message(row) for row in rows[:limit]], next_page_token=token)

    async def SimulateEarnRules(self, request: pb.SimulateEarnRulesRequest, context: Context) -> pb.SimulateEarnRulesResponse:
        (program_id,) = resource_segments(request.parent, "programs", field="parent")
        if bool(request.activities) is bool(request.activity):
            raise InvalidArgument(
                "SIMULATION_INVALID",
                "activities or activity must say what happens, and not both",
                field_violations=[("activities", "or activity must be given, and not both")],
            )
        async with self._database.connection() as connection:
            program = await require_own_program(connection, current_principal(), program_id)
            rules = await earn_rules.of_program(connection, program_id, drafts=request.include_drafts)
            assert rules is not None
            account_id = resource_id(request.account, "accounts", field="account") if request.account else None
            if request.activity:
                account_id, doings = await _earned_before(connection, program_id, request.activity)
            else:
                doings = [_doing(each, program["institution_id"]) for each in request.activities]
            subject, standing = await _member(connection, rules, account_id)
            used = await earn_rules.counters(connection, _caps(rules, subject, doings))
        earnings = [earn(rules.rules, rules.institution_id, doing, standing, rules.zone, subject, used) for doing in doings]
        return pb.SimulateEarnRulesResponse(earnings=[_simulated(program_id, each) for each in earnings])


async def _member(connection: Connection, rules: Earning, account_id: uuid.UUID | None) -> tuple[str, Standing]:
    """Whose caps count, and where the member stands; nobody's where no account is named."""
    if account_id is None:
        return "", Standing()
    account = await accounts.get(connection, account_id)
    if account is None:
        raise account_not_found(account_id)
    customer_id, parent_id = account["holder_customer_id"], account["parent_account_id"] or account_id
    try:
        if customer_id is None:
            raise account_not_found(account_id)
        await customer_states.readable(connection, current_principal(), customer_id)
    except NotFound:
        raise account_not_found(account_id) from None
    found = await tiers.standings(connection, [customer_id], [parent_id], {rules.program_id: rules.institution_id})
    return str(parent_id), found[customer_id, parent_id, rules.program_id]


async def _earned_before(connection: Connection, program_id: str, name: str) -> tuple[uuid.UUID, list[Doing]]:
    activity_id = resource_id(name, "activities", field="activity")
    row = await earn_rules.decision(connection, activity_id, program_id)
    facts = json.loads(row["facts"]) if row is not None else {}
    if row is None or not facts:
        raise NotFound("ACTIVITY_NOT_FOUND", f"{name} earned nothing in programs/{program_id}, or its person was erased")
    return row["account_id"], [earn_rules.doing_of(facts)]


def _caps(rules: Earning, subject: str, doings: list[Doing]) -> set[Cap]:
    days = {doing.occurred_at.astimezone(rules.zone).date() for doing in doings}
    return {cap for rule in rules.rules for day in days for cap, _ in caps_of(rule, subject, day)}


def _definition(wanted: pb.EarnRule) -> Definition:
    caps = wanted.caps
    stated = {field.name for field, _ in caps.ListFields()}
    most = {name: getattr(caps, name) if name in stated else None for name in earn_rules.CAPS[1:]}
    return Definition(
        kind=KIND_OF[wanted.kind],
        caps=Caps(caps.activity_points_max, **most),
        condition=wanted.condition or "true",
        points=wanted.points,
        numerator=wanted.fraction.numerator,
        denominator=wanted.fraction.denominator,
        stacking=STACKING_OF.get(wanted.stacking, Stacking.SUM),
        activity_kinds=frozenset(ACTIVITY_OF[kind] for kind in wanted.activity_kinds) or frozenset({TRANSACTION}),
        institution_ids=frozenset(
            resource_segments(name, "institutions", field="earn_rule.institutions")[0] for name in wanted.institutions
        ),
    )


def _doing(message: pb.SimulatedActivity, issuer_id: str) -> Doing:
    at = message.occurred_time.ToDatetime(UTC) if message.HasField("occurred_time") else clock.now()
    place = resource_segments(message.institution, "institutions", field="institution")[0] if message.institution else issuer_id
    money = message.amount
    return Doing(
        kind=ACTIVITY_OF.get(message.kind, TRANSACTION),
        institution_id=place,
        occurred_at=at,
        transaction=(
            Transaction(money.currency_code, money.minor_units, message.category, at) if message.HasField("amount") else None
        ),
        channel=Channel.Name(message.channel).removeprefix("CHANNEL_") if message.channel else "",
        department=message.department_id,
        counterparty=message.counterparty,
        detail=message.detail,
    )


def _simulated(program_id: str, earned: Earned) -> pb.SimulatedEarning:
    return pb.SimulatedEarning(
        points=earned.points,
        rules=[
            pb.SimulatedRule(
                name=f"programs/{program_id}/earnRules/{line.rule.name}",
                points=line.points,
                wanted_points=line.wanted_points,
                effect=EFFECTS[line.why],
                message=line.message,
            )
            for line in earned.lines
        ],
    )


def _parsed(name: str) -> tuple[str, str, int]:
    program_id, rule_id, version = resource_segments(name, "programs", "earnRules", "versions")
    return program_id, rule_id, int(version)


def _key(row: asyncpg.Record) -> tuple[str, str, int]:
    return row["program_id"], row["rule_id"], row["version"]


async def _require(connection: Connection, key: tuple[str, str, int], *, lock: bool = False) -> asyncpg.Record:
    row = await earn_rules.get(connection, *key, lock=lock)
    if row is None:
        name = f"programs/{key[0]}/earnRules/{key[1]}/versions/{key[2]}"
        raise NotFound("EARN_RULE_NOT_FOUND", f"{name} does not exist as an expression")
    return row


async def _require_own(unit: UnitOfWork, name: str) -> asyncpg.Record:
    key = _parsed(name)
    await require_own_program(unit.connection, unit.principal, key[0], lock=True)
    return await _require(unit.connection, key, lock=True)


def to_message(row: asyncpg.Record) -> pb.EarnRule:
    """A version as the contract has it."""
    rule: ExpressionRule = earn_rules.to_expression_rule(row)
    definition = rule.definition
    message = pb.EarnRule(
        name=f"programs/{rule.program_id}/earnRules/{rule.name}",
        kind=KINDS[definition.kind],
        condition=definition.condition,
        points=definition.points,
        stacking=STACKINGS[definition.stacking],
        activity_kinds=sorted(ACTIVITIES[kind] for kind in definition.activity_kinds),
        institutions=[f"institutions/{institution_id}" for institution_id in sorted(definition.institution_ids)],
        caps=pb.EarnCaps(**{name: getattr(definition.caps, name) for name in earn_rules.CAPS}),
        state=STATES[row["state"]],
        drafted_by=row["drafted_by"],
        approved_by=row["approved_by"] or "",
    )
    if definition.denominator:
        message.fraction.numerator, message.fraction.denominator = definition.numerator, definition.denominator
    message.effective_time.FromDatetime(rule.effective_time)
    message.create_time.FromDatetime(row["create_time"])
    if isinstance(rule.end_time, datetime):
        message.end_time.FromDatetime(rule.end_time)
    return message
