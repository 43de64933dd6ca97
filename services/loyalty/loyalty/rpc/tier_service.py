"""TierService."""

from zoneinfo import ZoneInfo

import asyncpg
import grpc

from chassis import clock, customer_states, pages
from chassis.database import Connection, Database
from chassis.errors import NotFound
from chassis.identity import Principal, current_principal
from chassis.ids import resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import tier_service_pb2 as pb
from concord.loyalty.v1.tier_service_pb2_grpc import TierServiceServicer
from loyalty.domain import tiers as domain
from loyalty.domain.tiers import Basis, Scheme, Standing, Tier, Window
from loyalty.rpc.decisions import PAGE_DEFAULT, PAGE_MAX, invalid, require_another, require_draft, require_own_program
from loyalty.rpc.earn_rule_service import STATES
from loyalty.rpc.errors import account_not_found
from loyalty.store import accounts, tiers

BASES = {basis: pb.TierBasis.Value(f"TIER_BASIS_{basis}") for basis in Basis}
BASIS_OF = {number: basis for basis, number in BASES.items()}
WINDOWS = {window: pb.TierWindow.Value(f"TIER_WINDOW_{window}") for window in Window}
WINDOW_OF = {number: window for window, number in WINDOWS.items()}
MONTHS_DEFAULT = 12
PERCENT_DEFAULT = 100
Context = grpc.aio.ServicerContext[object, object]


