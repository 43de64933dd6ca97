"""The other services follow the customer master: merge, unmerge, relink and erase on the running platform, over HTTP only."""

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from alliance import found, record, until
from running import Platform

from concord_local.api import Gateway, Problem, patiently

pytestmark = pytest.mark.system
Json = dict[str, Any]

# What rises with every change, or says when something was written or why a link is: to unmerge is a reason of its own.
UNSTABLE = {"etag", "createTime", "updateTime", "linkTime", "postTime", "resolutionReason"}


def stable(document: Any) -> Any:
    """A document without versions and times of writing."""
    if isinstance(document, dict):
        return {key: stable(value) for key, value in document.items() if key not in UNSTABLE}
    return [stable(each) for each in document] if isinstance(document, list) else document


@dataclass
class Person:
    """A customer of the bank under one source key."""

    key: str
    customer: str
    record: str
    account: str = ""


@dataclass
class Alliance:
    """A bank, a shop and a programme of its own for a test, and short ways to use them."""

    gateway: Gateway
    platform: Platform
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __post_init__(self) -> None:
        self.bank, self.shop, self.program = f"bank-{self.mark}", f"shop-{self.mark}", f"points-{self.mark}"
        self.source = f"institutions/{self.bank}/sourceSystems/core"
        self.operator, self.channel = self.gateway.token("operator"), self.gateway.token("channel", self.bank)
        self.staff = self.gateway.token("staff", self.bank)

    async def person(self, key: str, name: str, birth_date: str) -> Person:
        """A customer with an account, a purchase, a contact, and leave to be contacted."""
        number = f"{key}{int(self.mark, 16) % 10**8:08d}"
        party = {
            "partyName": {"fullName": name},
            "birthDate": birth_date,
            "identifiers": [{"scheme": "IDENTIFIER_SCHEME_PASSPORT", "countryCode": "GB", "value": number}],
        }
        body = record(key, "2026-01-01T00:00:00Z", **party)
        made = await self.gateway.post(f"/v1/{self.source}/records:ingest", self.channel, body)
        person = Person(key, made["customer"], made["record"])
        opening = {"customer": person.customer, "institutions": [f"institutions/{self.bank}"]}
        opened = await patiently(lambda: self.gateway.post("/v1/accounts:open", self.channel, opening))
        person.account = opened["name"]
        await self.spend(person, "first", 100_00 * int(key))
        contact = {
            "direction": "CONTACT_DIRECTION_INBOUND",
            "channel": "CHANNEL_BRANCH",
            "purpose": "CONTACT_PURPOSE_SERVICE",
            "contactTime": "2026-02-01T00:00:00Z",
            "topic": f"topic-{key}",
        }
        await patiently(lambda: self.gateway.post(f"/v1/{person.customer}/contacts:record", self.channel, contact))
        await self.permit(person, "GRANTED")
        return person

    async def permit(self, person: Person, state: str) -> str:
        permission = {
            "customer": person.customer,
            "channel": "CHANNEL_INBOX",
            "purpose": "CONTACT_PURPOSE_MARKETING",
            "state": f"PERMISSION_STATE_{state}",
            "stateTime": "2026-01-01T00:00:00Z",
        }
        path = f"/v1/institutions/{self.bank}/permissions:batchSet"
        [result] = (await self.gateway.post(path, self.channel, {"permissions": [permission]}))["results"]
        return str(result["outcome"])

    async def spend(self, person: Person, key: str, minor_units: int) -> None:
        spent = {
            "sourceSystem": self.source,
            "sourceActivityKey": f"{person.key}-{key}",
            "sourceRecordKey": person.key,
            "detail": {
                "occurredAt": "2026-07-01T10:00:00Z",
                "transaction": {"amount": {"currencyCode": "CZK", "minorUnits": str(-minor_units)}, "category": "grocery"},
            },
        }
        answer = await self.gateway.post("/v1/activities:record", self.channel, {"activities": [spent]})
        assert answer["results"][0]["outcome"] == "INGEST_OUTCOME_CREATED"

    async def touch_everybody(self) -> str:
        """A campaign that reaches every customer of the bank; returns its name when all is delivered."""
        await self.platform.until_settled()
        path = f"/v1/institutions/{self.bank}"
        offer = f"offer-{uuid.uuid4().hex[:8]}"
        text = {"displayName": "o", "title": "A better rate", "body": "Come in."}
        await self.gateway.post(f"{path}/offers", self.staff, text, offer_id=offer)
        known = {"field": "AUDIENCE_FIELD_BIRTH_YEAR", "operator": "AUDIENCE_OPERATOR_AT_LEAST", "number": 1900}
        campaign = await self.gateway.post(
            f"{path}/campaigns",
            self.staff,
            {
                "displayName": "spring",
                "offer": f"institutions/{self.bank}/offers/{offer}",
                "channel": "CHANNEL_INBOX",
                "audienceRule": {"allOf": [{"anyOf": [known]}]},
            },
        )
        await self.gateway.post(f"/v1/{campaign['name']}:launch", self.staff, {})
        await until(
            lambda: self.gateway.get(f"/v1/{campaign['name']}", self.staff),
            lambda read: read["state"] == "CAMPAIGN_STATE_FINISHED",
        )
        return str(campaign["name"])

    async def view(self, person: Person) -> Json:
        """All that the bank is told of a customer."""
        account = (await self.gateway.get(f"/v1/{person.customer}/account", self.channel))["name"]
        seen = {
            "view": await self.gateway.get(f"/v1/{person.customer}:view", self.channel),
            "inbox": await self.gateway.get(f"/v1/{person.customer}/inboxMessages", self.channel),
            "permissions": await self.gateway.get(f"/v1/{person.customer}/permissions", self.channel),
            "statement": await self.gateway.get(f"/v1/{account}/statement", self.channel),
        }
        assert seen["view"]["missing"] == []
        return dict(stable(seen))

    async def decide(self, path: str, **body: Any) -> Json:
        answer = await self.gateway.post(path, self.operator, {"reasonCode": "STEWARD", **body})
        await self.platform.until_settled()
        return answer


