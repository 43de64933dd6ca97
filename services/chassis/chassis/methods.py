"""What the contracts say about each RPC, looked up once."""

import contextvars
import functools
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from concord.options.v1 import method_options_pb2


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """An RPC: its path (`/package.Service/Method`), messages, and who may call it."""

    path: str
    descriptor: MethodDescriptor
    request_class: type[Message]
    response_class: type[Message]
    kinds: frozenset[int]
    scopes: frozenset[str]
    reveals: bool = False
    """Whether the answer is not masked, whoever asks."""


_current: contextvars.ContextVar[Method] = contextvars.ContextVar("method")
current_method = _current.get
set_method = _current.set
reset_method = _current.reset


@functools.cache
def by_path(path: str) -> Method:
    """The method served under a path.

    Raises:
        KeyError: when no imported contract has it.
    """
    service_name, method_name = path.lstrip("/").split("/")
    service = descriptor_pool.Default().FindServiceByName(service_name)
    descriptor = service.methods_by_name[method_name]
    access = descriptor.GetOptions().Extensions[method_options_pb2.access]
    return Method(
        path=path,
        descriptor=descriptor,
        request_class=message_factory.GetMessageClass(descriptor.input_type),
        response_class=message_factory.GetMessageClass(descriptor.output_type),
        kinds=frozenset(access.kinds),
        scopes=frozenset(access.scopes),
        reveals=access.reveals,
    )


def of_service(service_name: str) -> list[Method]:
    """Every method of a proto service."""
    service = descriptor_pool.Default().FindServiceByName(service_name)
    return [by_path(f"/{service_name}/{name}") for name in service.methods_by_name]


def problems(service_name: str) -> list[str]:
    """Why this service must not be served: one line for each rule that a method breaks."""
    found: list[str] = []
    for method in of_service(service_name):
        found += [f"{method.path}: {problem}" for problem in _problems_of(method.descriptor)]
    return found


def _problems_of(method: MethodDescriptor) -> list[str]:
    options: Any = method.GetOptions()
    if method.client_streaming or method.server_streaming:
        return ["streams are not served"]
    found = []
    if not options.HasExtension(annotations_pb2.http):
        found.append("lacks google.api.http")
    if not options.HasExtension(method_options_pb2.access):
        return [*found, "lacks concord.options.v1.access"]
    access = options.Extensions[method_options_pb2.access]
    if not access.kinds:
        found.append("its access option admits no kind of caller")
    if access.object_check == method_options_pb2.OBJECT_CHECK_UNSPECIFIED:
        found.append("its access option states no object_check")
    reads = options.Extensions[annotations_pb2.http].WhichOneof("pattern") == "get" or access.read_only
    request_id = method.input_type.fields_by_name.get("request_id")
    if not reads and (request_id is None or request_id.type != FieldDescriptor.TYPE_STRING):
        found.append("changes something, but its request has no string field request_id")
    return found
