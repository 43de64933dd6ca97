"""The connection to NATS, with every limit stated."""

import logging
from dataclasses import dataclass

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext

from chassis import streams
from chassis.config import Settings

RECONNECT_SECONDS = 0.5
PING_SECONDS = 20
CONNECT_SECONDS_MAX = 5
API_SECONDS_MAX = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bus:
    """NATS, its JetStream, and how streams are made here."""

    client: Client
    jetstream: JetStreamContext
    replicas: int
    bytes_max: int

    async def ensure_stream(self, owner: str) -> None:
        """Makes the stream of an owner service unless it is there."""
        await streams.ensure_stream(self.jetstream, streams.stream_config(owner, self.replicas, self.bytes_max))


async def connect(settings: Settings, name: str) -> Bus:
    """Connects, waiting for as long as it takes, and reconnects for ever."""

    async def on_error(error: Exception) -> None:
        logger.warning("NATS: %s", type(error).__name__)

    async def on_disconnect() -> None:
        logger.info("NATS: disconnected")

    async def on_reconnect() -> None:
        logger.info("NATS: connected again")

    client = await nats.connect(
        settings.nats_url.split(","),
        name=name,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
        allow_reconnect=True,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_SECONDS,
        connect_timeout=CONNECT_SECONDS_MAX,
        ping_interval=PING_SECONDS,
        max_outstanding_pings=2,
        pending_size=-1,  # nothing is buffered while disconnected: the outbox and unacknowledged messages are the buffer
    )
    return Bus(client, client.jetstream(timeout=API_SECONDS_MAX), settings.nats_replicas, settings.stream_bytes_max)
