"""kill -9 in the middle of the load of a real bank's customers: all of it is there once, and the points add up."""

import asyncio
import csv
from pathlib import Path
from typing import Any

import pytest
from running import COMMAND, Platform

from concord_local import berka_tables

pytestmark = pytest.mark.faults
Json = dict[str, Any]

REAL = Path(__file__).parents[3] / "shared/data/berka"
ACCOUNTS_COUNT = 400
VICTIMS = ("customer", "nats", "loyalty", "postgres", "rating", "gateway")


def a_part(folder: Path) -> None:
    """The tables of the accounts with the lowest ids among those with transactions, and of their clients."""
    tables = {
        path.name: list(csv.reader(path.read_text().splitlines(), delimiter="," if path.suffix == ".csv" else ";"))
        for path in REAL.iterdir()
    }
    moved = tables["trnx_1993_shifted_to_2016.csv"]
    accounts = set(sorted({row[1] for row in moved[1:]}, key=int)[:ACCOUNTS_COUNT])
    holders = [row for row in tables["disp.asc"][1:] if row[2] in accounts]
    clients, dispositions = {row[1] for row in holders}, {row[0] for row in holders}
    kept = {
        "district.asc": (0, None),
        "client.asc": (0, clients),
        "account.asc": (0, accounts),
        "disp.asc": (0, dispositions),
        "card.asc": (1, dispositions),
        "loan.asc": (1, accounts),
        "order.asc": (1, accounts),
        "trnx_1993_shifted_to_2016.csv": (1, accounts),
    }
    for name, (column, wanted) in kept.items():
        header, *rows = tables[name]
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file, delimiter="," if name.endswith(".csv") else ";")
            writer.writerows([header, *(row for row in rows if wanted is None or row[column] in wanted)])


@pytest.mark.skipif(not REAL.is_dir(), reason="the Berka data is not beside the project")
@pytest.mark.timeout(300)
async def test_a_load_of_real_customers_survives_kills(platform: Platform, tmp_path: Path) -> None:
    a_part(tmp_path)
    bank = berka_tables.read(tmp_path)
    before = await counted(platform)  # other tests load small parts into the same platform
    arguments = (COMMAND, "load", "berka", str(tmp_path))
    loading = await asyncio.create_subprocess_exec(
        *arguments, env=platform.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    killed = []
    for victim in VICTIMS:
        await asyncio.sleep(1.0)
        if loading.returncode is None:
            platform.kill(victim)
            killed.append(victim)
    output = (await asyncio.wait_for(loading.communicate(), 200))[0].decode()
    assert len(killed) >= 3, "the load was over before the kills"
    assert loading.returncode == 0, output
    await platform.until_well()
    again = platform.run("load", "berka", str(tmp_path))
    row = next(line for line in again.stdout.splitlines() if "client.asc" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")][2:] == ["0", "0", str(len(bank.records)), "0", "0"]
    await platform.until_settled()

    spent = [int(item["detail"]["transaction"]["amount"]["minorUnits"]) for item in bank.activities if earns(item)]
    after = await counted(platform)
    expected = {
        "records": len(bank.records),
        "holdings": sum(map(len, bank.holdings.values())),
        "activities": len(bank.activities),
        "earned points": sum(-amount // 1_000 for amount in spent),
    }
    # Not equal to it: what other tests loaded before may be part of this load, or not.
    assert {
        name: (after[name] >= count, after[name] - before[name] <= count) for name, count in expected.items()
    } == dict.fromkeys(expected, (True, True))


async def counted(platform: Platform) -> dict[str, int]:
    """What the platform has of the bank, whoever loaded it."""
    source = "source_system_number = (SELECT source_system_number FROM source_systems WHERE institution_id = 'berka-bank')"
    earned = "SELECT coalesce(sum(amount_points), 0) FROM operations WHERE program_id = 'berka-points' AND kind = 'EARN'"
    counts = {
        table: (await platform.query("customer", f"SELECT count(*) FROM {table} WHERE {source}"))[0][0]
        for table in ("records", "holdings", "activities")
    }
    return counts | {"earned points": int((await platform.query("loyalty", earned))[0][0])}


def earns(item: Json) -> bool:
    """Whether an activity earns by the loader's rule."""
    moved = item["detail"]["transaction"]
    return moved["category"] in ("household", "insurance") and int(moved["amount"]["minorUnits"]) < 0
