"""Problems: every refusal as RFC 9457 `application/problem+json`, one type per reason; never a parser's or a stack's text."""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

MEDIA_TYPE = b"application/problem+json"
TYPE_PREFIX = "urn:concord:problem:"
RETRY_SECONDS = 1
DETAIL_CHARACTERS_MAX = 2_000
REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
TITLES = {
    400: "The request is wrong",
    401: "The caller is not known",
    403: "The caller may not do this",
    404: "There is no such thing, or not for this caller",
    405: "The method is not offered here",
    408: "The request took too long to arrive",
    409: "The state does not allow it",
    412: "Somebody else changed it",
    413: "The request is too large",
    414: "The address is too long",
    415: "The content is not JSON",
    422: "The Idempotency-Key was used for another request",
    428: "The version that was read is not named",
    429: "Too many requests",
    431: "The headers are too large",
    499: "The call was cancelled",
    500: "A fault of the platform",
    501: "This is not offered",
    503: "Not available now",
    504: "Not answered in time",
}
STATUS_OF_CODE = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    # A service that does not know the gateway's own token: no fault of the caller, whose token was accepted here.
    grpc.StatusCode.UNAUTHENTICATED: 500,
}
STATUS_OF_REASON = {"REQUEST_ID_REUSED": 422, "ETAG_MISMATCH": 412}
OPAQUE = frozenset({500, 501, 504, 499})
RETRYABLE = frozenset({408, 429, 503, 504})


