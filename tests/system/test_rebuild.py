"""A projection that is emptied is filled again by its owners, and is the same; nothing that is not a projection changes."""

import importlib
import uuid
from typing import Any

import pytest
from alliance import found, record
from running import Platform

from concord_local.api import Gateway, patiently

pytestmark = pytest.mark.system

SAID = "SELECT count(*) FROM outbox"
# When a row was written or rated, and in which order, may differ.
UNSTABLE = {"update_time", "create_time", "recorded_at", "updated_at", "asked_at", "position"}


# So many that rating, if it did not rest meanwhile, would rate some from facts that are folded in part.
CUSTOMERS_COUNT = {"rating": 300}


async def small_alliance(gateway: Gateway, platform: Platform, customers_count: int) -> None:
    """Customers with activities; of five the accounts, permissions and a holding too."""
    mark = uuid.uuid4().hex[:8]
    bank, shop, program = f"bank-{mark}", f"shop-{mark}", f"points-{mark}"
    await found(gateway, bank, shop, program)
    channel, source = gateway.token("channel", bank), f"institutions/{bank}/sourceSystems/core"
    for number in range(customers_count):
        body = record(f"c-{number}", "2026-01-01T00:00:00Z", birthDate="1990-01-01", phones=[{"number": "+420601234567"}])
        customer = (await gateway.post(f"/v1/{source}/records:ingest", channel, body))["customer"]
        await gateway.post("/v1/activities:record", channel, {"activities": activities(source, number)})
        if number >= 5:
            continue
        opening = {"customer": customer, "institutions": [f"institutions/{bank}"]}
        await patiently(lambda opening=opening: gateway.post("/v1/accounts:open", channel, opening))
        permission = {
            "customer": customer,
            "channel": "CHANNEL_INBOX",
            "purpose": "CONTACT_PURPOSE_MARKETING",
            "state": "PERMISSION_STATE_GRANTED",
            "stateTime": "2026-01-01T00:00:00Z",
        }
        await gateway.post(f"/v1/institutions/{bank}/permissions:batchSet", channel, {"permissions": [permission]})
    holding = {
        "sourceHoldingKey": "h-1",
        "observeTime": "2026-01-01T00:00:00Z",
        "kind": "HOLDING_KIND_DEPOSIT",
        "openDate": "2020-01-01",
        "holders": [{"sourceRecordKey": "c-0", "role": "HOLDER_ROLE_OWNER"}],
    }
    await gateway.post(f"/v1/{source}/holdings:batchUpsert", channel, {"sourceHoldings": [holding]})
    await platform.until_settled()


def activities(source: str, number: int) -> list[dict[str, Any]]:
    """A purchase in each of four months."""
    spent = {"amount": {"currencyCode": "CZK", "minorUnits": f"-{number % 5 + 1}00000"}, "category": "grocery"}
    return [
        {
            "sourceSystem": source,
            "sourceActivityKey": f"a-{number}-{month}",
            "sourceRecordKey": f"c-{number}",
            "detail": {"occurredAt": f"2026-{month:02}-01T10:00:00Z", "transaction": spent},
        }
        for month in range(4, 8)
    ]


async def contents(platform: Platform, service: str, tables: list[str]) -> dict[str, list[Any]]:
    """Every row of the tables, without what may differ."""
    read = {}
    for table in tables:
        rows = [
            {k: v for k, v in dict(row).items() if k not in UNSTABLE}
            for row in await platform.query(service, f"SELECT * FROM {table}")
        ]
        read[table] = sorted(map(str, rows))
    return read


@pytest.mark.parametrize("service", ["rating", "campaign", "contact", "loyalty"])
async def test_an_emptied_projection_is_filled_again_by_its_owners(platform: Platform, service: str) -> None:
    definition = importlib.import_module(f"{service}.wiring").SERVICE
    housekeeping = {"outbox", "inbox", "idempotency", "dead_letters", "leases", "republish_runs"}
    housekeeping |= {"rerate_queue", "rerate_pauses"}
    everything = sorted(set(definition.metadata.tables) - housekeeping)
    async with platform.gateway() as gateway:
        await small_alliance(gateway, platform, CUSTOMERS_COUNT.get(service, 5))
    before, said = await contents(platform, service, everything), await platform.query(service, SAID)
    assert any(before[table] for table in definition.projections)
    rebuilt = platform.run("rebuild", service)
    assert rebuilt.stderr == "", "all is well, so nothing is logged between its own words"
    await platform.until_settled()
    after = await contents(platform, service, everything)
    for table in everything:
        assert after[table] == before[table], table
    if service == "rating":
        assert await platform.query(service, SAID) == said, "others are told of ratings that never were"
