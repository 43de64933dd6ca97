"""The HTTP server: uvicorn on uvloop and httptools, with the limits and the drain that it does not have by itself."""

import asyncio
import signal
from asyncio import TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway import limits
from gateway.pages import Readiness
from gateway.problems import MEDIA_TYPE, Problem
from gateway.tracing import Trace

KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS_MAX = 20
CONNECTIONS_WAITING_MAX = 2048


class TooLarge(Exception):
    """The head of a request goes beyond a limit."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with limits on the head of a request: its size, its headers, and the time it may take to arrive."""

    _head_bytes = 0
    _is_in_head = True
    _timer: TimerHandle | None = None
    _refusal: Problem | None = None

    def connection_made(self, transport: Any) -> None:
        """Starts the time for the first request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(limits.HEAD_SECONDS_MAX, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the time."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts what arrives before a head is complete."""
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > limits.HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_in_head = True
        if self._timer is None:
            self._timer = self.loop.call_later(limits.HEAD_SECONDS_MAX, self._late)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the head."""
        super().on_header(name, value)
        if len(self.headers) > limits.HEADERS_MAX or len(value) > limits.HEAD_BYTES_MAX:
            self._refusal = _head_too_large()
            raise TooLarge  # httptools answers this by ending the parse, which comes back as send_400_response

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._is_in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn says to bytes that are not HTTP, as a problem."""
        self._refuse(self._refusal or Problem(400, "HTTP_INVALID", "this is not a valid HTTP/1.1 request"))

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._refuse(
                Problem(408, "HEAD_TOO_SLOW", f"the head of a request must arrive within {limits.HEAD_SECONDS_MAX:g} seconds")
            )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, problem: Problem) -> None:
        """Answers without an application, and ends the connection; says nothing into the middle of another answer."""
        self._stop_timer()
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]  # no request yet
            request_id = Trace(None, 0).request_id
            body = problem.body(request_id)
            head = [
                b"content-type: " + MEDIA_TYPE,
                b"content-length: %d" % len(body),
                b"x-request-id: " + request_id.encode(),
                b"connection: close",
            ]
            self.transport.write(STATUS_LINE[problem.status] + b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()


def _head_too_large() -> Problem:
    text = f"the head of a request may have {limits.HEADERS_MAX} headers and {limits.HEAD_BYTES_MAX} bytes"
    return Problem(431, "HEADERS_TOO_LARGE", text)


class Server(uvicorn.Server):
    """Drains: says that it is not ready, goes on for the time a load balancer needs to see it, then finishes what it has."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness, drain_seconds: float) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._drain_seconds = drain_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server, which is a success: uvicorn would raise them again when it is done."""
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self.handle_exit, signal_number, None)
        try:
            yield
        finally:
            for signal_number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signal_number)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal drains; a second one, or Ctrl-C, ends at once what uvicorn ends at once."""
        was_draining, self._readiness.is_draining = self._readiness.is_draining, True
        if was_draining or signal.Signals(sig) is signal.SIGINT or not self._drain_seconds:
            super().handle_exit(sig, frame)
            return
        asyncio.get_running_loop().call_later(self._drain_seconds, super().handle_exit, sig, frame)


def configuration(application: Any, host: str, port: int) -> uvicorn.Config:
    """uvicorn's settings; every limit stands here or in `limits`."""
    return uvicorn.Config(
        application,
        host=host,
        port=port,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        backlog=CONNECTIONS_WAITING_MAX,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
    )
