"""`concord load berka DIR`: a real bank's customers (PKDD'99 challenge, P. Berka and M. Sochorova) through the gateway."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from concord_local.api import Display, Gateway, Problem, operations_count, patiently, until_still
from concord_local.berka_tables import BANK, PRAGUE, SOURCE, Bank, read
from concord_local.system import Trouble

PARTNER = "berka-partner"
PROGRAM = "berka-points"
REDEMPTIONS_COUNT = 100
SHOWN_PROBLEMS_MAX = 20

Json = dict[str, Any]
console = Console(highlight=False)


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--offset-years", default=0, show_default=True, type=click.IntRange(-50, 50), help="Move every date of every table by so many years.")  # fmt: skip # noqa: E501
def berka(directory: Path, offset_years: int) -> None:
    """Load the Berka data set (PKDD'99): clients, accounts, dispositions, cards, loans, orders, transactions.

    \b
    DIR holds account.asc, card.asc, client.asc, disp.asc, district.asc, loan.asc, order.asc and, for transactions, trans.asc
    (the original format, when you have the full table) or trnx_1993_shifted_to_2016.csv. That English file is 23 years late:
    its dates are moved back, so that all tables agree; --offset-years moves all of them.
    trans_sample100.asc is a sample of the format: it repeats ids of 1993 and is not loaded.

    A malformed row is named with file, line, field and rule, and skipped; the rest goes in. Load it again whenever you like:
    what is known is recognised, and what was interrupted goes on. Exit status: 0 all rows went in, 1 some did not.
    """
    bank = read(directory, offset_years)
    try:
        asyncio.run(_load(bank))
    except Problem as problem:
        raise Trouble(str(problem)) from problem
    _report(bank)


async def _load(bank: Bank) -> None:
    display = Display()
    source = f"/v1/institutions/{BANK}/sourceSystems/{SOURCE}"
    async with Gateway.of_running_platform() as gateway:
        with display.progress:
            await _found_bank(gateway)
            token = gateway.token("channel", BANK)
            clients = bank.tallies["client.asc"].outcomes
            task = display.step("clients", len(bank.records))
            results = await gateway.post_batches(f"{source}/records:batchIngest", token, "sourceRecords", bank.records, "sourceRecordKey", task, clients)  # fmt: skip # noqa: E501
            for file, holdings in bank.holdings.items():
                task = display.step(file.removesuffix(".asc"), len(holdings))
                await gateway.post_batches(f"{source}/holdings:batchUpsert", token, "sourceHoldings", holdings, "sourceHoldingKey", task, bank.tallies[file].outcomes)  # fmt: skip # noqa: E501
            accounts = await _open_accounts(gateway, token, [str(result["customer"]) for result in results if result.get("customer")], display)  # fmt: skip # noqa: E501
            file = next((name for name in bank.tallies if name.startswith("tr")), "")
            if file:
                task = display.step("transactions", len(bank.activities))
                await gateway.post_batches("/v1/activities:record", token, "activities", bank.activities, "sourceActivityKey", task, bank.tallies[file].outcomes)  # fmt: skip # noqa: E501
            operations = await until_still(lambda: operations_count(gateway), display.step("points earned", None))
            await _redeem(gateway, token, accounts, display)
        console.print(f"points operations in the ledger: {operations:,}")


async def _found_bank(gateway: Gateway) -> None:
    operator = gateway.token("operator")
    for institution, name, kind in ((BANK, "Berka's bank", "BANK"), (PARTNER, "Berka's partner", "RETAILER")):
        body = {"displayName": name, "kind": f"INSTITUTION_KIND_{kind}", "timeZone": PRAGUE.key, "countryCode": "CZ"}
        await gateway.create("/v1/institutions", operator, body, institution_id=institution)
    source = {"displayName": "Core banking", "defaultRank": 10}
    await gateway.create(f"/v1/institutions/{BANK}/sourceSystems", operator, source, source_system_id=SOURCE)
    program = {"institution": f"institutions/{BANK}", "displayName": "Berka points"}
    await gateway.create("/v1/programs", operator, program, program_id=PROGRAM)
    rules = f"/v1/programs/{PROGRAM}/earnRules/household/versions"
    if not (await gateway.get(rules, operator)).get("earnRuleVersions"):
        rule = {"currencyCode": "CZK", "categories": ["household", "insurance"], "direction": "EARN_DIRECTION_SPENT"}
        rates = {"pointsNumerator": "1", "pointsDenominator": "1000", "pointsMax": "10000"}
        await gateway.post(rules, operator, {**rule, **rates, "effectiveTime": "1900-01-01T00:00:00Z"})


async def _open_accounts(gateway: Gateway, token: str, customers: list[str], display: Display) -> list[str]:
    task = display.step("points accounts", len(customers))

    async def open_one(customer: str) -> str:
        body = {"customer": customer, "institutions": [f"institutions/{BANK}"]}
        account = await patiently(lambda: gateway.post("/v1/accounts:open", token, body), seconds_max=60.0)
        if account is None:
            raise Trouble(f"{customer} is still unknown to loyalty after a minute: see `concord status`")
        task.advance()
        return str(account["name"])

    return list(await asyncio.gather(*(open_one(customer) for customer in customers)))


async def _redeem(gateway: Gateway, token: str, accounts: list[str], display: Display) -> None:
    """A hundred customers spend ten points at the partner, once; one who has none is refused, which is stored too."""
    chosen = sorted(accounts)[:REDEMPTIONS_COUNT]
    task = display.step("redemptions", len(chosen))
    body = {"program": f"programs/{PROGRAM}", "amountPoints": "10", "institution": f"institutions/{PARTNER}"}

    async def redeem(account: str) -> None:
        try:
            await gateway.post(f"/v1/{account}:redeem", token, body, request_id=f"berka-redeem-{account}")
        except Problem as problem:
            if problem.body.get("reason") != "INSUFFICIENT_POINTS":
                raise
        task.advance()

    await asyncio.gather(*(redeem(account) for account in chosen))


def _report(bank: Bank) -> None:
    table = Table(title=f"Berka at {time.strftime('%H:%M:%S')}, dates moved by {bank.offset_years} years", title_justify="left")
    for heading in ("file", "rows", "created", "updated", "unchanged", "refused", "malformed"):
        table.add_column(heading, justify="left" if heading == "file" else "right")
    for tally in bank.tallies.values():
        counts = tally.outcomes.counts
        cells = (counts.get(name, 0) for name in ("created", "updated", "unchanged", "rejected"))
        table.add_row(tally.file, f"{tally.read:,}", *(f"{cell:,}" for cell in cells), f"{len(tally.malformed):,}")
    console.print(table)
    problems = [line for tally in bank.tallies.values() for line in tally.problems()]
    for line in problems[:SHOWN_PROBLEMS_MAX]:
        console.print(line, style="red", markup=False, soft_wrap=True)
    if len(problems) > SHOWN_PROBLEMS_MAX:
        console.print(f"… and {len(problems) - SHOWN_PROBLEMS_MAX} more", style="red")
    if problems:
        sys.exit(1)
