"""The running service: gRPC, relay, consumers and background work, started and stopped in order."""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chassis import bus, housekeeping, methods, pages, telemetry
from chassis.bus import Bus
from chassis.config import Settings, text_or_file
from chassis.consumer import Consumer, Subscription
from chassis.database import Database
from chassis.identity import InternalTokens
from chassis.interceptors import interceptors
from chassis.relay import Relay
from chassis.republish import Republisher
from chassis.unit_of_work import Commands

CONCURRENT_RPCS_MAX = 1000
GRACE_SECONDS = 20.0
COLLECTOR_THRESHOLDS = (10_000, 50, 50)
"""Of the cyclic garbage collector: objects made, young collections, older collections. Little here is cyclic."""
CONSUMERS_STOP_SECONDS_MAX = 10.0
RESTART_SECONDS_MAX = 15.0
MESSAGE_BYTES_MAX = 4 << 20
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", 16 << 10),
    # Clients resolve names again when a connection ends: that is how they find new replicas.
    ("grpc.max_connection_age_ms", 120_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
]

logger = logging.getLogger(__name__)
Background = Callable[[], Awaitable[None]]


class ContractError(Exception):
    """A served contract breaks a rule of the platform."""


class ListenError(Exception):
    """The address cannot be listened on."""


@dataclass
class Application:
    """A service put together by its wiring.

    Args:
        name: the service's name, also of its stream.
        servicers: (the generated `add_…Servicer_to_server`, the servicer).
        consumers: what it folds.
        background: async callables that run until cancelled, started again with back-off when they fail or return.
        channels: to other services; closed at the end.
        closing: what else is to be closed at the end, before the database.
        republishers: what it can say again only with what it was built with, beside those of its ServiceDefinition.
        bus_enabled: False runs neither relay nor consumers (tests).
    """

    name: str
    settings: Settings
    database: Database
    commands: Commands
    servicers: Sequence[tuple[Callable[[Any, Any], None], Any]] = ()
    consumers: Sequence[Subscription] = ()
    background: Sequence[Background] = ()
    channels: Sequence[grpc.aio.Channel] = ()
    closing: Sequence[Background] = ()
    republishers: Sequence[Republisher] = ()
    tokens: InternalTokens | None = None
    bus_enabled: bool = True


@dataclass
class Server:
    """An application that runs. `address` is where it listens."""

    application: Application
    address: str = ""
    _grpc: Any = None
    _health: Any = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _bus: Bus | None = None

    async def start(self) -> None:
        """Starts everything.

        Raises:
            ContractError: naming every method that breaks a rule.
            ListenError: when the address is taken or wrong.
        """
        app = self.application
        names = _service_names(app)
        broken = [problem for name in names for problem in methods.problems(name)]
        if broken:
            raise ContractError("; ".join(broken))
        tokens = app.tokens or InternalTokens.from_settings(app.name, app.settings)
        if app.settings.identity_private_key:
            secret = text_or_file(app.settings.identity_private_key)
            pages.bind(secret)
            app.commands.bind(secret)
        self._grpc = grpc.aio.server(
            interceptors=interceptors(tokens), options=OPTIONS, maximum_concurrent_rpcs=CONCURRENT_RPCS_MAX
        )
        for add_to_server, servicer in app.servicers:
            add_to_server(servicer, self._grpc)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME, health.SERVICE_NAME], self._grpc)
        self.address = await self._listen()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._tasks = [self._supervised("housekeeping", lambda: housekeeping.run(app.database))]
        self._tasks += [self._supervised(f"background {i}", run) for i, run in enumerate(app.background)]
        if app.bus_enabled:
            self._tasks.append(asyncio.create_task(self._run_bus(), name="bus"))
        logger.info("%s serves on %s", app.name, self.address)

    async def _listen(self) -> str:
        listen = self.application.settings.grpc_listen
        try:
            port = self._grpc.add_insecure_port(listen)
            await self._grpc.start()
        except RuntimeError:
            raise ListenError(f"CONCORD_GRPC_LISTEN: cannot listen on {listen}; is the port taken?") from None
        return f"{listen.rsplit(':', 1)[0]}:{port}"

    async def _run_bus(self) -> None:
        """Waits for NATS, then runs relay and consumers. The service serves without it: the outbox keeps what is said."""
        app = self.application
        connected = self._bus = await bus.connect(app.settings, app.name)
        relay = Relay(app.name, app.database, app.commands.outbox_wake)
        runs: list[tuple[str, Background]] = [("relay", lambda: relay.run(connected, self._stopping))]
        for subscription in app.consumers:
            consumer = Consumer(app.name, subscription, app.commands)
            runs.append((f"consumer {subscription.consumer}", _bound(consumer, connected, self._stopping)))
        tasks = [self._supervised(name, run) for name, run in runs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _supervised(self, name: str, run: Background) -> asyncio.Task[None]:
        return asyncio.create_task(_supervise(name, run, self._stopping), name=name)

    async def stop(self, grace_seconds: float = GRACE_SECONDS, drain_seconds: float = 0.0) -> None:
        """Not serving → time for callers to notice → calls in hand end → consumers and relay → connections → database."""
        app = self.application
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(drain_seconds)
        await self._grpc.stop(grace_seconds)
        self._stopping.set()
        app.commands.outbox_wake.set()
        bus_task = [task for task in self._tasks if task.get_name() == "bus"]
        if self._bus is not None and bus_task:
            await asyncio.wait(bus_task, timeout=CONSUMERS_STOP_SECONDS_MAX)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in app.channels:
            await channel.close()
        if self._bus is not None:
            with contextlib.suppress(Exception):  # it may be gone already
                await self._bus.client.close()
        for close in app.closing:
            await close()
        await app.database.close()


async def serve(application: Application) -> None:
    """Runs an application until SIGTERM or SIGINT."""
    server = Server(application)
    stop_asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop_asked.set)
    await server.start()
    spare_the_collector()
    await stop_asked.wait()
    logger.info("%s stops", application.name)
    await server.stop(drain_seconds=application.settings.drain_seconds)


def spare_the_collector() -> None:
    """What lives as long as the service is not looked at again, and the rest seldom: it was 40 % of the time of a bulk load."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


async def _supervise(name: str, run: Background, stopping: asyncio.Event) -> None:
    delay = 0.1
    while not stopping.is_set():
        started = asyncio.get_running_loop().time()
        try:
            await run()
        except Exception as error:  # noqa: BLE001 - it is started again, whatever it was
            logger.error("%s failed: %s", name, telemetry.failure_text(error))
        if asyncio.get_running_loop().time() - started > RESTART_SECONDS_MAX:
            delay = 0.1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await stopping.wait()
        delay = min(delay * 2, RESTART_SECONDS_MAX)


def _bound(consumer: Consumer, connected: Bus, stopping: asyncio.Event) -> Background:
    return lambda: consumer.run(connected, stopping)


class _Recorder:
    """Stands in for a server to learn which services a generated function adds."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self.names += [handler.service_name() for handler in handlers]

    def add_registered_method_handlers(self, name: str, handlers: Any) -> None:
        """The same again, for the synchronous server."""


def _service_names(application: Application) -> list[str]:
    recorder = _Recorder()
    for add_to_server, servicer in application.servicers:
        add_to_server(servicer, recorder)
    return recorder.names
