"""The compiled encoder and the decoder agree with protobuf's own json_format, on random messages of every kind of field."""

import json
import math
from typing import Any, Literal

import orjson
import pytest
from google.protobuf import json_format, message_factory
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.json_decoder import Decoders, load
from gateway.json_encoder import BY_LIBRARY, WRAPPERS, Encoders
from gateway.problems import Problem
from gateway.values import FLOATS, RANGES

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
SECONDS = st.integers(-62_135_596_800, 253_402_300_799)
NANOS = st.sampled_from([0, 1, 1_000, 120_000_000, 999_999_999])


def scalars(field, finite):
    if field.enum_type is not None:
        numbers = [value.number for value in field.enum_type.values]
        return st.sampled_from(numbers if finite else [*numbers, 77])
    if field.type in RANGES:
        return st.integers(*RANGES[field.type])
    if field.type in FLOATS:
        width: Literal[32, 64] = 32 if field.type == field.TYPE_FLOAT else 64
        return st.floats(width=width, allow_nan=not finite, allow_infinity=not finite)
    return {field.TYPE_BOOL: st.booleans(), field.TYPE_BYTES: st.binary(max_size=9)}.get(field.type, TEXT)


@st.composite
def messages(draw, message_class, depth=2, finite=True):
    """A message with some of its fields set."""
    message = message_class()
    for field in message.DESCRIPTOR.fields:
        if draw(st.integers(0, 2)) == 0:
            continue
        count = draw(st.integers(1, 2)) if field.is_repeated else 1
        for _ in range(count):
            put(draw, message, field, depth, finite)
    return message


def put(draw, message, field, depth, finite):
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        key = draw(scalars(inner.fields_by_name["key"], finite))
        value = inner.fields_by_name["value"]
        target = getattr(message, field.name)
        if value.message_type is None:
            target[key] = draw(scalars(value, finite))
        elif depth:
            target[key].CopyFrom(draw(messages(type(message_of(value.message_type)), depth - 1, finite)))
    elif inner is None:
        value = draw(scalars(field, finite))
        getattr(message, field.name).append(value) if field.is_repeated else setattr(message, field.name, value)
    else:
        target = getattr(message, field.name)
        target = target.add() if field.is_repeated else target
        fill(draw, target, inner.full_name, depth, finite)


def message_of(descriptor):
    return message_factory.GetMessageClass(descriptor)()


def fill(draw, target, kind, depth, finite):
    if kind == "google.protobuf.Timestamp":
        target.seconds, target.nanos = draw(SECONDS), draw(NANOS)
    elif kind == "google.protobuf.Duration":
        sign = draw(st.sampled_from([1, -1]))
        target.seconds, target.nanos = sign * draw(st.integers(0, 10**9)), sign * draw(NANOS)
    elif kind == "google.protobuf.FieldMask":
        target.paths.extend(draw(st.lists(st.sampled_from(["text", "small_ratio", "child.long_number"]), max_size=3)))
        target.SetInParent()
    elif kind in WRAPPERS:
        target.value = draw(scalars(target.DESCRIPTOR.fields_by_name["value"], finite))
    elif kind == "google.protobuf.Any":
        target.Pack(target_any(draw))
    elif kind in BY_LIBRARY:
        simple = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), TEXT)
        value = {"Struct": st.dictionaries(TEXT, simple, max_size=2), "ListValue": st.lists(simple, max_size=2)}
        json_format.ParseDict(draw(value.get(kind.rpartition(".")[2], simple)), target)
    elif depth:
        target.MergeFrom(draw(messages(type(target), depth - 1, finite)))
        target.SetInParent()


def target_any(draw):
    from google.protobuf import wrappers_pb2

    return wrappers_pb2.StringValue(value=draw(TEXT))


