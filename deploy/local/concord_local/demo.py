"""`concord demo`: an alliance of a bank, a broker, an insurer and a retailer, and a year of what their customers do."""

import asyncio
import os
import random
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from concord_local import population
from concord_local.api import Display, Gateway, Outcomes, Problem, operations_count, patiently, until_still
from concord_local.population import BANK, CURRENCY, RETAILER, SYSTEM, Person
from concord_local.system import Trouble

PEOPLE_COUNT = 2_000
REDEMPTIONS_COUNT = 300
PERMITTED_SHARE = 0.8
PROGRAM = "harbour-points"
INSTITUTIONS = {
    BANK: ("Harbour Bank", "INSTITUTION_KIND_BANK"),
    population.BROKER: ("Summit Broker", "INSTITUTION_KIND_BROKER"),
    population.INSURER: ("Evergreen Insurance", "INSTITUTION_KIND_INSURER"),
    RETAILER: ("Corner Retail", "INSTITUTION_KIND_RETAILER"),
}
# The bank is believed most for names and documents, the retailer for phones: it delivers.
RANKS = {BANK: (10, {}), population.INSURER: (20, {}), population.BROKER: (30, {}), RETAILER: (40, {"ATTRIBUTE_PHONE": 5})}
CAMPAIGN_NAME = "Autumn deposit"
CAMPAIGN_SECONDS_MAX = 90.0

console = Console(highlight=False)
Json = dict[str, Any]


@click.command()
@click.option("--people", "people_count", default=PEOPLE_COUNT, show_default=True, type=click.IntRange(10, 100_000), help="How many people.")  # fmt: skip # noqa: E501
def demo(people_count: int) -> None:
    """Load a demonstration alliance through the gateway, and show what happened.

    \b
    A bank, a broker, an insurer and a retailer with 2,000 generated people (a fixed seed: always the same ones), a year of
    activities, points earned on spending, a campaign under the contact policy, and points redeemed at the retailer.
    Loading it twice changes nothing more: what is known is recognised.
    """
    try:
        asyncio.run(_demo(people_count))
    except Problem as problem:
        raise Trouble(str(problem)) from problem


async def _demo(people_count: int) -> None:
    began = time.monotonic()
    everybody = population.people(people_count)
    display = Display()
    async with Gateway.of_running_platform() as gateway:
        with display.progress:
            await _found_alliance(gateway)
            records, customers = await _ingest(gateway, everybody, display)
            of_bank = sorted({customer for (institution, _), customer in customers.items() if institution == BANK})
            accounts = await _open_accounts(gateway, of_bank, display)
            activities = await _record_activities(gateway, everybody, display)
            operations = await until_still(lambda: operations_count(gateway), display.step("points earned", None))
            campaign = await _run_campaign(gateway, of_bank, display)
            redeemed = await _redeem(gateway, accounts, display)
        ledger = await gateway.ask("/v1/invariants:verify", gateway.token("operator"), {})
        table = Table(title=f"The alliance after {time.monotonic() - began:.0f} s", show_header=False, title_justify="left")
        for label, value in (
            ("institutions", str(len(INSTITUTIONS))),
            ("people, source records", f"{people_count:,}, {sum(len(p.institutions) for p in everybody):,}  {_counts(records)}"),
            ("golden customers", f"{len(set(customers.values())):,}"),
            ("activities", _counts(activities)),
            ("points operations (earned before the redemptions)", f"{operations:,}"),
            (f"campaign “{CAMPAIGN_NAME}”", _campaign_line(campaign)),
            ("redeemed at the retailer", f"{redeemed['posted']:,} of {redeemed['asked']:,} ({redeemed['points']:,} points)"),
            (
                "ledger",
                f"{ledger.get('entriesCount', 0)} entries, {'all invariants hold' if ledger.get('valid') else 'BROKEN'}",
            ),
        ):
            table.add_row(label, value)
        console.print(table)
        _say_what_next(gateway, next(iter(accounts)), next(iter(accounts.values())), str(campaign["name"]))
    if not ledger.get("valid") or records.refused or activities.refused:
        for key, error in (records.refused + activities.refused)[:10]:
            console.print(f"refused: item {key}: {error}", style="red", markup=False)
        sys.exit(1)


async def _found_alliance(gateway: Gateway) -> None:
    operator = gateway.token("operator")
    for institution, (display_name, kind) in INSTITUTIONS.items():
        body = {"displayName": display_name, "kind": kind, "timeZone": "Asia/Shanghai", "countryCode": "CN"}
        await gateway.create("/v1/institutions", operator, body, institution_id=institution)
        rank, attribute_ranks = RANKS[institution]
        source: Json = {"displayName": f"{display_name} {SYSTEM[institution]}", "defaultRank": rank}
        source["attributeRanks"] = [{"attribute": name, "rank": better} for name, better in attribute_ranks.items()]
        parent = f"/v1/institutions/{institution}/sourceSystems"
        await gateway.create(parent, operator, source, source_system_id=SYSTEM[institution])
    await gateway.create(
        "/v1/programs", operator, {"institution": f"institutions/{BANK}", "displayName": "Harbour Points"}, program_id=PROGRAM
    )
    rules = f"/v1/programs/{PROGRAM}/earnRules/card-spending/versions"
    if not (await gateway.get(rules, operator)).get("earnRuleVersions"):
        rule = {
            "currencyCode": CURRENCY,
            "categories": ["grocery"],
            "direction": "EARN_DIRECTION_SPENT",
            "pointsNumerator": "1",
            "pointsDenominator": "100",
            "pointsMax": "100000",
            "effectiveTime": "2020-01-01T00:00:00Z",
        }
        await gateway.post(rules, operator, rule)


