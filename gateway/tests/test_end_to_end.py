"""HTTP in, gRPC out, through a real server: what reaches the services, and what comes back."""

import asyncio
import contextlib
import json
import re

import httpx
import pytest

from chassis import etags
from chassis.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, PermissionDenied, ResourceExhausted, Unavailable
from chassis.identity import PrincipalKind
from gateway import testing

CUSTOMER = "0190c1c0-0000-7000-8000-000000000001"
GET_CUSTOMER = "/concord.customer.v1.CustomerService/GetCustomer"
UPDATE_SOURCE_SYSTEM = "/concord.customer.v1.InstitutionService/UpdateSourceSystem"
REDEEM = "/concord.loyalty.v1.LedgerService/RedeemPoints"
REDEEM_URL = f"/v1/accounts/{CUSTOMER}:redeem"
SOURCE_SYSTEM = {"displayName": "Core", "defaultRank": 5}
REDEEM_BODY = {"program": "programs/concord", "amountPoints": "12", "institution": "institutions/northbank"}


def bearer(stack, **claims):
    return {"Authorization": f"Bearer {stack.issuer.token(**claims)}"}


def everything(stack, kind=PrincipalKind.STAFF):
    return {"Authorization": f"Bearer {stack.issuer.token_for_all(stack.backend.served, kind)}"}


def problem(response, status, reason):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["reason"] == reason, body
    assert body["status"] == status
    assert body["type"] == "urn:concord:problem:" + reason.lower().replace("_", "-")
    assert body["request_id"] == response.headers["x-request-id"]
    return body


async def test_get_reaches_the_service_with_identity_trace_and_deadline(client, stack):
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = bearer(stack, roles=["approver"]) | {
        "traceparent": f"00-{trace_id}-00f067aa0ba902b7-00",
        "Request-Timeout": "3",
    }
    response = await client.get(f"/v1/customers/{CUSTOMER}", headers=headers)
    assert response.status_code == 200
    assert response.headers["x-request-id"] == trace_id
    assert response.headers["etag"] == '"e1"'
    (call,) = stack.backend.received
    assert call.path == GET_CUSTOMER
    assert call.request.name == f"customers/{CUSTOMER}"
    assert call.metadata["traceparent"].startswith(f"00-{trace_id}-")
    assert 2 < call.seconds < 3.5  # gRPC rounds up
    assert call.caller.kind is PrincipalKind.CHANNEL
    assert (call.caller.caller, call.caller.roles, call.caller.scopes) == ("northbank/tests", {"approver"}, {"customer.read"})


async def test_default_deadline_is_ten_seconds(client, stack):
    await client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack))
    assert 9 < stack.backend.received[0].seconds < 10.5  # gRPC rounds up


@pytest.mark.parametrize("seconds", ["0", "61", "-1", "1e1", "", "5s", "0.5"])
async def test_request_timeout_is_checked(client, stack, seconds):
    response = await client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack) | {"Request-Timeout": seconds})
    body = problem(response, 400, "REQUEST_TIMEOUT_INVALID")
    assert body["errors"][0]["field"] == "Request-Timeout"
    assert not stack.backend.received


async def test_if_none_match_answers_not_modified(client, stack):
    response = await client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack) | {"If-None-Match": '"x", W/"e1"'})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", '"e1"')


async def test_head_is_get_without_content(client, stack):
    response = await client.head(f"/v1/customers/{CUSTOMER}", headers=bearer(stack))
    assert response.status_code == 200
    assert response.content == b""
    assert int(response.headers["content-length"]) > 100


async def test_mutation_carries_key_and_etag(client, stack):
    headers = everything(stack) | {"Idempotency-Key": "key-1", "If-Match": '"v7"'}
    body = {"displayName": "Core", "defaultRank": 5}
    url = "/v1/institutions/northbank/sourceSystems/core?updateMask=displayName,defaultRank"
    response = await client.patch(url, headers=headers, json=body)
    assert response.status_code == 200, response.text
    (call,) = stack.backend.received
    assert call.path == UPDATE_SOURCE_SYSTEM
    assert (call.request.request_id, call.request.etag) == ("key-1", '"v7"')
    assert call.request.source_system.name == "institutions/northbank/sourceSystems/core"
    assert list(call.request.update_mask.paths) == ["display_name", "default_rank"]


async def test_name_in_body_must_be_the_paths(client, stack):
    headers = everything(stack) | {"Idempotency-Key": "key-1"}
    url = "/v1/institutions/northbank/sourceSystems/core"
    same = {"name": "institutions/northbank/sourceSystems/core", "displayName": "Core", "defaultRank": 1}
    assert (await client.patch(url, headers=headers, json=same)).status_code == 200
    response = await client.patch(url, headers=headers, json=same | {"name": "institutions/northbank/sourceSystems/other"})
    assert problem(response, 400, "FIELD_INVALID")["errors"][0]["field"] == "sourceSystem.name"


