"""Errors a caller may see: one class per gRPC status, one UPPER_SNAKE reason per cause."""

from collections.abc import Sequence

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

DOMAIN = "concord"
# A status travels as trailing metadata, of which a gRPC client takes 8 KiB in all; more would arrive as RESOURCE_EXHAUSTED.
MESSAGE_BYTES_MAX = 1 << 10
FIELD_VIOLATIONS_BYTES_MAX = 3 << 10


class DomainError(Exception):
    """A refusal with a reason. Raise one of its subclasses, which fix the status.

    Args:
        reason: UPPER_SNAKE, from the platform's vocabulary, such as `INSUFFICIENT_POINTS`.
        message: what is wrong and what would be right, for the caller's developer; no personal data.
        metadata: facts for the caller's program, such as `{"available_points": "12"}`.
        field_violations: (field path in the request, rule) for each wrong field.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        reason: str,
        message: str,
        metadata: dict[str, str] | None = None,
        field_violations: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.metadata = metadata or {}
        self.field_violations = list(field_violations)


class InvalidArgument(DomainError):
    """The request is wrong whatever the state: say the field, the rule, and what would be right."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(DomainError):
    """There is no such object, or none that this caller may know of."""

    code = grpc.StatusCode.NOT_FOUND


class PermissionDenied(DomainError):
    """The caller lacks the kind, scope or role."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(DomainError):
    """The caller did not prove who it is."""

    code = grpc.StatusCode.UNAUTHENTICATED


class FailedPrecondition(DomainError):
    """A rule of the business says no in the present state."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(DomainError):
    """Somebody else changed the object (etags)."""

    code = grpc.StatusCode.ABORTED


class AlreadyExists(DomainError):
    """An object with this caller-given id exists."""

    code = grpc.StatusCode.ALREADY_EXISTS


class ResourceExhausted(DomainError):
    """A limit or a full queue."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(DomainError):
    """Something that this service needs is away; the same request may be sent again."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(DomainError):
    """The time the caller gave is over."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Internal(DomainError):
    """A fault of ours. Carries a trace id, never what happened."""

    code = grpc.StatusCode.INTERNAL


def to_status(error: DomainError) -> Status:
    """The error as `google.rpc.Status` with ErrorInfo, and BadRequest when fields are named: the first ones that fit."""
    status = Status(code=error.code.value[0], message=_shortened(error.message))
    status.details.append(_packed(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)))
    if error.field_violations:
        bad = BadRequest()
        for field, text in error.field_violations:
            bad.field_violations.add(field=_shortened(field), description=_shortened(text))
            if bad.ByteSize() > FIELD_VIOLATIONS_BYTES_MAX:
                del bad.field_violations[-1]
                break
        status.details.append(_packed(bad))
    return status


def _shortened(text: str) -> str:
    return text if len(text) <= MESSAGE_BYTES_MAX // 4 else text.encode()[:MESSAGE_BYTES_MAX].decode(errors="ignore")


def from_rpc(error: grpc.aio.AioRpcError) -> DomainError:
    """The refusal of another service, as the error it was there."""
    classes = {each.code: each for each in DomainError.__subclasses__()}
    refusal = classes.get(error.code(), Internal)("UNKNOWN", error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        for packed in Status.FromString(value).details:
            if packed.type_url.endswith("/google.rpc.ErrorInfo"):
                info = ErrorInfo.FromString(packed.value)
                refusal.reason, refusal.metadata = info.reason, dict(info.metadata)
            elif packed.type_url.endswith("/google.rpc.BadRequest"):
                request = BadRequest.FromString(packed.value)
                refusal.field_violations = [(v.field, v.description) for v in request.field_violations]
    return refusal


def _packed(message: ErrorInfo | BadRequest) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
