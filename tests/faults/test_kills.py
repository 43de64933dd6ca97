"""kill -9 of every process in the middle of a load.

Afterwards every acknowledged command is there, nothing is there twice, and every projection is its source. The load keeps a
history like Jepsen's: what was asked, and what was acknowledged. A request without an answer has an unknown outcome and is sent
again with its key until it is answered, as a channel system would.
"""

import asyncio
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from running import Platform

from chassis.record_links import NOBODY
from concord_local.api import Gateway, Problem, patiently
from concord_local.stack import SERVICES

pytestmark = pytest.mark.faults
Json = dict[str, Any]

PEOPLE_COUNT = 60
PERMITTED_COUNT = 50
RESTART_SECONDS_MAX = 90.0
VICTIMS = ("customer", "rating", "campaign", "contact", "loyalty", "gateway", "nats", "postgres")
SPENT_MINOR_UNITS = 10_000
EARNED_POINTS = 100


@dataclass
class History:
    """What was acknowledged."""

    customers: dict[str, str] = field(default_factory=dict)  # source key -> customer
    accounts: dict[str, str] = field(default_factory=dict)  # source key -> account
    activities: dict[str, str] = field(default_factory=dict)  # source key -> activity id
    spenders: dict[str, int] = field(default_factory=dict)  # source key -> acknowledged purchases
    redemptions: dict[str, tuple[str, Json, Json]] = field(default_factory=dict)  # request id -> account, request, answer
    refused: dict[str, tuple[str, Json]] = field(default_factory=dict)  # request id -> account, request


