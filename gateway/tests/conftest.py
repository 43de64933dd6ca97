"""The gateway's fixtures: contracts, and a gateway that listens, before services that answer with examples."""

import tempfile
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import google.api
import httpx
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from gateway import contracts, testing
from gateway.contracts import Contracts

PROTOS = Path(__file__).parents[2] / "protos"


@pytest.fixture(scope="session")
def served() -> Contracts:
    return contracts.installed()


@pytest.fixture(scope="session")
async def shared() -> AsyncIterator[testing.Running]:
    with tempfile.TemporaryDirectory() as folder:
        async with testing.running(Path(folder)) as running:
            yield running


@pytest.fixture
def stack(shared):
    shared.backend.received.clear()
    shared.backend.answers.clear()
    return shared


@pytest.fixture
async def client(stack):
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        yield client


def compiled(source: str) -> descriptor_pb2.FileDescriptorSet:
    """The descriptor set of a proto file of the tests."""
    api = Path(next(iter(google.api.__path__))).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sample.proto").write_text(source)
        target = Path(folder) / "set.binpb"
        includes = [folder, str(PROTOS), str(api), str(resources.files("grpc_tools") / "_proto")]
        arguments = [
            "protoc",
            *(f"-I{path}" for path in includes),
            "--include_imports",
            f"--descriptor_set_out={target}",
            "sample.proto",
        ]
        assert protoc.main(arguments) == 0
        return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())


@pytest.fixture(scope="session")
def sample_files() -> descriptor_pb2.FileDescriptorSet:
    return compiled((Path(__file__).parent / "sample.proto").read_text())


@pytest.fixture(scope="session")
def sample(sample_files) -> Contracts:
    return contracts.read(sample_files)


@pytest.fixture(scope="session")
def compile_contracts():
    return lambda source: contracts.read(compiled(source))
