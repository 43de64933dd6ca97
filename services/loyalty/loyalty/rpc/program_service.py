"""ProgramService."""

from datetime import UTC, date, datetime

import asyncpg
import grpc

from chassis import clock, etags, pages
from chassis.database import Connection, Database
from chassis.errors import AlreadyExists, DomainError, InvalidArgument
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import program_service_pb2 as pb
from concord.loyalty.v1.program_service_pb2_grpc import ProgramServiceServicer
from loyalty.domain import expiry
from loyalty.domain.earning import Direction, ErasureRule, RuleVersion
from loyalty.domain.expiry import ExpiryKind, ExpiryPolicy
from loyalty.rpc.errors import institution_not_found, program_not_found
from loyalty.store import configuration, programs

PAGE_DEFAULT = 50
PAGE_MAX = 200
ALL_RULES = "-"
DIRECTIONS = {direction: pb.EarnDirection.Value(f"EARN_DIRECTION_{direction}") for direction in Direction}
ERASURE_RULES = {rule: pb.ErasureRule.Value(f"ERASURE_RULE_{rule}") for rule in ErasureRule}
ERASURE_RULE_OF = {number: rule for rule, number in ERASURE_RULES.items()}
EXPIRY_KINDS = {kind: pb.ExpiryKind.Value(f"EXPIRY_KIND_{kind}") for kind in ExpiryKind}
EXPIRY_KIND_OF = {number: kind for kind, number in EXPIRY_KINDS.items()}
UPDATABLE = (
    "display_name", "erasure_rule", "unit_display_name", "time_zone", "pending_days", "liability_value", "transfers_allowed",
    "refund_grace_days",
)  # fmt: skip
DIRECTION_OF = {number: direction for direction, number in DIRECTIONS.items()}
Context = grpc.aio.ServicerContext[object, object]


