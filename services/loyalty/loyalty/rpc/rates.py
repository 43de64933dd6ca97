"""ExchangeService: rates between programmes."""

from datetime import UTC, datetime

import asyncpg
import grpc

from chassis import clock, pages
from chassis.database import Connection, Database
from chassis.errors import AlreadyExists, FailedPrecondition
from chassis.identity import Principal, current_principal
from chassis.ids import new_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import exchange_service_pb2 as pb
from loyalty.domain import rates as domain
from loyalty.domain.four_eyes import Person, Refused
from loyalty.domain.rates import Rate
from loyalty.rpc import exchange_messages as messages
from loyalty.rpc.errors import program_not_found
from loyalty.store import configuration, programs, rates

Context = grpc.aio.ServicerContext[object, object]


class RateMethods:
    """What ExchangeService does with rates."""

    _database: Database
    _commands: Commands

    async def CreateRate(self, request: pb.CreateRateRequest, context: Context) -> pb.Rate:
        wanted = request.rate
        from_id, to_id = _program(wanted.from_program, "rate.from_program"), _program(wanted.to_program, "rate.to_program")
        if from_id == to_id:
            raise messages.invalid([("rate.to_program", "must be another programme than from_program")], "RATE_INVALID")

        async def handler(unit: UnitOfWork) -> pb.Rate:
            pair = [await programs.get(unit.connection, program_id) for program_id in (from_id, to_id)]
            for program_id, program in zip((from_id, to_id), pair, strict=True):
                if program is None:
                    raise program_not_found(program_id)
            if not unit.principal.sees_all and unit.principal.institution not in {row["institution_id"] for row in pair if row}:
                raise program_not_found(from_id)
            if len({row["sandbox"] for row in pair if row}) > 1:
                rule = "must be a sandbox programme where the other is one, and no sandbox where it is not"
                raise messages.invalid([("rate.to_program", rule)], "SANDBOX_MIXED")
            valid_from = wanted.valid_from.ToDatetime(UTC) if wanted.HasField("valid_from") else unit.now
            rate = Rate(from_id, to_id, valid_from, wanted.numerator, wanted.denominator)
            rate_id = new_id()
            if not await rates.insert(unit.connection, rate_id, rate, messages.person_of(unit.principal), unit.now):
                raise _begins_already(valid_from)
            return messages.to_rate(await _require(unit.connection, unit.principal, f"rates/{rate_id}"))

        return await self._commands.run(request, handler)

    async def ApproveRate(self, request: pb.ApproveRateRequest, context: Context) -> pb.Rate:
        async def handler(unit: UnitOfWork) -> pb.Rate:
            # Rates are published one after the other, or two that gain only together would both pass.
            await configuration.raise_version(unit.connection)
            row = await _require_draft(unit, request.name)
            person = messages.person_of(unit.principal)
            try:
                domain.require_second(
                    Person(row["drafted_by"], row["drafted_side"]), person, (row["from_institution_id"], row["to_institution_id"])
                )
            except Refused as refused:
                raise messages.refusal(refused) from None
            valid_from = max(row["valid_from"], unit.now)
            rate = rates.to_rate(row, valid_from)
            found = domain.gain_of_publishing(await rates.published_since(unit.connection, valid_from), rate)
            if found is not None:
                raise _gains(found)
            if not await rates.publish(unit.connection, row["rate_id"], valid_from, person, unit.now):
                raise _begins_already(valid_from)
            return messages.to_rate(await _require(unit.connection, unit.principal, request.name))

        return await self._commands.run(request, handler)

    async def WithdrawRate(self, request: pb.WithdrawRateRequest, context: Context) -> pb.Rate:
        async def handler(unit: UnitOfWork) -> pb.Rate:
            row = await _require_draft(unit, request.name)
            await rates.withdraw(unit.connection, row["rate_id"])
            message = messages.to_rate(row)
            message.state = pb.RATE_STATE_WITHDRAWN
            return message

        return await self._commands.run(request, handler)

    async def GetRate(self, request: pb.GetRateRequest, context: Context) -> pb.Rate:
        async with self._database.connection() as connection:
            return messages.to_rate(await _require(connection, current_principal(), request.name))

    async def ListRates(self, request: pb.ListRatesRequest, context: Context) -> pb.ListRatesResponse:
        limit = pages.page_size(request.page_size, messages.PAGE_DEFAULT, messages.PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        after = (keys[0], keys[1], datetime.fromisoformat(keys[2])) if keys else None
        from_id = _program(request.from_program, "from_program") if request.from_program else ""
        to_id = _program(request.to_program, "to_program") if request.to_program else ""
        principal = current_principal()
        mine = None if principal.sees_all else principal.institution or ""
        async with self._database.connection() as connection:
            rows = await rates.list_after(connection, mine, from_id, to_id, after, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        token = [last["from_program_id"], last["to_program_id"], last["valid_from"].isoformat()] if last else []
        return pb.ListRatesResponse(
            rates=[messages.to_rate(row) for row in rows[:limit]], next_page_token=pages.encode(token, request) if last else ""
        )

    async def LookUpRate(self, request: pb.LookUpRateRequest, context: Context) -> pb.Rate:
        from_id, to_id = _program(request.from_program, "from_program"), _program(request.to_program, "to_program")
        at = request.at_time.ToDatetime(UTC) if request.HasField("at_time") else clock.now()
        async with self._database.connection() as connection:
            row = await rates.at(connection, from_id, to_id, at)
        if row is None or not row["numerator"]:
            raise messages.rate_not_found(f"a rate from programs/{from_id} to programs/{to_id} at that time")
        return messages.to_rate(row)


async def _require(connection: Connection, principal: Principal, name: str, *, lock: bool = False) -> asyncpg.Record:
    row = await rates.get(connection, resource_id(name, "rates"), lock=lock)
    if row is None or (row["state"] != "PUBLISHED" and not _concerns(row, principal)):
        raise messages.rate_not_found(name)
    return row


async def _require_draft(unit: UnitOfWork, name: str) -> asyncpg.Record:
    row = await _require(unit.connection, unit.principal, name, lock=True)
    if not _concerns(row, unit.principal):
        raise messages.rate_not_found(name)
    if row["state"] != "DRAFT":
        raise FailedPrecondition("RATE_NOT_DRAFT", f"{name} is published; to change it, publish another that begins later")
    return row


def _concerns(row: asyncpg.Record, principal: Principal) -> bool:
    return principal.sees_all or principal.institution in (row["from_institution_id"], row["to_institution_id"])


def _program(name: str, field: str) -> str:
    return resource_segments(name, "programs", field=field)[0]


def _begins_already(valid_from: datetime) -> AlreadyExists:
    rule = f"{valid_from.isoformat()} is when another rate of the pair begins; choose another instant, or withdraw that draft"
    return AlreadyExists("RATE_EXISTS", f"rate.valid_from: {rule}", field_violations=[("rate.valid_from", rule)])


def _gains(found: domain.GainingCycle) -> FailedPrecondition:
    when = found.at.isoformat() if found.at else ""
    gain = found.product - 1
    return FailedPrecondition(
        "RATE_CYCLE_GAINS",
        f"from {when} on {found}; lower a rate on that way so that its product is at most 1",
        metadata={
            "cycle": ",".join(f"programs/{program}" for program in found.programs),
            "gain": f"{gain.numerator}/{gain.denominator}",
            "time": when,
        },
        field_violations=[("rate.numerator", "makes a cycle of rates gain")],
    )
