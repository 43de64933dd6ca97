"""The OpenAPI document: valid, complete, as committed, and true: what services answer and requests may hold fits its schemas."""

import base64
import json
import re

import jsonschema  # type: ignore[import-untyped]
import protovalidate
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import assume, given
from hypothesis import strategies as st
from openapi_spec_validator import validate

from buf.validate import validate_pb2
from gateway import openapi, rpcs, schemas, testing, values
from gateway.__main__ import main
from gateway.json_encoder import Encoders
from gateway.schemas import pattern_of_segments
from gateway.testing import field_path


@pytest.fixture(scope="module")
def document(served):
    return openapi.document(served)


def operations(document):
    return [(path, method, operation) for path, methods in document["paths"].items() for method, operation in methods.items()]


def resolved(document, schema):
    return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def fits(document, schema, value):
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": document["components"], "allOf": [schema]}
    jsonschema.Draft202012Validator(whole).validate(value)


def test_it_is_valid_and_says_so_itself(document):
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_the_committed_document_is_what_the_contracts_say(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gateway", "openapi", "--check"])
    assert main() == 0


def test_a_document_that_drifted_is_found(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(openapi, "FILE", tmp_path / "openapi.json")
    monkeypatch.setattr("sys.argv", ["gateway", "openapi", "--check"])
    assert main() == 1
    assert "run `.venv/bin/python -m gateway openapi`" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["gateway", "openapi"])
    assert main() == 0
    validate(json.loads((tmp_path / "openapi.json").read_text()))


def test_every_rpc_is_there_with_its_access(document, served):
    found = {operation["operationId"]: operation for _, _, operation in operations(document)}
    assert len(found) == len(operations(document))
    for rpc in served.rpcs:
        operation = found[rpc.name.replace(".", "_")]
        assert operation["x-concord-access"]["scopes"] == list(rpc.access.scopes)
        assert operation["security"] == [{"bearer": [scope]} for scope in rpc.access.scopes]
        assert operation["summary"], rpc.path
        assert {"200", "400", "401", "403", "default"} <= set(operation["responses"])


def test_request_id_and_etag_are_headers_only(document, served):
    for path, method, operation in operations(document):
        parameters = operation["parameters"]
        names = {parameter.get("name") for parameter in parameters}
        assert not names & {"requestId", "request_id", "etag"}, path
        body = operation.get("requestBody")
        if body:
            schema = resolved(document, body["content"]["application/json"]["schema"])
            assert "requestId" not in schema["properties"], path
        if method != "get" and not operation["x-concord-access"]["readOnly"]:
            assert {"$ref": "#/components/parameters/IdempotencyKey"} in parameters


def test_a_header_is_required_where_the_contract_wants_its_field(document):
    decide = document["paths"]["/v1/kycCases/{kyc_case}:decide"]["post"]
    assert {"$ref": "#/components/parameters/IfMatchNeeded"} in decide["parameters"]
    assert "428" in decide["responses"]
    submit = document["paths"]["/v1/kycCases/{kyc_case}:submit"]["post"]
    assert {"$ref": "#/components/parameters/IfMatch"} in submit["parameters"]
    assert "428" not in submit["responses"]
    assert document["components"]["parameters"]["IfMatchNeeded"]["required"]


def test_a_body_may_leave_out_what_the_path_says(document, served):
    found = 0
    for transcoder in rpcs.transcoders(served):
        names = {path[1] for path in transcoder.bound if len(path) == 2}
        if not names:
            continue
        operation = next(op for _, _, op in operations(document) if op["operationId"] == transcoder.rpc.name.replace(".", "_"))
        schema = resolved(document, operation["requestBody"]["content"]["application/json"]["schema"])
        assert all(schema["properties"][name]["readOnly"] for name in names)
        assert not names & set(schema.get("required", ()))
        found += 1
    assert found > 2


def test_an_update_may_leave_out_every_field(served):
    """Where a rule of a field does not let its zero value pass, PATCH would refuse what the document allows."""
    found = 0
    for transcoder in rpcs.transcoders(served):
        body = transcoder.body_field
        if transcoder.binding.method != "PATCH" or body is None:
            continue
        in_path = {path[1] for path in transcoder.bound if len(path) == 2}
        assert body.message_type is not None
        empty = message_factory.GetMessageClass(body.message_type)()
        broken = {field_path(one.proto.field) for one in protovalidate.Validator().collect_violations(empty)} - in_path
        assert not broken, f"{transcoder.rpc.name}: let the rules of {sorted(broken)} ignore the zero value"
        found += 1
    assert found > 1


def test_path_parameters_have_the_patterns_of_their_fields(document):
    operation = document["paths"]["/v1/institutions/{institution}/sourceSystems/{source_system}"]["get"]
    slug = "^[a-z][a-z0-9-]{1,38}[a-z0-9]$"
    assert [(p["name"], p["schema"]["pattern"]) for p in operation["parameters"][:2]] == [
        ("institution", slug),
        ("source_system", slug),
    ]
    for path, _, operation in operations(document):
        named = set(re.findall(r"\{(\w+)\}", path))
        assert named == {p["name"] for p in operation["parameters"] if p.get("in") == "path"}


def test_answers_fit_their_schemas(document, served):
    for transcoder in rpcs.transcoders(served):
        operation = next(op for _, _, op in operations(document) if op["operationId"] == transcoder.rpc.name.replace(".", "_"))
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        answer = transcoder.encode_response(testing.example(transcoder.rpc.response_class))
        fits(document, schema, answer)
        fits(document, schema, {} if not resolved(document, schema).get("required") else answer)


def test_requests_fit_their_schemas(document, served):
    encoders = Encoders(served.pool)
    compared = 0
    for transcoder in rpcs.transcoders(served):
        operation = next(op for _, _, op in operations(document) if op["operationId"] == transcoder.rpc.name.replace(".", "_"))
        if "requestBody" not in operation:
            continue
        request = encoders.of(transcoder.rpc.descriptor.input_type)(testing.example(transcoder.rpc.request_class))
        if transcoder.body_field is not None:
            request = request[transcoder.body_field.json_name]
        else:
            bound = {variable.field_path[0] for variable in transcoder.binding.template.variables}
            for name in bound | {"requestId", "etag"}:
                request.pop(name, None)
        fits(document, operation["requestBody"]["content"]["application/json"]["schema"], request)
        compared += 1
    assert compared > 20


def test_schemas_refuse_what_the_gateway_refuses(document):
    schema = {"$ref": "#/components/schemas/customer.v1.SearchCustomersRequest"}
    fits(document, schema, {"phone": "12345", "pageSize": None})
    for wrong in (
        {},
        {"phone": "12345", "email": "a@b"},
        {"phone": "12345", "nope": 1},
        {"phone": "12345", "pageSize": -1},
        {"phone": "1"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            fits(document, schema, wrong)


@given(st.integers(-(10**18), 10**18), st.integers(-(10**18), 10**18), st.data())
def test_integers_as_text_stay_within_their_bounds(low, high, data):
    assume(low <= high)
    pattern = schemas._digits(low, high)
    number = data.draw(st.one_of(st.integers(low, high), st.integers(-20, 20), st.integers(-(10**19), 10**19)))
    if re.search(pattern, str(number)):
        assert low <= number <= high or low > 1 or high < -1


@pytest.mark.parametrize(
    ("pattern", "segments"),
    [
        ("^a/[a-z]+/b/[0-9]{2}$", ["a", "[a-z]+", "b", "[0-9]{2}"]),
        ("^a/(b|c)/[/]d$", ["a", "(b|c)", "[/]d"]),
        ("^(a/b)$", ["(a/b)"]),
        ("a/b", None),
        ("^a/b|c/d$", None),
    ],
)
def test_patterns_are_divided_at_slashes(pattern, segments):
    assert pattern_of_segments(pattern) == segments


def test_rules_become_keywords():
    rules = validate_pb2.StringRules(min_len=1, max_len=5, email=True)
    assert schemas.text(rules, True) == {"type": "string", "minLength": 1, "maxLength": 5, "format": "email"}
    enum = validate_pb2.StringRules()
    getattr(enum, "in").extend(["a", "b"])
    assert schemas.text(enum, True) == {"type": "string", "enum": ["a", "b"]}


def test_a_list_without_doubles_takes_names_or_numbers(document):
    schema = {"$ref": "#/components/schemas/customer.v1.GrantSharingConsentRequest/properties/attributes"}
    fits(document, schema, ["ATTRIBUTE_PHONE", "ATTRIBUTE_EMAIL"])
    fits(document, schema, [1, 2])
    for wrong in ([1, 1], ["ATTRIBUTE_PHONE", 1]):
        with pytest.raises(jsonschema.ValidationError):
            fits(document, schema, wrong)


def test_an_enum_of_which_some_values_are_taken(document):
    schema = {"$ref": "#/components/schemas/customer.v1.SourceRelationship/properties/status"}
    for right in ("RELATIONSHIP_STATUS_DISCLOSED", 2, None):
        fits(document, schema, right)
    for wrong in ("RELATIONSHIP_STATUS_CONFIRMED", 3):
        with pytest.raises(jsonschema.ValidationError):
            fits(document, schema, wrong)


@given(st.binary(max_size=20), st.booleans(), st.integers(0, 20))
def test_bytes_within_their_lengths_fit(content, is_padded, size):
    written = base64.b64encode(content).decode().rstrip("=" if not is_padded else " ")
    assert values.octets(written) == content
    schema = schemas._octets(
        validate_pb2.BytesRules(min_len=min(size, len(content)), max_len=3 * max(1, (len(content) + 2) // 3))
    )
    jsonschema.Draft202012Validator(schema).validate(written)


def test_bytes_that_are_needed_are_some(document):
    schema = {"$ref": "#/components/schemas/customer.v1.UploadImportPartRequest"}
    for wrong in ({"partNumber": 1}, {"partNumber": 1, "content": ""}, {"partNumber": 1, "content": "A"}):
        with pytest.raises(jsonschema.ValidationError):
            fits(document, schema, wrong)


def test_bounds_follow_the_rules(sample):
    field = sample.pool.FindMessageTypeByName("concord.customer.v1.Everything").fields_by_name["whole"]
    assert field.type == FieldDescriptor.TYPE_INT32
    rules = validate_pb2.FieldRules(int32=validate_pb2.Int32Rules(gt=0, lt=10))
    assert schemas.bounds(field, rules) == (1, 9)
    assert schemas.integer(field, rules, True)["pattern"] == "^([1-9])$"
    ratio = sample.pool.FindMessageTypeByName("concord.customer.v1.Everything").fields_by_name["ratio"]
    above_zero = validate_pb2.FieldRules(double=validate_pb2.DoubleRules(gt=0, lte=100))
    low, high = schemas.bounds(ratio, above_zero)
    assert 0 < low < 1e-300
    assert high == 100