class Load:
    """A seeded load on an alliance of its own."""

    def __init__(self, platform: Platform, gateway: Gateway, seed: int) -> None:
        self.platform, self.gateway, self.seed = platform, gateway, seed
        self.chance = random.Random(seed)
        self.mark = f"{seed % 100_000:05d}-{os.getpid()}"
        self.bank, self.program = f"fault-{self.mark}", f"points-{self.mark}"
        self.source = f"institutions/{self.bank}/sourceSystems/core"
        self.history = History()
        self.stopping, self.most_known = asyncio.Event(), asyncio.Event()

    async def found(self) -> None:
        """The bank, its programme, its people, their accounts, permissions and a launched campaign's draft."""
        operator = self.gateway.token("operator")
        body = {"displayName": "b", "kind": "INSTITUTION_KIND_BANK", "timeZone": "UTC", "countryCode": "CZ"}
        await self.gateway.post("/v1/institutions", operator, body, institution_id=self.bank)
        system = {"displayName": "core", "defaultRank": 1}
        await self.gateway.post(f"/v1/institutions/{self.bank}/sourceSystems", operator, system, source_system_id="core")
        program = {"institution": f"institutions/{self.bank}", "displayName": "p"}
        await patiently(lambda: self.gateway.post("/v1/programs", operator, program, program_id=self.program))
        rule = {"currencyCode": "CZK", "direction": "EARN_DIRECTION_SPENT", "pointsNumerator": "1", "pointsDenominator": "100"}
        more = {"pointsMax": "100000", "effectiveTime": "2020-01-01T00:00:00Z"}
        await self.gateway.post(f"/v1/programs/{self.program}/earnRules/all/versions", operator, {**rule, **more})

    async def run(self) -> None:
        """Everything at once, until told to stop."""
        await asyncio.gather(self.ingest(), *(self.spend(part) for part in range(2)), self.redeem(), self.campaign())

    async def ingest(self) -> None:
        token = self.gateway.token("channel", self.bank)
        for number in range(PEOPLE_COUNT):
            key = f"k{number}"
            answer = await self.gateway.post(f"/v1/{self.source}/records:ingest", token, self.record(number))
            self.history.customers[key] = answer["customer"]
            body = {"customer": answer["customer"], "institutions": [f"institutions/{self.bank}"]}
            account = await patiently(lambda body=body: self.gateway.post("/v1/accounts:open", token, body), 60.0)
            self.history.accounts[key] = account["name"]
            if number >= PEOPLE_COUNT * 0.8:
                self.most_known.set()

    def record(self, number: int) -> Json:
        passport = {"scheme": "IDENTIFIER_SCHEME_PASSPORT", "countryCode": "GB", "value": f"{self.seed % 10_000:04d}{number:05d}"}
        party = {"partyKind": "PARTY_KIND_PERSON", "partyName": {"fullName": f"Person {number}"}, "identifiers": [passport]}
        return {"sourceRecord": {"sourceRecordKey": f"k{number}", "observeTime": "2026-01-01T00:00:00Z", "party": party}}

    async def spend(self, part: int) -> None:
        token, number = self.gateway.token("channel", self.bank), 0
        while not self.stopping.is_set():
            # Only people whose account is open: an activity before that earns nothing, by rule.
            known = sorted(self.history.accounts)
            batch = []
            for _ in range(20 if known else 0):
                number += 1
                batch.append(self.purchase(f"a{part}-{number}", self.chance.choice(known)))
            if batch and self.chance.random() < 0.2:
                batch.append(batch[0])  # twice in one batch
            if batch:
                answer = await self.gateway.post("/v1/activities:record", token, {"activities": batch})
                for item, result in zip(batch, answer["results"], strict=True):
                    key = item["sourceActivityKey"]
                    assert result["outcome"] in ("INGEST_OUTCOME_CREATED", "INGEST_OUTCOME_UNCHANGED"), result
                    if key not in self.history.activities:
                        spender = item["sourceRecordKey"]
                        self.history.spenders[spender] = self.history.spenders.get(spender, 0) + 1
                    self.history.activities[key] = result["activityId"]
            await asyncio.sleep(0.02)

    def purchase(self, key: str, spender: str) -> Json:
        money = {"currencyCode": "CZK", "minorUnits": str(-SPENT_MINOR_UNITS)}
        detail = {"occurredAt": "2026-07-01T10:00:00Z", "transaction": {"amount": money, "category": "grocery"}}
        return {"sourceSystem": self.source, "sourceActivityKey": key, "sourceRecordKey": spender, "detail": detail}

    async def redeem(self) -> None:
        token, number = self.gateway.token("channel", self.bank), 0
        while not self.stopping.is_set():
            await asyncio.sleep(0.03)
            if not self.history.accounts:
                continue
            number += 1
            account = self.history.accounts[self.chance.choice(sorted(self.history.accounts))]
            body = {
                "program": f"programs/{self.program}",
                "amountPoints": str(self.chance.randrange(1, 400)),
                "institution": f"institutions/{self.bank}",
            }
            key = f"r-{self.mark}-{number}"
            try:
                answer = await self.gateway.post(f"/v1/{account}:redeem", token, body, request_id=key)
                self.history.redemptions[key] = (account, body, answer)
            except Problem as problem:
                if problem.body.get("reason") != "INSUFFICIENT_POINTS":
                    raise
                self.history.refused[key] = (account, body)

    async def campaign(self) -> None:
        """Once people are there: permissions for some, then a campaign to everybody."""
        await self.most_known.wait()
        staff, channel = self.gateway.token("staff", self.bank), self.gateway.token("channel", self.bank)
        parent = f"/v1/institutions/{self.bank}"
        for customer in sorted(self.history.customers.values())[:PERMITTED_COUNT]:
            permission = {
                "customer": customer,
                "channel": "CHANNEL_INBOX",
                "purpose": "CONTACT_PURPOSE_MARKETING",
                "state": "PERMISSION_STATE_GRANTED",
                "stateTime": "2026-01-01T00:00:00Z",
            }
            await self.gateway.post(f"{parent}/permissions:batchSet", channel, {"permissions": [permission]})
        offer = {"displayName": "o", "title": "t", "body": "b"}
        await self.gateway.post(f"{parent}/offers", staff, offer, offer_id="offer")
        draft = {"displayName": "c", "offer": f"{parent[4:]}/offers/offer", "channel": "CHANNEL_INBOX"}
        campaign = await self.gateway.post(f"{parent}/campaigns", staff, draft)
        await self.gateway.post(f"/v1/{campaign['name']}:launch", staff, {})


async def kill_in_turn(load: Load, rounds: int, pause_seconds: float) -> list[str]:
    """Kills every program in a seeded order; the supervisor starts each again while the load goes on."""
    killed = []
    for _ in range(rounds):
        victims = list(VICTIMS)
        load.chance.shuffle(victims)
        for victim in victims:
            await asyncio.sleep(pause_seconds * load.chance.uniform(0.5, 1.5))
            load.platform.kill(victim)
            killed.append(victim)
    return killed