def same(one, other):
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def deep_class(sample):
    return message_factory.GetMessageClass(sample.pool.FindMessageTypeByName("concord.customer.v1.Deep"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_encoder_writes_what_json_format_writes(sample, data):
    message = data.draw(messages(deep_class(sample), finite=False))
    encoded = Encoders(sample.pool).of(message.DESCRIPTOR)(message)
    wanted = json_format.MessageToDict(message, descriptor_pool=sample.pool)
    assert same(json.loads(orjson.dumps(encoded)), json.loads(json.dumps(wanted)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_decoder_reads_what_json_format_writes(sample, data):
    message = data.draw(messages(deep_class(sample)))
    document = json_format.MessageToJson(message, descriptor_pool=sample.pool)
    names = data.draw(st.booleans())
    if names:
        document = json_format.MessageToJson(message, preserving_proto_field_name=True, descriptor_pool=sample.pool)
    read = type(message)()
    Decoders(sample.pool).decode(read, load(document.encode()))
    assert read == message


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_contract_survives_the_way_out_and_in(served, data):
    rpc = data.draw(st.sampled_from(served.rpcs))
    message = data.draw(messages(rpc.response_class, depth=3))
    encoded = Encoders(served.pool).of(message.DESCRIPTOR)(message)
    read = rpc.response_class()
    Decoders(served.pool).decode(read, json.loads(orjson.dumps(encoded)))
    assert read == message


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), TEXT, st.just("2026-01-01T00:00:00Z")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["text", "whole", "child", "many", "x"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_the_decoder_takes_json_format_takes_alike(sample, data):
    """Any JSON at all is taken or refused with a Problem, never with another exception; what is taken means the same."""
    message_class = deep_class(sample)
    names = [name for field in message_class.DESCRIPTOR.fields for name in (field.name, field.json_name)] + ["nope"]
    document = data.draw(st.dictionaries(st.sampled_from(names), JSON, max_size=3))
    assume("_" not in str(document.get("everything")))  # json_format takes no proto names in masks
    read = message_class()
    refused = None
    try:
        Decoders(sample.pool).decode(read, document)
    except Problem as problem:
        refused = problem
    if refused is not None:
        assert refused.status == 400
        assert refused.errors or refused.reason == "JSON_TOO_DEEP"
        return
    assert read == json_format.ParseDict(document, message_class(), descriptor_pool=sample.pool)


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({"everything": {"whole": 2**31}}, ["everything.whole"]),
        ({"everything": {"whole": 1.5}}, ["everything.whole"]),
        ({"everything": {"whole": True}}, ["everything.whole"]),
        ({"everything": {"whole": "1_0"}}, ["everything.whole"]),
        ({"everything": {"long": "9223372036854775808"}}, ["everything.long"]),
        ({"everything": {"unsignedLong": -1}}, ["everything.unsignedLong"]),
        ({"everything": {"ratio": "1e999"}}, ["everything.ratio"]),
        ({"everything": {"smallRatio": 1e39}}, ["everything.smallRatio"]),
        ({"everything": {"flag": "true"}}, ["everything.flag"]),
        ({"everything": {"octets": "%%"}}, ["everything.octets"]),
        ({"everything": {"colour": "RED"}}, ["everything.colour"]),
        ({"everything": {"colour": 9}}, ["everything.colour"]),
        ({"everything": {"atTime": "2026-02-30T00:00:00Z"}}, ["everything.atTime"]),
        ({"everything": {"atTime": "2026-01-01 00:00:00Z"}}, ["everything.atTime"]),
        ({"everything": {"atTime": "0001-01-01T00:00:00+14:00"}}, ["everything.atTime"]),
        ({"everything": {"pause": "1"}}, ["everything.pause"]),
        ({"everything": {"updateMask": "a-b"}}, ["everything.updateMask"]),
        ({"everything": {"child": []}}, ["everything.child"]),
        ({"everything": {"texts": "a"}}, ["everything.texts"]),
        ({"everything": {"texts": ["a", None, 1]}}, ["everything.texts[1]", "everything.texts[2]"]),
        ({"everything": {"smallRatio": 1, "small_ratio": 1}}, ["everything.smallRatio"]),
        ({"this": "a", "that": 1}, ["that"]),
        ({"this": None}, ["this"]),
        ({"many": [{}, {"nope": 1}]}, ["many[1].nope"]),
        ({"byNumber": {"x": "COLOUR_RED"}}, ["byNumber.x"]),
        ({"byFlag": {"True": ""}}, ["byFlag.True"]),
        ({"free": {"a": "\x00"}}, ["free"]),
        ({"packed": {"@type": "type.googleapis.com/nope"}}, ["packed"]),
    ],
)
def test_wrong_values_are_named(sample, document, fields):
    with pytest.raises(Problem) as refused:
        Decoders(sample.pool).decode(deep_class(sample)(), document)
    assert [name for name, _ in refused.value.errors] == fields
    assert refused.value.reason == "FIELD_INVALID"


def test_nesting_is_limited(sample):
    def nested(levels):
        document: dict[str, Any] = {}
        for _ in range(levels - 1):
            document = {"deeper": document}
        return document

    Decoders(sample.pool).decode(deep_class(sample)(), nested(32))
    with pytest.raises(Problem) as refused:
        Decoders(sample.pool).decode(deep_class(sample)(), nested(33))
    assert refused.value.reason == "JSON_TOO_DEEP"
    free: list[Any] = []
    for _ in range(40):
        free = [free]
    with pytest.raises(Problem):
        Decoders(sample.pool).decode(deep_class(sample)(), {"anything": free})


def test_at_most_twenty_errors_are_named(sample):
    with pytest.raises(Problem) as refused:
        Decoders(sample.pool).decode(deep_class(sample)(), {f"x{index}": 1 for index in range(50)})
    assert len(refused.value.errors) == 20
