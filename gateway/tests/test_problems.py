"""What services answer becomes problems: every google.rpc detail, nothing of a stack; and traces, kept in their share."""

import json

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis import telemetry
from gateway.problems import Problem, from_rpc_error
from gateway.tracing import Trace


def error(code, message, *parts, raw=None):
    status = Status(code=code.value[0], message=message)
    for part in parts:
        packed = Any()
        packed.Pack(part)
        status.details.append(packed)
    content = status.SerializeToString() if raw is None else raw
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", content))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, message, "debug string with secrets")


INFO = details.ErrorInfo(reason="CAPPED", domain="concord", metadata={"next_free_at": "2026-01-01T00:00:00Z"})


def test_every_detail_is_mapped():
    retry = details.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    problem = from_rpc_error(
        error(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "capped",
            INFO,
            retry,
            details.BadRequest(field_violations=[{"field": "source_record.birth_date", "description": "wrong"}]),
            details.QuotaFailure(violations=[{"subject": "client", "description": "ten a day"}]),
            details.PreconditionFailure(violations=[{"type": "TOS", "subject": "s", "description": "d"}]),
            details.RequestInfo(request_id="r-1", serving_data="internal"),
            details.ResourceInfo(resource_type="t", resource_name="customers/1", description="d"),
            details.Help(links=[{"description": "how", "url": "https://example.test"}]),
            details.LocalizedMessage(locale="en", message="You are capped."),
            details.DebugInfo(stack_entries=["secret.py:1"], detail="secret"),
        )
    )
    body = json.loads(problem.body("id"))
    assert body == {
        "type": "urn:concord:problem:capped",
        "title": "Too many requests",
        "status": 429,
        "reason": "CAPPED",
        "detail": "You are capped.",
        "errors": [{"field": "sourceRecord.birthDate", "description": "wrong"}],
        "retryable": True,
        "metadata": {"next_free_at": "2026-01-01T00:00:00Z"},
        "quota_violations": [{"subject": "client", "description": "ten a day"}],
        "precondition_violations": [{"type": "TOS", "subject": "s", "description": "d"}],
        "service_request_id": "r-1",
        "resource": {"resource_type": "t", "resource_name": "customers/1", "description": "d"},
        "links": [{"description": "how", "url": "https://example.test"}],
        "request_id": "id",
    }
    assert (b"retry-after", b"2") in problem.all_headers()


STATUSES = {
    "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404, "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429, "FAILED_PRECONDITION": 409, "ABORTED": 409, "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501, "INTERNAL": 500, "UNAVAILABLE": 503, "DATA_LOSS": 500, "UNAUTHENTICATED": 500,
}  # fmt: skip


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: code.name)
def test_grpcs_own_text_stays_inside(code):
    for raw in (None, b"", b"\xff\xff"):
        problem = from_rpc_error(error(code, "failed to connect to all addresses; ipv4:10.0.0.7:5432 secret", raw=raw))
        assert problem.status == STATUSES[code.name]
        assert "secret" not in problem.body("id").decode()
        assert "10.0.0.7" not in problem.body("id").decode()


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAUTHENTICATED"])
def test_a_fault_is_opaque_even_with_a_reason(code):
    problem = from_rpc_error(error(grpc.StatusCode[code], "secret", details.ErrorInfo(reason="IDENTITY_INVALID")))
    assert (problem.status, problem.reason) == (500, "INTERNAL")
    assert "secret" not in problem.detail


@pytest.mark.parametrize("reason", ["", "not upper", "A" * 64, "<script>"])
def test_a_reason_that_is_none_is_replaced(reason):
    assert from_rpc_error(error(grpc.StatusCode.NOT_FOUND, "x", details.ErrorInfo(reason=reason))).reason == "NOT_FOUND"


def test_a_long_detail_is_cut():
    assert len(json.loads(Problem(400, "A", "x" * 10_000).body("id"))["detail"]) == 2000


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("test"))
    return exporter


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_sampled_caller_gets_a_span_in_its_trace(spans):
    trace = Trace(f"00-{TRACE}-{SPAN}-01".encode(), ratio=0)
    trace.end("GET", "/v1/{name=customers/*}", 503)
    (span,) = spans.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == trace.request_id == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN
    assert trace.traceparent == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert span.name == "GET /v1/{name=customers/*}"
    assert span.attributes["http.response.status_code"] == 503
    assert not span.status.is_ok


@pytest.mark.parametrize("flags", ["00"])
def test_a_trace_that_is_not_kept_is_carried_on_for_nothing(spans, flags):
    given = f"00-{TRACE}-{SPAN}-{flags}"
    trace = Trace(given.encode(), ratio=1)
    trace.end("GET", "/", 200)
    assert (trace.traceparent, trace.request_id) == (given, TRACE)
    assert not spans.get_finished_spans()


@pytest.mark.parametrize(
    "broken", [b"", b"x", f"00-{'0' * 32}-{SPAN}-01".encode(), f"00-{TRACE}-{'0' * 16}-01".encode(), b"00-" + b"g" * 52]
)
def test_a_broken_traceparent_begins_a_new_trace(spans, broken):
    trace = Trace(broken, ratio=0)
    assert trace.request_id != TRACE
    assert telemetry.remote_span(trace.traceparent) is not None


def test_the_share_that_is_kept(spans):
    for _ in range(2000):
        Trace(None, ratio=0.05).end("GET", "/", 200)
    assert 50 < len(spans.get_finished_spans()) < 160
