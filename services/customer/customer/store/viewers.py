"""Connections that see what one institution may see: row-level security is the second wall behind each statement's WHERE."""

from contextlib import AbstractAsyncContextManager

from chassis.database import Connection, Database

ROLE = "concord_customer_viewer"
SETTING = "concord.viewer"


class Viewers:
    """Hands out connections by viewer. Those of institutions come from a pool that is never anybody else.

    Under row-level security PostgreSQL uses an index only for leakproof operators: `=` of ids and texts, not `@>` of arrays.
    """

    def __init__(self, database: Database, viewers: Database) -> None:
        self._database = database
        self._viewers = viewers

    @classmethod
    async def connect(cls, database: Database, url: str, connections_max: int) -> "Viewers":
        """Opens the pool of the viewers beside the service's own."""
        return cls(database, await Database.connect(url, connections_max, role=ROLE))

    async def close(self) -> None:
        """Closes the pool of the viewers."""
        await self._viewers.close()

    def connection(self, institution_id: str | None) -> AbstractAsyncContextManager[Connection]:
        """A connection to read with: as this institution, or with the service's own eyes for None.

        It costs another round trip only when the connection was another institution's before.
        """
        if institution_id is None:
            return self._database.connection()
        return self._viewers.connection_with(SETTING, institution_id)