@pytest.mark.parametrize(
    ("key", "in_body", "reason"),
    [
        (None, None, "IDEMPOTENCY_KEY_MISSING"),
        (None, "a", "IDEMPOTENCY_KEY_MISSING"),
        ("a", "b", "IDEMPOTENCY_KEY_INVALID"),
        ("x" * 256, None, "IDEMPOTENCY_KEY_INVALID"),
        ("two words", None, "IDEMPOTENCY_KEY_INVALID"),
    ],
)
async def test_idempotency_key_is_needed(client, stack, key, in_body, reason):
    headers = everything(stack) | ({"Idempotency-Key": key} if key else {})
    response = await client.post(REDEEM_URL, headers=headers, json=REDEEM_BODY | ({"requestId": in_body} if in_body else {}))
    assert problem(response, 400, reason)["errors"][0]["field"] == "Idempotency-Key"
    assert not stack.backend.received


@pytest.mark.parametrize(("key", "arrives"), [("a", "a"), ('"quoted"', "quoted"), ("x" * 255, "x" * 255)])
async def test_idempotency_key_becomes_request_id(client, stack, key, arrives):
    headers = everything(stack) | {"Idempotency-Key": key}
    response = await client.post(REDEEM_URL, headers=headers, json=REDEEM_BODY | {"requestId": arrives})
    assert response.status_code == 200, response.text
    assert stack.backend.received[0].request.request_id == arrives
    assert stack.backend.received[0].request.amount_points == 12


@pytest.mark.parametrize("etag", ['"a", "b"', 'W/"a"', '""', "", '"a', "a b", '"é"'])
async def test_if_match_must_be_one_strong_tag(client, stack, etag):
    headers = everything(stack) | {"Idempotency-Key": "key-1", "If-Match": etag.encode()}
    url = "/v1/institutions/northbank/sourceSystems/core"
    problem(await client.patch(url, headers=headers, json=SOURCE_SYSTEM), 400, "IF_MATCH_INVALID")


@pytest.mark.parametrize(("header", "arrives"), [('"1f"', etags.etag(0x1F)), ("1f", etags.etag(0x1F)), ("*", "")])
async def test_the_etag_of_an_answer_is_what_the_service_gets_back(client, stack, header, arrives):
    headers = everything(stack) | {"Idempotency-Key": "key-1", "If-Match": header}
    response = await client.patch("/v1/institutions/northbank/sourceSystems/core", headers=headers, json=SOURCE_SYSTEM)
    assert response.status_code == 200, response.text
    assert stack.backend.received[0].request.etag == arrives


@pytest.mark.parametrize(("header", "status", "reason"), [(None, 428, "IF_MATCH_MISSING"), ("*", 400, "IF_MATCH_INVALID")])
async def test_if_match_is_needed_where_only_what_was_seen_is_decided(client, stack, header, status, reason):
    headers = everything(stack) | {"Idempotency-Key": "key-1"}
    url = f"/v1/kycCases/{CUSTOMER}:decide"
    body = {"reason": "seen"}
    response = await client.post(url, headers=headers | ({"If-Match": header} if header else {}), json=body)
    assert problem(response, status, reason)["errors"][0]["field"] == "If-Match"
    assert not stack.backend.received


async def test_if_match_where_it_means_nothing_is_refused(client, stack):
    headers = everything(stack) | {"Idempotency-Key": "key-1", "If-Match": '"v7"'}
    problem(await client.post(REDEEM_URL, headers=headers, json=REDEEM_BODY), 400, "IF_MATCH_INVALID")


