"""RewardService: rewards for points, and vouchers whose codes are kept nowhere."""

import uuid
from datetime import UTC, timedelta
from typing import Any

import asyncpg
import grpc

from chassis import clock, customer_states, etags, pages
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import new_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import reward_service_pb2 as pb
from concord.loyalty.v1.reward_service_pb2_grpc import RewardServiceServicer
from loyalty.domain import rewards as domain
from loyalty.domain.ledger.commands import AnyCommand, Redeem, Refund
from loyalty.domain.ledger.types import Head, Operation, Outcome, SystemKey
from loyalty.domain.rewards import RewardState, VoucherState
from loyalty.rpc.decisions import PAGE_DEFAULT, PAGE_MAX, invalid
from loyalty.rpc.errors import account_merged, account_not_found, institution_not_found, program_not_found
from loyalty.rpc.ledger_messages import refusal, unknown
from loyalty.store import accounts, ledger, programs, quotes, rewards
from loyalty.store.posting import post

STATES = {state: pb.RewardState.Value(f"REWARD_STATE_{state}") for state in RewardState}
STATE_OF = {number: state for state, number in STATES.items()}
VOUCHER_STATES = {state: pb.VoucherState.Value(f"VOUCHER_STATE_{state}") for state in VoucherState}
UPDATABLE = (
    "display_name", "description", "price_points", "price_money", "member_max", "voucher_days", "available_from",
    "available_until", "state",
)  # fmt: skip
FIRST = uuid.UUID(int=0)
Context = grpc.aio.ServicerContext[object, object]


