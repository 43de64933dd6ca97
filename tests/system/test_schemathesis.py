"""schemathesis over the whole platform: what the published document promises holds behind the gateway too.

A request that obeys the document may still break a rule that no schema can state (a forged page token, a key used for another
request, a time zone that does not exist): 400, 409, 412 and 422 are right answers to such. All else it checks must hold.
"""

from pathlib import Path

import pytest
from running import Platform

from gateway import contracts
from gateway.testing import schemathesis, shared_out

pytestmark = pytest.mark.system

KINDS = ("operator", "staff", "channel")
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "412", "422"]
"""


async def finds_nothing(platform: Platform, folder: Path, kind: str, *options: str) -> None:
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    async with platform.gateway() as gateway:
        institution = None if kind == "operator" else "fuzzed-bank"
        if institution:
            await gateway.create(
                "/v1/institutions",
                gateway.token("operator"),
                {"displayName": "f", "kind": "INSTITUTION_KIND_BANK", "timeZone": "UTC", "countryCode": "CZ"},
                institution_id=institution,
            )
        done = schemathesis(gateway.url, gateway.token(kind, institution), folder, *options)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
async def test_fuzzing_finds_nothing(platform: Platform, tmp_path: Path, kind: str) -> None:
    its_share = f"--include-operation-id-regex={shared_out(contracts.installed(), KINDS)[kind]}"
    await finds_nothing(platform, tmp_path, kind, its_share, "--phases=fuzzing", "--max-examples=5", "--seed=20261123")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
async def test_coverage_and_long_fuzzing_find_nothing(platform: Platform, tmp_path: Path, kind: str) -> None:
    await finds_nothing(platform, tmp_path, kind, "--phases=coverage,fuzzing", "--max-examples=50")
