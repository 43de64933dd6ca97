"""The demonstration and the loader as people use them: run twice, paste what is printed, feed a bad row."""

import subprocess
from pathlib import Path

import pytest
from running import COMMAND, Platform

pytestmark = pytest.mark.system
SECONDS_MAX = 300


@pytest.mark.timeout(SECONDS_MAX)
def test_demo_twice_and_every_printed_command_works(platform: Platform) -> None:
    first = platform.run("demo", "--people", "60")
    assert "all invariants hold" in first.stdout
    again = platform.run("demo", "--people", "60")
    assert " created" not in again.stdout.split("records:")[-1].split("activities")[0].replace("0 created", "")
    lines = [line for line in again.stdout.splitlines() if line.startswith(("BANK=", "curl "))]
    assert len(lines) >= 6
    script = "set -e\n" + "\n".join(line.replace("curl -s", "curl -sS --fail-with-body") for line in lines)
    pasted = subprocess.run(
        ["bash", "-c", script], env={**platform.environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert pasted.returncode == 0, pasted.stdout + pasted.stderr


@pytest.mark.timeout(SECONDS_MAX)
def test_berka_twice_gives_the_same_and_a_bad_row_is_named(platform: Platform, tmp_path: Path) -> None:
    tables = {
        "district.asc": ["A1;A2;A3", '1;"Praha";"Prague"'],
        "client.asc": ['"client_id";"birth_number";"district_id"', '1;"706213";1', '2;"450204";1', '3;"999999";1'],
        "account.asc": ['"account_id";"district_id";"frequency";"date"', '1;1;"POPLATEK MESICNE";930101'],
        "disp.asc": ['"disp_id";"client_id";"account_id";"type"', '1;1;1;"OWNER"', '2;2;1;"DISPONENT"'],
        "card.asc": ['"card_id";"disp_id";"type";"issued"', '1;1;"gold";931107 00:00:00'],
        "loan.asc": ['"loan_id";"account_id";"date";"amount";"duration";"payments";"status"', '1;1;930705;9;12;1.00;"B"'],
        "order.asc": ['"order_id";"account_id";"bank_to";"account_to";"amount";"k_symbol"', '1;1;"YZ";"1";2.00;"SIPO"'],
        "trans.asc": [
            '"trans_id";"account_id";"date";"type";"operation";"amount";"balance";"k_symbol";"bank";"account"',
            '1;1;930101;"PRIJEM";"VKLAD";700.00;700.00;"";;',
            '2;1;930102;"VYDAJ";"PREVOD NA UCET";300.00;400.00;"SIPO";;',
        ],
    }
    for name, lines in tables.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    first = platform.run("load", "berka", str(tmp_path), check=False)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "client.asc:4: birth_number: " in first.stdout
    again = platform.run("load", "berka", str(tmp_path), check=False)
    assert again.returncode == 1
    row = next(line for line in again.stdout.splitlines() if "trans.asc" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == ["trans.asc", "2", "0", "0", "2", "0", "0"]


def test_help_teaches_and_what_is_missing_is_said(platform: Platform, tmp_path: Path) -> None:
    assert "concord up --detach" in platform.run("--help").stdout
    missing = platform.run("load", "berka", str(tmp_path), check=False)
    assert missing.returncode == 1
    assert "district.asc is missing" in missing.stderr + missing.stdout
    stranger = subprocess.run(
        [COMMAND, "demo"],
        env={**platform.environment, "CONCORD_STATE": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert stranger.returncode == 1
    assert "start it with" in stranger.stderr
