"""Small alliances for the system tests, founded over HTTP."""

import asyncio
import time
from typing import Any

from concord_local.api import Gateway, patiently

Json = dict[str, Any]


async def found(gateway: Gateway, bank: str, shop: str, program: str) -> None:
    """A bank with two source systems, a shop with one, a programme that gives a point for each crown spent on groceries."""
    operator = gateway.token("operator")
    for institution, kind in ((bank, "BANK"), (shop, "RETAILER")):
        body: Json = {
            "displayName": institution,
            "kind": f"INSTITUTION_KIND_{kind}",
            "timeZone": "Europe/Prague",
            "countryCode": "CZ",
        }
        await gateway.post("/v1/institutions", operator, body, institution_id=institution)
    for institution, system, rank in ((bank, "core", 10), (bank, "web", 20), (shop, "till", 30)):
        body = {"displayName": system, "defaultRank": rank}
        await gateway.post(f"/v1/institutions/{institution}/sourceSystems", operator, body, source_system_id=system)
    body = {"institution": f"institutions/{bank}", "displayName": "Points"}
    await patiently(lambda: gateway.post("/v1/programs", operator, body, program_id=program))
    rule = {
        "currencyCode": "CZK",
        "categories": ["grocery"],
        "direction": "EARN_DIRECTION_SPENT",
        "pointsNumerator": "1",
        "pointsDenominator": "100",
        "pointsMax": "1000000",
        "effectiveTime": "2020-01-01T00:00:00Z",
    }
    await gateway.post(f"/v1/programs/{program}/earnRules/groceries/versions", operator, rule)


def record(key: str, observed: str, **party: Any) -> Json:
    """A source record of a person."""
    return {
        "sourceRecord": {"sourceRecordKey": key, "observeTime": observed, "party": {"partyKind": "PARTY_KIND_PERSON", **party}}
    }


async def until(read: Any, is_right: Any, seconds_max: float = 20.0) -> Any:
    """Reads until the answer is right; what is asked for arrives by event."""
    deadline = time.monotonic() + seconds_max
    while True:
        answer = await read()
        if is_right(answer) or time.monotonic() > deadline:
            assert is_right(answer), answer
            return answer
        await asyncio.sleep(0.1)