class RewardServicer(RewardServiceServicer):
    """Keeps the catalogue, sells, and looks after vouchers."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    # ---- the catalogue

    async def CreateReward(self, request: pb.CreateRewardRequest, context: Context) -> pb.Reward:
        wanted = request.reward
        (institution_id,) = resource_segments(wanted.institution, "institutions", field="reward.institution")
        terms = _terms(wanted, rewards.TERMS) | {"state": RewardState.DRAFT}
        _check(terms)
        stock_left = wanted.stock_left if wanted.HasField("stock_left") else None

        async def handler(unit: UnitOfWork) -> pb.Reward:
            require_institution(unit.principal, institution_id)
            if not await programs.institution_exists(unit.connection, institution_id):
                raise institution_not_found(institution_id)
            program_id = terms["price_program_id"]
            if program_id is not None:
                program = await programs.get(unit.connection, str(program_id))
                if program is None:
                    raise program_not_found(str(program_id))
                if program["institution_id"] != institution_id:
                    rule = f"must be a programme of institutions/{institution_id}; others' points pay by a quote"
                    raise invalid([("price_program", rule)], "REWARD_INVALID", "reward")
            reward_id = new_id()
            await rewards.insert(unit.connection, reward_id, institution_id, stock_left, terms, unit.now)
            return _to_reward(await _require_reward(unit.connection, unit.principal, reward_id))

        return await self._commands.run(request, handler)

    async def UpdateReward(self, request: pb.UpdateRewardRequest, context: Context) -> pb.Reward:
        wanted = request.reward
        reward_id = resource_id(wanted.name, "rewards", field="reward.name")
        fields = list(request.update_mask.paths) or [field.name for field, _ in wanted.ListFields() if field.name in UPDATABLE]
        fields = list(UPDATABLE) if "*" in fields else fields
        if not fields or not set(fields) <= set(UPDATABLE):
            rule = f"must name some of {', '.join(UPDATABLE)}"
            raise InvalidArgument("UPDATE_MASK_INVALID", f"update_mask {rule}", field_violations=[("update_mask", rule)])
        terms = _terms(wanted, fields)

        async def handler(unit: UnitOfWork) -> pb.Reward:
            row = await _require_own_reward(unit, reward_id)
            etags.require(request.etag, etags.etag(row["version"]))
            _check({name: row[name] for name in rewards.TERMS} | terms)
            if row["state"] == RewardState.ENDED:
                raise FailedPrecondition("REWARD_ENDED", f"rewards/{reward_id} has ended for good; make another")
            await rewards.update(unit.connection, reward_id, terms)
            return _to_reward(await _require_reward(unit.connection, unit.principal, reward_id))

        return await self._commands.run(request, handler)

    async def ChangeRewardStock(self, request: pb.ChangeRewardStockRequest, context: Context) -> pb.Reward:
        reward_id = resource_id(request.name, "rewards")

        async def handler(unit: UnitOfWork) -> pb.Reward:
            await _require_own_reward(unit, reward_id)
            if not await rewards.change_stock(unit.connection, reward_id, request.change):
                raise FailedPrecondition("REWARD_OUT_OF_STOCK", "less is left than that; take at most what is left")
            return _to_reward(await _require_reward(unit.connection, unit.principal, reward_id))

        return await self._commands.run(request, handler)

    async def GetReward(self, request: pb.GetRewardRequest, context: Context) -> pb.Reward:
        async with self._database.connection() as connection:
            return _to_reward(await _require_reward(connection, current_principal(), resource_id(request.name, "rewards")))

    async def ListRewards(self, request: pb.ListRewardsRequest, context: Context) -> pb.ListRewardsResponse:
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        institution_id = (
            resource_segments(request.institution, "institutions", field="institution")[0] if request.institution else ""
        )
        principal = current_principal()
        viewer = None if principal.sees_all else principal.institution or ""
        after = uuid.UUID(keys[0]) if keys else FIRST
        async with self._database.connection() as connection:
            rows = await rewards.list_after(connection, viewer, institution_id, after, limit + 1)
        token = pages.encode([str(rows[limit - 1]["reward_id"])], request) if len(rows) > limit else ""
        return pb.ListRewardsResponse(rewards=[_to_reward(row) for row in rows[:limit]], next_page_token=token)

    # ---- buying

    async def RedeemReward(self, request: pb.RedeemRewardRequest, context: Context) -> pb.RedeemRewardResponse:
        account_id = resource_id(request.parent, "accounts", field="parent")
        reward_id = resource_id(request.reward, "rewards", field="reward")
        quote_id = resource_id(request.quote, "quotes", field="quote") if request.quote else None

        async def handler(unit: UnitOfWork) -> pb.RedeemRewardResponse:
            connection = unit.connection
            # The head first: stock, what a member has, and points are then decided one purchase after another.
            head = await ledger.lock_head(connection)
            account = await _require_account(connection, unit.principal, account_id)
            if account["parent_account_id"] is not None:
                raise account_merged(account_id, account)
            reward = await _require_reward(connection, unit.principal, reward_id, lock=True)
            objection = domain.refusal(
                rewards.to_offer(reward), await rewards.bought_count(connection, reward_id, account_id), unit.now
            )
            if objection is not None:
                raise FailedPrecondition(objection[0], f"rewards/{reward_id}: {objection[1]}")
            money = await _money_of_quote(connection, reward, account_id, quote_id)
            voucher_id, code = new_id(), domain.new_code()
            command = Redeem(
                operation_id=new_id(),
                key=SystemKey(f"voucher/{voucher_id}"),
                account_id=account_id,
                institution_id=reward["institution_id"],
                effective_time=unit.now,
                quote_id=quote_id,
                program_id="" if quote_id else reward["price_program_id"],
                amount_points=0 if quote_id else reward["price_points"],
            )
            await _posted(unit, command, head)
            if not await rewards.change_stock(connection, reward_id, -1):
                raise AssertionError("the stock was decided under the head's lock")
            code_hash = domain.code_hash(code)
            assert code_hash is not None
            expire_time = unit.now + timedelta(days=reward["voucher_days"])
            await rewards.issue(
                connection, voucher_id, reward_id, account_id, command.operation_id, code_hash, money, unit.now, expire_time
            )
            row = await rewards.voucher(connection, voucher_id)
            assert row is not None
            return pb.RedeemRewardResponse(voucher=_to_voucher(row), code=code)

        return await self._commands.run(request, handler)

    async def CancelVoucher(self, request: pb.CancelVoucherRequest, context: Context) -> pb.Voucher:
        voucher_id = resource_id(request.name, "vouchers")

        async def handler(unit: UnitOfWork) -> pb.Voucher:
            head = await ledger.lock_head(unit.connection)
            row = await _require_voucher(unit.connection, unit.principal, voucher_id, lock=True)
            _require_issued(row)
            await rewards.close(unit.connection, voucher_id, VoucherState.CANCELLED, unit.now)
            refund = Refund(
                operation_id=new_id(),
                key=SystemKey(f"voucher-cancel/{voucher_id}"),
                account_id=row["account_id"],
                institution_id=row["institution_id"],
                effective_time=unit.now,
                spending_id=row["operation_id"],
            )
            await _posted(unit, refund, head)
            await rewards.change_stock(unit.connection, row["reward_id"], 1)
            return _to_voucher(await _require_voucher(unit.connection, unit.principal, voucher_id))

        return await self._commands.run(request, handler)

    async def GetVoucher(self, request: pb.GetVoucherRequest, context: Context) -> pb.Voucher:
        async with self._database.connection() as connection:
            return _to_voucher(await _require_voucher(connection, current_principal(), resource_id(request.name, "vouchers")))

    async def ListVouchers(self, request: pb.ListVouchersRequest, context: Context) -> pb.ListVouchersResponse:
        account_id = resource_id(request.parent, "accounts", field="parent")
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            await _require_account(connection, current_principal(), account_id)
            before = uuid.UUID(keys[0]) if keys else None
            rows = await rewards.vouchers_before(connection, account_id, before, limit + 1)
        token = pages.encode([str(rows[limit - 1]["voucher_id"])], request) if len(rows) > limit else ""
        return pb.ListVouchersResponse(vouchers=[_to_voucher(row) for row in rows[:limit]], next_page_token=token)

    # ---- using

    async def VerifyVoucher(self, request: pb.VerifyVoucherRequest, context: Context) -> pb.VoucherCheck:
        async with self._database.connection() as connection:
            return _to_check(await _require_code(connection, current_principal(), request.code))

    async def UseVoucher(self, request: pb.UseVoucherRequest, context: Context) -> pb.VoucherCheck:
        async def handler(unit: UnitOfWork) -> pb.VoucherCheck:
            await ledger.lock_head(unit.connection)  # or its points could go back meanwhile
            row = await _require_code(unit.connection, unit.principal, request.code, lock=True)
            _require_issued(row)
            if await rewards.is_refunded(unit.connection, row["operation_id"]):
                raise FailedPrecondition("VOUCHER_REFUNDED", "points that paid the voucher were refunded; it is good for nothing")
            await rewards.close(unit.connection, row["voucher_id"], VoucherState.USED, unit.now, unit.principal.caller)
            return _to_check(await _require_code(unit.connection, unit.principal, request.code))

        return await self._commands.run(request, handler)


async def _posted(unit: UnitOfWork, command: AnyCommand, head: Head) -> None:
    """Posts a command; a refusal undoes all of the purchase, and is decided anew when it is asked again.

    Raises:
        FailedPrecondition: as the ledger refuses.
    """
    (result,) = await post(unit, [command], head)
    if not isinstance(result, Operation):
        raise unknown(getattr(result, "reason", "OPERATION_NOT_FOUND"))
    if result.outcome is not Outcome.POSTED:
        error = refusal(result)
        error.metadata.pop("operation", None)  # it is not kept
        raise error


async def _money_of_quote(
    connection: Connection, reward: asyncpg.Record, account_id: uuid.UUID, quote_id: uuid.UUID | None
) -> tuple[str, int] | None:
    """What is paid in money by the quote; it must be of exactly the reward's price.

    Raises:
        FailedPrecondition: QUOTE_NEEDED, QUOTE_MISMATCH.
        NotFound: QUOTE_NOT_FOUND.
    """
    if quote_id is None:
        if reward["price_points"] is None:
            raise FailedPrecondition("QUOTE_NEEDED", "a price in money is paid by a quote; ask for one and name it")
        return None
    quote = await quotes.get(connection, quote_id)
    if quote is None or quote["account_id"] != account_id:
        raise NotFound("QUOTE_NOT_FOUND", f"quotes/{quote_id} does not exist, or is not the account's")
    price = (reward["price_program_id"], reward["price_points"] or reward["price_minor_units"])
    same = quote["institution_id"] == reward["institution_id"] and (quote["target_program_id"], quote["amount_units"]) == price
    if not same or (reward["price_currency_code"] and quote["currency_code"] != reward["price_currency_code"]):
        raise FailedPrecondition(
            "QUOTE_MISMATCH", "the quote is not of the reward's price at its institution; ask for one that is"
        )
    return (quote["currency_code"], quote["money_minor_units"]) if quote["money_minor_units"] else None


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


async def _require_reward(
    connection: Connection, principal: Principal, reward_id: uuid.UUID, *, lock: bool = False
) -> asyncpg.Record:
    row = await rewards.get(connection, reward_id, lock=lock)
    mine = row is not None and (principal.sees_all or principal.institution == row["institution_id"])
    if row is None or not (mine or row["state"] == RewardState.ACTIVE):
        raise NotFound("REWARD_NOT_FOUND", f"rewards/{reward_id} does not exist, or is not on sale")
    return row


async def _require_own_reward(unit: UnitOfWork, reward_id: uuid.UUID) -> asyncpg.Record:
    row = await rewards.get(unit.connection, reward_id, lock=True)
    if row is None or not (unit.principal.sees_all or unit.principal.institution == row["institution_id"]):
        raise NotFound("REWARD_NOT_FOUND", f"rewards/{reward_id} does not exist, or is not your institution's")
    return row


async def _require_voucher(
    connection: Connection, principal: Principal, voucher_id: uuid.UUID, *, lock: bool = False
) -> asyncpg.Record:
    row = await rewards.voucher(connection, voucher_id, lock=lock)
    hidden = NotFound(
        "VOUCHER_NOT_FOUND", f"vouchers/{voucher_id} does not exist, or your institution has no link with its customer"
    )
    if row is None:
        raise hidden
    try:
        await _require_account(connection, principal, row["account_id"])
    except NotFound:
        raise hidden from None
    return row


async def _require_code(connection: Connection, principal: Principal, code: str, *, lock: bool = False) -> asyncpg.Record:
    code_hash = domain.code_hash(code)
    row = await rewards.voucher_by_code(connection, code_hash, lock=lock) if code_hash else None
    if row is None or not (principal.sees_all or principal.institution == row["institution_id"]):
        raise NotFound("VOUCHER_NOT_FOUND", "no voucher of your institution has this code")
    return row


def _require_issued(row: asyncpg.Record) -> None:
    state = _state(row)
    if state is not VoucherState.ISSUED:
        raise FailedPrecondition(
            "VOUCHER_NOT_ISSUED",
            f"the voucher is {state.lower()}; only one that is issued can be used or cancelled",
            {"state": state},
        )


def _state(row: asyncpg.Record) -> VoucherState:
    return domain.state_at(VoucherState(row["state"]), row["expire_time"], clock.now())


def _terms(wanted: pb.Reward, fields: Any) -> dict[str, object]:
    """What fields say, as columns; an empty one says its default."""
    program = wanted.price_program
    said: dict[str, dict[str, object]] = {
        "price_program_id": {
            "price_program_id": resource_segments(program, "programs", field="reward.price_program")[0] if program else None
        },
        "price_points": {"price_points": wanted.price_points or None},
        "price_money": {
            "price_currency_code": wanted.price_money.currency_code if wanted.HasField("price_money") else None,
            "price_minor_units": wanted.price_money.minor_units if wanted.HasField("price_money") else None,
        },
        "member_max": {"member_max": wanted.member_max if wanted.HasField("member_max") else None},
        "available_from": {
            "available_from": wanted.available_from.ToDatetime(UTC) if wanted.HasField("available_from") else None
        },
        "available_until": {
            "available_until": wanted.available_until.ToDatetime(UTC) if wanted.HasField("available_until") else None
        },
        "state": {"state": STATE_OF.get(wanted.state, RewardState.DRAFT)},
    }
    said["price_currency_code"] = said["price_minor_units"] = said["price_money"]
    terms: dict[str, object] = {}
    for field in fields:
        terms |= said.get(field) or {field: getattr(wanted, field)}
    return terms


def _check(terms: Any) -> None:
    """Refuses terms that are wrong together.

    Raises:
        InvalidArgument: REWARD_INVALID.
    """
    wrong = []
    if not terms["display_name"].strip():
        wrong.append(("display_name", "must be 1 to 200 characters"))
    for field in ("display_name", "description"):
        if "\0" in terms[field]:  # PostgreSQL's text cannot hold it
            wrong.append((field, "must not contain the character U+0000"))
    if (terms["price_program_id"] is None) is not (terms["price_points"] is None):
        wrong.append(("price_points", "must be given with price_program, and only with it"))
    if (terms["price_points"] is None) is (terms["price_minor_units"] is None):
        wrong.append(("price_money", "or price_points must say the price, and not both"))
    elif terms["price_minor_units"] is not None and terms["price_minor_units"] <= 0:
        wrong.append(("price_money.minor_units", "must be above 0"))
    if not 1 <= terms["voucher_days"] <= domain.VOUCHER_DAYS_MAX:
        wrong.append(("voucher_days", f"must be 1 to {domain.VOUCHER_DAYS_MAX}"))
    if terms["available_from"] and terms["available_until"] and terms["available_until"] <= terms["available_from"]:
        wrong.append(("available_until", "must be after available_from"))
    if wrong:
        raise invalid(wrong, "REWARD_INVALID", "reward")


def _to_reward(row: asyncpg.Record) -> pb.Reward:
    message = pb.Reward(
        name=f"rewards/{row['reward_id']}",
        institution=f"institutions/{row['institution_id']}",
        display_name=row["display_name"],
        description=row["description"],
        price_program=f"programs/{row['price_program_id']}" if row["price_program_id"] else "",
        price_points=row["price_points"] or 0,
        stock_left=row["stock_left"],
        member_max=row["member_max"],
        voucher_days=row["voucher_days"],
        state=STATES[RewardState(row["state"])],
        etag=etags.etag(row["version"]),
    )
    if row["price_minor_units"]:
        message.price_money.currency_code, message.price_money.minor_units = row["price_currency_code"], row["price_minor_units"]
    for field in ("available_from", "available_until", "create_time"):
        if row[field] is not None:
            getattr(message, field).FromDatetime(row[field])
    return message


def _to_voucher(row: asyncpg.Record) -> pb.Voucher:
    message = pb.Voucher(
        name=f"vouchers/{row['voucher_id']}",
        reward=f"rewards/{row['reward_id']}",
        account=f"accounts/{row['account_id']}",
        operation=f"operations/{row['operation_id']}",
        state=VOUCHER_STATES[_state(row)],
    )
    message.issue_time.FromDatetime(row["issue_time"])
    _close(message, row)
    return message


def _to_check(row: asyncpg.Record) -> pb.VoucherCheck:
    message = pb.VoucherCheck(
        voucher=f"vouchers/{row['voucher_id']}",
        reward=f"rewards/{row['reward_id']}",
        display_name=row["display_name"],
        state=VOUCHER_STATES[_state(row)],
    )
    _close(message, row)
    return message


def _close(message: pb.Voucher | pb.VoucherCheck, row: asyncpg.Record) -> None:
    message.expire_time.FromDatetime(row["expire_time"])
    if row["close_time"] is not None:
        message.close_time.FromDatetime(row["close_time"])
    if row["money_minor_units"]:
        message.money_due.currency_code, message.money_due.minor_units = row["money_currency_code"], row["money_minor_units"]
