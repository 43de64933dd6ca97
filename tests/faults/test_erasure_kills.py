"""kill -9 of the customer master while it erases: while it deletes, before it destroys the keys, and just after the commit.

Afterwards each erasure has happened once and whole: nothing is left of the person in any table, the keys are destroyed, and
the other services have followed.
"""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from alliance import record, until
from markers import Markers, found_in_tables
from running import Platform

from chassis.answers import number_of
from chassis.record_links import ERASED_EPOCH, NOBODY
from concord_local.api import Gateway, Problem, patiently
from concord_local.stack import SERVICES

pytestmark = pytest.mark.faults
Json = dict[str, Any]
SEEN = "2026-01-01T00:00:00Z"
SHREDDING = 2
ERASED = 3
HELD = {"customer": ("links", "record_id"), "customer-keys": ("data_keys", "key_id")}
"""In each database the table, with its key, that an erasure is stopped at."""
WAITING = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE $1"


class Person:
    """Somebody who is known to every service, and asked to be erased."""

    def __init__(self, platform: Platform, gateway: Gateway, bank: str) -> None:
        self.platform, self.gateway, self.bank, self.markers = platform, gateway, bank, Markers()
        self.request_id = uuid.uuid4().hex

    async def arrive(self) -> None:
        """Is ingested, opens an account and grants a permission."""
        channel, word = self.gateway.token("channel", self.bank), self.markers.word
        passport = {"scheme": "IDENTIFIER_SCHEME_PASSPORT", "countryCode": "GB", "value": self.markers.passport}
        party = {"partyName": {"fullName": f"Zdena {word.title()}"}, "birthDate": "1971-02-03", "identifiers": [passport]}
        path = f"/v1/institutions/{self.bank}/sourceSystems/core/records:ingest"
        self.customer = str((await self.gateway.post(path, channel, record(f"key-{word}", SEEN, **party)))["customer"])
        statement = "SELECT record_id FROM records WHERE customer_id = $1::uuid"
        [[self.record_id]] = await self.platform.query("customer", statement, self.id)
        opening = {"customer": self.customer, "institutions": [f"institutions/{self.bank}"]}
        await patiently(lambda: self.gateway.post("/v1/accounts:open", channel, opening))
        said = {"channel": "CHANNEL_INBOX", "purpose": "CONTACT_PURPOSE_MARKETING", "state": "PERMISSION_STATE_GRANTED"}
        body = {"permissions": [{"customer": self.customer, "stateTime": SEEN, **said}]}
        await self.gateway.post(f"/v1/institutions/{self.bank}/permissions:batchSet", channel, body)

    @property
    def id(self) -> str:
        """Of the customer."""
        return self.customer.rpartition("/")[2]

    async def erase(self) -> Json:
        """Asks until it is answered."""
        body = {"legalBasisCode": "DATA_SUBJECT_REQUEST"}
        return await self.gateway.post(
            f"/v1/{self.customer}:erase", self.gateway.token("operator"), body, request_id=self.request_id
        )

    async def states(self) -> list[int]:
        """Of the erasures, as they are committed."""
        statement = "SELECT state FROM erasures WHERE customer_id = $1::uuid"
        return [row[0] for row in await self.platform.query("customer", statement, self.id)]

    async def is_gone(self) -> None:
        """Nothing is left but numbers of nobody's."""
        for kind in ("channel", "operator"):
            token = self.gateway.token(kind, self.bank if kind == "channel" else None)
            with pytest.raises(Problem) as gone:
                await self.gateway.get(f"/v1/{self.customer}", token)
            assert gone.value.status == 404
        for table in ("records", "source_records", "links", "blocking_keys"):
            assert not await self.platform.query("customer", f"SELECT FROM {table} WHERE record_id = $1", self.record_id), table
        keys = "SELECT count(*) FROM data_keys WHERE key_id = $1"
        assert (await self.platform.query("customer-keys", keys, self.record_id))[0][0] == 0
        published = "SELECT count(*) FROM outbox WHERE aggregate_id = $1 AND type = 'concord.customer.v1.customer.erased'"
        assert (await self.platform.query("customer", published, self.id))[0][0] == 1
        for service in SERVICES:
            kept = "SELECT split_part(method, '/', 3) FROM idempotency WHERE named_numbers && $1::bigint[]"
            named = [number_of(uuid.UUID(self.id)), number_of(self.record_id)]
            methods = [row[0] for row in await self.platform.query(service, kept, named)]
            assert methods == (["EraseCustomer"] if service == "customer" else []), service
            if service != "customer":
                links = "SELECT customer_id, epoch FROM record_links WHERE record_id = $1"
                [link] = await self.platform.query(service, links, self.record_id)
                assert tuple(link) == (NOBODY, ERASED_EPOCH), service
        assert not await self.platform.query("contact", "SELECT FROM permissions WHERE record_id = $1", self.record_id)
        assert not await self.platform.query("loyalty", "SELECT FROM accounts WHERE customer_id = $1::uuid", self.id)
        assert not await self.platform.query("campaign", "SELECT FROM profiles WHERE customer_id = $1::uuid", self.id)
        assert not await self.platform.query("rating", "SELECT FROM customers WHERE customer_id = $1::uuid", self.id)