@pytest.mark.parametrize(
    ("content", "content_type", "status", "reason"),
    [
        (b"", "application/json", 400, "BODY_MISSING"),
        (b"{", "application/json", 400, "JSON_INVALID"),
        (b"\xff\xfe", "application/json", 400, "JSON_INVALID"),
        (b'{"a": NaN}', "application/json", 400, "JSON_INVALID"),
        (b"[" * 5000 + b"]" * 5000, "application/json", 400, "JSON_TOO_DEEP"),
        (b"[1]", "application/json", 400, "FIELD_INVALID"),
        (b'{"program": "a", "program": "b"}', "application/json", 400, "FIELD_REPEATED"),
        (b'{"program": "\x01"}', "application/json", 400, "JSON_INVALID"),
        (b'{"program": "\\u0000"}', "application/json", 400, "FIELD_INVALID"),
        (b'{"program": "\\ud800"}', "application/json", 400, "FIELD_INVALID"),
        (b'{"amountPoints": 99999999999999999999}', "application/json", 400, "FIELD_INVALID"),
        (b'{"amountPoints": ' + b"9" * 5000 + b"}", "application/json", 400, "JSON_INVALID"),
        (b'{"nope": 1}', "application/json", 400, "FIELD_INVALID"),
        (b"{}", "text/plain", 415, "CONTENT_TYPE_NOT_SUPPORTED"),
        (b"{}", "application/json; charset=gbk", 415, "CONTENT_TYPE_NOT_SUPPORTED"),
        (b"{}", "", 415, "CONTENT_TYPE_NOT_SUPPORTED"),
        (b" " * (1 << 20) + b"{}", "application/json", 413, "BODY_TOO_LARGE"),
    ],
)
async def test_bad_bodies_are_refused_before_any_service(client, stack, content, content_type, status, reason):
    headers = everything(stack) | {"Idempotency-Key": "key-1", "Content-Type": content_type}
    response = await client.post(REDEEM_URL, headers=headers, content=content)
    body = problem(response, status, reason)
    assert not re.search("Traceback|Error:|line \\d+ in|json\\.", json.dumps(body))
    assert not stack.backend.received


async def test_a_body_without_length_is_limited_too(client, stack):
    async def endless():
        while True:
            yield b" " * 65536

    headers = everything(stack) | {"Idempotency-Key": "key-1", "Content-Type": "application/json"}
    with contextlib.suppress(httpx.TransportError):  # the connection may end while the client still writes
        problem(await client.post(REDEEM_URL, headers=headers, content=endless()), 413, "BODY_TOO_LARGE")
    assert not stack.backend.received


async def test_get_takes_no_body(client, stack):
    headers = bearer(stack) | {"Content-Type": "application/json"}
    response = await client.request("GET", f"/v1/customers/{CUSTOMER}", headers=headers, content=b"{}")
    problem(response, 400, "BODY_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("nope=1", "nope"),
        ("pageSize=1&pageSize=2", "pageSize"),
        ("pageSize=1&page_size=2", "page_size"),
        ("pageSize=one", "pageSize"),
        ("pageSize=2147483648", "pageSize"),
        ("pageSize=", "pageSize"),
        ("pageToken=%ff", "pageToken"),
        ("pageToken=%00", "pageToken"),
        ("pageToken=%zz", "pageToken"),
        ("requestId=1", "requestId"),
    ],
)
async def test_bad_queries_name_the_parameter(client, stack, query, name):
    headers = bearer(stack, scope="institution.read")
    response = await client.get(f"/v1/institutions?{query}", headers=headers)
    assert problem(response, 400, "QUERY_INVALID")["errors"][0]["field"] == name
    assert not stack.backend.received


async def test_query_fills_fields_by_both_names(client, stack):
    for query in ("pageSize=7&pageToken=a%2Bb+c", "page_size=7&page_token=a%2Bb%20c"):
        response = await client.get(f"/v1/institutions?{query}", headers=bearer(stack, scope="institution.read"))
        assert response.status_code == 200
        request = stack.backend.received.pop().request
        assert (request.page_size, request.page_token) == (7, "a+b c")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", f"/v1/customers/{CUSTOMER}", "GET, HEAD"),
        ("QUERY", f"/v1/customers/{CUSTOMER}", "GET, HEAD"),
        ("OPTIONS", "/v1/institutions", "GET, HEAD, POST"),
        ("GET", "/v1/customers:search", "POST"),
        ("TRACE", "/v1/customers:search", "POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
    ],
)
async def test_other_methods_answer_allow(client, stack, method, path, allow):
    response = await client.request(method, path, headers=everything(stack))
    problem(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == allow
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "path", ["/v1/", "/v1/nothing", "/v1/customers/a/b", "/v1/customers/", "/v1//customers", "/v2/x", "/docs/x"]
)
async def test_unknown_addresses_are_problems(client, stack, path):
    problem(await client.get(path, headers=everything(stack)), 404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (NotFound("CUSTOMER_NOT_FOUND", "no such customer"), 404, "CUSTOMER_NOT_FOUND"),
        (PermissionDenied("ROLE_MISSING", "a role is needed"), 403, "ROLE_MISSING"),
        (FailedPrecondition("INSUFFICIENT_POINTS", "too few", {"available_points": "3"}), 409, "INSUFFICIENT_POINTS"),
        (FailedPrecondition("REQUEST_ID_REUSED", "other input"), 422, "REQUEST_ID_REUSED"),
        (Aborted("ETAG_MISMATCH", "changed"), 412, "ETAG_MISMATCH"),
        (Aborted("LOST_RACE", "again"), 409, "LOST_RACE"),
        (AlreadyExists("CUSTOMER_EXISTS", "there"), 409, "CUSTOMER_EXISTS"),
        (ResourceExhausted("QUEUE_FULL", "full"), 429, "QUEUE_FULL"),
        (Unavailable("DATABASE_UNAVAILABLE", "away"), 503, "DATABASE_UNAVAILABLE"),
    ],
)
async def test_refusals_of_services_become_problems(client, stack, error, status, reason):
    def refuse(_):
        raise error

    stack.backend.answers[GET_CUSTOMER] = refuse
    response = await client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack))
    body = problem(response, status, reason)
    assert body["detail"] == error.message
    assert body.get("metadata", {}) == error.metadata
    assert ("retry-after" in response.headers) == (status in (429, 503))


