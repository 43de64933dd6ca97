"""AccountService: opens, links, freezes, closes and reads accounts."""

import uuid
from collections.abc import Sequence
from datetime import UTC

import asyncpg
import grpc

from chassis import clock, customer_states, record_links
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import new_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import account_service_pb2 as pb
from concord.loyalty.v1.account_service_pb2_grpc import AccountServiceServicer
from loyalty.domain.four_eyes import side_name
from loyalty.domain.ledger.commands import ExpireLots
from loyalty.domain.ledger.types import AccountKind, AccountStatus, SystemKey
from loyalty.rpc.account_access import require_account, require_seen
from loyalty.rpc.account_messages import side_of, to_account, to_membership
from loyalty.rpc.errors import account_closed, account_merged, institution_not_found, membership_not_found
from loyalty.rpc.statements import StatementMethods
from loyalty.store import accounts, families, pools, programs
from loyalty.store import ledger as ledger_store
from loyalty.store.messages import publish_accounts
from loyalty.store.posting import post

Context = grpc.aio.ServicerContext[object, object]


class AccountServicer(StatementMethods, AccountServiceServicer):
    """Opens, links, freezes, closes and reads accounts."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def OpenAccount(self, request: pb.OpenAccountRequest, context: Context) -> pb.Account:
        customer_id = resource_id(request.customer, "customers", field="customer")
        institution_ids = sorted({_institution_id(name, "institutions") for name in request.institutions})

        async def handler(unit: UnitOfWork) -> pb.Account:
            await _require_customer(unit.connection, unit.principal, customer_id)
            for institution_id in institution_ids:
                await _require_linkable(unit, institution_id)
            account_id, opened = await accounts.open_account(unit.connection, customer_id, unit.now)
            regrouped = await families.regroup(unit.connection, [customer_id], unit.now) if opened else []
            linked = await accounts.link(unit.connection, account_id, institution_ids, unit.now)
            if linked and not opened:
                await accounts.raise_version(unit.connection, account_id)
            await publish_accounts(unit, [account_id, *regrouped] if opened or linked else [])
            return await _told(unit, account_id)

        return await self._commands.run(request, handler)

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.Account:
        account_id, principal = resource_id(request.name, "accounts"), current_principal()
        async with self._database.connection() as connection:
            row = await accounts.view(connection, account_id, principal.institution or "", clock.now())
            await require_seen(connection, principal, account_id, row)
        assert row is not None
        return to_account(row, principal)

    async def GetCustomerAccount(self, request: pb.GetCustomerAccountRequest, context: Context) -> pb.Account:
        customer_id, principal = resource_id(request.customer, "customers", field="customer"), current_principal()
        async with self._database.connection() as connection:
            survivor = await customer_states.readable(connection, principal, customer_id)
            account_id = await accounts.of_customer(connection, survivor)
            row = await accounts.view(connection, account_id, "", clock.now()) if account_id is not None else None
        if row is None:
            raise NotFound("ACCOUNT_NOT_FOUND", f"customers/{customer_id} has no account; open one")
        return to_account(row, principal)

    async def LinkInstitution(self, request: pb.LinkInstitutionRequest, context: Context) -> pb.InstitutionMembership:
        account_id = resource_id(request.parent, "accounts", field="parent")
        institution_id = _institution_id(request.institution, "institution")
        consent_time = request.consent_time.ToDatetime(UTC) if request.HasField("consent_time") else None
        if consent_time is not None and consent_time > clock.now():
            rule = "must not be in the future"
            raise InvalidArgument("FIELD_INVALID", f"consent_time {rule}", field_violations=[("consent_time", rule)])

        async def handler(unit: UnitOfWork) -> pb.InstitutionMembership:
            account = await require_account(unit.connection, unit.principal, account_id, lock=True)
            if account["parent_account_id"] is not None:
                raise account_merged(account_id, account)
            if account["status"] == AccountStatus.CLOSED:
                raise account_closed(account_id)
            await _require_linkable(unit, institution_id)
            consent = request.consent_reference, consent_time
            if await accounts.link(unit.connection, account_id, [institution_id], unit.now, *consent):
                await accounts.raise_version(unit.connection, account_id)
                await publish_accounts(unit, [account_id])
            row = await accounts.membership(unit.connection, account_id, institution_id)
            assert row is not None
            return to_membership(unit.principal, row)

        return await self._commands.run(request, handler)

    async def UnlinkInstitution(self, request: pb.UnlinkInstitutionRequest, context: Context) -> pb.InstitutionMembership:
        account_id = resource_id(request.name.partition("/links/")[0], "accounts")
        institution_id = request.name.partition("/links/")[2]

        async def handler(unit: UnitOfWork) -> pb.InstitutionMembership:
            # The ledger's head first: what earns at the same time sees the link, or sees that it has ended.
            await ledger_store.lock_head(unit.connection)
            await require_account(unit.connection, unit.principal, account_id, lock=True)
            require_institution(unit.principal, institution_id)
            ended = await accounts.unlink(unit.connection, [account_id], institution_id, unit.now)
            if not ended:
                if await accounts.was_linked(unit.connection, account_id, institution_id):
                    raise FailedPrecondition("MEMBERSHIP_ENDED", f"{request.name} was ended before; nothing has to be done")
                raise membership_not_found(account_id, institution_id)
            await accounts.raise_version(unit.connection, account_id)
            await publish_accounts(unit, [account_id])
            return to_membership(unit.principal, ended[0])

        return await self._commands.run(request, handler)

    async def FreezeAccount(self, request: pb.FreezeAccountRequest, context: Context) -> pb.Account:
        account_id = resource_id(request.name, "accounts")

        async def handler(unit: UnitOfWork) -> pb.Account:
            await _require_freezable(unit, account_id)
            who = side_of(unit.principal), request.reason_code, unit.principal.subject
            if not await accounts.freeze(unit.connection, account_id, *who, unit.now):
                message = f"accounts/{account_id} was frozen by {side_name(who[0])} before; nothing has to be done"
                raise FailedPrecondition("ACCOUNT_FROZEN", message)
            await publish_accounts(unit, [account_id])
            return await _told(unit, account_id)

        return await self._commands.run(request, handler)

    async def UnfreezeAccount(self, request: pb.UnfreezeAccountRequest, context: Context) -> pb.Account:
        account_id = resource_id(request.name, "accounts")
        side = request.institution.partition("/")[2]

        async def handler(unit: UnitOfWork) -> pb.Account:
            await _require_freezable(unit, account_id)
            own = side_of(unit.principal)
            if side and side != own and not unit.principal.sees_all:
                raise institution_not_found(side)
            who = side or own, request.reason_code, unit.principal.subject
            if not await accounts.thaw(unit.connection, account_id, *who, unit.now):
                message = f"accounts/{account_id} is not frozen by {side_name(who[0])}; freezes of others are theirs to take away"
                raise FailedPrecondition("ACCOUNT_NOT_FROZEN", message)
            await publish_accounts(unit, [account_id])
            return await _told(unit, account_id)

        return await self._commands.run(request, handler)

    async def CloseAccount(self, request: pb.CloseAccountRequest, context: Context) -> pb.Account:
        account_id = resource_id(request.name, "accounts")

        async def handler(unit: UnitOfWork) -> pb.Account:
            head = await ledger_store.lock_head(unit.connection)
            account = await require_account(unit.connection, unit.principal, account_id)
            if account["parent_account_id"] is not None:
                raise account_merged(account_id, account)
            family = await accounts.locked_family(unit.connection, account_id)
            _require_open(family)
            ids = [row["account_id"] for row in family]
            owned = await accounts.balances(unit.connection, ids)
            _require_given_up(account_id, owned, request.give_up_points)
            versions = {row["account_id"]: row["version"] for row in family}
            await post(unit, _endings(unit, owned, versions), head)
            await accounts.close(unit.connection, ids, unit.now)
            await accounts.unlink(unit.connection, ids, None, unit.now)
            await pools.leave_all(unit.connection, ids, unit.now)
            await publish_accounts(unit, ids)
            return await _told(unit, account_id)

        return await self._commands.run(request, handler)


async def _told(unit: UnitOfWork, account_id: uuid.UUID) -> pb.Account:
    row = await accounts.view(unit.connection, account_id, "", unit.now)
    assert row is not None
    return to_account(row, unit.principal)


def _institution_id(name: str, field: str) -> str:
    return resource_segments(name, "institutions", field=field)[0]


async def _require_customer(connection: Connection, principal: Principal, customer_id: uuid.UUID) -> None:
    """The customer exists and the caller may know of it; an operator may open accounts of known customers only, too."""
    await customer_states.writable(connection, principal, customer_id)
    # Locked against a merge until the transaction ends, so that the account's holder is the customer itself.
    if customer_id in await customer_states.erased(connection, [customer_id]):
        raise record_links.not_found(customer_id)
    known = await connection.fetchval("SELECT EXISTS (SELECT FROM record_links WHERE customer_id = $1)", customer_id)
    if not known:
        raise record_links.not_found(customer_id)


async def _require_linkable(unit: UnitOfWork, institution_id: str) -> None:
    require_institution(unit.principal, institution_id)
    if not await programs.institution_exists(unit.connection, institution_id):
        raise institution_not_found(institution_id)


async def _require_freezable(unit: UnitOfWork, account_id: uuid.UUID) -> None:
    """Under the head's lock: after the answer nothing is spent that was asked for before. A child account, too, may be frozen."""
    await ledger_store.lock_head(unit.connection)
    account = await require_account(unit.connection, unit.principal, account_id, lock=True)
    if account["status"] == AccountStatus.CLOSED:
        raise account_closed(account_id)


