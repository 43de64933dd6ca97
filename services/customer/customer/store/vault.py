"""The key store: one data key for each source record, wrapped by its institution's key, which the root key wraps.

A value sealed under a record's key can be read by nobody once the key's row is deleted, wherever copies of it lie.
"""

import asyncio
import os
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis import clock
from chassis.database import Connection, Database
from chassis.ids import new_id

KEY_BYTES = 32
NONCE_BYTES = 12
CONNECTIONS_MAX = 4
CACHED_KEYS_MAX = 100_000
CACHED_SECONDS_MAX = 300.0
RESERVE_KEYS = 128
"""Made at once when new keys are wanted: the writing of keys then costs the single ingest next to nothing."""
RESERVE_SECONDS_MAX = 3600.0
"""Far below the age at which a key that nothing uses is swept."""
COPIED_FROM_KEYS = 100


class Forged(Exception):
    """Sealed bytes that were changed, belong to another row or column, or are under another key."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key of one record: AES-256-GCM."""

    _key: bytes = field(repr=False)

    def __reduce__(self) -> tuple[type["DataKey"], tuple[bytes]]:
        return DataKey, (self._key,)  # the way that dataclasses have by themselves takes ten times as long

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """Nonce, ciphertext and tag; `bound_to` must be given again to open it."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self._key).encrypt(nonce, plain, bound_to)

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """What was sealed.

        Raises:
            Forged: it is not what this key sealed for this place.
        """
        try:
            return AESGCM(self._key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError):
            raise Forged("the sealed bytes do not belong here, or were changed") from None


def bound_to(place: str, row_id: UUID, number: int = 0) -> bytes:
    """What a sealed value is bound to: `table.column`, the id of its row, and the number of its state."""
    return b"%s\0%s%d" % (place.encode(), row_id.bytes, number)


@dataclass(slots=True)
class _Reserve:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: deque[tuple[UUID, DataKey]] = field(default_factory=deque)
    expires: float = 0.0


class Vault:
    """Data keys, cached for minutes. Knows no table of the customer master, and is called from inside its transactions."""

    def __init__(self, database: Database, root_key: bytes) -> None:
        self._database = database
        self._root = DataKey(root_key)
        self._institutions: dict[str, DataKey] = {}
        self._cached: OrderedDict[UUID, tuple[DataKey, float]] = OrderedDict()
        self._reserves: dict[str, _Reserve] = {}

    @classmethod
    async def connect(cls, keys_url: str, root_key: bytes) -> "Vault":
        """Opens the key store.

        Raises:
            OSError, asyncpg.PostgresError: when the server cannot be reached or refuses.
        """
        return cls(await Database.connect(keys_url, CONNECTIONS_MAX), root_key)

    async def close(self) -> None:
        """Closes its connections."""
        await self._database.close()

    async def new(self, institution_id: str, count: int) -> list[tuple[UUID, DataKey]]:
        """So many new ids with keys that are stored already; from a reserve, so that most calls need no round trip.

        Those that are never used are swept after a day.
        """
        reserve = self._reserves.setdefault(institution_id, _Reserve())
        async with reserve.lock:
            if time.monotonic() >= reserve.expires:
                reserve.ready.clear()
            if len(reserve.ready) < count:
                ids = [new_id() for _ in range(count - len(reserve.ready) + RESERVE_KEYS)]
                if not reserve.ready:
                    reserve.expires = time.monotonic() + RESERVE_SECONDS_MAX
                reserve.ready.extend((await self.create(dict.fromkeys(ids, institution_id))).items())
            taken = [reserve.ready.popleft() for _ in range(count)]
        for key_id, key in taken:
            self._cache(key_id, key)
        return taken

    async def create(self, institution_of: Mapping[UUID, str]) -> dict[UUID, DataKey]:
        """Makes and stores a key for each id, which must be new, under its institution's key: in one statement."""
        if not institution_of:
            return {}
        made = {key_id: DataKey(AESGCM.generate_key(8 * KEY_BYTES)) for key_id in institution_of}
        now = clock.now()
        async with self._database.connection() as connection:
            for institution_id in set(institution_of.values()) - self._institutions.keys():
                await self._make_institution_key(connection, institution_id)
            rows = [
                (key_id, institution_id, self._institutions[institution_id].seal(made[key_id]._key, key_id.bytes), now)
                for key_id, institution_id in institution_of.items()
            ]
            if len(rows) < COPIED_FROM_KEYS:
                await connection.execute(_INSERT, *([row[place] for row in rows] for place in range(3)), now)
            else:
                columns = ["key_id", "institution_id", "wrapped_key", "create_time"]
                await connection.copy_records_to_table("data_keys", records=rows, columns=columns)
        return made

    async def keys(self, key_ids: Collection[UUID]) -> dict[UUID, DataKey]:
        """The keys of these ids, in one round trip for those that are not cached. A shredded one is absent."""
        found: dict[UUID, DataKey] = {}
        missing: list[UUID] = []
        now = time.monotonic()
        for key_id in key_ids:
            cached = self._cached.get(key_id)
            if cached is None or cached[1] <= now:
                missing.append(key_id)
            else:
                found[key_id] = cached[0]
        if missing:
            found |= await self._read(missing)
        return found

    async def shred(self, key_ids: Collection[UUID]) -> None:
        """Deletes keys for ever. Other processes may still have them in memory for five minutes."""
        for key_id in key_ids:
            self._cached.pop(key_id, None)
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM data_keys WHERE key_id = ANY($1::uuid[])", list(key_ids))

    def give_back(self, institution_id: str, keys: Iterable[tuple[UUID, DataKey]]) -> None:
        """Ids of `new` that were not used after all."""
        self._reserves.setdefault(institution_id, _Reserve()).ready.extend(keys)

    async def owner(self, database_id: UUID | None) -> UUID | None:
        """Whose keys these are; with an id, it is the owner's from now on unless there is one."""
        async with self._database.connection() as connection:
            if database_id is not None:
                await connection.execute("INSERT INTO owner VALUES (1, $1) ON CONFLICT DO NOTHING", database_id)
            found: UUID | None = await connection.fetchval("SELECT database_id FROM owner")
            return found

    async def ids_before(self, create_time_max: datetime, after: UUID, limit: int) -> list[UUID]:
        """Ids, in order, of the keys made before an instant: for the sweep of those that nothing uses."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_IDS_BEFORE, create_time_max, after, limit)
        return [row[0] for row in rows]

    async def _read(self, key_ids: list[UUID]) -> dict[UUID, DataKey]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_READ, key_ids)
            for institution_id in {row[1] for row in rows} - self._institutions.keys():
                await self._make_institution_key(connection, institution_id)
        found = {}
        for key_id, institution_id, wrapped in rows:
            key = found[key_id] = DataKey(self._institutions[institution_id].open(wrapped, key_id.bytes))
            self._cache(key_id, key)
        return found

    async def _make_institution_key(self, connection: Connection, institution_id: str) -> None:
        bound = institution_id.encode()
        wrapped = self._root.seal(AESGCM.generate_key(8 * KEY_BYTES), bound)
        await connection.execute(_INSERT_INSTITUTION, institution_id, wrapped, clock.now())
        stored = await connection.fetchval(
            "SELECT wrapped_key FROM institution_keys WHERE institution_id = $1", institution_id
        )  # another process may have been first
        try:
            self._institutions[institution_id] = DataKey(self._root.open(stored, bound))
        except Forged:
            raise Forged("CONCORD_CUSTOMER_ROOT_KEY is not the key that this key store was made with") from None

    def _cache(self, key_id: UUID, key: DataKey) -> None:
        self._cached[key_id] = key, time.monotonic() + CACHED_SECONDS_MAX
        self._cached.move_to_end(key_id)
        if len(self._cached) > CACHED_KEYS_MAX:
            self._cached.popitem(last=False)


_INSERT = """
INSERT INTO data_keys (key_id, institution_id, wrapped_key, create_time)
SELECT *, $4::timestamptz FROM unnest($1::uuid[], $2::text[], $3::bytea[])
"""
_INSERT_INSTITUTION = """
INSERT INTO institution_keys (institution_id, wrapped_key, create_time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""
_READ = """
SELECT k.key_id, k.institution_id, k.wrapped_key
FROM unnest($1::uuid[]) AS wanted (key_id)
    CROSS JOIN LATERAL (SELECT * FROM data_keys WHERE key_id = wanted.key_id OFFSET 0) k
"""
_IDS_BEFORE = "SELECT key_id FROM data_keys WHERE create_time < $1 AND key_id > $2 ORDER BY key_id LIMIT $3"
