"""The door: admits a request, calls the RPC it stands for, and answers. Plain ASGI, because it is the hot path."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from chassis import telemetry
from chassis.identity import Principal
from gateway import limits
from gateway.identity import AccessTokens, Admission, Caller
from gateway.limits import RateLimit
from gateway.problems import MEDIA_TYPE, Problem, internal
from gateway.routes import RouteTable
from gateway.tracing import Trace, request_seconds

logger = logging.getLogger(__name__)

API_PREFIX = b"/v1/"
ONCE = (
    b"authorization",
    b"content-length",
    b"content-type",
    b"idempotency-key",
    b"if-match",
    b"if-none-match",
    b"request-timeout",
    b"traceparent",
)
JSON = (b"content-type", b"application/json")
PROBLEM = (b"content-type", MEDIA_TYPE)
SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"x-content-type-options", b"nosniff"),
]
NOT_MODIFIED = 304
UNKNOWN_METHOD, UNKNOWN_ROUTE = "other", "none"
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"})


@dataclass(slots=True)
class Call:
    """One request that was admitted, on its way to what serves it."""

    segments: list[str]
    query: str
    headers: dict[bytes, bytes]
    caller: Caller
    seconds: float
    traceparent: str
    receive: Any


@dataclass(slots=True)
class Answer:
    """What goes back: a JSON body, and headers besides those of every answer."""

    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    status: int = 200


class Endpoint(Protocol):
    """What serves a route."""

    admission: Admission

    async def __call__(self, call: Call) -> Answer:
        """Serves a call. Raises Problem."""


class Gateway:
    """The ASGI application. Paths outside `/v1/` go to `pages`."""

    def __init__(
        self,
        table: RouteTable,
        tokens: AccessTokens,
        rate: RateLimit,
        requests_in_flight_max: int,
        trace_ratio: float,
        pages: Any,
    ) -> None:
        self._table = table
        self._tokens = tokens
        self._rate = rate
        self._in_flight = 0
        self._in_flight_max = requests_in_flight_max
        self._trace_ratio = trace_ratio
        self._pages = pages
        self._attributes: dict[tuple[str, str, int], dict[str, str | int]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request."""
        if scope["type"] != "http" or not scope["raw_path"].startswith(API_PREFIX):
            await self._pages(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        trace = Trace(headers.get(b"traceparent"), self._trace_ratio)
        out: list[tuple[bytes, bytes]] = []
        place = [UNKNOWN_ROUTE]
        self._in_flight += 1
        try:
            answer = await self._answer(scope, receive, headers, trace, out, place)
        except Problem as problem:
            answer = _refusal(problem, trace)
        except Exception as error:  # noqa: BLE001 - the last place where one can be caught
            logger.error("request %s to %s failed: %s", trace.request_id, place[0], telemetry.failure_text(error))
            answer = _refusal(internal(), trace)
        finally:
            self._in_flight -= 1
        out += SECURITY_HEADERS
        out += answer.headers
        if answer.status != NOT_MODIFIED:
            out.append((b"content-length", b"%d" % len(answer.body)))
        out.append((b"x-request-id", trace.request_id.encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": out})
        await send({"type": "http.response.body", "body": answer.body})
        method = scope["method"] if scope["method"] in METHODS else UNKNOWN_METHOD
        trace.end(method, place[0], answer.status)
        request_seconds.record(time.perf_counter() - started, self._attributes_of(method, place[0], answer.status))

    async def _answer(
        self,
        scope: Any,
        receive: Any,
        headers: dict[bytes, bytes],
        trace: Trace,
        out: list[tuple[bytes, bytes]],
        place: list[str],
    ) -> Answer:
        if self._in_flight > self._in_flight_max:
            raise Problem(503, "OVERLOADED", "the gateway has as much to do as it can take; send the same request again")
        if len(headers) != len(scope["headers"]):
            _refuse_repeated(scope["headers"])
        if len(scope["raw_path"]) + len(scope["query_string"]) > limits.ADDRESS_BYTES_MAX:
            raise Problem(414, "ADDRESS_TOO_LONG", f"path and query may have {limits.ADDRESS_BYTES_MAX} bytes together")
        method = scope["method"]
        route, segments, allowed = self._table.find("GET" if method == "HEAD" else method, scope["raw_path"].decode("ascii"))
        if route is None:
            raise _not_offered(allowed)
        place[0] = route.template.text
        authorization = headers.get(b"authorization")
        caller = self._tokens.known(authorization) if authorization is not None else None
        if caller is None:
            caller = await self._tokens.verify(authorization)
        endpoint: Endpoint = route.endpoint
        self._admit(caller.principal, endpoint, out)
        seconds = limits.deadline_seconds(headers.get(b"request-timeout"))
        query = scope["query_string"].decode("latin-1")
        return await endpoint(Call(segments, query, headers, caller, seconds, trace.traceparent, receive))

    def _admit(self, principal: Principal, endpoint: Endpoint, out: list[tuple[bytes, bytes]]) -> None:
        out += self._rate.headers(self._rate.take(principal.caller))
        refusal = endpoint.admission.refusal(principal)
        if refusal is not None:
            raise refusal

    def _attributes_of(self, method: str, route: str, status: int) -> dict[str, str | int]:
        key = (method, route, status)
        attributes = self._attributes.get(key)
        if attributes is None:
            attributes = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
            self._attributes[key] = attributes
        return attributes


def _refusal(problem: Problem, trace: Trace) -> Answer:
    return Answer(problem.body(trace.request_id), [PROBLEM, *problem.all_headers()], problem.status)


def _not_offered(allowed: tuple[str, ...]) -> Problem:
    if not allowed:
        return Problem(404, "ROUTE_NOT_FOUND", "there is nothing at this address; /openapi.json says what there is")
    names = sorted({*allowed, "HEAD"} if "GET" in allowed else allowed)
    text = ", ".join(names)
    return Problem(405, "METHOD_NOT_ALLOWED", f"this address has {text}", headers=[(b"allow", text.encode())])


def _refuse_repeated(headers: list[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers]
    for name in ONCE:
        if names.count(name) > 1:
            shown = name.decode().title()
            raise Problem(400, "HEADER_REPEATED", f"{shown} must be there once", [(shown, "must be there once")])
