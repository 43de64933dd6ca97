"""The connection pool: asyncpg, with every limit stated."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection: TypeAlias = asyncpg.Connection
    Pool: TypeAlias = asyncpg.Pool

CONNECTIONS_MAX = 10
CONNECT_SECONDS_MAX = 10.0
STATEMENT_SECONDS_MAX = 30
LOCK_SECONDS_MAX = 5
IDLE_IN_TRANSACTION_SECONDS_MAX = 30
STATEMENTS_CACHED_MAX = 500
CLOSE_SECONDS_MAX = 10.0

_UNAVAILABLE_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,  # what asyncpg says when the connection dies between two messages of a statement
    OSError,
)
# These say that the program is wrong, or the statement too slow: the same again would end the same way.
_NOT_UNAVAILABLE_ERRORS = (asyncpg.QueryCanceledError, FileNotFoundError, FileExistsError, IsADirectoryError, PermissionError)
# The same transaction may be run again at once.
RETRYABLE_ERRORS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


def is_unavailable(error: BaseException) -> bool:
    """Whether the database is away or gave up: nothing was kept, and the same command may be sent again."""
    # asyncpg says "connection is closed" with the class that it also uses for wrong arguments.
    closed = isinstance(error, asyncpg.InterfaceError) and "clos" in str(error)
    return closed or (isinstance(error, _UNAVAILABLE_ERRORS) and not isinstance(error, _NOT_UNAVAILABLE_ERRORS))


class Database:
    """The service's own PostgreSQL. `epoch` is the database's, read with every new connection."""

    def __init__(self) -> None:
        self.epoch = 1
        self.pool: Pool
        self._set: dict[int, tuple[str, str]] = {}

    @classmethod
    async def connect(cls, url: str, connections_max: int = CONNECTIONS_MAX, role: str | None = None) -> "Database":
        """Opens the pool. With a role, every connection is that role from its first statement on.

        Raises:
            OSError, asyncpg.PostgresError: when the server cannot be reached or refuses.
        """
        database = cls()
        database.pool = await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections_max,
            max_inactive_connection_lifetime=300.0,
            timeout=CONNECT_SECONDS_MAX,
            statement_cache_size=STATEMENTS_CACHED_MAX,
            init=database._prepare,
            reset=_refuse_open_transaction,
            server_settings={
                "application_name": "concord",
                "timezone": "UTC",
                "statement_timeout": f"{STATEMENT_SECONDS_MAX}s",
                "lock_timeout": f"{LOCK_SECONDS_MAX}s",
                "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS_MAX}s",
                **({"role": role} if role else {}),
            },
        )
        async with database.connection():  # says at once when the server cannot be reached
            return database

    async def _prepare(self, connection: Connection) -> None:
        self._set.pop(connection.get_server_pid(), None)  # of a former connection, whose process number this one has now
        try:
            self.epoch = await connection.fetchval("SELECT epoch FROM database_epoch") or 1
        except asyncpg.UndefinedTableError:
            self.epoch = 1  # not migrated yet

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection to read with; every statement is its own transaction."""
        connection = await self.pool.acquire()
        try:
            yield connection
        finally:
            await self.pool.release(connection)

    @asynccontextmanager
    async def connection_with(self, setting: str, value: str) -> AsyncIterator[Connection]:
        """A connection whose session has this setting: another round trip only when it had another value.

        For pools all of whose connections are used this way.
        """
        async with self.connection() as connection:
            pid = connection.get_server_pid()
            if self._set.get(pid) != (setting, value):
                self._set.pop(pid, None)
                await connection.execute("SELECT set_config($1, $2, false)", setting, value)
                self._set[pid] = setting, value
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction: committed at the end of the block, rolled back by an exception."""
        connection = await self.pool.acquire()
        try:
            async with connection.transaction():
                yield connection
        finally:
            await self.pool.release(connection)

    async def close(self) -> None:
        """Closes the pool; connections still in use are cut after a while."""
        try:
            await asyncio.wait_for(self.pool.close(), CLOSE_SECONDS_MAX)
        except TimeoutError:
            self.pool.terminate()


async def _refuse_open_transaction(connection: Connection) -> None:
    # The usual reset costs a round trip on every release; nothing here leaves session state behind.
    if connection.is_in_transaction():
        raise asyncpg.InterfaceError("a connection came back inside a transaction")