class ProgramServicer(ProgramServiceServicer):
    """Keeps programmes and their earn rules."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreateProgram(self, request: pb.CreateProgramRequest, context: Context) -> pb.Program:
        program = request.program
        (institution_id,) = resource_segments(program.institution, "institutions", field="program.institution")
        terms: dict[str, object] = {"decimals": program.decimals, "sandbox": program.sandbox}
        _columns(program, "display_name")
        for field in UPDATABLE[2:]:
            terms |= _columns(program, field)

        async def handler(unit: UnitOfWork) -> pb.Program:
            require_institution(unit.principal, institution_id)
            if not await programs.institution_exists(unit.connection, institution_id):
                raise institution_not_found(institution_id)
            erasure_rule = ERASURE_RULE_OF.get(program.erasure_rule, ErasureRule.EXPIRE)
            created = await programs.create(
                unit.connection, request.program_id, institution_id, program.display_name, erasure_rule, unit.now, **terms
            )
            if not created:
                raise AlreadyExists(
                    "PROGRAM_EXISTS",
                    f"programs/{request.program_id} exists; choose another id",
                    field_violations=[("program_id", "is taken")],
                )
            return await _read(unit.connection, request.program_id, unit.principal, unit.now)

        return await self._commands.run(request, handler)

    async def GetProgram(self, request: pb.GetProgramRequest, context: Context) -> pb.Program:
        (program_id,) = resource_segments(request.name, "programs")
        async with self._database.connection() as connection:
            return await _read(connection, program_id, current_principal(), clock.now())

    async def ListPrograms(self, request: pb.ListProgramsRequest, context: Context) -> pb.ListProgramsResponse:
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            rows = await programs.list_after(connection, keys[0] if keys else "", limit + 1)
            policies = await programs.expiry_policies_in_force(connection, [row["program_id"] for row in rows], clock.now())
        more, viewer = len(rows) > limit, current_principal()
        return pb.ListProgramsResponse(
            programs=[_to_program(row, policies.get(row["program_id"]), viewer) for row in rows[:limit]],
            next_page_token=pages.encode([rows[limit - 1]["program_id"]], request) if more else "",
        )

    async def UpdateProgram(self, request: pb.UpdateProgramRequest, context: Context) -> pb.Program:
        wanted = request.program
        (program_id,) = resource_segments(wanted.name, "programs", field="program.name")
        fields = list(request.update_mask.paths) or [field.name for field, _ in wanted.ListFields() if field.name in UPDATABLE]
        fields = list(UPDATABLE) if "*" in fields else fields
        if not fields or not set(fields) <= set(UPDATABLE):
            raise _invalid([("update_mask", f"must name some of {', '.join(UPDATABLE)}")], "UPDATE_MASK_INVALID")
        terms: dict[str, object] = {}
        for field in fields:
            terms |= _columns(wanted, field)

        async def handler(unit: UnitOfWork) -> pb.Program:
            await configuration.raise_version(unit.connection)
            await _require_own_program(unit.connection, unit.principal, program_id, lock=True)
            present = await _read(unit.connection, program_id, unit.principal, unit.now)
            etags.require(request.etag, present.etag)
            await programs.update(unit.connection, program_id, **terms)
            return await _read(unit.connection, program_id, unit.principal, unit.now)

        return await self._commands.run(request, handler)

    async def CreateExpiryPolicyVersion(
        self, request: pb.CreateExpiryPolicyVersionRequest, context: Context
    ) -> pb.ExpiryPolicyVersion:
        (program_id,) = resource_segments(request.parent, "programs", field="parent")
        wanted = request.expiry_policy_version
        fixed_date = _date(wanted.fixed_date) if wanted.fixed_date else None

        async def handler(unit: UnitOfWork) -> pb.ExpiryPolicyVersion:
            await configuration.raise_version(unit.connection)
            await _require_own_program(unit.connection, unit.principal, program_id, lock=True)
            policy = ExpiryPolicy(
                version=0,
                effective_time=wanted.effective_time.ToDatetime(UTC) if wanted.HasField("effective_time") else unit.now,
                kind=EXPIRY_KIND_OF[wanted.kind],
                months=wanted.months if wanted.HasField("months") else None,
                days=wanted.days if wanted.HasField("days") else None,
                fixed_date=fixed_date,
            )
            wrong = expiry.violations(policy)
            if policy.effective_time < unit.now:
                wrong.append(
                    ("effective_time", "must not be in the past: points that were issued keep their end; or leave it out")
                )
            if wrong:
                raise _invalid([(f"expiry_policy_version.{field}", rule) for field, rule in wrong], "EXPIRY_POLICY_INVALID")
            policy = await programs.add_expiry_policy(unit.connection, program_id, policy, unit.now)
            return _to_policy(program_id, policy, unit.now)

        return await self._commands.run(request, handler)

    async def ListExpiryPolicyVersions(
        self, request: pb.ListExpiryPolicyVersionsRequest, context: Context
    ) -> pb.ListExpiryPolicyVersionsResponse:
        (program_id,) = resource_segments(request.parent, "programs", field="parent")
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            await _require_program(connection, program_id)
            rows = await programs.expiry_policies(connection, program_id, int(keys[0]) if keys else None, limit + 1)
        token = pages.encode([str(rows[limit - 1]["version"])], request) if len(rows) > limit else ""
        return pb.ListExpiryPolicyVersionsResponse(
            expiry_policy_versions=[
                _to_policy(program_id, programs.to_expiry_policy(row), row["create_time"]) for row in rows[:limit]
            ],
            next_page_token=token,
        )

    async def CreateEarnRuleVersion(self, request: pb.CreateEarnRuleVersionRequest, context: Context) -> pb.EarnRuleVersion:
        program_id, rule_id = resource_segments(request.parent, "programs", "earnRules", field="parent")
        asked = request.earn_rule_version

        async def handler(unit: UnitOfWork) -> pb.EarnRuleVersion:
            await _require_own_program(unit.connection, unit.principal, program_id, lock=True)
            rule = RuleVersion(
                program_id=program_id,
                rule_id=rule_id,
                version=await programs.next_rule_version(unit.connection, program_id, rule_id),
                currency_code=asked.currency_code,
                categories=frozenset(asked.categories),
                direction=DIRECTION_OF[asked.direction],
                amount_minor_units_min=asked.amount_minor_units_min,
                points_numerator=asked.points_numerator,
                points_denominator=asked.points_denominator,
                points_max=asked.points_max,
                effective_time=asked.effective_time.ToDatetime(UTC),
            )
            await programs.add_rule_version(unit.connection, rule, unit.now)
            message = _to_rule(rule)
            message.create_time.FromDatetime(unit.now)
            return message

        return await self._commands.run(request, handler)

    async def ListEarnRuleVersions(
        self, request: pb.ListEarnRuleVersionsRequest, context: Context
    ) -> pb.ListEarnRuleVersionsResponse:
        program_id, rule_id = resource_segments(request.parent, "programs", "earnRules", field="parent")
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        after = (keys[0], int(keys[1])) if keys else ("", 0)
        wanted = None if rule_id == ALL_RULES else rule_id
        async with self._database.connection() as connection:
            await _require_own_program(connection, current_principal(), program_id)
            rows = await programs.list_rule_versions(connection, program_id, wanted, after, limit + 1)
        versions = []
        for row in rows[:limit]:
            versions.append(_to_rule(programs.to_rule(row)))
            versions[-1].create_time.FromDatetime(row["create_time"])
        last = [rows[limit - 1]["rule_id"], str(rows[limit - 1]["version"])] if len(rows) > limit else None
        return pb.ListEarnRuleVersionsResponse(
            earn_rule_versions=versions, next_page_token=pages.encode(last, request) if last else ""
        )


async def _require_program(connection: Connection, program_id: str, *, lock: bool = False) -> asyncpg.Record:
    program = await programs.get(connection, program_id, lock=lock)
    if program is None:
        raise program_not_found(program_id)
    return program


async def _require_own_program(connection: Connection, principal: Principal, program_id: str, *, lock: bool = False) -> None:
    program = await _require_program(connection, program_id, lock=lock)
    try:
        require_institution(principal, program["institution_id"])
    except DomainError:
        raise program_not_found(program_id) from None


async def _read(connection: Connection, program_id: str, viewer: Principal, now: datetime) -> pb.Program:
    row = await _require_program(connection, program_id)
    policies = await programs.expiry_policies_in_force(connection, [program_id], now)
    return _to_program(row, policies.get(program_id), viewer)


def _columns(program: pb.Program, field: str) -> dict[str, object]:
    """What a field says, as columns; an empty one says its default.

    Raises:
        InvalidArgument: PROGRAM_INVALID.
    """
    if field == "display_name" and not program.display_name.strip():
        raise _invalid([("program.display_name", "must be 1 to 200 characters")], "PROGRAM_INVALID")
    if field == "erasure_rule":
        return {field: ERASURE_RULE_OF.get(program.erasure_rule, ErasureRule.EXPIRE)}
    if field == "unit_display_name":
        return {field: program.unit_display_name or "points"}
    if field == "time_zone":
        return {field: _zone(program.time_zone or "UTC")}
    if field == "liability_value":
        stated = program.HasField("liability_value")
        value = program.liability_value
        return {
            "liability_numerator": value.numerator if stated else None,
            "liability_denominator": value.denominator if stated else None,
            "liability_currency_code": value.currency_code if stated else None,
        }
    return {field: getattr(program, field)}


def _zone(name: str) -> str:
    if name not in expiry.time_zones():
        raise _invalid([("program.time_zone", "must be an IANA time zone such as Asia/Shanghai")], "PROGRAM_INVALID")
    return name


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        rule = "must be a day of the calendar, YYYY-MM-DD"
        raise _invalid([("expiry_policy_version.fixed_date", rule)], "EXPIRY_POLICY_INVALID") from None


def _invalid(wrong: list[tuple[str, str]], reason: str) -> InvalidArgument:
    return InvalidArgument(reason, "; ".join(f"{field} {rule}" for field, rule in wrong), field_violations=wrong)


def _to_program(row: asyncpg.Record, policy: asyncpg.Record | None, viewer: Principal) -> pb.Program:
    message = pb.Program(
        name=f"programs/{row['program_id']}",
        institution=f"institutions/{row['institution_id']}",
        display_name=row["display_name"],
        erasure_rule=ERASURE_RULES[ErasureRule(row["erasure_rule"])],
        # Both only rise, so their sum changes also when a policy that was written before comes into force.
        etag=etags.etag(row["version"] + (policy["version"] if policy else 0)),
        decimals=row["decimals"],
        unit_display_name=row["unit_display_name"],
        time_zone=row["time_zone"],
        pending_days=row["pending_days"],
        transfers_allowed=row["transfers_allowed"],
        refund_grace_days=row["refund_grace_days"],
        sandbox=row["sandbox"],
    )
    message.create_time.FromDatetime(row["create_time"])
    if row["liability_currency_code"] and (viewer.sees_all or viewer.institution == row["institution_id"]):
        message.liability_value.numerator = row["liability_numerator"]
        message.liability_value.denominator = row["liability_denominator"]
        message.liability_value.currency_code = row["liability_currency_code"]
    if policy:
        message.expiry_policy.CopyFrom(_to_policy(row["program_id"], programs.to_expiry_policy(policy), policy["create_time"]))
    return message


def _to_policy(program_id: str, policy: ExpiryPolicy, create_time: datetime) -> pb.ExpiryPolicyVersion:
    message = pb.ExpiryPolicyVersion(
        name=f"programs/{program_id}/expiryPolicyVersions/{policy.version}",
        kind=EXPIRY_KINDS[policy.kind],
        months=policy.months,
        days=policy.days,
        fixed_date=policy.fixed_date.isoformat() if policy.fixed_date else "",
    )
    message.effective_time.FromDatetime(policy.effective_time)
    message.create_time.FromDatetime(create_time)
    return message


def _to_rule(rule: RuleVersion) -> pb.EarnRuleVersion:
    message = pb.EarnRuleVersion(
        name=f"programs/{rule.program_id}/earnRules/{rule.name}",
        currency_code=rule.currency_code,
        categories=sorted(rule.categories),
        direction=DIRECTIONS[rule.direction],
        amount_minor_units_min=rule.amount_minor_units_min,
        points_numerator=rule.points_numerator,
        points_denominator=rule.points_denominator,
        points_max=rule.points_max,
    )
    message.effective_time.FromDatetime(rule.effective_time)
    return message
