"""Removes keys that nothing uses: those of ids that were taken in vain, of transactions rolled back or killed."""

from datetime import datetime
from uuid import UUID

from chassis.database import Database
from chassis.ids import new_id
from customer.store.vault import Vault

SWEPT_AT_ONCE_KEYS = 5000
_FIRST = UUID(int=0)

OWNERS = (
    "SELECT record_id FROM records WHERE record_id = ANY($1::uuid[])",
    "SELECT import_id FROM imports WHERE import_id = ANY($1::uuid[])",
    "SELECT rejections_key_id FROM imports WHERE rejections_key_id = ANY($1::uuid[])",
)
"""Whatever has a key of its own: which of these ids it uses."""


class NotOurs(Exception):
    """The key store belongs to another database, which alone knows what is in use."""


async def bind(database: Database, vault: Vault) -> None:
    """Makes sure that the key store is this database's; the first one that asks becomes its owner.

    Raises:
        NotOurs: it is another's: an address is wrong, and a sweep would destroy keys that are in use.
    """
    async with database.connection() as connection:
        mine: UUID | None = await connection.fetchval("SELECT database_id FROM vault_binding")
        if mine is None and await vault.owner(None) is None:
            await connection.execute("INSERT INTO vault_binding VALUES (1, $1) ON CONFLICT DO NOTHING", new_id())
            mine = await connection.fetchval("SELECT database_id FROM vault_binding")
    if mine is None or await vault.owner(mine) != mine:
        raise NotOurs("CONCORD_CUSTOMER_KEYS_URL and CONCORD_DATABASE_URL do not belong together: no key is swept")


async def sweep(database: Database, vault: Vault, made_before: datetime) -> int:
    """Destroys the keys made before an instant that nothing uses; returns how many.

    Raises:
        NotOurs: the key store is another database's.

    A key is written before what it encrypts, in another database; nobody takes one into use that is so old.
    """
    await bind(database, vault)
    count, after = 0, _FIRST
    while ids := await vault.ids_before(made_before, after, SWEPT_AT_ONCE_KEYS):
        after = ids[-1]
        async with database.connection() as connection:
            used = {row[0] for owner in OWNERS for row in await connection.fetch(owner, ids)}
        unused = [key_id for key_id in ids if key_id not in used]
        if unused:
            await vault.shred(unused)
            count += len(unused)
    return count
