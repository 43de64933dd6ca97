"""Fenced leases: one holder at a time, by a row; the fence tells a deposed holder from the present one."""

from dataclasses import dataclass

from chassis.database import Connection, Database

LEASE_SECONDS = 4.0
RENEW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was acquired. Its fence is greater than that of every holder before."""

    name: str
    fence: int


async def acquire(database: Database, name: str, holder: str) -> Lease | None:
    """The lease, or None while somebody else holds it."""
    async with database.connection() as connection:
        fence = await connection.fetchval(
            "INSERT INTO leases AS held (name, holder, fence, expires_at)"
            " VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))"
            " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = held.fence + 1, expires_at = excluded.expires_at"
            " WHERE held.expires_at < clock_timestamp() RETURNING fence",
            name, holder, LEASE_SECONDS,
        )  # fmt: skip
    return None if fence is None else Lease(name, fence)


async def renew(connection: Connection, lease: Lease) -> bool:
    """Holds the lease for longer; False when somebody else took it."""
    renewed = await connection.fetchval(
        "UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => $3)"
        " WHERE name = $1 AND fence = $2 RETURNING true",
        lease.name, lease.fence, LEASE_SECONDS,
    )  # fmt: skip
    return bool(renewed)


async def release(database: Database, lease: Lease) -> None:
    """Gives the lease up, so that another need not wait for its end."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE leases SET expires_at = clock_timestamp() WHERE name = $1 AND fence = $2", lease.name, lease.fence
        )
