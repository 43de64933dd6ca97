"""For tests: real PostgreSQL, real NATS, the service in this process. The fixtures are in `chassis.testing.fixtures`."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from chassis import errors, identity, methods
from chassis.clock import now
from chassis.consumer import Consumer, ReceivedEvent
from chassis.identity import InternalTokens, Principal, PrincipalKind
from chassis.ids import new_id
from chassis.server import Application, Server

M = TypeVar("M", bound=Message)


def principal(
    kind: PrincipalKind = PrincipalKind.CHANNEL,
    institution: str | None = None,
    client: str = "app",
    subject: str = "tester",
    scopes: Iterable[str] = (),
    roles: Iterable[str] = (),
    customer: str | None = None,
) -> Principal:
    """A caller for a test."""
    return Principal(kind, institution, client, subject, frozenset(scopes), frozenset(roles), customer)


@contextmanager
def acting_as(caller: Principal, method_path: str) -> Iterator[None]:
    """Acts as if this caller had called this RPC: `Commands.run` then works without a server."""
    before = methods.set_method(methods.by_path(method_path))
    try:
        with identity.as_caller(caller):
            yield
    finally:
        methods.reset_method(before)


def received(
    event_type: str,
    message: Message,
    event_id: uuid.UUID | None = None,
    aggregate_id: str = "",
    occurred_at: datetime | None = None,
) -> ReceivedEvent:
    """An event as a consumer gets it."""
    return ReceivedEvent(event_id or new_id(), event_type, message, occurred_at or now(), aggregate_id)


def reason(error: grpc.aio.AioRpcError) -> str:
    """The reason in the ErrorInfo of a refused call."""
    return errors.from_rpc(error).reason


@dataclass(frozen=True)
class PublishedEvent:
    """A row of the outbox."""

    event_id: uuid.UUID
    type: str
    target: str | None
    aggregate_id: str
    payload: bytes
    occurred_at: datetime

    def message(self, message_class: Callable[..., M]) -> M:
        """Its payload, decoded."""
        message = message_class()
        message.ParseFromString(self.payload)
        return message


@dataclass
class Running:
    """A service that runs in this process."""

    application: Application
    server: Server
    tokens: InternalTokens
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.server.address

    def channel(self, **caller: Any) -> grpc.aio.Channel:
        """A channel whose calls come from this caller; the arguments are those of `principal`."""
        return self.channel_with(self.tokens.sign(principal(**caller)))

    def channel_with(self, token: str | None) -> grpc.aio.Channel:
        """A channel whose calls carry this token, or none."""
        made = grpc.aio.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1)], interceptors=[_WithToken(token)] if token else []
        )
        self._channels.append(made)
        return made

    async def events(self, event_type: str | None = None) -> list[PublishedEvent]:
        """What was published, in order: the outbox, published rows too."""
        async with self.application.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT event_id, type, target, aggregate_id, payload, occurred_at FROM outbox"
                " WHERE type = coalesce($1, type) ORDER BY row_id",
                event_type,
            )
        return [PublishedEvent(**dict(row)) for row in rows]

    async def deliver(self, *events: ReceivedEvent) -> None:
        """Gives events to the subscription that takes their type: inbox, handler, outbox; without NATS."""
        for subscription in self.application.consumers:
            taken = [event for event in events if event.type in subscription.types]
            if taken:
                await Consumer(self.application.name, subscription, self.application.commands).apply(taken)

    async def stop(self) -> None:
        """Stops it and closes its channels."""
        for channel in self._channels:
            await channel.close()
        await self.server.stop(grace_seconds=1.0)


class _WithToken(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Adds the token."""
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), (identity.METADATA_KEY, self._token))
        return await continuation(client_call_details._replace(metadata=metadata), request)
