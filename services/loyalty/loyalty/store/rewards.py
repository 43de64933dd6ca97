"""Rewards and vouchers. Stock and vouchers change under the ledger's head's lock, with the points that pay them."""

import uuid
from collections.abc import Mapping
from datetime import datetime

import asyncpg

from chassis.database import Connection
from loyalty.domain.rewards import Offer, RewardState

TERMS = (
    "display_name", "description", "price_program_id", "price_points", "price_currency_code", "price_minor_units", "member_max",
    "voucher_days", "available_from", "available_until", "state",
)  # fmt: skip
"""Columns of a reward that its institution chooses."""
EXPIRED_MAX = 1_000


async def insert(
    connection: Connection,
    reward_id: uuid.UUID,
    institution_id: str,
    stock_left: int | None,
    terms: Mapping[str, object],
    now: datetime,
) -> None:
    """Adds a reward."""
    columns = {
        "reward_id": reward_id,
        "institution_id": institution_id,
        "stock_left": stock_left,
        "version": 1,
        "create_time": now,
    }
    values = columns | {name: terms[name] for name in TERMS}
    await connection.execute(
        f"INSERT INTO rewards ({', '.join(values)}) VALUES ({', '.join(f'${i}' for i in range(1, len(values) + 1))})",
        *values.values(),
    )


async def update(connection: Connection, reward_id: uuid.UUID, terms: Mapping[str, object]) -> None:
    """Changes what TERMS name."""
    assert terms.keys() <= set(TERMS)
    changes = "".join(f", {column} = ${i}" for i, column in enumerate(terms, 2))
    await connection.execute(
        f"UPDATE rewards SET version = version + 1{changes} WHERE reward_id = $1", reward_id, *terms.values()
    )


async def get(connection: Connection, reward_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record | None:
    """A reward."""
    return await connection.fetchrow(
        f"SELECT * FROM rewards WHERE reward_id = $1{' FOR NO KEY UPDATE' if lock else ''}", reward_id
    )


async def list_after(
    connection: Connection, viewer: str | None, institution_id: str, after: uuid.UUID, limit: int
) -> list[asyncpg.Record]:
    """Rewards on sale, and all of the viewer's institution (None: all of all), by id, after one; of one or ("") any."""
    return await connection.fetch(
        "SELECT * FROM rewards WHERE ($1::text IS NULL OR state = 'ACTIVE' OR institution_id = $1)"
        " AND ($2 = '' OR institution_id = $2) AND reward_id > $3 ORDER BY reward_id LIMIT $4",
        viewer, institution_id, after, limit,
    )  # fmt: skip


async def change_stock(connection: Connection, reward_id: uuid.UUID, change: int) -> bool:
    """Adds to what is left (below zero: takes). False where less is left; a stock without bound stays so."""
    return bool(
        await connection.fetchval(
            "UPDATE rewards SET stock_left = stock_left + $2 WHERE reward_id = $1 AND (stock_left IS NULL"
            " OR stock_left + $2 >= 0) RETURNING true",
            reward_id, change,
        )
    )  # fmt: skip


def to_offer(row: asyncpg.Record) -> Offer:
    """What deciding on a purchase needs."""
    return Offer(RewardState(row["state"]), row["stock_left"], row["member_max"], row["available_from"], row["available_until"])


async def bought_count(connection: Connection, reward_id: uuid.UUID, account_id: uuid.UUID) -> int:
    """How many of a reward an account and those under it have; cancelled ones do not count."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM vouchers v JOIN accounts a USING (account_id) WHERE v.reward_id = $1 AND v.state <> 'CANCELLED'"
        " AND (a.account_id = $2 OR a.parent_account_id = $2)",
        reward_id, account_id,
    )  # fmt: skip
    return count


async def issue(
    connection: Connection, voucher_id: uuid.UUID, reward_id: uuid.UUID, account_id: uuid.UUID, operation_id: uuid.UUID,
    code_hash: bytes, money: tuple[str, int] | None, now: datetime, expire_time: datetime,
) -> None:  # fmt: skip
    """Writes a voucher."""
    await connection.execute(
        "INSERT INTO vouchers (voucher_id, reward_id, account_id, operation_id, code_hash, state, money_currency_code,"
        " money_minor_units, issue_time, expire_time) VALUES ($1, $2, $3, $4, $5, 'ISSUED', $6, $7, $8, $9)",
        voucher_id, reward_id, account_id, operation_id, code_hash, *(money or (None, None)), now, expire_time,
    )  # fmt: skip


async def voucher(connection: Connection, voucher_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record | None:
    """A voucher, with whose its account is and the reward's institution."""
    return await connection.fetchrow(f"{_VOUCHER} WHERE v.voucher_id = $1{' FOR NO KEY UPDATE OF v' if lock else ''}", voucher_id)


async def voucher_by_code(connection: Connection, code_hash: bytes, *, lock: bool = False) -> asyncpg.Record | None:
    """The voucher of a code."""
    return await connection.fetchrow(f"{_VOUCHER} WHERE v.code_hash = $1{' FOR NO KEY UPDATE OF v' if lock else ''}", code_hash)


async def vouchers_before(
    connection: Connection, account_id: uuid.UUID, before: uuid.UUID | None, limit: int
) -> list[asyncpg.Record]:
    """Vouchers of an account and those under it, newest first, before one."""
    return await connection.fetch(
        f"{_VOUCHER} WHERE (v.account_id = $1 OR a.parent_account_id = $1) AND ($2::uuid IS NULL OR v.voucher_id < $2)"
        " ORDER BY v.voucher_id DESC LIMIT $3",
        account_id, before, limit,
    )  # fmt: skip


async def close(connection: Connection, voucher_id: uuid.UUID, state: str, now: datetime, used_by: str | None = None) -> bool:
    """Ends an issued voucher. False when it had ended."""
    return bool(
        await connection.fetchval(
            "UPDATE vouchers SET state = $2, close_time = $3, used_by = $4 WHERE voucher_id = $1 AND state = 'ISSUED'"
            " RETURNING true",
            voucher_id, state, now, used_by,
        )
    )  # fmt: skip


async def is_refunded(connection: Connection, operation_id: uuid.UUID) -> bool:
    """Whether points that paid a voucher went back, be it some of them. To be asked under the head's lock."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM operations JOIN spend_lines USING (sequence)"
            " WHERE operation_id = $1 AND refunded_points > 0)",
            operation_id,
        )
    )


async def expire(connection: Connection, now: datetime) -> int:
    """Ends vouchers that were not used in time. Returns how many. Their points are not given back."""
    rows = await connection.fetch(
        "UPDATE vouchers v SET state = 'EXPIRED', close_time = $1 FROM (SELECT voucher_id FROM vouchers"
        " WHERE state = 'ISSUED' AND expire_time <= $1 ORDER BY expire_time LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED) due"
        " WHERE v.voucher_id = due.voucher_id RETURNING true",
        now, EXPIRED_MAX,
    )  # fmt: skip
    return len(rows)


_VOUCHER = (
    "SELECT v.*, a.holder_customer_id, a.parent_account_id, r.institution_id, r.display_name"
    " FROM vouchers v JOIN rewards r USING (reward_id) JOIN accounts a USING (account_id)"
)
