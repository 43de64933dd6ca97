"""The vendored rules schema works: protovalidate reads its options from messages that protoc made of it."""

from importlib import resources
from pathlib import Path

import protovalidate
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from buf.validate import validate_pb2

PROTOS = Path(__file__).parents[1]
SOURCE = """
syntax = "proto3";
package sample;
import "buf/validate/validate.proto";
message Transfer {
  string account = 1 [(buf.validate.field).string.min_len = 3];
  int64 amount_points = 2 [(buf.validate.field).int64.gt = 0];
}
"""


@pytest.fixture
def transfer(tmp_path):
    (tmp_path / "sample.proto").write_text(SOURCE)
    out = tmp_path / "sample.binpb"
    well_known = resources.files("grpc_tools") / "_proto"
    arguments = [f"-I{tmp_path}", f"-I{PROTOS}", f"-I{well_known}", f"--descriptor_set_out={out}", "sample.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    pool = descriptor_pool.Default()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("sample.Transfer"))


def test_a_google_protobuf_message_is_validated_by_its_options(transfer):
    protovalidate.validate(transfer(account="a-1", amount_points=1))
    with pytest.raises(protovalidate.ValidationError) as broken:
        protovalidate.validate(transfer(account="a", amount_points=-5))
    found = {violation.proto.rule_id for violation in broken.value.violations}
    assert found == {"string.min_len", "int64.gt"}


def test_the_options_are_readable_from_generated_python(transfer):
    rules = transfer.DESCRIPTOR.fields_by_name["amount_points"].GetOptions().Extensions[validate_pb2.field]
    assert rules.int64.gt == 0
    assert rules.int64.HasField("gt")
