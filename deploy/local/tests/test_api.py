"""The loaders' client of the gateway, against a gateway of a few lines."""

import httpx
import pytest

from concord_local import api
from concord_local.api import Gateway, Problem
from concord_local.stack import Stack


class Told(Gateway):
    """A client whose gateway gives the answers put into `answers`, in turn, and keeps the requests."""

    answers: list[int]
    requests: list[httpx.Request]


@pytest.fixture
async def gateway(state):
    stack = Stack(state, {}).load()
    stack.write_files()
    client = Told(stack)
    await client._client.aclose()
    client.answers, client.requests = [], []

    def answer(request):
        client.requests.append(request)
        status = client.answers.pop(0)
        return httpx.Response(status, json={"status": status, "reason": f"REASON_{status}"})

    client._client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://gateway.example")
    yield client
    await client._client.aclose()


async def test_what_belongs_to_something_another_service_learns_of_by_event_is_tried_again(gateway):
    gateway.answers += [404, 404, 200]
    assert await gateway.create("/v1/programs", "token", {}, program_id="points")
    assert len(gateway.requests) == 3


async def test_what_is_there_already_is_not_created(gateway):
    gateway.answers += [404, 409]
    assert not await gateway.create("/v1/programs", "token", {}, program_id="points")


async def test_what_never_comes_is_a_problem(gateway, monkeypatch):
    monkeypatch.setattr(api, "PARENT_SECONDS_MAX", 0.3)
    gateway.answers += [404] * 10
    with pytest.raises(Problem, match="404 REASON_404"):
        await gateway.create("/v1/programs", "token", {})


async def test_a_refusal_is_not_tried_again(gateway):
    gateway.answers += [400]
    with pytest.raises(Problem, match="400"):
        await gateway.create("/v1/programs", "token", {})
    assert len(gateway.requests) == 1


async def test_a_retry_carries_the_same_key(gateway, monkeypatch):
    monkeypatch.setattr(api, "RETRY_PAUSE_SECONDS", 0.01)
    gateway.answers += [503, 503, 200]
    await gateway.post("/v1/activities:record", "token", {})
    assert len({request.headers["Idempotency-Key"] for request in gateway.requests}) == 1
    assert len(gateway.requests) == 3
