"""ProgramService."""

from datetime import UTC

import asyncpg
import grpc

from chassis import etags, pages
from chassis.database import Connection, Database
from chassis.errors import AlreadyExists, DomainError
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import program_service_pb2 as pb
from concord.loyalty.v1.program_service_pb2_grpc import ProgramServiceServicer
from loyalty.domain.earning import Direction, ErasureRule, RuleVersion
from loyalty.rpc.errors import institution_not_found, program_not_found
from loyalty.store import programs

PAGE_DEFAULT = 50
PAGE_MAX = 200
ALL_RULES = "-"
DIRECTIONS = {direction: pb.EarnDirection.Value(f"EARN_DIRECTION_{direction}") for direction in Direction}
ERASURE_RULES = {rule: pb.ErasureRule.Value(f"ERASURE_RULE_{rule}") for rule in ErasureRule}
ERASURE_RULE_OF = {number: rule for rule, number in ERASURE_RULES.items()}
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

        async def handler(unit: UnitOfWork) -> pb.Program:
            require_institution(unit.principal, institution_id)
            if not await programs.institution_exists(unit.connection, institution_id):
                raise institution_not_found(institution_id)
            erasure_rule = ERASURE_RULE_OF.get(program.erasure_rule, ErasureRule.EXPIRE)
            created = await programs.create(
                unit.connection, request.program_id, institution_id, program.display_name, erasure_rule, unit.now
            )
            if not created:
                raise AlreadyExists(
                    "PROGRAM_EXISTS",
                    f"programs/{request.program_id} exists; choose another id",
                    field_violations=[("program_id", "is taken")],
                )
            return _to_program(await _require_program(unit.connection, request.program_id))

        return await self._commands.run(request, handler)

    async def GetProgram(self, request: pb.GetProgramRequest, context: Context) -> pb.Program:
        (program_id,) = resource_segments(request.name, "programs")
        async with self._database.connection() as connection:
            return _to_program(await _require_program(connection, program_id))

    async def ListPrograms(self, request: pb.ListProgramsRequest, context: Context) -> pb.ListProgramsResponse:
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            rows = await programs.list_after(connection, keys[0] if keys else "", limit + 1)
        more = len(rows) > limit
        return pb.ListProgramsResponse(
            programs=[_to_program(row) for row in rows[:limit]],
            next_page_token=pages.encode([rows[limit - 1]["program_id"]], request) if more else "",
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


def _to_program(row: asyncpg.Record) -> pb.Program:
    message = pb.Program(
        name=f"programs/{row['program_id']}",
        institution=f"institutions/{row['institution_id']}",
        display_name=row["display_name"],
        erasure_rule=ERASURE_RULES[ErasureRule(row["erasure_rule"])],
        etag=etags.etag(row["version"]),
    )
    message.create_time.FromDatetime(row["create_time"])
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
