"""Calls to other services: balanced over replicas, with deadline, identity and trace carried on."""

import json
from collections.abc import Callable
from typing import Any

import grpc

from chassis import deadlines, identity, telemetry
from chassis.identity import InternalTokens

ATTEMPTS_MAX = 3
MESSAGE_BYTES_MAX = 4 << 20
SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": ATTEMPTS_MAX,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
]


def channel(target: str, tokens: InternalTokens) -> grpc.aio.Channel:
    """A channel to a service; one for each target in a process, made in wiring.

    Args:
        target: `host:port`, or `dns:///name:port` of a headless service.
        tokens: this service's own, for calls that no caller asked for.
    """
    return grpc.aio.insecure_channel(target, options=OPTIONS, interceptors=[_CarryOn(tokens)])


class _CarryOn(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, tokens: InternalTokens) -> None:
        self._tokens = tokens

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Adds what every call carries; a timeout given with the call may only shorten the deadline."""
        allowed = deadlines.outgoing_seconds()
        asked = client_call_details.timeout
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        metadata.add(identity.METADATA_KEY, identity.current_token() or self._tokens.own())
        traceparent = telemetry.current_traceparent()
        if traceparent:
            metadata.add("traceparent", traceparent)
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            allowed if asked is None else min(asked, allowed),
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(details, request)
