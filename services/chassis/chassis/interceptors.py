"""What happens around every RPC: telemetry → errors → deadline → identity → validation → masking.

Each interceptor wraps a method once; after that a call runs through plain nested functions.
"""

import asyncio
import functools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from chassis import deadlines, identity, masking, methods, rules, telemetry
from chassis.database import is_unavailable
from chassis.errors import (
    DeadlineExceeded,
    DomainError,
    Internal,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    to_status,
)
from chassis.identity import InternalTokens, PrincipalKind
from chassis.methods import Method

logger = logging.getLogger(__name__)
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Behaviour: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
UPSTREAM_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}


class PerMethod(grpc.aio.ServerInterceptor):
    """Wraps the methods of Concord services; health and reflection pass by."""

    def __init__(self, wrap: Callable[[Method, Behaviour], Behaviour]) -> None:
        self._wrap = wrap
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """The wrapped handler of the method, made at its first call."""
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None or not path.startswith("/concord."):
                return handler
            wrapped = self._wrapped[path] = grpc.unary_unary_rpc_method_handler(
                self._wrap(methods.by_path(path), handler.unary_unary),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return wrapped


def interceptors(tokens: InternalTokens) -> list[grpc.aio.ServerInterceptor]:
    """All of them, outermost first."""
    wraps = (traced, with_errors, with_deadline, functools.partial(identified, tokens), validated, masked)
    return [PerMethod(wrap) for wrap in wraps]


def _metadata(context: Context, key: str) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return value if isinstance(value, str) else None
    return None


def traced(method: Method, inner: Behaviour) -> Behaviour:
    """A span and a latency for each call."""
    name = method.path.lstrip("/")
    attributes = {code.value[0]: {"rpc.method": name, "rpc.grpc.status_code": code.name} for code in grpc.StatusCode}

    async def handle(request: Any, context: Context) -> Any:
        started = time.perf_counter()
        methods.set_method(method)
        caller = telemetry.remote_span(_metadata(context, "traceparent"))
        parent = trace.set_span_in_context(caller) if caller is not None else None
        if caller is not None and not caller.get_span_context().trace_flags.sampled:
            span: trace.Span = caller  # nobody keeps this trace: its id is carried on, and nothing is made
        else:
            span = telemetry.tracer.start_span(name, parent, SpanKind.SERVER)
        otel_context.attach(trace.set_span_in_context(span))  # this task ends with the call: nothing to detach
        code = grpc.StatusCode.OK.value[0]
        try:
            return await inner(request, context)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED.value[0]
            raise
        except BaseException:
            code = _code_of(context)
            raise
        finally:
            telemetry.rpc_seconds.record(time.perf_counter() - started, attributes[code])
            if span.is_recording():
                span.set_attribute("rpc.grpc.status_code", code)
            span.end()

    return handle


def _code_of(context: Context) -> int:
    code: Any = context.code()
    return int(code.value[0] if isinstance(code, grpc.StatusCode) else code)


def with_errors(method: Method, inner: Behaviour) -> Behaviour:
    """Refusals become a rich status; anything unknown becomes an opaque INTERNAL."""

    async def handle(request: Any, context: Context) -> Any:
        try:
            return await inner(request, context)
        except DomainError as error:
            refusal = error
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the last place where one can be caught
            refusal = _refusal_of(error, method.path)
        status = to_status(refusal)
        await context.abort(
            refusal.code, status.message, trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),)
        )
        raise AssertionError("unreachable")

    return handle


