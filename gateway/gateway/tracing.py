"""The trace of a request: W3C traceparent in and out, a span for the share that is kept, and nothing paid for the rest."""

import random
import re
from typing import Any

from opentelemetry import metrics
from opentelemetry import trace as otel
from opentelemetry.trace import Span, SpanKind

from chassis import telemetry

TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-0([01])")

request_seconds = metrics.get_meter("concord").create_histogram(
    "http.server.request.duration",
    unit="s",
    description="Time of an HTTP request",
    explicit_bucket_boundaries_advisory=telemetry.LATENCY_SECONDS_BUCKETS,
)


class Trace:
    """The trace of one request. `request_id` is the trace's id; `traceparent` goes to the services."""

    __slots__ = ("request_id", "span", "traceparent")

    def __init__(self, traceparent: bytes | None, ratio: float) -> None:
        """Joins the caller's trace, or begins one that is kept with the probability `ratio`."""
        match = TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
        self.span: Span | None = None
        if match is not None and traceparent is not None:
            self.request_id = match[1].decode()
            self.traceparent = traceparent.decode()
            if match[2] == b"1":
                caller = telemetry.remote_span(self.traceparent)
                self._start(otel.set_span_in_context(caller) if caller is not None else None)
        elif random.random() < ratio:
            self._start(None)
        else:
            self.request_id = f"{random.getrandbits(128) | 1:032x}"
            self.traceparent = f"00-{self.request_id}-{random.getrandbits(64) | 1:016x}-00"

    def _start(self, parent: Any) -> None:
        self.span = telemetry.tracer.start_span("HTTP", parent, SpanKind.SERVER)
        context = self.span.get_span_context()
        self.request_id = f"{context.trace_id:032x}"
        self.traceparent = f"00-{self.request_id}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(self, method: str, route: str, status: int) -> None:
        """Ends the span, if there is one."""
        if self.span is None:
            return
        self.span.update_name(f"{method} {route}")
        self.span.set_attribute("http.request.method", method)
        self.span.set_attribute("http.route", route)
        self.span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self.span.set_status(otel.StatusCode.ERROR)
        self.span.end()