class TierServicer(TierServiceServicer):
    """Keeps tiers, and says where members stand."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def DraftTierScheme(self, request: pb.DraftTierSchemeRequest, context: Context) -> pb.TierScheme:
        (program_id,) = resource_segments(request.parent, "programs", field="parent")
        scheme = _scheme(program_id, request.tier_scheme)
        wrong = domain.violations(scheme)
        if wrong:
            raise invalid(wrong, "TIERS_INVALID", "tier_scheme")

        async def handler(unit: UnitOfWork) -> pb.TierScheme:
            await require_own_program(unit.connection, unit.principal, program_id, lock=True)
            version = await tiers.draft(unit.connection, scheme, unit.principal.subject, unit.now)
            return _message(await _require(unit.connection, program_id, version))

        return await self._commands.run(request, handler)

    async def ApproveTierScheme(self, request: pb.ApproveTierSchemeRequest, context: Context) -> pb.TierScheme:
        program_id, version = _parsed(request.name)

        async def handler(unit: UnitOfWork) -> pb.TierScheme:
            await require_own_program(unit.connection, unit.principal, program_id, lock=True)
            row = await _require(unit.connection, program_id, version, lock=True)
            require_draft(row, "version")
            require_another(row["drafted_by"], unit.principal)
            await tiers.approve(unit.connection, row, unit.principal.subject)
            return _message(await _require(unit.connection, program_id, version))

        return await self._commands.run(request, handler)

    async def GetTierScheme(self, request: pb.GetTierSchemeRequest, context: Context) -> pb.TierScheme:
        program_id, version = _parsed(request.name)
        async with self._database.connection() as connection:
            await require_own_program(connection, current_principal(), program_id)
            return _message(await _require(connection, program_id, version))

    async def ListTierSchemes(self, request: pb.ListTierSchemesRequest, context: Context) -> pb.ListTierSchemesResponse:
        (program_id,) = resource_segments(request.parent, "programs", field="parent")
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            await require_own_program(connection, current_principal(), program_id)
            rows = await tiers.list_before(connection, program_id, int(keys[0]) if keys else None, limit + 1)
        token = pages.encode([str(rows[limit - 1]["version"])], request) if len(rows) > limit else ""
        return pb.ListTierSchemesResponse(tier_schemes=[_message(row) for row in rows[:limit]], next_page_token=token)

    async def ListAccountTiers(self, request: pb.ListAccountTiersRequest, context: Context) -> pb.ListAccountTiersResponse:
        account_id = resource_id(request.parent, "accounts", field="parent")
        async with self._database.connection() as connection:
            account = await accounts.get(connection, account_id)
            if account is None:
                raise account_not_found(account_id)
            await _require_link(connection, current_principal(), account)
            parent_id = account["parent_account_id"] or account_id
            schemes = await tiers.in_force(connection)
            zones = await tiers.zones(connection, schemes)
            standings = await tiers.of_account(connection, parent_id)
            found = []
            for program_id, scheme in sorted(schemes.items()):
                today = clock.now().astimezone(zones.get(program_id, ZoneInfo("UTC"))).date()
                qualifying = await tiers.qualifying(connection, parent_id, scheme, today)
                if qualifying or program_id in standings:
                    found.append(_account_tier(scheme, standings.get(program_id), qualifying))
        return pb.ListAccountTiersResponse(account_tiers=found)


async def _require_link(connection: Connection, principal: Principal, account: asyncpg.Record) -> None:
    try:
        if account["holder_customer_id"] is not None:
            await customer_states.readable(connection, principal, account["holder_customer_id"])
        elif not principal.sees_all:
            raise account_not_found(account["account_id"])
    except NotFound:
        raise account_not_found(account["account_id"]) from None


async def _require(connection: Connection, program_id: str, version: int, *, lock: bool = False) -> asyncpg.Record:
    row = await tiers.get(connection, program_id, version, lock=lock)
    if row is None:
        raise NotFound("TIER_SCHEME_NOT_FOUND", f"programs/{program_id}/tierSchemes/{version} does not exist")
    return row


def _parsed(name: str) -> tuple[str, int]:
    program_id, version = resource_segments(name, "programs", "tierSchemes")
    return program_id, int(version)


def _scheme(program_id: str, wanted: pb.TierScheme) -> Scheme:
    return Scheme(
        program_id=program_id,
        version=0,
        basis=BASIS_OF[wanted.basis],
        window=WINDOW_OF[wanted.window],
        tiers=tuple(
            Tier(tier.tier_id, tier.display_name, tier.threshold, tier.keep_threshold, tier.percent or PERCENT_DEFAULT)
            for tier in wanted.tiers
        ),
        window_months=wanted.window_months or MONTHS_DEFAULT,
        review_months=wanted.review_months or MONTHS_DEFAULT,
        currency_code=wanted.currency_code,
    )


def _message(row: asyncpg.Record) -> pb.TierScheme:
    scheme = tiers.to_scheme(row)
    message = pb.TierScheme(
        name=f"programs/{scheme.program_id}/tierSchemes/{scheme.version}",
        basis=BASES[scheme.basis],
        window=WINDOWS[scheme.window],
        window_months=scheme.window_months,
        review_months=scheme.review_months,
        currency_code=scheme.currency_code,
        tiers=[
            pb.Tier(
                tier_id=tier.tier_id,
                display_name=tier.display_name,
                threshold=tier.threshold,
                keep_threshold=tier.keep_threshold,
                percent=tier.percent,
            )
            for tier in scheme.tiers
        ],
        state=STATES[row["state"]],
        drafted_by=row["drafted_by"],
        approved_by=row["approved_by"] or "",
    )
    message.create_time.FromDatetime(row["create_time"])
    return message


def _account_tier(scheme: Scheme, row: asyncpg.Record | None, qualifying: int) -> pb.AccountTier:
    standing = Standing(row["tier_id"], row["review_date"]) if row is not None else Standing()
    tier = scheme.tier(scheme.rank(standing.tier_id))
    above = domain.next_tier(scheme, standing, qualifying)
    message = pb.AccountTier(
        program=f"programs/{scheme.program_id}",
        tier_id=standing.tier_id,
        display_name=tier.display_name if tier else "",
        qualifying=qualifying,
        next_tier_id=above[0].tier_id if above else "",
        missing=above[1] if above else 0,
        review_date=standing.review_date.isoformat() if standing.review_date else "",
    )
    if row is not None:
        message.change_time.FromDatetime(row["change_time"])
    return message
