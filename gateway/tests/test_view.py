"""The composed view of a customer: all parts at once, a part that fails is listed as missing."""

import asyncio
import time

import pytest

from chassis.errors import NotFound, PermissionDenied, Unavailable
from concord.customer.v1.customer_service_pb2 import Customer
from concord.loyalty.v1.account_service_pb2 import Account
from gateway import views

CUSTOMER = "0190c1c0-0000-7000-8000-000000000001"
URL = f"/v1/customers/{CUSTOMER}:view"
SCOPES = "customer.read rating.read contact.read points.read"
PATHS = {part.name: part.rpc_path for part in views.PARTS}


def bearer(stack, scope=SCOPES, **claims):
    return {"Authorization": f"Bearer {stack.issuer.token(scope=scope, **claims)}"}


def fails(error):
    def answer(_):
        raise error

    return answer


async def test_all_parts(client, stack):
    response = await client.get(URL, headers=bearer(stack))
    assert response.status_code == 200, response.text
    view = response.json()
    assert view["missing"] == []
    assert view["customer"]["name"]
    assert isinstance(view["ratings"], list)
    assert isinstance(view["contacts"], list)
    assert view["points"]["name"]
    received = {call.path: call for call in stack.backend.received}
    assert set(received) == set(PATHS.values())
    assert received[PATHS["customer"]].request.name == f"customers/{CUSTOMER}"
    assert received[PATHS["points"]].request.customer == f"customers/{CUSTOMER}"
    assert len({call.metadata["traceparent"][:35] for call in stack.backend.received}) == 1


async def test_a_merged_customer_is_asked_for_again_as_the_one_that_took_it_over(client, stack):
    winner = "customers/0190c1c0-0000-7000-8000-000000000002"
    stack.backend.answers[PATHS["customer"]] = lambda request: Customer(name=winner)
    stack.backend.answers[PATHS["points"]] = lambda request: Account(name="accounts/a", customer=request.customer)
    view = (await client.get(URL, headers=bearer(stack))).json()
    assert (view["customer"]["name"], view["points"]["customer"], view["missing"]) == (winner, winner, [])
    asked = [call for call in stack.backend.received if call.path == PATHS["ratings"]]
    assert [call.request.parent for call in asked] == [f"customers/{CUSTOMER}", winner]


@pytest.mark.parametrize("part", ["ratings", "contacts", "points", "customer"])
async def test_a_part_that_fails_is_missing(client, stack, part):
    stack.backend.answers[PATHS[part]] = fails(Unavailable("DATABASE_UNAVAILABLE", "away"))
    view = (await client.get(URL, headers=bearer(stack))).json()
    assert view["missing"] == [{"part": part, "reason": "DATABASE_UNAVAILABLE", "status": 503, "detail": "away"}]
    assert part not in view
    assert len(view) == len(views.PARTS)


async def test_the_masters_not_found_is_all_of_it(client, stack):
    stack.backend.answers[PATHS["customer"]] = fails(NotFound("CUSTOMER_NOT_FOUND", "no"))
    response = await client.get(URL, headers=bearer(stack))
    assert (response.status_code, response.json()["reason"]) == (404, "CUSTOMER_NOT_FOUND")


async def test_a_part_not_found_is_missing_with_its_reason(client, stack):
    stack.backend.answers[PATHS["points"]] = fails(NotFound("ACCOUNT_NOT_FOUND", "none"))
    stack.backend.answers[PATHS["contacts"]] = fails(PermissionDenied("CONSENT_MISSING", "no"))
    view = (await client.get(URL, headers=bearer(stack))).json()
    assert [(one["part"], one["reason"]) for one in view["missing"]] == [
        ("contacts", "CONSENT_MISSING"),
        ("points", "ACCOUNT_NOT_FOUND"),
    ]


async def test_parts_that_the_token_does_not_reach_are_not_asked_for(client, stack):
    view = (await client.get(URL, headers=bearer(stack, "customer.read"))).json()
    assert {one["part"]: one["reason"] for one in view["missing"]} == dict.fromkeys(
        ("ratings", "contacts", "points"), "SCOPE_MISSING"
    )
    assert [call.path for call in stack.backend.received] == [PATHS["customer"]]
    assert (await client.get(URL, headers=bearer(stack, "rating.read"))).status_code == 403


async def test_nothing_at_all_is_the_masters_problem(client, stack):
    for path in PATHS.values():
        stack.backend.answers[path] = fails(Unavailable("AWAY", "away"))
    response = await client.get(URL, headers=bearer(stack))
    assert (response.status_code, response.json()["reason"]) == (503, "AWAY")


async def test_parts_are_asked_in_parallel_and_a_slow_one_is_missing(client, stack, monkeypatch):
    monkeypatch.setattr(views, "PART_SECONDS_MAX", 0.5)

    async def slow(_):
        await asyncio.sleep(5)

    stack.backend.answers[PATHS["points"]] = stack.backend.answers[PATHS["ratings"]] = slow
    started = time.monotonic()
    view = (await client.get(URL, headers=bearer(stack))).json()
    assert time.monotonic() - started < 0.95
    assert [one["reason"] for one in view["missing"]] == ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]


@pytest.mark.parametrize(
    ("url", "field"),
    [("/v1/customers/nobody:view", "customer"), (f"{URL}?x=1", "x"), (f"/v1/customers/{CUSTOMER.upper()}:view", "customer")],
)
async def test_wrong_requests_are_named(client, stack, url, field):
    response = await client.get(url, headers=bearer(stack))
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == field
