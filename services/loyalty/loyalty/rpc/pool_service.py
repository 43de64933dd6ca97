"""PoolService: a head invites, members agree by requests of their own, and leave when they like."""

import uuid

import asyncpg
import grpc

from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, NotFound
from chassis.identity import current_principal
from chassis.ids import new_id, resource_id
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import pool_service_pb2 as pb
from concord.loyalty.v1.pool_service_pb2_grpc import PoolServiceServicer
from loyalty.domain.ledger.types import AccountStatus
from loyalty.rpc.account_access import require_account
from loyalty.rpc.errors import account_closed, account_merged, account_not_found
from loyalty.store import accounts, pools
from loyalty.store import ledger as ledger_store

MEMBERS_MAX = 20
Context = grpc.aio.ServicerContext[object, object]


class PoolServicer(PoolServiceServicer):
    """Changes are made under the ledger's head's lock, so that no spending sees a pool half changed."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreatePool(self, request: pb.CreatePoolRequest, context: Context) -> pb.Pool:
        account_id = resource_id(request.parent, "accounts", field="parent")

        async def handler(unit: UnitOfWork) -> pb.Pool:
            await _require_own(unit, account_id)
            pool_id = new_id()
            if not await pools.create(unit.connection, pool_id, account_id, unit.now):
                raise _in_pool(account_id)
            return await _to_message(unit.connection, pool_id)

        return await self._commands.run(request, handler)

    async def GetPool(self, request: pb.GetPoolRequest, context: Context) -> pb.Pool:
        account_id = resource_id(request.parent, "accounts", field="parent")
        async with self._database.connection() as connection:
            await require_account(connection, current_principal(), account_id)
            pool = await _require_pool(connection, account_id)
            return await _to_message(connection, pool["pool_id"])

    async def InviteToPool(self, request: pb.InviteToPoolRequest, context: Context) -> pb.Pool:
        account_id, member_id = resource_id(request.name, "accounts"), resource_id(request.member, "accounts", field="member")
        limit = request.draw_points_max if request.HasField("draw_points_max") else None

        async def handler(unit: UnitOfWork) -> pb.Pool:
            await _require_own(unit, account_id)
            pool = await _require_headed(unit.connection, account_id)
            invited = await accounts.get(unit.connection, member_id)
            # Erased and closed ones in the same words: the head need not know more of an account than its name.
            if invited is None or invited["holder_customer_id"] is None or invited["status"] == AccountStatus.CLOSED:
                raise account_not_found(member_id)
            members = {row["account_id"] for row in await pools.members(unit.connection, pool["pool_id"])}
            if len(members | {member_id}) > MEMBERS_MAX:
                raise FailedPrecondition(
                    "POOL_FULL", f"a pool has at most {MEMBERS_MAX} members, with those invited; take one out"
                )
            await pools.invite(unit.connection, pool["pool_id"], member_id, limit, unit.now)
            return await _to_message(unit.connection, pool["pool_id"])

        return await self._commands.run(request, handler)

    async def JoinPool(self, request: pb.JoinPoolRequest, context: Context) -> pb.Pool:
        account_id, pool_id = resource_id(request.name, "accounts"), resource_id(request.pool, "pools", field="pool")

        async def handler(unit: UnitOfWork) -> pb.Pool:
            await _require_own(unit, account_id)
            if await pools.of_account(unit.connection, account_id) is not None:
                raise _in_pool(account_id)
            if not await pools.join(unit.connection, pool_id, account_id, unit.now):
                raise NotFound("POOL_NOT_FOUND", f"{request.pool} does not exist, or has not invited accounts/{account_id}")
            return await _to_message(unit.connection, pool_id)

        return await self._commands.run(request, handler)

    async def LeavePool(self, request: pb.LeavePoolRequest, context: Context) -> pb.Pool:
        account_id = resource_id(request.name, "accounts")
        member_id = resource_id(request.member, "accounts", field="member") if request.member else account_id

        async def handler(unit: UnitOfWork) -> pb.Pool:
            await ledger_store.lock_head(unit.connection)
            # Also while it stands under another, is frozen or closed: nobody is kept in.
            await require_account(unit.connection, unit.principal, account_id, lock=True)
            if member_id == account_id:
                pool = await _require_pool(unit.connection, account_id)
            else:
                pool = await _require_headed(unit.connection, account_id)
            if not await pools.leave(unit.connection, pool["pool_id"], member_id, unit.now):
                raise NotFound("POOL_MEMBER_NOT_FOUND", f"accounts/{member_id} is not in the pool of accounts/{account_id}")
            return await _to_message(unit.connection, pool["pool_id"])

        return await self._commands.run(request, handler)


async def _require_own(unit: UnitOfWork, account_id: uuid.UUID) -> None:
    await ledger_store.lock_head(unit.connection)
    account = await require_account(unit.connection, unit.principal, account_id, lock=True)
    if account["parent_account_id"] is not None:
        raise account_merged(account_id, account)
    if account["status"] == AccountStatus.CLOSED:
        raise account_closed(account_id)


async def _require_pool(connection: Connection, account_id: uuid.UUID) -> asyncpg.Record:
    pool = await pools.of_account(connection, account_id)
    if pool is None:
        raise FailedPrecondition("NOT_IN_POOL", f"accounts/{account_id} is in no pool; make one, or join one that invited it")
    return pool


async def _require_headed(connection: Connection, account_id: uuid.UUID) -> asyncpg.Record:
    pool = await _require_pool(connection, account_id)
    if pool["head_account_id"] != account_id:
        raise FailedPrecondition(
            "NOT_HEAD_OF_POOL", f"accounts/{account_id} is not the head of its pool; only the head does this"
        )
    return pool


def _in_pool(account_id: uuid.UUID) -> FailedPrecondition:
    return FailedPrecondition("IN_POOL", f"accounts/{account_id} is in a pool; leave that one first")


async def _to_message(connection: Connection, pool_id: uuid.UUID) -> pb.Pool:
    pool = await pools.get(connection, pool_id)
    assert pool is not None
    message = pb.Pool(name=f"pools/{pool_id}", head=f"accounts/{pool['head_account_id']}")
    message.create_time.FromDatetime(pool["create_time"])
    if pool["close_time"] is not None:
        message.close_time.FromDatetime(pool["close_time"])
    for row in await pools.members(connection, pool_id):
        member = message.members.add(account=f"accounts/{row['account_id']}")
        if row["draw_points_max"] is not None:
            member.draw_points_max = row["draw_points_max"]
        if row["join_time"] is not None:
            member.join_time.FromDatetime(row["join_time"])
    return message
