"""What rating says of customers: their levels, by scope."""

import uuid
from collections.abc import Iterable
from typing import NamedTuple

from chassis.database import Connection
from chassis.record_links import ERASED_EPOCH


class Level(NamedTuple):
    """A customer's level in a scope (`alliance`, or an institution); of two the one with the greater (epoch, version) holds."""

    customer_id: uuid.UUID
    scope: str
    level: str
    epoch: int
    version: int


async def fold(connection: Connection, levels: Iterable[Level]) -> None:
    """Applies levels where they are newer; those of erased customers are left out."""
    newest: dict[tuple[uuid.UUID, str], Level] = {}
    for level in levels:
        known = newest.get(level[:2])
        if known is None or known[3:] < level[3:]:
            newest[level[:2]] = level
    if newest:
        await connection.execute(
            "INSERT INTO customer_levels AS t (customer_id, scope, level, epoch, version)"
            " SELECT told.* FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])"
            " AS told (customer_id, scope, level, epoch, version)"
            " WHERE NOT EXISTS (SELECT FROM customer_states s WHERE s.customer_id = told.customer_id AND s.epoch = $6)"
            " ON CONFLICT (customer_id, scope) DO UPDATE SET level = excluded.level, epoch = excluded.epoch,"
            " version = excluded.version WHERE (t.epoch, t.version) < (excluded.epoch, excluded.version)",
            *map(list, zip(*(newest[key] for key in sorted(newest)), strict=True)), ERASED_EPOCH,
        )  # fmt: skip
