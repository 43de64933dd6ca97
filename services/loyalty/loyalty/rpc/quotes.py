"""ExchangeService: quotes."""

import uuid

import asyncpg
import grpc

from chassis import customer_states
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.identity import Principal, current_principal
from chassis.ids import new_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import exchange_service_pb2 as pb
from loyalty.domain.ledger.configuration import PlainConfiguration
from loyalty.domain.quoting import Choice, Precedence, Price
from loyalty.rpc import exchange_messages as messages
from loyalty.rpc.errors import account_merged, account_not_found, institution_not_found, program_not_found
from loyalty.store import accounts, programs, quotes
from loyalty.store.configuration import Configurations
from loyalty.store.quotes import Refusal, Wanted

PRECEDENCE_OF = {pb.QuotePrecedence.Value(f"QUOTE_PRECEDENCE_{precedence}"): precedence for precedence in Precedence}
REFUSALS = {
    "INSUFFICIENT_POINTS": "the points that can be spent there do not reach; ask for less, or allow money",
    "NO_AGREEMENT": "the issuers of these points have no active agreement with the institution that lets them be spent there",
    "NO_RATE": "there is no rate by which these points would pay this price",
    "SANDBOX": "points to try with and real points do not pay for each other",
    "MONEY_NOT_PRICED": "the institution has not stated what a point of the target programme is worth; ask without money_allowed",
}
Context = grpc.aio.ServicerContext[object, object]


class QuoteMethods:
    """What ExchangeService does with quotes."""

    _database: Database
    _commands: Commands
    _configurations: Configurations

    async def CreateQuote(self, request: pb.CreateQuoteRequest, context: Context) -> pb.Quote:
        account_id = resource_id(request.parent, "accounts", field="parent")
        if "\0" in request.reference:  # PostgreSQL's text cannot hold it
            raise messages.invalid([("reference", "must not contain the character U+0000")], "TEXT_INVALID")

        async def handler(unit: UnitOfWork) -> pb.Quote:
            account = await _require_account(unit.connection, unit.principal, account_id)
            if account["parent_account_id"] is not None:
                raise account_merged(account_id, account)
            configuration = await self._configurations.current(unit.connection)
            price = await _price(unit.connection, configuration, request)
            family = (account_id, *await accounts.children(unit.connection, account_id, frozen=False))
            wanted = Wanted(
                account_id=account_id,
                family=family,
                price=price,
                precedence=PRECEDENCE_OF.get(request.precedence, Precedence.SOONEST_EXPIRY),
                choices=_choices(request, configuration),
                money_allowed=request.money_allowed,
                reference=request.reference,
                ttl_seconds=request.ttl_seconds or quotes.TTL_SECONDS,
            )
            made = await quotes.make(unit.connection, configuration, wanted, new_id(), unit.now)
            if isinstance(made, Refusal):
                raise refused(made, price)
            return messages.to_quote(made)

        return await self._commands.run(request, handler)

    async def GetQuote(self, request: pb.GetQuoteRequest, context: Context) -> pb.Quote:
        async with self._database.connection() as connection:
            row = await quotes.get(connection, resource_id(request.name, "quotes"))
            if row is None:
                raise _quote_not_found(request.name)
            try:
                await _require_account(connection, current_principal(), row["account_id"])
            except NotFound:
                raise _quote_not_found(request.name) from None
        return messages.to_quote(row)


def refused(refusal: Refusal, price: Price) -> FailedPrecondition:
    """Why there is no quote, as the caller is told."""
    excluded = {f"excluded.{program_id}": str(why) for program_id, why in refusal.excluded.items()}
    return FailedPrecondition(
        refusal.reason,
        REFUSALS[refusal.reason],
        metadata={"points_value": str(refusal.points_value), "amount": str(price.amount), **excluded},
    )


async def _price(connection: Connection, configuration: PlainConfiguration, request: pb.CreateQuoteRequest) -> Price:
    """The price that is asked about, checked against who is paid and in what."""
    (institution_id,) = resource_segments(request.institution, "institutions", field="institution")
    in_points, in_money = bool(request.target_program), request.HasField("money")
    if in_points is in_money:
        raise _wrong("target_program", "or money must say in what the price is, and not both")
    if in_points is not bool(request.amount_points):
        raise _wrong("amount_points", "must be above 0 with target_program, and be left out with money")
    if not await programs.institution_exists(connection, institution_id):
        raise institution_not_found(institution_id)
    if in_money:
        if request.money.minor_units <= 0:
            raise _wrong("money.minor_units", "must be above 0")
        first = configuration.program(_program(request.choices[0].program)) if request.choices else None
        sandbox = first is not None and first.sandbox
        return Price(institution_id, request.money.minor_units, None, request.money.currency_code, sandbox)
    program_id = _program(request.target_program)
    program = configuration.program(program_id)
    if program is None:
        raise program_not_found(program_id)
    if program.institution_id != institution_id:
        raise _wrong("target_program", f"must be a programme of institutions/{institution_id}, where the points are spent")
    return Price(institution_id, request.amount_points, program_id, None, program.sandbox)


def _choices(request: pb.CreateQuoteRequest, configuration: PlainConfiguration) -> tuple[Choice, ...]:
    if bool(request.choices) is not (request.precedence == pb.QUOTE_PRECEDENCE_CHOICE):
        raise _wrong("choices", "must be given with QUOTE_PRECEDENCE_CHOICE, and only then")
    choices = tuple(
        Choice(_program(choice.program), choice.points_max if choice.HasField("points_max") else None)
        for choice in request.choices
    )
    if len({choice.program_id for choice in choices}) < len(choices):
        raise _wrong("choices", "must name each programme once")
    for choice in choices:
        if configuration.program(choice.program_id) is None:
            raise program_not_found(choice.program_id)
    return choices


async def _require_account(connection: Connection, principal: Principal, account_id: uuid.UUID) -> asyncpg.Record:
    account = await accounts.get(connection, account_id)
    if account is None:
        raise account_not_found(account_id)
    try:
        if account["holder_customer_id"] is not None:
            await customer_states.readable(connection, principal, account["holder_customer_id"])
        elif not principal.sees_all:
            raise account_not_found(account_id)
    except NotFound:
        raise account_not_found(account_id) from None  # the same words, or the answer would tell that it exists
    return account


def _program(name: str) -> str:
    return resource_segments(name, "programs", field="program")[0]


def _quote_not_found(name: str) -> NotFound:
    return NotFound("QUOTE_NOT_FOUND", f"{name} does not exist, or your institution has no link with its customer")


def _wrong(field: str, rule: str) -> InvalidArgument:
    return messages.invalid([(field, rule)], "QUOTE_INVALID")
