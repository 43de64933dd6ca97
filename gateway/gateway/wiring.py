"""Puts the gateway together; the only place that does."""

import logging
import socket
import sys
from dataclasses import dataclass
from typing import NoReturn

import grpc

from chassis import channel, telemetry
from chassis.identity import GATEWAY, InternalTokens
from gateway import contracts, issuers, openapi, pages, rpcs, server, views
from gateway.application import Gateway
from gateway.config import Settings
from gateway.contracts import ContractError, Contracts
from gateway.identity import AccessTokens
from gateway.issuers import IssuerError
from gateway.limits import RateLimit
from gateway.routes import RouteTable

logger = logging.getLogger(__name__)
EXIT_STATUS_WRONG = 2


@dataclass
class Built:
    """A gateway that is ready to be served."""

    application: Gateway
    readiness: pages.Readiness
    tokens: AccessTokens
    channels: dict[str, grpc.aio.Channel]

    async def close(self) -> None:
        """Closes the channels to the services."""
        for open_channel in self.channels.values():
            await open_channel.close()


def build(settings: Settings, served: Contracts) -> Built:
    """The gateway over these contracts. Must be called on the event loop that serves it.

    Raises:
        ContractError: a contract that cannot be served.
        IssuerError: the issuers' settings are wrong.
    """
    worked_out = list(rpcs.transcoders(served))
    # Without chassis.channel's interceptor, which costs as much as the call: what it adds, every call here brings along.
    channels = {
        owner: grpc.aio.insecure_channel(settings.target(owner), options=channel.OPTIONS)
        for owner in sorted({rpc.owner for rpc in served.rpcs})
    }
    composed = views.routes(served, channels)
    table = RouteTable([*rpcs.routes(worked_out, channels), *composed])
    tokens = AccessTokens(issuers.read(settings.gateway_issuers), InternalTokens.from_settings(GATEWAY, settings))
    readiness = pages.Readiness(tokens, channels)
    application = Gateway(
        table,
        tokens,
        RateLimit(settings.rate_requests_per_second, settings.rate_burst_requests),
        settings.requests_in_flight_max,
        settings.trace_ratio,
        pages.build(openapi.document_bytes(served), readiness),
    )
    return Built(application, readiness, tokens, channels)


async def serve(settings: Settings) -> None:
    """Serves until a signal ends it."""
    # The gateway decides itself which traces are kept, before it pays for a span: so the sampler keeps all it is given.
    telemetry.setup(GATEWAY, settings.model_copy(update={"trace_ratio": 1.0}))
    host, _, port = settings.http_listen.rpartition(":")
    listener = _listen(host.strip("[]"), int(port))
    try:
        built = build(settings, contracts.installed())
    except ContractError as error:
        _fail(f"The contracts cannot be served: {error}")
    except IssuerError as error:
        _fail(f"CONCORD_GATEWAY_ISSUERS is wrong: {error}")
    except (OSError, ValueError, KeyError) as error:  # what text_or_file and joserfc raise
        _fail(f"CONCORD_IDENTITY_KEYS or CONCORD_IDENTITY_PRIVATE_KEY cannot be read: {type(error).__name__}")
    for keys in built.tokens.issuers.values():
        await keys.refresh()
    http = server.Server(server.configuration(built.application, host, int(port)), built.readiness, settings.drain_seconds)
    logger.info("gateway listens on http://%s", settings.http_listen)
    try:
        await http.serve(sockets=[listener])
    finally:
        await built.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=server.CONNECTIONS_WAITING_MAX)
    except OSError as error:
        _fail(f"CONCORD_HTTP_LISTEN: {host}:{port} cannot be listened on ({error.strerror}); free it, or set another host:port")


def _fail(line: str) -> NoReturn:
    sys.stderr.write(f"{line}\n")
    raise SystemExit(EXIT_STATUS_WRONG)
