"""The key store on a real PostgreSQL."""

import asyncio
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from chassis import clock
from chassis.ids import new_id
from chassis.testing.fixtures import execute, in_thread
from customer.store import vault as vaults
from customer.store import vault_sweep
from customer.store.vault import Forged, Vault, bound_to

ROOT = bytes(range(32))


@pytest.fixture(scope="module")
def own_keys_url(postgres_server, keys_url):
    """A key store of these tests only: they use a root key of their own."""
    in_thread(execute(postgres_server.url(), "CREATE DATABASE vault_tests TEMPLATE customer_keys"))
    url = postgres_server.url("vault_tests")
    in_thread(execute(url, "TRUNCATE institution_keys, data_keys"))
    return url


@pytest_asyncio.fixture
async def vault(own_keys_url):
    made = await Vault.connect(own_keys_url, ROOT)
    yield made
    await made.close()


async def test_what_one_process_seals_another_opens(vault, own_keys_url):
    record_id = new_id()
    key = (await vault.create({record_id: "bank"}))[record_id]
    sealed = key.seal("张伟".encode(), bound_to("records.party", record_id, 1))
    assert "张伟".encode() not in sealed
    other = await Vault.connect(own_keys_url, ROOT)
    found = await other.keys([record_id, new_id()])
    assert set(found) == {record_id}
    assert found[record_id].open(sealed, bound_to("records.party", record_id, 1)).decode() == "张伟"
    await other.close()


@pytest.mark.parametrize("place", ["records.payload", "records.party\0", "records.part"])
async def test_a_sealed_value_opens_only_in_its_own_place(vault, place):
    record_id, other_id = new_id(), new_id()
    keys = await vault.create({record_id: "bank", other_id: "bank"})
    sealed = keys[record_id].seal(b"plain", bound_to("records.party", record_id, 1))
    wrong = [
        (keys[record_id], sealed, bound_to(place, record_id, 1)),
        (keys[record_id], sealed, bound_to("records.party", other_id, 1)),
        (keys[record_id], sealed, bound_to("records.party", record_id, 2)),
        (keys[other_id], sealed, bound_to("records.party", record_id, 1)),
        (keys[record_id], sealed[:-1] + bytes([sealed[-1] ^ 1]), bound_to("records.party", record_id, 1)),
        (keys[record_id], b"", bound_to("records.party", record_id, 1)),
    ]
    for key, bytes_, bound in wrong:
        with pytest.raises(Forged):
            key.open(bytes_, bound)


async def test_a_shredded_key_is_gone_for_every_process(vault, own_keys_url):
    ids = [key_id for key_id, _ in await vault.new("bank", 3)]
    await vault.shred(ids[:2])
    assert set(await vault.keys(ids)) == {ids[2]}
    other = await Vault.connect(own_keys_url, ROOT)
    assert set(await other.keys(ids)) == {ids[2]}
    await other.close()


async def test_new_ids_come_from_a_reserve_that_is_stored_before_it_is_given(vault, own_keys_url, monkeypatch):
    given = await asyncio.gather(*(vault.new("hospital", count) for count in (1, 5, 200, 1)))
    ids = [key_id for keys in given for key_id, _ in keys]
    assert len(set(ids)) == 207
    connection = await asyncpg.connect(own_keys_url)
    stored = await connection.fetchval("SELECT count(*) FROM data_keys WHERE key_id = ANY($1::uuid[])", ids)
    assert stored == 207

    async def no_round_trip(*arguments):
        raise AssertionError("the reserve was not used")

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "create", no_round_trip)
        [(key_id, key)] = await vault.new("hospital", 1)
        assert (await vault.keys([key_id]))[key_id] is key, "and it is cached"
    await connection.close()


async def test_many_keys_are_copied_and_few_are_inserted_alike(vault):
    for count in (vaults.COPIED_FROM_KEYS - 1, vaults.COPIED_FROM_KEYS):
        made = await vault.create({new_id(): ("bank", "insurer")[place % 2] for place in range(count)})
        vault._cached.clear()
        assert await vault.keys(list(made)) == made
        with pytest.raises(asyncpg.UniqueViolationError):
            await vault.create(dict.fromkeys(made, "bank"))


async def test_nothing_in_the_key_store_tells_a_key(vault, own_keys_url):
    made = await vault.create({new_id(): "bank"})
    connection = await asyncpg.connect(own_keys_url)
    stored = b"".join(row[0] for row in await connection.fetch("SELECT wrapped_key FROM data_keys UNION SELECT wrapped_key FROM institution_keys"))  # fmt: skip # noqa: E501
    await connection.close()
    secrets = [key._key for key in made.values()] + [key._key for key in vault._institutions.values()]
    assert not any(secret in stored for secret in secrets)
    assert not any(secret.hex() in repr(made) + repr(vault._institutions) for secret in secrets)


async def test_another_root_key_is_refused_by_name(vault, own_keys_url):
    await vault.create({new_id(): "bank"})
    other = await Vault.connect(own_keys_url, bytes(32))
    with pytest.raises(Forged, match="CONCORD_CUSTOMER_ROOT_KEY"):
        await other.create({new_id(): "bank"})
    await other.close()


async def test_the_cache_is_bounded(vault, monkeypatch):
    monkeypatch.setattr(vaults, "CACHED_KEYS_MAX", 10)
    given = await vault.new("bank", 25)
    assert len(vault._cached) == 10
    assert len(await vault.keys([key_id for key_id, _ in given])) == 25
    assert len(vault._cached) == 10


async def test_old_keys_are_listed_in_pages(vault):
    made = sorted(await vault.create({new_id(): "paged" for _ in range(5)}))
    after, found = UUID(int=made[0].int - 1), []
    while page := await vault.ids_before(clock.now(), after, 2):
        found += page
        after = page[-1]
    assert found[:5] == made


async def test_keys_that_nothing_uses_are_swept_for_their_owner_only(vault, database, own_keys_url):
    connection = await asyncpg.connect(own_keys_url)
    await connection.execute("TRUNCATE data_keys, owner")
    [(used, _), (orphan, _), (young, _)] = await vault.new("swept", 3)
    await connection.execute("UPDATE data_keys SET create_time = now() - interval '2 days' WHERE key_id <> $1", young)
    async with database.transaction() as own:
        await own.execute(
            "INSERT INTO records SELECT $1, 1, 'k', 'bank', $1, 1, 1, 1, 1, 1, '', now(), '', NULL, '{}', '{}', now(), now()",
            used,
        )
    made_before = clock.now() - timedelta(days=1)
    assert await vault_sweep.sweep(database, vault, made_before) == vaults.RESERVE_KEYS + 1, "the reserve is that old, too"
    assert set(await vault.keys([used, orphan, young])) == {used, young}
    assert await vault_sweep.sweep(database, vault, made_before) == 0
    await connection.execute("UPDATE owner SET database_id = gen_random_uuid()")
    with pytest.raises(vault_sweep.NotOurs, match="CONCORD_CUSTOMER_KEYS_URL"):
        await vault_sweep.sweep(database, vault, clock.now())
    assert used in await vault.keys([used])
    await connection.close()
