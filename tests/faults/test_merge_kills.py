"""kill -9 of the customer master and of PostgreSQL while stewards merge and unmerge.

A request that got no answer is sent again with its key until it is answered. Afterwards nothing is half done: each request had
one effect, every record has one live link, and the projections of the other services are as the last links say.
"""

import asyncio
import random
from typing import Any

import pytest
from alliance import record
from running import Platform

from chassis.record_links import NOBODY
from concord_local.api import Gateway

pytestmark = pytest.mark.faults
Json = dict[str, Any]

PAIRS_COUNT = 6
ROUNDS = 12
VICTIMS = ("customer", "postgres", "customer")
PAUSE_SECONDS = 0.7
SEED = 20_261_124


class Pair:
    """Two people of one bank, merged and unmerged again and again."""

    def __init__(self, gateway: Gateway, mark: str, number: int) -> None:
        self.gateway, self.mark, self.number = gateway, mark, number
        self.source = f"institutions/{mark}/sourceSystems/core"
        self.answers: list[tuple[str, Json, str, Json]] = []  # path, body, request id, answer

    async def run(self, stopping: asyncio.Event) -> None:
        """Merges and unmerges until told to stop; ends unmerged for even numbers, merged for odd ones."""
        channel = self.gateway.token("channel", self.mark)
        customers = []
        for place in range(2):
            born = f"19{40 + 7 * self.number + place}-0{place + 1}-01"
            name = f"{'AB'[place] * 5}{chr(ord('c') + self.number) * 6} Q{chr(ord('k') + self.number) * 5}"
            body = record(f"k{self.number}-{place}", "2026-01-01T00:00:00Z", birthDate=born, partyName={"fullName": name})
            customers.append((await self.gateway.post(f"/v1/{self.source}/records:ingest", channel, body))["customer"])
        assert customers[0] != customers[1]
        self.winner, self.loser = customers
        done = 0
        while done < ROUNDS or not stopping.is_set() or done % 2 != self.number % 2:
            if done % 2:
                await self.ask(f"/v1/{self.loser}:unmerge", {"reasonCode": "FAULT_TEST"})
            else:
                await self.ask("/v1/customers:merge", {"customers": customers, "reasonCode": "FAULT_TEST"})
            done += 1
            await asyncio.sleep(0.01)

    async def ask(self, path: str, body: Json) -> None:
        request_id = f"{self.mark}-{self.number}-{len(self.answers)}"
        answer = await self.gateway.post(path, self.gateway.token("staff", self.mark), body, request_id=request_id)
        assert answer.get("recordsRestoredCount", 1) == 1
        self.answers.append((path, body, request_id, answer))


async def kill(platform: Platform, stopping: asyncio.Event) -> None:
    chance = random.Random(SEED)
    for victim in VICTIMS:
        await asyncio.sleep(PAUSE_SECONDS * chance.uniform(0.7, 1.3))
        platform.kill(victim)
        await platform.until_well()
    stopping.set()


@pytest.mark.timeout(180)
async def test_a_merge_is_done_whole_or_not_at_all(platform: Platform) -> None:
    async with platform.gateway() as gateway:
        mark = f"merges-{random.SystemRandom().randrange(10**6)}"
        operator = gateway.token("operator")
        body: Json = {"displayName": "b", "kind": "INSTITUTION_KIND_BANK", "timeZone": "UTC", "countryCode": "CZ"}
        await gateway.post("/v1/institutions", operator, body, institution_id=mark)
        system = {"displayName": "core", "defaultRank": 1}
        await gateway.post(f"/v1/institutions/{mark}/sourceSystems", operator, system, source_system_id="core")
        pairs = [Pair(gateway, mark, number) for number in range(PAIRS_COUNT)]
        stopping = asyncio.Event()
        await asyncio.gather(kill(platform, stopping), *(pair.run(stopping) for pair in pairs))
        await platform.until_settled()
        print(f"{sum(len(pair.answers) for pair in pairs)} merges and unmerges through {len(VICTIMS)} kills")
        for pair in pairs:
            await check(platform, gateway, pair)
        for service in ("rating", "campaign", "contact", "loyalty"):
            links = f"SELECT record_id, customer_id FROM {{}} WHERE customer_id <> '{NOBODY}' ORDER BY record_id"  # not erased
            assert await platform.query(service, links.format("record_links")) == await platform.query(
                "customer", links.format("records")
            ), service


async def check(platform: Platform, gateway: Gateway, pair: Pair) -> None:
    """Each request had one effect, and its answer is still the same."""
    loser = pair.loser.removeprefix("customers/")
    merges = await platform.query("customer", "SELECT undone_at FROM merges WHERE loser_id = $1::uuid", loser)
    merged_count = sum(path.endswith(":merge") for path, *_ in pair.answers)
    assert (len(merges), sum(row[0] is None for row in merges)) == (merged_count, len(pair.answers) % 2)
    links = await platform.query(
        "customer",
        "SELECT link_version, superseded_at IS NULL AS live FROM links"
        " WHERE record_id = (SELECT record_id FROM links WHERE customer_id = $1::uuid LIMIT 1) ORDER BY 1",
        loser,
    )
    assert [row["link_version"] for row in links] == list(range(1, len(pair.answers) + 2))
    assert [row["live"] for row in links] == [False] * len(pair.answers) + [True]
    staff = gateway.token("staff", pair.mark)
    for path, body, request_id, answer in random.Random(SEED).sample(pair.answers, 3):
        assert await gateway.post(path, staff, body, request_id=request_id) == answer
    answered = await gateway.get(f"/v1/{pair.loser}", staff)
    assert answered["name"] == (pair.winner if len(pair.answers) % 2 else pair.loser)