def _refusal_of(error: Exception, path: str) -> DomainError:
    """What the caller is told of an exception that is no refusal. What happened is in the log."""
    if is_unavailable(error):
        logger.warning("%s: %s", path, telemetry.failure_text(error))
        return Unavailable("DATABASE_UNAVAILABLE", "the service cannot write or read now; send the same request again")
    if isinstance(error, asyncpg.QueryCanceledError):
        logger.warning("%s: %s", path, telemetry.failure_text(error))
        return Unavailable("STATEMENT_TIMEOUT", "the service was too slow; send the same request again")
    if isinstance(error, asyncpg.CharacterNotInRepertoireError | asyncpg.UntranslatableCharacterError):
        return InvalidArgument("TEXT_INVALID", "a text holds the character U+0000, which cannot be stored; leave it out")
    if isinstance(error, grpc.aio.AioRpcError) and error.code() in UPSTREAM_AWAY:
        logger.warning("%s: a service it needs answered %s", path, error.code().name)
        return Unavailable("UPSTREAM_UNAVAILABLE", "a service that this one needs is away; send the same request again")
    trace_id = telemetry.current_trace_id() or secrets.token_hex(16)
    logger.error("%s failed, trace %s: %s", path, trace_id, telemetry.failure_text(error))
    return Internal("INTERNAL", f"internal error, trace {trace_id}", metadata={"trace_id": trace_id})


def with_deadline(method: Method, inner: Behaviour) -> Behaviour:
    """Every call ends: with the caller's deadline, which gRPC itself enforces, or with ours."""

    async def handle(request: Any, context: Context) -> Any:
        remaining: float | None = context.time_remaining()  # type: ignore[no-untyped-call,unused-ignore]
        if remaining is not None and remaining <= deadlines.SECONDS_MAX:
            deadlines.set_remaining(remaining)
            return await inner(request, context)
        seconds = deadlines.DEFAULT_SECONDS if remaining is None else deadlines.SECONDS_MAX
        deadlines.set_remaining(seconds)
        try:
            async with asyncio.timeout(seconds) as limit:
                return await inner(request, context)
        except TimeoutError:
            if limit.expired():
                raise DeadlineExceeded("DEADLINE_EXCEEDED", f"not answered within {seconds:g} s") from None
            raise

    return handle


def identified(tokens: InternalTokens, method: Method, inner: Behaviour) -> Behaviour:
    """Who calls, and whether the method's access option admits it."""
    kinds = {PrincipalKind(kind) for kind in method.kinds if kind}
    scopes = method.scopes
    needed = " or ".join(sorted(scopes))

    async def handle(request: Any, context: Context) -> Any:
        token = _metadata(context, identity.METADATA_KEY)
        if token is None:
            raise Unauthenticated("IDENTITY_MISSING", f"metadata {identity.METADATA_KEY} must carry an internal identity token")
        principal = tokens.verify(token)
        if principal.kind not in kinds:
            raise PermissionDenied("KIND_NOT_ADMITTED", f"callers of kind {principal.kind.name} may not call this method")
        # A service's own token has no scopes: its kind must be admitted by name.
        if scopes and principal.kind is not PrincipalKind.SERVICE and scopes.isdisjoint(principal.scopes):
            raise PermissionDenied("SCOPE_MISSING", f"scope {needed} is needed", metadata={"scope": needed})
        identity.set_caller(principal, token)
        return await inner(request, context)

    return handle


def validated(method: Method, inner: Behaviour) -> Behaviour:
    """Requests obey the rules written in their contracts."""
    if not rules.has_rules(method.request_class.DESCRIPTOR):
        return inner

    async def handle(request: Any, context: Context) -> Any:
        broken = rules.broken(request)
        if broken:
            text = "; ".join(f"{field or 'request'}: {rule}" for field, rule in broken)
            raise InvalidArgument("FIELD_INVALID", text, field_violations=broken)
        return await inner(request, context)

    return handle


def masked(method: Method, inner: Behaviour) -> Behaviour:
    """Personal fields of the answer are masked for callers without `personal.read`, unless the method is made to reveal them."""
    mask = masking.mask_for(method.response_class)
    if mask is None or method.reveals:
        return inner

    async def handle(request: Any, context: Context) -> Any:
        response = await inner(request, context)
        if not masking.may_see_personal(identity.current_principal()):
            mask(response)
        return response

    return handle