@dataclass(eq=False)
class Problem(Exception):
    """A refusal. `errors` are (field or header, what would be right); `headers` go out with it; `extra` are further members."""

    status: int
    reason: str
    detail: str = ""
    errors: list[tuple[str, str]] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    retry_seconds: int | None = None

    def body(self, request_id: str) -> bytes:
        """The problem as JSON."""
        members: dict[str, Any] = {
            "type": TYPE_PREFIX + self.reason.lower().replace("_", "-"),
            "title": TITLES.get(self.status, TITLES[500]),
            "status": self.status,
            "reason": self.reason,
        }
        if self.detail:
            members["detail"] = self.detail[:DETAIL_CHARACTERS_MAX]
        if self.errors:
            members["errors"] = [{"field": name, "description": text} for name, text in self.errors]
        if self.status in RETRYABLE:
            members["retryable"] = True
        members |= self.extra
        members["request_id"] = request_id
        return orjson.dumps(members)

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that belong to this problem, with Retry-After where a retry helps."""
        if self.status not in (429, 503):
            return self.headers
        seconds = RETRY_SECONDS if self.retry_seconds is None else self.retry_seconds
        return [*self.headers, (b"retry-after", str(seconds).encode())]


def in_words(errors: Iterable[tuple[str, str]]) -> str:
    """Wrong fields as one text."""
    return "; ".join(f"{name or 'the request'}: {description}" for name, description in errors)


def wrong(reason: str, name: str, description: str) -> Problem:
    """A 400 about one field or header."""
    return Problem(400, reason, f"{name}: {description}", [(name, description)])


def internal() -> Problem:
    """A fault of ours: what happened is in the log, under the request id."""
    return Problem(500, "INTERNAL", "the platform failed; say the request_id when you report it")


def from_rpc_error(error: grpc.aio.AioRpcError, json_path: Mapping[str, str] | None = None) -> Problem:
    """What a service answered, as a problem.

    Args:
        error: the failed call.
        json_path: how fields are called over HTTP, where that is not by their JSON names (`request_id` is a header).
    """
    status = _rich_status(error)
    parts = _Parts(json_path or {})
    for packed in status.details if status else ():
        parts.take(packed)
    code = error.code()
    reason = parts.reason or code.name
    http = STATUS_OF_REASON.get(reason, STATUS_OF_CODE[code])
    # Without ErrorInfo the text is gRPC's own, about addresses and connections.
    detail = (
        (parts.localized or (status.message if status else "")) if parts.reason and http not in OPAQUE else _plain_detail(http)
    )
    if reason == "FIELD_INVALID" and parts.errors:  # the service's text has the fields' proto names
        detail = in_words(parts.errors)
    return Problem(http, reason if http != 500 else "INTERNAL", detail, parts.errors, [], parts.extra, parts.retry_seconds)


def _plain_detail(http: int) -> str:
    return {
        429: "the service has as much to do as it can take; send the same request again later",
        500: internal().detail,
        501: "the service that serves this does not know it; it may be of an older version",
        503: "the service that serves this is away; send the same request again",
        504: "the service did not answer in time, and may still have done what was asked; send the same request again",
    }.get(http, TITLES.get(http, ""))


def _rich_status(error: grpc.aio.AioRpcError) -> Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


class _Parts:
    """What the details of a status say."""

    def __init__(self, json_path: Mapping[str, str]) -> None:
        self.reason = ""
        self.localized = ""
        self.errors: list[tuple[str, str]] = []
        self.extra: dict[str, Any] = {}
        self.retry_seconds: int | None = None
        self._json_path = json_path

    def take(self, packed: Any) -> None:
        """Takes one detail. DebugInfo holds a stack and is left out; so is a type that is not known."""
        reader = _READERS.get(packed.TypeName())
        if reader is None:
            return
        message_class, read = reader
        message = message_class()
        with contextlib.suppress(DecodeError):
            packed.Unpack(message)
            read(self, message)

    def error_info(self, info: details.ErrorInfo) -> None:
        self.reason = info.reason if REASON.fullmatch(info.reason) else ""
        if info.metadata:
            self.extra["metadata"] = dict(info.metadata)

    def bad_request(self, bad: details.BadRequest) -> None:
        self.errors += [(self._named(one.field), one.description) for one in bad.field_violations]

    def retry_info(self, retry: details.RetryInfo) -> None:
        self.retry_seconds = max(0, math.ceil(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9))

    def quota_failure(self, failure: details.QuotaFailure) -> None:
        self.extra["quota_violations"] = _plain(failure.violations, ("subject", "description"))

    def precondition_failure(self, failure: details.PreconditionFailure) -> None:
        self.extra["precondition_violations"] = _plain(failure.violations, ("type", "subject", "description"))

    def request_info(self, info: details.RequestInfo) -> None:
        self.extra["service_request_id"] = info.request_id

    def resource_info(self, info: details.ResourceInfo) -> None:
        self.extra["resource"] = _plain([info], ("resource_type", "resource_name", "description"))[0]

    def help(self, message: details.Help) -> None:
        self.extra["links"] = _plain(message.links, ("description", "url"))

    def localized_message(self, message: details.LocalizedMessage) -> None:
        self.localized = message.message

    def _named(self, path: str) -> str:
        return self._json_path.get(path) or camel(path)


def _plain(messages: Iterable[Any], names: tuple[str, ...]) -> list[dict[str, str]]:
    return [{name: getattr(message, name) for name in names if getattr(message, name)} for message in messages]


_READERS: dict[str, tuple[Any, Any]] = {
    f"google.rpc.{message.__name__}": (message, read)
    for message, read in (
        (details.ErrorInfo, _Parts.error_info),
        (details.BadRequest, _Parts.bad_request),
        (details.RetryInfo, _Parts.retry_info),
        (details.QuotaFailure, _Parts.quota_failure),
        (details.PreconditionFailure, _Parts.precondition_failure),
        (details.RequestInfo, _Parts.request_info),
        (details.ResourceInfo, _Parts.resource_info),
        (details.Help, _Parts.help),
        (details.LocalizedMessage, _Parts.localized_message),
    )
}


def camel(path: str) -> str:
    """A field path with protobuf's JSON names: `source_record.birth_date` is `sourceRecord.birthDate`."""
    return re.sub(r"_([a-z0-9])", lambda match: match.group(1).upper(), path)