def points(view: Json) -> int:
    return sum(int(balance["balancePoints"]) for balance in view["view"]["points"]["balances"])


def topics(view: Json) -> set[str]:
    return {contact.get("topic", "") for contact in view["view"]["contacts"]}


async def test_everything_follows_merges_and_comes_back(platform: Platform) -> None:
    async with platform.gateway() as gateway:
        alliance = Alliance(gateway, platform)
        await found(gateway, alliance.bank, alliance.shop, alliance.program)
        anna = await alliance.person("1", "Anna Nováková", "1980-02-29")
        jana = await alliance.person("2", "Jana Dvořáková", "1991-11-03")
        assert anna.customer != jana.customer
        wave = await alliance.touch_everybody()
        await platform.until_settled()
        people = anna, jana
        before = [await alliance.view(person) for person in people]
        assert [points(view) for view in before] == [100, 200]

        # Merged: the winner's view is the sum, and the loser's id answers with it; writes through it are refused.
        override = {"overrideReason": "KNOWN_TO_BE_ONE"}
        merged = await alliance.decide("/v1/customers:merge", customers=[anna.customer, jana.customer], **override)
        winner, loser = (anna, jana) if merged["customer"] == anna.customer else (jana, anna)
        seen = await alliance.view(winner)
        assert seen == await alliance.view(loser)
        assert seen["view"]["customer"]["name"] == seen["view"]["points"]["customer"] == winner.customer
        assert points(seen) == 300
        assert topics(seen) == {"", "topic-1", "topic-2"}
        assert len(seen["inbox"]["inboxMessages"]) == 2
        assert len(seen["statement"]["statementLines"]) == 2
        assert loser.customer not in json.dumps(seen), "no word of the id that is gone"
        assert await alliance.permit(loser, "GRANTED") == "SET_PERMISSION_OUTCOME_CUSTOMER_MERGED"
        redeem = {"program": f"programs/{alliance.program}", "amountPoints": "1", "institution": f"institutions/{alliance.shop}"}
        with pytest.raises(Problem) as refused:
            await gateway.post(f"/v1/{loser.account}:redeem", alliance.channel, redeem)
        assert (refused.value.status, refused.value.body["reason"]) == (409, "CUSTOMER_MERGED")
        touches = (await gateway.get(f"/v1/{wave}/waves/1/touches", alliance.staff))["touches"]
        assert [touch["customer"] for touch in touches] == [winner.customer] * 2
        second = await alliance.touch_everybody()
        reached = (await gateway.get(f"/v1/{second}/waves/1/touches", alliance.staff))["touches"]
        assert [touch["customer"] for touch in reached] == [winner.customer], "one person, one touch"

        # Undone: both are as they were, but for what came since; and done and undone again, exactly.
        await alliance.decide(f"/v1/{loser.customer}:unmerge")
        apart = [await alliance.view(person) for person in people]
        for view, former in zip(apart, before, strict=True):
            for part in ("customer", "ratings", "points"):
                assert view["view"][part] == former["view"][part], part
            assert (view["permissions"], view["statement"]) == (former["permissions"], former["statement"])
        assert sum(len(view["inbox"]["inboxMessages"]) for view in apart) == 3
        await alliance.decide("/v1/customers:merge", customers=[anna.customer, jana.customer], **override)
        await alliance.decide(f"/v1/{loser.customer}:unmerge")
        assert [await alliance.view(person) for person in people] == apart, "identical, byte by byte"

        # One record moves and takes along what hangs on it; points stay where they were earned.
        await alliance.decide(f"/v1/{loser.record}:relink", customer=winner.customer, **override)
        relinked = await alliance.view(winner)
        assert topics(relinked) == {"", "topic-1", "topic-2"}
        assert points(relinked) == 300, "the customer that has no record left was merged"
        await alliance.spend(loser, "late", 50_00)
        await platform.until_settled()
        assert points(await alliance.view(winner)) == 350

        # Erased: nothing is left that says who it was, and the ledger adds up.
        basis = {"legalBasisCode": "DATA_SUBJECT_REQUEST"}
        await gateway.post(f"/v1/{winner.customer}:erase", alliance.operator, basis)
        await platform.until_settled()
        for person in people:
            with pytest.raises(Problem) as unknown:
                await gateway.get(f"/v1/{person.customer}:view", alliance.channel)
            assert unknown.value.status == 404
        assert await left_over(platform, people) == set()
        account = await gateway.get(f"/v1/{winner.account}", alliance.operator)
        assert {balance.get("balancePoints", "0") for balance in account["balances"]} == {"0"}
        assert (await gateway.ask("/v1/invariants:verify", alliance.operator, {}))["valid"] is True


# Tombstones, and what is kept for a time to publish, repeat and replay: opaque ids only.
KEPT = {"record_links", "customer_states", "outbox", "inbox", "idempotency", "dead_letters"}


async def left_over(platform: Platform, people: tuple[Person, ...]) -> set[str]:
    """Tables of the services that follow in which a customer or record still stands."""
    ids = [name.rpartition("/")[2] for person in people for name in (person.customer, person.record)]
    found_in = set()
    for service in ("rating", "campaign", "contact", "loyalty"):
        tables = await platform.query(service, "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
        for table in {row["name"] for row in tables} - KEPT:
            statement = f'SELECT count(*) AS count FROM "{table}" t WHERE t::text ~ $1'
            if (await platform.query(service, statement, "|".join(ids)))[0]["count"]:
                found_in.add(f"{service}.{table}")
    return found_in