@asynccontextmanager
async def held(platform: Platform, database: str, record_id: uuid.UUID) -> AsyncIterator[None]:
    """Holds the row of a record, so that who wants to delete it waits."""
    table, key = HELD[database]
    connection = await asyncpg.connect(platform.stack.database_url(database))
    try:
        await connection.execute("BEGIN")
        assert await connection.fetch(f"SELECT FROM {table} WHERE {key} = $1 FOR UPDATE", record_id)
        yield
    finally:
        await connection.close()


async def waiting(platform: Platform, what: str) -> list[int]:
    """In each database how many sessions wait for what is held; `what` is selected of each."""
    return [
        len(await platform.query(database, f"SELECT {what} {WAITING}", f"%{table}%")) for database, (table, _) in HELD.items()
    ]


@pytest.mark.timeout(120)
async def test_an_erasure_is_finished_whatever_moment_the_master_dies_in(platform: Platform) -> None:
    async with platform.gateway() as gateway:
        bank = f"erasures-{secrets.token_hex(4)}"
        operator = gateway.token("operator")
        body: Json = {"displayName": "b", "kind": "INSTITUTION_KIND_BANK", "timeZone": "UTC", "countryCode": "CZ"}
        await gateway.post("/v1/institutions", operator, body, institution_id=bank)
        system = {"displayName": "core", "defaultRank": 1}
        await gateway.post(f"/v1/institutions/{bank}/sourceSystems", operator, system, source_system_id="core")
        deleting, shredding, telling = people = [Person(platform, gateway, bank) for _ in range(3)]
        await asyncio.gather(*(person.arrive() for person in people))
        await platform.until_settled()

        async with (
            held(platform, "customer", deleting.record_id),
            held(platform, "customer-keys", shredding.record_id),
        ):
            asked, asked_once = asyncio.create_task(deleting.erase()), asyncio.create_task(shredding.erase())
            await until(lambda: waiting(platform, "pid"), all)
            asked_once.cancel()  # nobody asks again: the sweep alone finishes it
            platform.kill("customer")
            # The server has not noticed that who asked is dead, and would carry it out.
            await waiting(platform, "pg_terminate_backend(pid, 5000)")
        assert (await deleting.states(), await shredding.states()) == ([], [SHREDDING])
        await platform.until_well()
        assert (await asked)["state"] == "ERASURE_STATE_ERASED", "who asks again is answered"
        await until(shredding.states, lambda states: states == [ERASED])

        asked = asyncio.create_task(telling.erase())
        await until(telling.states, lambda states: states != [])
        platform.kill("customer")
        await platform.until_well()
        assert (await asked)["state"] == "ERASURE_STATE_ERASED"

        await platform.until_settled()
        for person in people:
            assert await person.states() == [ERASED], "each was erased once"
            await person.is_gone()
            assert (await person.erase())["state"] == "ERASURE_STATE_ERASED", "and is answered the same again"
        patterns = {form: what for person in people for form, what in person.markers.patterns().items()}
        assert await found_in_tables(platform, patterns) == set()
