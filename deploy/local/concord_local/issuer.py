"""A small OAuth 2 token issuer for the local platform: client credentials only. Production uses an OIDC issuer of its own."""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from concord_local import system
from concord_local.stack import AUDIENCE
from concord_local.state import State
from concord_local.tokens import TTL_SECONDS, Caller, access_token, signing_key, words

BODY_BYTES_MAX = 16 << 10
CLIENTS_MAX = 1_000


def add_client(state: State, caller: Caller) -> str:
    """Registers an OAuth client and returns its secret, which is kept only as a hash. Raises ValueError when it exists."""
    clients = _clients(state)
    if caller.client_id in clients:
        raise ValueError(f"the client {caller.client_id} exists already")
    if len(clients) >= CLIENTS_MAX:
        raise ValueError(f"there are {CLIENTS_MAX} clients already, which is the limit")
    secret = secrets.token_urlsafe(32)
    clients[caller.client_id] = {"caller": asdict(caller), "secret_sha256": _digest(secret)}
    system.write_private(state.clients, json.dumps(clients, indent=1))
    return secret


def application(state: State, issuer: str) -> Starlette:
    """The issuer as an ASGI application; clients and keys are read from the state folder."""
    key = signing_key(state.private_key("issuer"))

    async def token(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > BODY_BYTES_MAX:
                return _refusal(413, "invalid_request", f"the body is larger than {BODY_BYTES_MAX} bytes")
        form = {name: values[-1] for name, values in parse_qs(body.decode(errors="replace")).items()}
        if form.get("grant_type") != "client_credentials":
            return _refusal(400, "unsupported_grant_type", "grant_type must be client_credentials")
        caller = _authenticate(state, request, form)
        if caller is None:
            return _refusal(401, "invalid_client", "client_id and client_secret do not belong together")
        asked = words([form.get("scope", "")])
        if beyond := sorted(set(asked) - set(caller.scopes)):
            return _refusal(400, "invalid_scope", f"this client has no scope {' '.join(beyond)}")
        granted = Caller(**{**asdict(caller), "scopes": asked or caller.scopes})
        signed = access_token(key, issuer, AUDIENCE, granted)
        answer = {"access_token": signed, "token_type": "Bearer", "expires_in": TTL_SECONDS, "scope": " ".join(granted.scopes)}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def configuration(_request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/jwks.json",
                "token_endpoint": f"{issuer}/token",
                "grant_types_supported": ["client_credentials"],
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            }
        )

    async def jwks(_request: Request) -> Response:
        return JSONResponse(json.loads(state.issuer_keys.read_text()))

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", configuration),
            Route("/jwks.json", jwks),
            Route("/token", token, methods=["POST"]),
            Route("/healthz", health),
        ]
    )


def _authenticate(state: State, request: Request, form: dict[str, str]) -> Caller | None:
    """The client that the Authorization header (client_secret_basic) or the form (client_secret_post) proves to be."""
    client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, value = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        client_id, secret = unquote_plus(name), unquote_plus(value)
    known = _clients(state).get(client_id)
    expected = known["secret_sha256"] if known else _digest("")
    if not hmac.compare_digest(expected, _digest(secret)) or known is None:
        return None
    kept = known["caller"]
    return Caller(**{**kept, "scopes": tuple(kept["scopes"]), "roles": tuple(kept["roles"])})


def _clients(state: State) -> dict[str, Any]:
    return dict(json.loads(state.clients.read_text())) if state.clients.exists() else {}


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _refusal(status: int, error: str, description: str) -> Response:
    return JSONResponse({"error": error, "error_description": description}, status)


def main() -> None:
    """`python -m concord_local.issuer STATE PORT`: serves until it is told to stop."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    app = application(State(folder), f"http://{system.LOOPBACK}:{port}")
    uvicorn.run(app, host=system.LOOPBACK, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