async def run_with_kills(platform: Platform, seed: int, rounds: int, pause_seconds: float) -> None:
    async with platform.gateway() as gateway:
        load = Load(platform, gateway, seed)
        await load.found()
        running = asyncio.create_task(load.run())
        killer = asyncio.create_task(kill_in_turn(load, rounds, pause_seconds))
        done, _ = await asyncio.wait({running, killer}, return_when=asyncio.FIRST_COMPLETED)
        if running in done:
            running.result()
        killed = await killer
        load.stopping.set()
        await asyncio.wait_for(running, RESTART_SECONDS_MAX)
        print(f"seed {seed}, killed {', '.join(killed)}; {len(load.history.activities)} activities, "
              f"{len(load.history.redemptions)} redemptions, {len(load.history.refused)} refused")  # fmt: skip
        await platform.until_well()
        await platform.until_settled()
        await check_acknowledged(load)
        await check_campaign(load)
        await platform.until_settled()
        await check_projections(platform)


async def check_acknowledged(load: Load) -> None:
    """Every acknowledged command is there with its answer, and nothing is there twice."""
    gateway, history = load.gateway, load.history
    channel = gateway.token("channel", load.bank)
    keys = sorted(history.customers)
    assert len(keys) == PEOPLE_COUNT
    looked_up = await gateway.ask(f"/v1/{load.source}/records:lookup", channel, {"sourceRecordKeys": keys})
    assert {found["sourceRecordKey"]: found["customer"] for found in looked_up["records"]} == history.customers
    assert len(set(history.customers.values())) == PEOPLE_COUNT

    for key, (account, body, answer) in history.redemptions.items():
        assert await gateway.get(f"/v1/{answer['name']}", channel) == answer
        assert await gateway.post(f"/v1/{account}:redeem", channel, body, request_id=key) == answer
    for key, (account, body) in list(history.refused.items())[:20]:
        with pytest.raises(Problem) as again:
            await gateway.post(f"/v1/{account}:redeem", channel, body, request_id=key)
        assert again.value.body["reason"] == "INSUFFICIENT_POINTS", "a refusal is stored: more points later change nothing"

    redeemed: dict[str, int] = {}
    for account, body, _ in history.redemptions.values():
        redeemed[account] = redeemed.get(account, 0) + int(body["amountPoints"])
    for key, account in history.accounts.items():
        read = await gateway.get(f"/v1/{account}", channel)
        balance = sum(int(item["balancePoints"]) for item in read.get("balances", []))
        assert balance == history.spenders.get(key, 0) * EARNED_POINTS - redeemed.get(account, 0), (key, account)
    verified = await gateway.ask("/v1/invariants:verify", gateway.token("operator"), {})
    assert verified["valid"] is True, verified


async def check_projections(platform: Platform) -> None:
    """Every projection is its source, and nothing lies dead."""
    for service in SERVICES:
        assert await platform.query(service, "SELECT * FROM dead_letters") == [], service
    links = f"SELECT record_id, institution_id, customer_id FROM {{}} WHERE customer_id <> '{NOBODY}' ORDER BY record_id"
    source = await platform.query("customer", links.format("records"))
    for service in ("rating", "campaign", "contact", "loyalty"):
        assert await platform.query(service, links.format("record_links")) == source, service
    delivered = await platform.query("contact", "SELECT touch_id FROM inbox_messages ORDER BY touch_id")
    planned = await platform.query("campaign", "SELECT touch_id FROM touches")
    assert {row["touch_id"] for row in delivered} <= {row["touch_id"] for row in planned}
    assert len(delivered) == len({row["touch_id"] for row in delivered}), "no message twice"


async def check_campaign(load: Load) -> None:
    """Everybody permitted got the message once, the others none."""
    staff = load.gateway.token("staff", load.bank)
    campaigns = (await load.gateway.get(f"/v1/institutions/{load.bank}/campaigns", staff))["campaigns"]
    assert len(campaigns) == 1
    deadline = time.monotonic() + 60
    while True:
        metrics = await load.gateway.get(f"/v1/{campaigns[0]['name']}:metrics", staff)
        refused = sum(int(item["count"]) for item in metrics.get("refusedCounts", []))
        if int(metrics.get("deliveredCount", 0)) + refused == int(metrics.get("membersCount", 0)) > 0:
            break
        assert time.monotonic() < deadline, metrics
        await asyncio.sleep(0.3)


@pytest.mark.timeout(300)
async def test_kill_everything_once_in_the_middle_of_a_load(platform: Platform) -> None:
    await run_with_kills(platform, seed=int(os.environ.get("SEED", "20261123")), rounds=1, pause_seconds=1.5)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(int(os.environ.get("SOAK_RUNS", "5"))))
async def test_kill_everything_again_and_again(platform: Platform, number: int) -> None:
    seed = random.SystemRandom().randrange(10**6)
    await run_with_kills(platform, seed=seed, rounds=3, pause_seconds=1.0)
