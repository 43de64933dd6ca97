"""The contracts as the gateway sees them: every RPC of the descriptor set, its HTTP rule, who may call it, and the comments."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from concord.options.v1 import method_options_pb2
from concord.options.v1.method_options_pb2 import Access

PACKAGE = re.compile(r"concord\.([a-z]+)\.v\d+")


class ContractError(Exception):
    """A contract that the gateway cannot serve; the text names the RPC and says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Rpc:
    """A unary RPC. `path` is gRPC's (`/package.Service/Method`), `owner` the service that serves it (`customer`)."""

    path: str
    owner: str
    descriptor: MethodDescriptor
    request_class: type[Message]
    response_class: type[Message]
    http: http_pb2.HttpRule
    access: Access

    @property
    def name(self) -> str:
        """`CustomerService.GetCustomer`."""
        return f"{self.descriptor.containing_service.name}.{self.descriptor.name}"

    @property
    def changes(self) -> bool:
        """Whether a call changes something, so that it needs a request_id."""
        return self.http.WhichOneof("pattern") != "get" and not self.access.read_only


@dataclass(frozen=True)
class Contracts:
    """All RPCs, and the comments by full name (of an enum value: enum's full name, dot, value)."""

    pool: descriptor_pool.DescriptorPool
    rpcs: tuple[Rpc, ...]
    comments: dict[str, str]

    def rpc(self, path: str) -> Rpc | None:
        """The RPC with this gRPC path."""
        return next((rpc for rpc in self.rpcs if rpc.path == path), None)


def installed() -> Contracts:
    """The contracts that are installed with the package `concord`."""
    content = (resources.files("concord") / "descriptors.binpb").read_bytes()
    return read(descriptor_pb2.FileDescriptorSet.FromString(content))


def read(files: descriptor_pb2.FileDescriptorSet) -> Contracts:
    """The contracts of a descriptor set.

    Raises:
        ContractError: an RPC of a `concord` package lacks its HTTP rule or access option, or asks for what is not served.
    """
    pool = descriptor_pool.DescriptorPool()
    comments: dict[str, str] = {}
    for file in files.file:
        pool.Add(file)
        comments.update(_comments(file))
    rpcs = []
    for file in files.file:
        owner = PACKAGE.fullmatch(file.package)
        for service in file.service if owner else ():
            descriptor = pool.FindServiceByName(f"{file.package}.{service.name}")
            rpcs += [_rpc(owner.group(1) if owner else "", method) for method in descriptor.methods]
    return Contracts(pool, tuple(sorted(rpcs, key=lambda rpc: rpc.path)), comments)


def is_choice(field: FieldDescriptor) -> bool:
    """Whether a field is a member of a oneof; proto3's `optional` is written as a oneof too, and is none."""
    oneof = field.containing_oneof
    return oneof is not None and oneof.name != f"_{field.name}"


def _rpc(owner: str, method: MethodDescriptor) -> Rpc:
    path = f"/{method.containing_service.full_name}/{method.name}"
    options: Any = method.GetOptions()
    if method.client_streaming or method.server_streaming:
        raise ContractError(f"{path} streams, and the gateway serves unary RPCs only")
    if not options.HasExtension(annotations_pb2.http):
        raise ContractError(f"{path} lacks google.api.http")
    access = options.Extensions[method_options_pb2.access]
    if not options.HasExtension(method_options_pb2.access) or not access.kinds:
        raise ContractError(f"{path} lacks concord.options.v1.access, or it admits nobody")
    if access.signed_request:
        raise ContractError(f"{path} wants a signed request, which this gateway cannot verify yet")
    return Rpc(
        path=path,
        owner=owner,
        descriptor=method,
        request_class=message_factory.GetMessageClass(method.input_type),
        response_class=message_factory.GetMessageClass(method.output_type),
        http=options.Extensions[annotations_pb2.http],
        access=access,
    )


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        name = names.get(tuple(location.path))
        if name and location.leading_comments:
            yield name, " ".join(line.strip() for line in location.leading_comments.strip().splitlines())


def _names(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Places in the file, numbered as in descriptor.proto, and the full names of what stands there."""
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield (6, index), name
        yield from (((6, index, 2, at), f"{name}.{method.name}") for at, method in enumerate(service.method))
    for index, message in enumerate(file.message_type):
        yield from _names_in_message((4, index), f"{file.package}.{message.name}", message)
    for index, enum in enumerate(file.enum_type):
        yield from _names_in_enum((5, index), f"{file.package}.{enum.name}", enum)


def _names_in_message(
    place: tuple[int, ...], name: str, message: descriptor_pb2.DescriptorProto
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield place, name
    yield from (((*place, 2, at), f"{name}.{field.name}") for at, field in enumerate(message.field))
    for at, nested in enumerate(message.nested_type):
        yield from _names_in_message((*place, 3, at), f"{name}.{nested.name}", nested)
    for at, enum in enumerate(message.enum_type):
        yield from _names_in_enum((*place, 4, at), f"{name}.{enum.name}", enum)


def _names_in_enum(
    place: tuple[int, ...], name: str, enum: descriptor_pb2.EnumDescriptorProto
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield place, name
    yield from (((*place, 2, at), f"{name}.{value.name}") for at, value in enumerate(enum.value))
