"""The one place where streams and their consumers are declared."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from chassis.outbox import subject

RETENTION_SECONDS = 30 * 24 * 3600
DUPLICATE_WINDOW_SECONDS = 120
MESSAGE_BYTES_MAX = 1 << 20
ACK_WAIT_SECONDS = 30
UNACKNOWLEDGED_MAX = 5000


class ConfigurationError(Exception):
    """The server made something else than was asked for."""


def stream_config(owner: str, replicas: int = 1, bytes_max: int = 1 << 30) -> StreamConfig:
    """The stream of an owner service: what it says to all, and what it says again to one."""
    return StreamConfig(
        name=owner.upper(),
        subjects=[f"concord.{owner}.v1.>", f"concord.{owner}.republish.>"],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        max_age=RETENTION_SECONDS,
        max_bytes=bytes_max,
        max_msg_size=MESSAGE_BYTES_MAX,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        num_replicas=replicas,
        allow_atomic=True,  # the relay publishes batches: needs a server of 2.12 or later
    )


def consumer_config(service: str, durable: str, types: Iterable[str]) -> ConsumerConfig:
    """A durable pull consumer of these types, and of their re-publications for this service.

    Deliveries are not limited here: JetStream would drop the message in silence. The consumer counts and keeps a dead letter.
    """
    return ConsumerConfig(
        durable_name=durable,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_SECONDS,
        max_deliver=-1,
        max_ack_pending=UNACKNOWLEDGED_MAX,
        filter_subjects=sorted(subject(event_type, target) for event_type in types for target in (None, service)),
    )


async def ensure_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    """Makes the stream, or changes it to this configuration; any process may do so, any number of times.

    Raises:
        ConfigurationError: when the server then has another one.
    """
    name = str(config.name)
    try:
        info = await jetstream.stream_info(name)
        if _differences(config, info.config):
            await jetstream.update_stream(config)
    except NotFoundError:
        await jetstream.add_stream(config)
    info = await jetstream.stream_info(name)
    _refuse(f"stream {name}", _differences(config, info.config))


async def ensure_consumer(jetstream: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    """Makes or changes the consumer and reads it back: an old server drops what it does not know, without a word.

    Raises:
        ConfigurationError: when the server then has another one.
    """
    await jetstream.add_consumer(stream, config)
    info = await jetstream.consumer_info(stream, str(config.durable_name))
    _refuse(f"consumer {config.durable_name} of {stream}", _differences(config, info.config))


def _differences(asked: Any, present: Any) -> list[str]:
    found = []
    for field in fields(asked):
        wanted, has = getattr(asked, field.name), getattr(present, field.name)
        if isinstance(wanted, list) and isinstance(has, list):
            wanted, has = sorted(wanted), sorted(has)
        if wanted is not None and wanted != has:
            found.append(f"{field.name} is {has}, not {wanted}")
    return found


def _refuse(what: str, differences: list[str]) -> None:
    if differences:
        raise ConfigurationError(f"{what}: {'; '.join(differences)}")
