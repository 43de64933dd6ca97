"""The contract, compiled at import: it must not be among the platform's own."""

import tempfile
from importlib import util
from pathlib import Path
from typing import Any

import google.api.annotations_pb2  # noqa: F401
import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

import buf.validate.validate_pb2  # noqa: F401
import concord.common.v1.event_pb2
import concord.options.v1.field_options_pb2
import concord.options.v1.method_options_pb2  # noqa: F401 - these put what echo.proto imports into the pool

HERE = Path(__file__).parent
PROTOS = HERE.parents[3] / "protos"
PACKAGE = "concord.chassis_test.v1"
ECHO, BROKEN = f"{PACKAGE}.EchoService", f"{PACKAGE}.BrokenService"


def _load() -> None:
    google_api = Path(next(iter(util.find_spec("google.api").submodule_search_locations or ()))).parent.parent
    well_known = Path(next(iter(util.find_spec("grpc_tools").submodule_search_locations or ()))) / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        includes = [f"-I{path}" for path in (HERE, PROTOS, google_api, well_known)]
        assert protoc.main(["protoc", *includes, f"--descriptor_set_out={out}", str(HERE / "echo.proto")]) == 0
        for file in FileDescriptorSet.FromString(out.read_bytes()).file:
            descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


_load()


def message(name: str) -> Any:
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(f"{PACKAGE}.{name}"))


GetEchoRequest, Person, People = message("GetEchoRequest"), message("Person"), message("People")
Birth = message("Birth")
AddRequest, AddResponse = message("AddRequest"), message("AddResponse")
CounterChanged, Added = message("CounterChanged"), message("Added")


def add_to_server(name: str) -> Any:
    """What protoc's gRPC plugin would have generated."""
    service = descriptor_pool.Default().FindServiceByName(name)

    def add(servicer: Any, server: Any) -> None:
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                getattr(servicer, method.name),
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
            )
            for method in service.methods
            if hasattr(servicer, method.name)
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    return add


class Stub:
    def __init__(self, channel: grpc.aio.Channel, name: str = ECHO) -> None:
        for method in descriptor_pool.Default().FindServiceByName(name).methods:
            call: Any = channel.unary_unary(
                f"/{name}/{method.name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, call)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)
