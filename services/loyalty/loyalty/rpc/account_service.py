"""AccountService."""

import uuid

import asyncpg
import grpc

from chassis import customer_states, etags, pages, record_links
from chassis.database import Connection, Database
from chassis.errors import NotFound
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import account_service_pb2 as pb
from concord.loyalty.v1.account_service_pb2_grpc import AccountServiceServicer
from loyalty.domain.ledger.types import OperationKind
from loyalty.rpc.errors import account_merged, account_not_found, institution_not_found
from loyalty.store import accounts, families, programs
from loyalty.store import ledger as ledger_store
from loyalty.store.messages import KINDS, publish_accounts

STATEMENT_LINES_DEFAULT = 50
STATEMENT_LINES_MAX = 200
STATEMENT_KEYS = ("sequence", "ledger_account_id")
Context = grpc.aio.ServicerContext[object, object]


class AccountServicer(AccountServiceServicer):
    """Opens, links and reads accounts."""

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
            account = await accounts.get(unit.connection, account_id)
            assert account is not None
            return await _to_message(unit.connection, unit.principal, account)

        return await self._commands.run(request, handler)

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.Account:
        account_id = resource_id(request.name, "accounts")
        async with self._database.connection() as connection:
            account = await _require_account(connection, account_id)
            return await _to_message(connection, current_principal(), account)

    async def GetCustomerAccount(self, request: pb.GetCustomerAccountRequest, context: Context) -> pb.Account:
        customer_id = resource_id(request.customer, "customers", field="customer")
        async with self._database.connection() as connection:
            survivor = await customer_states.readable(connection, current_principal(), customer_id)
            account = await accounts.of_customer(connection, survivor)
            if account is None:
                raise NotFound("ACCOUNT_NOT_FOUND", f"customers/{customer_id} has no account; open one")
            return await _to_message(connection, current_principal(), account)

    async def LinkInstitution(self, request: pb.LinkInstitutionRequest, context: Context) -> pb.InstitutionMembership:
        account_id = resource_id(request.parent, "accounts", field="parent")
        institution_id = _institution_id(request.institution, "institution")

        async def handler(unit: UnitOfWork) -> pb.InstitutionMembership:
            account = await _require_account(unit.connection, account_id, lock=True)
            if account["parent_account_id"] is not None:
                raise account_merged(account_id, account)
            await _require_linkable(unit, institution_id)
            if await accounts.link(unit.connection, account_id, [institution_id], unit.now):
                await accounts.raise_version(unit.connection, account_id)
                await publish_accounts(unit, [account_id])
            memberships = await accounts.memberships(unit.connection, [account_id])
            row = next(row for row in memberships if row["institution_id"] == institution_id)
            return _to_membership(unit.principal, row)

        return await self._commands.run(request, handler)

    async def ListStatementLines(self, request: pb.ListStatementLinesRequest, context: Context) -> pb.ListStatementLinesResponse:
        account_id = resource_id(request.parent, "accounts", field="parent")
        program_id = resource_segments(request.program, "programs", field="program")[0] if request.program else ""
        limit = pages.page_size(request.page_size, STATEMENT_LINES_DEFAULT, STATEMENT_LINES_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            await _require_account(connection, account_id)
            family = [account_id, *await accounts.children(connection, account_id)]
            before = (int(keys[0]), int(keys[1])) if keys else None
            rows = await ledger_store.statement(connection, family, program_id, before, limit + 1)
        more = len(rows) > limit
        return pb.ListStatementLinesResponse(
            statement_lines=[_to_line(row) for row in rows[:limit]],
            next_page_token=pages.encode([str(rows[limit - 1][key]) for key in STATEMENT_KEYS], request) if more else "",
        )


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


async def _require_account(connection: Connection, account_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record:
    account = await accounts.get(connection, account_id, lock=lock)
    if account is None:
        raise account_not_found(account_id)
    principal = current_principal()
    try:
        if account["holder_customer_id"] is not None:
            await customer_states.readable(connection, principal, account["holder_customer_id"])
        elif not principal.sees_all:
            raise account_not_found(account_id)
    except NotFound:
        raise account_not_found(account_id) from None  # the same words, or the answer would tell that it exists
    return account


async def _require_linkable(unit: UnitOfWork, institution_id: str) -> None:
    require_institution(unit.principal, institution_id)
    if not await programs.institution_exists(unit.connection, institution_id):
        raise institution_not_found(institution_id)


async def _to_message(connection: Connection, principal: Principal, account: asyncpg.Record) -> pb.Account:
    children = await accounts.children(connection, account["account_id"])
    family = [account["account_id"], *children]
    balances = await accounts.balances(connection, family)
    memberships = await accounts.memberships(connection, family)
    sums: dict[str, int] = {}
    for row in balances:
        sums[row["program_id"]] = sums.get(row["program_id"], 0) + row["balance_points"]
    holder, parent = account["holder_customer_id"], account["parent_account_id"]
    message = pb.Account(
        name=f"accounts/{account['account_id']}",
        customer=f"customers/{holder}" if holder else "",
        balances=[_to_balance(program_id, points) for program_id, points in sums.items()],
        memberships=[_to_membership(principal, row) for row in memberships],
        # Every version only rises, so their sum changes with each change of any of them.
        etag=etags.etag(account["version"] + sum(row["version"] for row in balances)),
        parent_account=f"accounts/{parent}" if parent else "",
        child_accounts=[
            pb.ChildAccount(
                account=f"accounts/{child}",
                balances=[
                    _to_balance(row["program_id"], row["balance_points"]) for row in balances if row["account_id"] == child
                ],
            )
            for child in children
        ],
    )
    message.create_time.FromDatetime(account["create_time"])
    return message


def _to_balance(program_id: str, points: int) -> pb.Balance:
    return pb.Balance(program=f"programs/{program_id}", balance_points=points)


def _to_membership(principal: Principal, row: asyncpg.Record) -> pb.InstitutionMembership:
    # Pairwise: an institution that knew another's member ids could compare lists with it.
    own = principal.sees_all or principal.institution == row["institution_id"]
    message = pb.InstitutionMembership(
        name=f"accounts/{row['account_id']}/links/{row['institution_id']}", member_id=row["member_id"] if own else ""
    )
    message.create_time.FromDatetime(row["create_time"])
    return message


def _to_line(row: asyncpg.Record) -> pb.StatementLine:
    message = pb.StatementLine(
        operation=f"operations/{row['operation_id']}",
        program=f"programs/{row['program_id']}",
        kind=KINDS[OperationKind(row["kind"])],
        amount_points=row["amount_points"],
        balance_points=row["balance_points"],
        entry_version=row["version"],
        institution=f"institutions/{row['institution_id']}",
        account=f"accounts/{row['owner']}",
    )
    message.effective_time.FromDatetime(row["effective_time"])
    message.post_time.FromDatetime(row["post_time"])
    return message
