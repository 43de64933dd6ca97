"""What is not the API itself: health, the OpenAPI document, and the page that shows it, which loads nothing from elsewhere."""

import asyncio
import time
from collections.abc import Mapping
from importlib import resources
from typing import Any

import grpc
import orjson
from grpc_health.v1 import health_pb2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.identity import AccessTokens
from gateway.problems import MEDIA_TYPE, Problem, internal
from gateway.tracing import Trace

HEALTH_SECONDS_MAX = 1.0
HEALTH_KEPT_SECONDS = 1.0
HEALTH_METHOD = "/grpc.health.v1.Health/Check"
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
# Swagger UI writes style attributes and inlines its icons; it needs nothing else, and nothing from another origin.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ASSET_TYPES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Concord API</title><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="page"></div><script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/page.js"></script></body>
</html>
"""
PAGE_SCRIPT = """SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true, docExpansion: "none", filter: true,
  validatorUrl: null, tryItOutEnabled: true, presets: [SwaggerUIBundle.presets.apis]});
"""


class Readiness:
    """Whether requests should come here: keys are known, a service answers, and the process is not draining."""

    def __init__(self, tokens: AccessTokens, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self.is_draining = False
        self._tokens = tokens
        self._checks = {
            owner: channel.unary_unary(
                HEALTH_METHOD,
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            for owner, channel in channels.items()
        }
        self._known: dict[str, str] = {}
        self._known_until = 0.0

    async def state(self) -> tuple[bool, dict[str, Any]]:
        """Whether ready, and why."""
        if time.monotonic() >= self._known_until:
            states = await asyncio.gather(*(self._service(owner) for owner in self._checks))
            self._known = dict(zip(self._checks, states, strict=True))
            self._known_until = time.monotonic() + HEALTH_KEPT_SECONDS
        for keys in self._tokens.issuers.values():
            if not keys.is_loaded:
                await keys.find(None)
        ready = not self.is_draining and self._tokens.are_ready and (not self._known or "SERVING" in self._known.values())
        issuers = {issuer: "KEYS_KNOWN" if keys.is_loaded else "KEYS_UNREADABLE" for issuer, keys in self._tokens.issuers.items()}
        return ready, {"ready": ready, "draining": self.is_draining, "services": self._known, "issuers": issuers}

    async def _service(self, owner: str) -> str:
        try:
            answer = await self._checks[owner](health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            return f"UNREACHABLE ({error.code().name})"
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def build(openapi: bytes, readiness: Readiness) -> Starlette:
    """The pages as an ASGI application."""

    async def healthz(_: Request) -> Response:
        return _json({"healthy": True})

    async def readyz(_: Request) -> Response:
        ready, state = await readiness.state()
        return _json(state, 200 if ready else 503)

    async def document(_: Request) -> Response:
        return Response(openapi, media_type="application/json", headers=SECURITY_HEADERS)

    async def start(_: Request) -> Response:
        return RedirectResponse("/docs", headers=SECURITY_HEADERS)

    async def page(_: Request) -> Response:
        return Response(PAGE, media_type="text/html", headers=SECURITY_HEADERS | {"Content-Security-Policy": PAGE_POLICY})

    async def script(_: Request) -> Response:
        return Response(PAGE_SCRIPT, media_type="text/javascript", headers=SECURITY_HEADERS)

    async def asset(request: Request) -> Response:
        content = assets.get(request.path_params["name"])
        if content is None:
            raise Problem(404, "ROUTE_NOT_FOUND", "there is no such page")
        cached = SECURITY_HEADERS | {"Cache-Control": "public, max-age=3600"}
        return Response(content, media_type=ASSET_TYPES[request.path_params["name"]], headers=cached)

    assets = {name: _asset(name) for name in ASSET_TYPES}
    return Starlette(
        routes=[
            Route("/", start),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/openapi.json", document),
            Route("/docs", page),
            Route("/docs/page.js", script),
            Route("/docs/{name}", asset),
        ],
        exception_handlers={404: _not_found, 405: _not_allowed, Problem: _problem, Exception: _failure},
    )


def _asset(name: str) -> bytes:
    """A file of Swagger UI. Its package is a plug-in of another program, of which only these files are used."""
    for folder in ("stylesheets", "javascripts"):
        file = resources.files("mkdocs_swagger_ui_tag") / "swagger-ui" / folder / name
        if file.is_file():
            return file.read_bytes()
    raise FileNotFoundError(f"{name} of Swagger UI; `make` installs it")


def _json(value: Any, status: int = 200) -> Response:
    headers = SECURITY_HEADERS | {"Cache-Control": "no-store"}
    return Response(orjson.dumps(value), status, headers=headers, media_type="application/json")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    request_id = Trace(None, 0).request_id
    headers = SECURITY_HEADERS | {"X-Request-Id": request_id}
    headers |= {name.decode(): value.decode() for name, value in error.all_headers()}
    body = error.body(request_id)
    return Response(body, error.status, headers=headers, media_type=MEDIA_TYPE.decode())


async def _not_found(request: Request, _: Exception) -> Response:
    return await _problem(
        request, Problem(404, "ROUTE_NOT_FOUND", "there is nothing at this address; /openapi.json says what there is")
    )


async def _not_allowed(request: Request, _: Exception) -> Response:
    allow = [(b"allow", b"GET, HEAD")]
    return await _problem(request, Problem(405, "METHOD_NOT_ALLOWED", "this address has GET, HEAD", headers=allow))


async def _failure(request: Request, _: Exception) -> Response:
    return await _problem(request, internal())