async def test_an_exception_of_a_service_says_nothing(client, stack):
    def fail(_):
        raise ValueError("secret account 4111")

    stack.backend.answers[GET_CUSTOMER] = fail
    response = await client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack))
    problem(response, 500, "INTERNAL")
    assert "4111" not in response.text
    assert "ValueError" not in response.text


async def test_a_service_that_is_slow_is_a_timeout(client, stack):
    async def slow(_):
        await asyncio.sleep(5)

    stack.backend.answers[GET_CUSTOMER] = slow
    response = await client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack) | {"Request-Timeout": "1"})
    assert problem(response, 504, "DEADLINE_EXCEEDED")["retryable"] is True


async def test_field_violations_of_a_service_have_json_names(client, stack):
    headers = everything(stack) | {"Idempotency-Key": "key-1"}
    response = await client.post(REDEEM_URL, headers=headers, json=REDEEM_BODY | {"amountPoints": "-1"})
    body = problem(response, 400, "FIELD_INVALID")
    assert body["errors"][0]["field"] == "amountPoints"
    assert body["detail"].startswith("amountPoints: ")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [({"scope": "points.read"}, "SCOPE_MISSING"), ({"scope": None}, "SCOPE_MISSING"), ({"kind": "partner"}, "KIND_NOT_ADMITTED")],
)
async def test_who_may_not_is_told_why(client, stack, claims, reason):
    response = await client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack, **claims))
    problem(response, 403, reason)
    if reason == "SCOPE_MISSING":
        assert 'error="insufficient_scope", scope="customer.read"' in response.headers["www-authenticate"]
    assert not stack.backend.received


async def test_headers_that_count_are_there_once(client, stack):
    headers = [("Authorization", bearer(stack)["Authorization"]), ("Authorization", "Bearer x")]
    problem(await client.get(f"/v1/customers/{CUSTOMER}", headers=headers), 400, "HEADER_REPEATED")


async def test_every_answer_has_the_security_headers(client, stack):
    for path in (f"/v1/customers/{CUSTOMER}", "/v1/nothing", "/docs", "/healthz", "/nothing"):
        headers = (await client.get(path, headers=bearer(stack))).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


async def test_rate_limit_is_kept_for_each_client(tmp_path):
    async with (
        testing.running(tmp_path, rate_requests_per_second=0.5, rate_burst_requests=2) as stack,
        httpx.AsyncClient(base_url=stack.url, trust_env=False) as client,
    ):
        url = f"/v1/customers/{CUSTOMER}"
        first = await client.get(url, headers=bearer(stack))
        assert first.headers["ratelimit-policy"] == '"caller";q=2;w=4'
        assert first.headers["ratelimit"] == '"caller";r=1;t=2'
        assert (await client.get(url, headers=bearer(stack))).status_code == 200
        refused = await client.get(url, headers=bearer(stack))  # another token, the same client
        problem(refused, 429, "RATE_LIMITED")
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        assert (await client.get(url, headers=bearer(stack, client_id="other"))).status_code == 200


async def test_more_than_the_requests_in_flight_are_shed(tmp_path):
    async with (
        testing.running(tmp_path, requests_in_flight_max=2) as stack,
        httpx.AsyncClient(base_url=stack.url, trust_env=False) as client,
    ):
        gate = asyncio.Event()

        async def wait(_):
            await gate.wait()
            return testing.example(next(rpc for rpc in stack.backend.served.rpcs if rpc.path == GET_CUSTOMER).response_class)

        stack.backend.answers[GET_CUSTOMER] = wait
        held = [asyncio.create_task(client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack))) for _ in range(2)]
        while len(stack.backend.received) < 2:  # noqa: ASYNC110 - the services have no event for it
            await asyncio.sleep(0.01)
        shed = await client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack))
        problem(shed, 503, "OVERLOADED")
        assert shed.headers["retry-after"] == "1"
        gate.set()
        assert [response.status_code for response in await asyncio.gather(*held)] == [200, 200]
        assert (await client.get(f"/v1/customers/{CUSTOMER}", headers=bearer(stack))).status_code == 200
