"""kill -9 in the middle of a bulk import: it goes on where it was, and takes no row twice."""

import asyncio
import csv
from pathlib import Path

import pytest
from alliance import found
from running import COMMAND, Platform

pytestmark = pytest.mark.faults

ROWS, BAD_EVERY, KILLS = 7_000, 1_000, 2
COLUMNS = ("Client no", "full_name", "birth_date", "passport", "phone", "locality")


def write(file: Path) -> None:
    """People; every thousandth has an impossible date."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(COLUMNS)
        for number in range(1, ROWS + 1):
            born = f"{1930 + number % 70}-{1 + number % 12:02d}-{1 + number % 28:02d}" if number % BAD_EVERY else "31.2.1990"
            name = f"{chr(65 + number % 26)}{number * 7919 % 100_003:x} Z{number * 104_729 % 1_000_003:x}"
            writer.writerow((f"c-{number}", name, born, f"P{number:07d}", f"+420602{number:06d}", f"Town {number % 977}"))


@pytest.mark.timeout(240)
async def test_an_import_survives_kills(platform: Platform, tmp_path: Path) -> None:
    async with platform.gateway() as gateway:
        await found(gateway, "import-bank", "import-shop", "import-points")
    file = tmp_path / "clients.csv"
    write(file)
    command = ("load", "customers", str(file), "--institution", "import-bank", "--source-system", "core", "--country", "CZ")
    refused = platform.run(*command, check=False)
    assert refused.returncode != 0
    assert "Client no" in refused.stdout + refused.stderr
    command += ("--map", "Client no=source_record_key")  # type: ignore[assignment]
    loading = await asyncio.create_subprocess_exec(
        COMMAND, *command, env=platform.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    kills = 0
    for _ in range(KILLS):
        before = await rows_read(platform)
        while loading.returncode is None and await rows_read(platform) <= before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if loading.returncode is None:
            platform.kill("customer")
            kills += 1
    output = (await asyncio.wait_for(loading.communicate(), 180))[0].decode()
    assert kills >= 2, f"the import was over before the kills: {output}"
    assert loading.returncode == 1, output
    bad = ROWS // BAD_EVERY
    again = platform.run(*command, check=False)
    assert "was loaded before" in again.stdout
    assert outcomes(again.stdout) == [f"{ROWS:,}", f"{ROWS - bad:,}", "0", "0", "0", str(bad)]
    with (tmp_path / "clients.csv.rejections.csv").open() as opened:
        rejected = list(csv.DictReader(opened))
    assert [(row["row"], row["source_record_key"], row["rule"]) for row in rejected] == [
        (str(number), f"c-{number}", "DATE_INVALID") for number in range(BAD_EVERY, ROWS + 1, BAD_EVERY)
    ]
    mine = "institution_id = 'import-bank'"
    for table in ("records", "source_records"):
        stored = await platform.query("customer", f"SELECT count(*) FROM {table} WHERE {mine}")
        assert stored[0][0] == ROWS - bad, table
    assert (await platform.query("customer", "SELECT count(*) FROM import_parts"))[0][0] == 0
    third = platform.run(*command, "--again", check=False)
    assert outcomes(third.stdout) == [f"{ROWS:,}", "0", "0", f"{ROWS - bad:,}", "0", str(bad)]


def outcomes(printed: str) -> list[str]:
    """Rows, created, updated, unchanged, stale and rejected, as the command shows them."""
    line = next(line for line in printed.splitlines() if f"{ROWS:,}" in line and "│" in line)
    return [cell.strip() for cell in line.strip("│ ").split("│")][:6]


async def rows_read(platform: Platform) -> int:
    """Rows of the imports so far."""
    return int((await platform.query("customer", "SELECT coalesce(sum(rows_read_count), 0) FROM imports"))[0][0])