async def _ingest(gateway: Gateway, everybody: list[Person], display: Display) -> tuple[Outcomes, dict[tuple[str, int], str]]:
    """Sends every record and holding; answers the outcomes, and the customer of each institution's each person."""
    outcomes, customers = Outcomes(), dict[tuple[str, int], str]()
    total = sum(len(person.institutions) for person in everybody)
    records, holdings = display.step("records", total), display.step("holdings", total)
    for institution in INSTITUTIONS:
        known = [person for person in everybody if institution in person.institutions]
        source = f"/v1/institutions/{institution}/sourceSystems/{SYSTEM[institution]}"
        token = gateway.token("channel", institution)
        items = [population.record(person, institution) for person in known]
        results = await gateway.post_batches(f"{source}/records:batchIngest", token, "sourceRecords", items, "sourceRecordKey", records, outcomes)  # fmt: skip # noqa: E501
        for person, result in zip(known, results, strict=True):
            customers[institution, person.number] = result["customer"]
        items = [population.holding(person, institution) for person in known]
        await gateway.post_batches(f"{source}/holdings:batchUpsert", token, "sourceHoldings", items, "sourceHoldingKey", holdings, Outcomes())  # fmt: skip # noqa: E501
    return outcomes, customers


async def _open_accounts(gateway: Gateway, customers: list[str], display: Display) -> dict[str, str]:
    """Opens a points account for each customer of the bank; answers account by customer."""
    token, task = gateway.token("channel", BANK), display.step("points accounts", len(customers))

    async def open_one(customer: str) -> str:
        account = await patiently(lambda: _account(gateway, token, customer), seconds_max=60.0)
        if account is None:
            raise Trouble(f"{customer} is still unknown to loyalty after a minute: see `concord status`")
        task.advance()
        return str(account)

    return dict(zip(customers, await asyncio.gather(*map(open_one, customers)), strict=True))


async def _account(gateway: Gateway, token: str, customer: str) -> str:
    body = {"customer": customer, "institutions": [f"institutions/{BANK}"]}
    return str((await gateway.post("/v1/accounts:open", token, body))["name"])


async def _record_activities(gateway: Gateway, everybody: list[Person], display: Display) -> Outcomes:
    outcomes, task = Outcomes(), display.step("activities", None)
    by_institution = {
        institution: [item for p in everybody if institution in p.institutions for item in population.activities(p, institution)]
        for institution in INSTITUTIONS
    }
    task.total(sum(map(len, by_institution.values())))
    for institution, items in by_institution.items():
        token = gateway.token("channel", institution)
        await gateway.post_batches("/v1/activities:record", token, "activities", items, "sourceActivityKey", task, outcomes)
    return outcomes


async def _run_campaign(gateway: Gateway, customers: list[str], display: Display) -> Json:
    """Permissions, offer, campaign, launch, and what came of it."""
    staff, channel = gateway.token("staff", BANK), gateway.token("channel", BANK)
    parent = f"/v1/institutions/{BANK}"
    chance = random.Random(population.SEED)
    permissions = [
        {
            "customer": customer,
            "channel": "CHANNEL_INBOX",
            "purpose": "CONTACT_PURPOSE_MARKETING",
            "state": "PERMISSION_STATE_GRANTED" if chance.random() < PERMITTED_SHARE else "PERMISSION_STATE_DENIED",
            "stateTime": "2025-10-01T00:00:00Z",
            "evidenceReference": "branch-form-7",
        }
        for customer in customers
    ]
    task = display.step("permissions", len(permissions))
    path = f"{parent}/permissions:batchSet"
    await gateway.post_batches(path, channel, "permissions", permissions, "customer", task, Outcomes())
    text = "Open an autumn deposit in the app by 30 November."
    offer = {"displayName": CAMPAIGN_NAME, "title": "3.1 % for twelve months", "body": text}
    await gateway.create(f"{parent}/offers", staff, offer, offer_id="autumn-deposit")
    campaign = await _campaign(gateway, staff, parent)
    task = display.step("campaign: audience", None)
    await until_still(lambda: _matching(gateway, staff, campaign["name"]), task)
    if campaign["state"] == "CAMPAIGN_STATE_DRAFT":
        await gateway.post(f"/v1/{campaign['name']}:launch", staff, {})
    task = display.step("campaign: touches", None)
    deadline = time.monotonic() + CAMPAIGN_SECONDS_MAX
    while time.monotonic() < deadline and campaign["state"] != "CAMPAIGN_STATE_FINISHED":
        await asyncio.sleep(0.3)
        campaign = await gateway.get(f"/v1/{campaign['name']}", staff)
    metrics = await gateway.get(f"/v1/{campaign['name']}:metrics", staff)
    task.total(int(metrics.get("membersCount", 0)))
    task.advance(int(metrics.get("membersCount", 0)))
    return metrics


