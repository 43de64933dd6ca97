"""kill -9 of the customer master while a survivorship policy is tried, activated, and followed by what was published.

Nothing is lost: the dry run counts every customer once, the activation happens once, and every customer whose public state the
policy changes is published again, exactly once.
"""

import asyncio
import random
from typing import Any

import httpx
import pytest
from alliance import record, until
from running import Platform

from concord_local import tokens
from concord_local.api import Gateway, Problem
from concord_local.stack import AUDIENCE

pytestmark = pytest.mark.faults
Json = dict[str, Any]

PEOPLE_COUNT = 600
BATCH_ITEMS = 300


def token(platform: Platform, subject: str) -> str:
    """An operator who may draft and approve."""
    stack = platform.stack
    key = tokens.signing_key(stack.state.private_key("issuer"))
    scopes = ("policy.read", "policy.write", "policy.approve", "institution.write")
    return tokens.access_token(key, stack.issuer_url, AUDIENCE, tokens.Caller("operator", "faults", subject, None, scopes))


def letters(number: int) -> str:
    """A word without digits for each number, unlike that of its neighbours."""
    chance = random.Random(number)
    return "".join(chance.choice("bcdfghjklmnprstvz") + chance.choice("aeiou") for _ in range(5))


async def people(gateway: Gateway, bank: str) -> None:
    """Each person from two sources: the core system is believed first, and the shop tells another province."""
    channel = gateway.token("channel", bank)
    for system, province in (("core", "Praha"), ("web", "Brno")):
        records = []
        for number in range(PEOPLE_COUNT):
            born = f"{1940 + number % 60}-{1 + number % 12:02}-{1 + number % 28:02}"
            passport = {"scheme": "IDENTIFIER_SCHEME_PASSPORT", "countryCode": "CZ", "value": f"{number + 40_000_000}"}
            name = {"fullName": f"{letters(number)} {letters(number + 10**6)}"}
            address = {"administrativeArea": province, "countryCode": "CZ"}
            party = {"birthDate": born, "identifiers": [passport], "partyName": name, "postalAddress": address}
            records.append(record(f"p{number}", "2026-01-01T00:00:00Z", **party)["sourceRecord"])
        path = f"/v1/institutions/{bank}/sourceSystems/{system}/records:batchIngest"
        for first in range(0, PEOPLE_COUNT, BATCH_ITEMS):
            await gateway.post(path, channel, {"sourceRecords": records[first : first + BATCH_ITEMS]})


async def read(gateway: Gateway, path: str, bearer: str) -> Json:
    """Reads through restarts."""
    while True:
        try:
            return await gateway.get(path, bearer)
        except (Problem, httpx.TransportError):
            await asyncio.sleep(0.2)


async def job(platform: Platform, kind: int) -> Json:
    """The last job of a kind, as it is committed."""
    statement = "SELECT * FROM survivorship_jobs WHERE kind = $1 ORDER BY job_id DESC LIMIT 1"
    rows = await platform.query("customer", statement, kind)
    return dict(rows[0]) if rows else {}


async def kill_at_work(platform: Platform, kind: int) -> None:
    """Kills the service when a job has begun and is not finished, if that can be seen; else just so."""
    for _ in range(400):
        found = await job(platform, kind)
        if found and (found["finish_time"] is not None or found["customers_done_count"]):
            break
        await asyncio.sleep(0.02)
    platform.kill("customer")
    await platform.until_well()


@pytest.mark.timeout(180)
async def test_a_policy_is_tried_activated_and_followed_through_kills(platform: Platform) -> None:
    async with platform.gateway() as gateway:
        bank = f"policy-{random.SystemRandom().randrange(10**6)}"
        operator, ann, bob = gateway.token("operator"), token(platform, "ann"), token(platform, "bob")
        body: Json = {"displayName": "b", "kind": "INSTITUTION_KIND_BANK", "timeZone": "UTC", "countryCode": "CZ"}
        await gateway.post("/v1/institutions", operator, body, institution_id=bank)
        for system, rank in (("core", 1), ("web", 9)):
            shown = {"displayName": system, "defaultRank": rank}
            await gateway.post(f"/v1/institutions/{bank}/sourceSystems", operator, shown, source_system_id=system)
        await people(gateway, bank)
        [[total]] = await platform.query("customer", "SELECT count(*) FROM customers")

        standard = (await gateway.get("/v1/survivorshipPolicies/current", ann))["standard"]
        standard["sourceTrusts"] = [{"sourceSystem": f"institutions/{bank}/sourceSystems/web", "trustPoints": 100}]
        standard["rankTrust"]["trustPointsMax"] = 99
        draft = await gateway.post("/v1/survivorshipPolicies", ann, standard)
        run = await gateway.post(f"/v1/{draft['name']}:dryRun", ann, {})
        await kill_at_work(platform, kind=1)
        run = await until(
            lambda: read(gateway, f"/v1/{run['name']}", ann), lambda one: one["state"] == "POLICY_JOB_STATE_SUCCEEDED", 60
        )
        assert (int(run["customersDoneCount"]), int(run["customersChangedCount"])) == (total, PEOPLE_COUNT)

        activation = gateway.post(f"/v1/{draft['name']}:activate", bob, {}, f"{bank}-activate", draft["etag"])
        asked = asyncio.create_task(activation)
        platform.kill("customer")
        await asked
        await kill_at_work(platform, kind=3)
        await until(lambda: read(gateway, f"/v1/{draft['name']}", ann), lambda one: one.get("sweepPercent") == 100, 60)
        await platform.until_settled()

        versions = await platform.query(
            "customer",
            "SELECT c.version, (SELECT count(*) FROM outbox o WHERE o.aggregate_id = c.customer_id::text"
            " AND o.type = 'concord.customer.v1.customer.updated') AS published"
            " FROM customers c"
            " WHERE EXISTS (SELECT FROM records r WHERE r.customer_id = c.customer_id AND r.institution_id = $1)",
            bank,
        )
        assert [tuple(row) for row in versions] == [(3, 3)] * PEOPLE_COUNT  # two records, one policy
        known = await platform.query(
            "campaign",
            "SELECT DISTINCT administrative_area FROM profiles JOIN record_links USING (customer_id) WHERE institution_id = $1",
            bank,
        )
        assert [row[0] for row in known] == ["Brno"]
