"""The people and points that the whole platform is measured with, loaded through the gateway like anybody's."""

import asyncio
import itertools
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
from running import Platform

from bench.processes import Broken
from concord_local import population
from concord_local.api import BATCH_ITEMS_MAX, Gateway
from concord_local.population import BANK, CURRENCY, SYSTEM

PARTNERS = tuple(f"bench-shop-{number}" for number in range(1, 9))
PROGRAM = "bench-points"
RECORDING_AT_ONCE_MAX = 4
FOLD_SECONDS_MAX = 120.0
POLL_SECONDS = 0.1

Json = dict[str, Any]


@dataclass
class Alliance:
    """A bank whose customers all have a points account, and eight partners where points are spent."""

    platform: Platform
    gateway: Gateway
    people: Sequence[population.Person]
    customers: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    rounds: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def bank_token(self) -> str:
        """Of the bank's application."""
        return self.gateway.token("channel", BANK)

    async def found(self) -> None:
        """Institutions, a programme in which spending on groceries earns, customers, holdings and accounts."""
        operator = self.gateway.token("operator")
        for institution in (BANK, *PARTNERS):
            kind = "BANK" if institution == BANK else "RETAILER"
            body = {
                "displayName": institution,
                "kind": f"INSTITUTION_KIND_{kind}",
                "timeZone": "Asia/Shanghai",
                "countryCode": "CN",
            }
            await self.gateway.post("/v1/institutions", operator, body, institution_id=institution)
        source = {"displayName": "core", "defaultRank": 10}
        await self.gateway.post(f"/v1/institutions/{BANK}/sourceSystems", operator, source, source_system_id=SYSTEM[BANK])
        await self.platform.until_settled()
        program = {"institution": f"institutions/{BANK}", "displayName": "Points"}
        await self.gateway.post("/v1/programs", operator, program, program_id=PROGRAM)
        rule = {
            "currencyCode": CURRENCY,
            "categories": ["grocery"],
            "direction": "EARN_DIRECTION_SPENT",
            "pointsNumerator": "1",
            "pointsDenominator": "1",
            "pointsMax": "1000000",
            "effectiveTime": "2020-01-01T00:00:00Z",
        }
        await self.gateway.post(f"/v1/programs/{PROGRAM}/earnRules/groceries/versions", operator, rule)
        parent = f"/v1/institutions/{BANK}/sourceSystems/{SYSTEM[BANK]}"
        records = [population.record(person, BANK) for person in self.people]
        self.customers = [
            result["customer"] for result in await self._post(f"{parent}/records:batchIngest", "sourceRecords", records)
        ]
        holdings = [population.holding(person, BANK) for person in self.people]
        await self._post(f"{parent}/holdings:batchUpsert", "sourceHoldings", holdings)
        await self.platform.until_settled()
        self.accounts = list(await asyncio.gather(*(self._account(customer) for customer in dict.fromkeys(self.customers))))
        await self.platform.until_settled()

    async def _post(self, path: str, name: str, items: Sequence[Json]) -> list[Json]:
        results: list[Json] = []
        for batch in _batches(items):
            results += (await self.gateway.post(path, self.bank_token, {name: batch}))["results"]
        _refuse_rejected(results)
        return results

    async def _account(self, customer: str) -> str:
        body = {"customer": customer, "institutions": [f"institutions/{BANK}"]}
        return str((await self.gateway.post("/v1/accounts:open", self.bank_token, body))["name"])

    def activities(self) -> list[bytes]:
        """A year of everybody's activities as bodies of requests, new ones each time: none is known already."""
        marker = f"-{next(self.rounds)}"
        items = [
            {**item, "sourceActivityKey": item["sourceActivityKey"] + marker}
            for person in self.people
            for item in population.activities(person, BANK)
        ]
        return [json.dumps({"activities": batch}).encode() for batch in _batches(items)]

    async def record(self, bodies: Iterable[bytes]) -> int:
        """Sends bodies of activities, four at once; answers how many activities were taken."""
        left, taken = iter(bodies), 0

        async def sender(client: httpx.AsyncClient) -> None:
            nonlocal taken
            for body in left:
                headers = {
                    "Authorization": f"Bearer {self.bank_token}",
                    "Content-Type": "application/json",
                    "Idempotency-Key": f"bench-{next(self.rounds)}",
                }
                answer = await client.post("/v1/activities:record", content=body, headers=headers)
                if answer.is_error:
                    raise Broken(f"activities:record answered {answer.status_code}: {answer.text[:300]}")
                results = answer.json()["results"]
                _refuse_rejected(results)
                taken += len(results)

        async with httpx.AsyncClient(base_url=self.gateway.url, timeout=60) as client:
            await asyncio.gather(*(sender(client) for _ in range(RECORDING_AT_ONCE_MAX)))
        return taken

    async def until_folded(self) -> None:
        """Waits until rating and loyalty have folded all that was recorded, and every customer concerned is rated anew.

        The places are looked at in the order in which events go through them, so that none can slip by between two looks.
        """
        stack = self.platform.stack
        customer, rating = (
            await asyncpg.connect(stack.database_url("customer")),
            await asyncpg.connect(stack.database_url("rating")),
        )
        deadline = time.monotonic() + FOLD_SECONDS_MAX
        try:
            while await self._under_way(customer, rating):
                if time.monotonic() > deadline:
                    raise Broken(f"not folded after {FOLD_SECONDS_MAX:.0f} s: {await self.platform.unsettled()}")
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await customer.close()
            await rating.close()

    async def _under_way(self, customer: Any, rating: Any) -> bool:
        if await customer.fetchval("SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL)"):
            return True
        for stream, consumer, pending in await asyncio.to_thread(lambda: list(self.platform.consumers())):
            if pending and stream == "CUSTOMER" and consumer in ("rating", "loyalty"):
                return True
        return bool(await rating.fetchval("SELECT EXISTS (SELECT FROM rerate_queue)"))

    async def verify(self) -> None:
        """Raises Broken when an invariant of the ledger does not hold."""
        ledger = await self.gateway.ask("/v1/invariants:verify", self.gateway.token("operator"), {})
        if not ledger.get("valid"):
            raise Broken(f"the ledger's invariants do not hold: {ledger}")


def _batches(items: Sequence[Json]) -> list[Sequence[Json]]:
    return [items[first : first + BATCH_ITEMS_MAX] for first in range(0, len(items), BATCH_ITEMS_MAX)]


def _refuse_rejected(results: Iterable[Json]) -> None:
    for result in results:
        if str(result["outcome"]).endswith("REJECTED"):
            raise Broken(f"an item was rejected: {result['error']}")
