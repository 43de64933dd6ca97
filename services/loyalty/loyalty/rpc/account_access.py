"""Who may see an account: callers whose institution has a link with its customer, and who are bound to no other customer."""

import uuid

import asyncpg

from chassis import customer_states
from chassis.database import Connection
from chassis.errors import NotFound
from chassis.identity import Principal
from loyalty.rpc.errors import account_not_found
from loyalty.store import accounts


async def require_account(
    connection: Connection, principal: Principal, account_id: uuid.UUID, *, lock: bool = False
) -> asyncpg.Record:
    """The account, for a change; locked where asked.

    Raises:
        NotFound: ACCOUNT_NOT_FOUND, in the same words whether it does not exist or is not shown, or the answer would tell.
    """
    account = await accounts.get(connection, account_id, lock=lock)
    if account is None:
        raise account_not_found(account_id)
    try:
        if account["holder_customer_id"] is not None:
            await customer_states.readable(connection, principal, account["holder_customer_id"])
        elif not principal.sees_all:
            raise account_not_found(account_id)
    except NotFound:
        raise account_not_found(account_id) from None
    return account


async def require_seen(connection: Connection, principal: Principal, account_id: uuid.UUID, row: asyncpg.Record | None) -> None:
    """The same, where the account was read together with whether it is `linked`: mostly without another statement.

    Raises:
        NotFound: ACCOUNT_NOT_FOUND.
    """
    if row is None or not (principal.sees_all or row["linked"]):
        raise account_not_found(account_id)
    if principal.customer is not None and uuid.UUID(principal.customer) != row["holder_customer_id"]:
        bound = uuid.UUID(principal.customer)
        if (await customer_states.survivors(connection, [bound]))[bound] != row["holder_customer_id"]:
            raise account_not_found(account_id)