async def _campaign(gateway: Gateway, staff: str, parent: str) -> Json:
    """The campaign of an earlier run, or a new draft."""
    for campaign in (await gateway.get(f"{parent}/campaigns", staff)).get("campaigns", []):
        if campaign["displayName"] == CAMPAIGN_NAME:
            return dict(campaign)
    levels = [f"CUSTOMER_LEVEL_{level}" for level in ("SILVER", "GOLD", "PLATINUM")]
    good = [
        {"field": "AUDIENCE_FIELD_CUSTOMER_LEVEL", "operator": "AUDIENCE_OPERATOR_ONE_OF", "texts": levels},
        {
            "field": "AUDIENCE_FIELD_POINTS_BALANCE",
            "fieldKey": PROGRAM,
            "operator": "AUDIENCE_OPERATOR_AT_LEAST",
            "number": 5_000,
        },
    ]
    adult = [{"field": "AUDIENCE_FIELD_BIRTH_YEAR", "operator": "AUDIENCE_OPERATOR_LESS_THAN", "number": 2004}]
    draft = {
        "displayName": CAMPAIGN_NAME,
        "offer": f"institutions/{BANK}/offers/autumn-deposit",
        "channel": "CHANNEL_INBOX",
        "audienceRule": {"allOf": [{"anyOf": good}, {"anyOf": adult}]},
    }
    return await gateway.post(f"{parent}/campaigns", staff, draft)


async def _matching(gateway: Gateway, staff: str, campaign: str) -> int:
    return int((await gateway.get(f"/v1/{campaign}:previewAudience", staff)).get("matchingCount", 0))


async def _redeem(gateway: Gateway, accounts: dict[str, str], display: Display) -> dict[str, int]:
    """The first customers spend points at the retailer; each once, whenever this runs."""
    token, chance = gateway.token("channel", BANK), random.Random(population.SEED)
    chosen = sorted(accounts.values())[:REDEMPTIONS_COUNT]
    task, done = display.step("redemptions", len(chosen)), {"asked": len(chosen), "posted": 0, "points": 0}

    async def redeem(account: str, points: int) -> None:
        body = {
            "program": f"programs/{PROGRAM}",
            "amountPoints": str(points),
            "institution": f"institutions/{RETAILER}",
            "reference": "till 4",
        }
        try:
            await gateway.post(f"/v1/{account}:redeem", token, body, request_id=f"demo-redeem-{account}")
            done["posted"] += 1
            done["points"] += points
        except Problem as problem:
            if problem.body.get("reason") != "INSUFFICIENT_POINTS":
                raise
        task.advance()

    await asyncio.gather(*(redeem(account, chance.randrange(100, 4_000)) for account in chosen))
    return done


def _counts(outcomes: Outcomes) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.counts.items()))


def _campaign_line(metrics: Json) -> str:
    refused = ", ".join(f"{item['reason']} {int(item['count']):,}" for item in metrics.get("refusedCounts", []))
    members, planned, delivered = (int(metrics.get(f"{name}Count", 0)) for name in ("members", "planned", "delivered"))
    return f"{members:,} members, {planned:,} planned, {delivered:,} delivered" + (f"; refused: {refused}" if refused else "")


def _say_what_next(gateway: Gateway, customer: str, account: str, campaign: str) -> None:
    """Commands to paste, as they stand."""
    concord = os.path.relpath(sys.argv[0]) if os.sep in sys.argv[0] else sys.argv[0]
    now = datetime.now(UTC).strftime("%H%M%S")
    json = "-H 'Content-Type: application/json'"
    spend = f'{{"program":"programs/{PROGRAM}","amountPoints":"10","institution":"institutions/{RETAILER}"}}'
    console.print("\n[bold]Go on by hand[/] (paste as it stands):\n")
    for line in (
        f"BANK=$({concord} token --institution {BANK}); STAFF=$({concord} token --institution {BANK} --kind staff)",
        f'curl -s -H "Authorization: Bearer $BANK" {gateway.url}/v1/{customer}:view',
        f'curl -s -H "Authorization: Bearer $STAFF" {gateway.url}/v1/{customer}/ratings/alliance:explain',
        f'curl -s -H "Authorization: Bearer $STAFF" {gateway.url}/v1/{campaign}:metrics',
        f"curl -s -H \"Authorization: Bearer $BANK\" -H 'Idempotency-Key: by-hand-{now}' {json} -d '{spend}' "
        f"{gateway.url}/v1/{account}:redeem",
        f'curl -s -H "Authorization: Bearer $BANK" {gateway.url}/v1/{account}/statement',
    ):
        click.echo(line)
    click.echo(f"\nThe API, to read and to try: {gateway.url}/docs")
