"""Traces, metrics and logs. Spans are written by hand; exception texts are never logged, because they may hold personal data."""

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from prometheus_client import start_http_server

from chassis.config import Settings

FRAMES_MAX = 8
# Errors whose text names parts of the program or the schema, never values.
NAMING_ERRORS = (AttributeError, NameError, ImportError)
SQLSTATE_CLASS_NAMING = "42"
LATENCY_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

tracer = trace.get_tracer("concord")
_meter = metrics.get_meter("concord")
rpc_seconds = _meter.create_histogram("rpc.server.duration", unit="s", description="Time of an RPC")
events_published = _meter.create_counter("events.published", description="Events the relay published")
events_applied = _meter.create_counter("events.applied", description="Fresh events applied")
events_ignored = _meter.create_counter("events.ignored", description="Events of an unknown type")
events_dead = _meter.create_counter("events.dead", description="Events kept as dead letters")
consumer_lag = _meter.create_gauge("consumer.lag", description="Events that wait in the stream for a consumer")
outbox_waiting = _meter.create_gauge("outbox.waiting", description="Events in the last batch that the relay found unpublished")

_is_set_up = False


def setup(name: str, settings: Settings) -> None:
    """Sets up logs, traces and metrics of this process, once. OTLP when OTEL_EXPORTER_OTLP_ENDPOINT is set."""
    global _is_set_up
    if _is_set_up:
        return
    _is_set_up = True
    _set_up_logs(name, settings.log_level)
    otlp = bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
    resource = Resource.create({"service.name": name, "service.namespace": "concord"})
    tracing = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)))
    readers: list[MetricReader] = []
    if otlp:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    if settings.metrics_listen:
        host, port = settings.metrics_listen.rsplit(":", 1)
        readers.append(PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False))
        start_http_server(int(port), host)
    trace.set_tracer_provider(tracing)
    if readers:
        buckets = ExplicitBucketHistogramAggregation(LATENCY_SECONDS_BUCKETS)
        views = [View(instrument_name="rpc.server.duration", aggregation=buckets)]
        metrics.set_meter_provider(MeterProvider(readers, resource=resource, views=views))


@contextmanager
def span(name: str, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[None]:
    """A span around the block; an exception is recorded by its class alone."""
    with tracer.start_as_current_span(name, kind=kind, record_exception=False, set_status_on_exception=False) as current:
        try:
            yield
        except Exception as error:
            current.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise


def current_traceparent() -> str | None:
    """The W3C traceparent of the current span, to be carried on."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def current_trace_id() -> str | None:
    """The trace id of the current span."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def remote_span(traceparent: str | None) -> NonRecordingSpan | None:
    """The caller's span named by a traceparent; None when it is missing or malformed."""
    if traceparent is None or len(traceparent) != 55 or not traceparent.startswith("00-"):
        return None
    try:
        _, trace_id, span_id, flags = traceparent.split("-")
        context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    except ValueError:
        return None
    return NonRecordingSpan(context) if context.is_valid else None


def failure_text(error: BaseException) -> str:
    """What went wrong and where, without the exception's own text, which may hold personal data."""
    name = type(error).__name__
    for attribute in ("sqlstate", "table_name", "column_name", "constraint_name", "reason"):
        detail = getattr(error, attribute, None)
        if isinstance(detail, str):
            name += f" {detail}"
    if isinstance(error, NAMING_ERRORS) or str(getattr(error, "sqlstate", "")).startswith(SQLSTATE_CLASS_NAMING):
        name += f" ({error})"
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    return " < ".join([name, *(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in reversed(frames))])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the trace id; of an exception its class and place."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace_id = current_trace_id()
        if trace_id:
            entry["trace_id"] = trace_id
        if record.exc_info and record.exc_info[1]:
            entry["failure"] = failure_text(record.exc_info[1])
        return json.dumps(entry, ensure_ascii=False)


def _set_up_logs(name: str, level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(name))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("nats", "grpc", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.getLevelName(level), logging.WARNING))