def _require_open(family: Sequence[asyncpg.Record]) -> None:
    for row in family:
        if row["status"] == AccountStatus.FROZEN:
            message = f"accounts/{row['account_id']} is frozen; it can be closed when every freeze is taken away"
            raise FailedPrecondition("ACCOUNT_FROZEN", message)
    if all(row["status"] == AccountStatus.CLOSED for row in family):
        raise account_closed(family[0]["account_id"])


def _require_given_up(account_id: uuid.UUID, owned: Sequence[asyncpg.Record], given_up: bool) -> None:
    sums = {kind: sum(row["balance_points"] for row in owned if row["kind"] == kind) for kind in AccountKind}
    if sums[AccountKind.HELD]:
        raise FailedPrecondition(
            "HOLD_OPEN",
            f"accounts/{account_id} has holds that are open; capture or void them first, or wait until their time is over",
            metadata={"held_points": str(sums[AccountKind.HELD])},
        )
    left = sums[AccountKind.MEMBER] + sums[AccountKind.PENDING]
    if left and not given_up:
        raise FailedPrecondition(
            "POINTS_LEFT",
            f"accounts/{account_id} has points left; let the customer spend them, or give them up by give_up_points",
            metadata={"left_points": str(left)},
            field_violations=[("give_up_points", "must be true while points are left")],
        )


def _endings(unit: UnitOfWork, owned: Sequence[asyncpg.Record], versions: dict[uuid.UUID, int]) -> list[ExpireLots]:
    """The end of all points that are left. The version is in the key, because an account may be closed more than once."""
    left = {
        (row["account_id"], row["program_id"]): row["institution_id"]
        for row in owned
        if row["kind"] in (AccountKind.MEMBER, AccountKind.PENDING)
    }
    return [
        ExpireLots(
            operation_id=new_id(),
            key=SystemKey(f"close/{account_id}/{versions[account_id]}/{program_id}"),
            account_id=account_id,
            institution_id=institution_id,
            effective_time=unit.now,
            program_id=program_id,
        )
        for (account_id, program_id), institution_id in left.items()
    ]
