"""The OpenAPI 3.1 document of everything the gateway serves, from the same descriptors as the routes."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from concord.options.v1 import method_options_pb2
from gateway import rpcs, views
from gateway.contracts import Contracts, Rpc
from gateway.json_encoder import BY_LIBRARY, WRAPPERS
from gateway.limits import SECONDS
from gateway.schemas import (
    REF,
    Schema,
    Schemas,
    bounds,
    component_name,
    is_required,
    pattern_of_segments,
    rules_of,
    text,
)
from gateway.templates import ONE, REST, Template, Variable
from gateway.transcoding import TEXTUAL, Transcoder
from gateway.values import FLOATS, RANGES

FILE = Path(__file__).parent.parent / "openapi.json"
PLAIN_SEGMENT = r"^[^/:\u0000-\u001F\u007F]+$"
PARAMETERS = "#/components/parameters/"
RESPONSES = "#/components/responses/"
INFO = {
    "title": "Concord",
    "version": "1",
    "description": (
        "The customer relationship platform of an alliance of financial institutions: one customer, one master record, "
        "one rating, one contact history and one points account.\n\n"
        "JSON is protobuf's: names in lowerCamelCase, 64-bit integers as text, instants in RFC 3339, fields with their zero "
        "value left out. What is not known (a field, a query parameter) is refused. Every change needs an `Idempotency-Key`: "
        "the same key with the same request gives the same answer, once. Refusals are RFC 9457 problems with one `type` for "
        "each `reason`."
    ),
}
PROBLEMS = {
    "400": "The request is wrong; `errors` names each field.",
    "401": "No token, or one that is not accepted.",
    "403": "The caller's kind or scope does not allow it.",
    "404": "There is no such thing, or not for this caller.",
    "409": "The state does not allow it; `reason` says why.",
    "412": "The object changed since it was read.",
    "413": "The body is larger than 1 MiB.",
    "415": "The content is not JSON.",
    "422": "The Idempotency-Key was used for another request.",
    "428": "If-Match is missing: the change is made only to what was read.",
    "429": "Too many requests; Retry-After says when.",
    "503": "Overloaded, or a service is away; the same request may be sent again.",
    "504": "Not answered in time; the same request may be sent again.",
    "default": "Any other refusal.",
}
HEADERS: dict[str, Schema] = {
    "RequestId": {"description": "The id of this request, to be named in questions about it.", "schema": {"type": "string"}},
    "ETag": {"description": "The version of the object, for If-Match.", "schema": {"type": "string"}},
    "RateLimit": {"description": "What is left of the caller's rate limit.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds to wait before the same request.", "schema": {"type": "integer"}},
    "WWWAuthenticate": {"description": "What kind of token is needed.", "schema": {"type": "string"}},
}
PARAMETER_COMPONENTS: dict[str, Schema] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": True,
        "description": "A new id for each intent, the same for its retries.",
        "schema": {"type": "string", "pattern": "^[!#-\\[\\]-~]{1,255}$"},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "The ETag that was read; another one in force refuses the change.",
        "schema": {"type": "string", "pattern": '^("[0-9A-Za-z_.:+/=-]{1,62}"|[0-9A-Za-z_.:+/=-]{1,62}|\\*)$'},
    },
    "IfMatchNeeded": {
        "name": "If-Match",
        "in": "header",
        "required": True,
        "description": "The ETag that was read; another one in force refuses the change.",
        "schema": {"type": "string", "pattern": '^("[0-9A-Za-z_.:+/=-]{1,62}"|[0-9A-Za-z_.:+/=-]{1,62})$'},
    },
    "RequestTimeout": {
        "name": "Request-Timeout",
        "in": "header",
        "description": "Seconds within which an answer is wanted, 1 to 60; 10 when not given.",
        "schema": {"type": "string", "pattern": f"^({SECONDS.pattern})$"},
    },
}
PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "description": "A refusal, RFC 9457.",
    "properties": {
        "type": {"type": "string", "description": "`urn:concord:problem:` and the reason."},
        "title": {"type": "string", "description": "What the status means."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "reason": {
            "type": "string",
            "pattern": "^[A-Z][A-Z0-9_]{0,62}$",
            "description": "For programs: one of the platform's reasons.",
        },
        "detail": {"type": "string", "description": "What is wrong and what would be right."},
        "errors": {
            "type": "array",
            "description": "Each wrong field or header.",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
                "required": ["field", "description"],
            },
        },
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Facts for programs."},
        "retryable": {"type": "boolean", "description": "Whether the same request may be sent again."},
        "request_id": {"type": "string", "description": "The id of this request."},
    },
    "required": ["type", "title", "status", "reason", "request_id"],
}


def document_text(contracts: Contracts) -> str:
    """The document as it is committed.

    Raises:
        ContractError: a contract that cannot be served.
    """
    return json.dumps(document(contracts), indent=1, ensure_ascii=False) + "\n"


def document_bytes(contracts: Contracts) -> bytes:
    """The document as it is served."""
    return orjson.dumps(document(contracts))


def document(contracts: Contracts) -> Schema:
    """The OpenAPI document."""
    transcoders = list(rpcs.transcoders(contracts))
    schemas = Schemas(contracts.comments, _in_requests(transcoders))
    paths: dict[str, Schema] = {}
    for transcoder in transcoders:
        path, parameters = _path(transcoder)
        operations = paths.setdefault(path, {})
        operations[transcoder.binding.method.lower()] = _operation(transcoder, contracts, schemas, parameters)
    if any(rpc.path == views.MASTER.rpc_path for rpc in contracts.rpcs):
        paths["/v1/customers/{customer}:view"] = {"get": _view(contracts, schemas)}
    services = {rpc.descriptor.containing_service.full_name: rpc.descriptor.containing_service for rpc in contracts.rpcs}
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "servers": [{"url": "/"}],
        "tags": [
            {"name": service.name, "description": contracts.comments.get(name, "")} for name, service in sorted(services.items())
        ],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {"Problem": PROBLEM_SCHEMA, **dict(sorted(schemas.components.items()))},
            "parameters": PARAMETER_COMPONENTS,
            "headers": HEADERS,
            "responses": {status: _problem(status, text) for status, text in PROBLEMS.items()},
            "securitySchemes": {"bearer": _security(contracts)},
        },
    }


def _security(contracts: Contracts) -> Schema:
    scopes = sorted({scope for rpc in contracts.rpcs for scope in rpc.access.scopes} | {"personal.read"})
    listed = ", ".join(f"`{scope}`" for scope in scopes)
    return {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": f"An OAuth 2 access token of an issuer that the alliance trusts (RFC 9068). Scopes: {listed}. "
        "Without `personal.read` personal fields are masked.",
        "x-concord-scopes": scopes,
    }


def _problem(status: str, description: str) -> Schema:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if status in ("429", "503"):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status == "401":
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WWWAuthenticate"}
    content = {"application/problem+json": {"schema": {"$ref": f"{REF}Problem"}}}
    return {"description": description, "headers": headers, "content": content}


def _in_requests(transcoders: Iterable[Transcoder]) -> set[str]:
    """The full names of all messages and enums that a request can hold."""
    found: set[str] = set()
    for transcoder in transcoders:
        if transcoder.body_field is not None:
            _reach(transcoder.body_field.message_type, found)
        elif transcoder.binding.body == "*":
            _reach(transcoder.rpc.descriptor.input_type, found)
    return found


def _reach(descriptor: Descriptor | None, found: set[str]) -> None:
    if descriptor is None or descriptor.full_name in found | BY_LIBRARY | TEXTUAL | WRAPPERS:
        return
    found.add(descriptor.full_name)
    for field in descriptor.fields:
        _reach(field.message_type, found)
        if field.enum_type is not None:
            found.add(field.enum_type.full_name)


def _operation(transcoder: Transcoder, contracts: Contracts, schemas: Schemas, parameters: list[Schema]) -> Schema:
    rpc, binding = transcoder.rpc, transcoder.binding
    extra = (
        ""
        if binding.template.text == getattr(rpc.http, rpc.http.WhichOneof("pattern") or "get")
        else f"_{binding.template.verb or 'also'}"
    )
    output = rpc.descriptor.output_type
    schema: Schema = schemas.reference(output)
    if binding.response_body:
        schema = schemas.field(output.fields_by_name[binding.response_body], False)
    operation: Schema = {
        "operationId": f"{rpc.descriptor.containing_service.name}_{rpc.descriptor.name}{extra}",
        "tags": [rpc.descriptor.containing_service.name],
        "summary": _first_sentence(contracts.comments.get(rpc.descriptor.full_name, "")),
        "description": contracts.comments.get(rpc.descriptor.full_name, ""),
        "parameters": [*parameters, *_query(transcoder, contracts, schemas), *_header_parameters(transcoder)],
    }
    if binding.body:
        operation["requestBody"] = _body(transcoder, contracts, schemas)
    operation["responses"] = _responses(transcoder, schema)
    return operation | _access(rpc)


def _access(rpc: Rpc) -> Schema:
    access = rpc.access
    return {
        "security": [{"bearer": [scope]} for scope in access.scopes] or [{"bearer": []}],
        "x-concord-access": {
            "kinds": [
                method_options_pb2.PrincipalKind.Name(kind).removeprefix("PRINCIPAL_KIND_").lower() for kind in access.kinds
            ],
            "scopes": list(access.scopes),
            "objectCheck": method_options_pb2.ObjectCheck.Name(access.object_check).removeprefix("OBJECT_CHECK_"),
            "readOnly": not rpc.changes,
        },
    }


def _responses(transcoder: Transcoder, schema: Schema) -> Schema:
    rpc = transcoder.rpc
    headers: Schema = {
        "X-Request-Id": {"$ref": "#/components/headers/RequestId"},
        "RateLimit": {"$ref": "#/components/headers/RateLimit"},
    }
    if "etag" in rpc.descriptor.output_type.fields_by_name:
        headers["ETag"] = {"$ref": "#/components/headers/ETag"}
    statuses = ["400", "401", "403", "404"]
    statuses += ["409"] if rpc.changes else []
    statuses += ["412"] if "etag" in transcoder.header_fields else []
    statuses += ["413", "415"] if transcoder.binding.body else []
    statuses += ["422"] if rpc.changes else []
    statuses += ["428"] if "etag" in transcoder.headers_needed else []
    done: Schema = {"description": "Done.", "headers": headers, "content": {"application/json": {"schema": schema}}}
    return {"200": done} | {status: {"$ref": RESPONSES + status} for status in [*statuses, "429", "503", "504", "default"]}


def _header_parameters(transcoder: Transcoder) -> list[Schema]:
    names = ["IdempotencyKey"] if "request_id" in transcoder.headers_needed else []
    if "etag" in transcoder.header_fields:
        names.append("IfMatchNeeded" if "etag" in transcoder.headers_needed else "IfMatch")
    return [{"$ref": PARAMETERS + name} for name in [*names, "RequestTimeout"]]


def _body(transcoder: Transcoder, contracts: Contracts, schemas: Schemas) -> Schema:
    field = transcoder.body_field
    if field is not None:
        descriptor = cast(Descriptor, field.message_type)
        is_update = any(_is_mask(other) for other in transcoder.rpc.descriptor.input_type.fields)
        in_path = frozenset(path[1] for path in transcoder.bound if len(path) == 2 and path[0] == field.name)
        schema, required = schemas.reference(descriptor), True
        if is_update or in_path:
            schema = schemas.body_reference(descriptor, in_path, is_update)
        description = contracts.comments.get(field.full_name, "")
    else:
        descriptor = transcoder.rpc.descriptor.input_type
        bound = {variable.field_path[0] for variable in transcoder.binding.template.variables if len(variable.field_path) == 1}
        schema = schemas.message(descriptor, frozenset(bound | set(transcoder.header_fields)))
        required, description = not transcoder.body_is_optional, contracts.comments.get(descriptor.full_name, "")
        if transcoder.rpc.http.additional_bindings:
            return {"required": required, "description": description, "content": {"application/json": {"schema": schema}}}
        schemas.components[component_name(descriptor)] = schema
        schema = {"$ref": REF + component_name(descriptor)}
    return {"required": required, "description": description, "content": {"application/json": {"schema": schema}}}


def _is_mask(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.FieldMask"


def _query(transcoder: Transcoder, contracts: Contracts, schemas: Schemas) -> list[Schema]:
    """Query parameters; the fields that headers fill are documented as those headers."""
    parameters = []
    for path, field in transcoder.query_fields.items():
        if path[0] in transcoder.header_fields:
            continue
        parameter: Schema = {"name": ".".join(_json_names(transcoder.rpc.descriptor.input_type, path)), "in": "query"}
        if len(path) == 1 and is_required(field):
            parameter["required"] = True
        if comment := contracts.comments.get(field.full_name):
            parameter["description"] = comment
        schema = _text_schema(field, schemas)
        parameter["schema"] = {"type": "array", "items": schema} if field.is_repeated else schema
        parameters.append(parameter)
    return parameters


def _json_names(descriptor: Descriptor, path: tuple[str, ...]) -> list[str]:
    names = []
    for step in path:
        field = descriptor.fields_by_name[step]
        names.append(field.json_name)
        descriptor = field.message_type or descriptor
    return names


def _text_schema(field: FieldDescriptor, schemas: Schemas) -> Schema:
    """The schema of a value that travels as text, in a query or a path."""
    rules = rules_of(field).repeated.items if field.is_repeated else rules_of(field)
    if field.enum_type is not None:
        allowed = list(rules.enum.__getattribute__("in")) or [value.number for value in field.enum_type.values]
        names = [value.name for value in field.enum_type.values if value.number in {*allowed} - {*rules.enum.not_in}]
        return {"type": "string", "enum": names}
    if field.type in RANGES:
        low, high = bounds(field, rules)
        return {"type": "integer", "minimum": low, "maximum": high}
    if field.type in FLOATS:
        return {"type": "number"}
    return schemas.single(field, rules, True)


def _path(transcoder: Transcoder) -> tuple[str, list[Schema]]:
    """The path with a parameter for each variable segment, and those parameters."""
    template = transcoder.binding.template
    segments = list(template.segments)
    parameters: list[Schema] = []
    used: set[str] = set()
    for variable in template.variables:
        field = _field(transcoder.rpc.descriptor.input_type, variable.field_path)
        for at, schema in _variable_segments(template, variable, field):
            name = _unique(_segment_name(template, variable, at), used)
            segments[at] = f"{{{name}}}"
            parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
    return "/" + "/".join(segments) + (f":{template.verb}" if template.verb else ""), parameters


def _variable_segments(template: Template, variable: Variable, field: FieldDescriptor) -> list[tuple[int, Schema]]:
    inside = list(range(variable.start, len(template.segments) if variable.end is None else variable.end))
    pattern = rules_of(field).string.pattern
    divided = pattern_of_segments(pattern) if pattern else None
    if divided is not None and len(divided) != len(inside):
        divided = None
    result = []
    for place, at in enumerate(inside):
        if template.segments[at] not in (ONE, REST):
            continue
        if divided is not None:
            schema: Schema = {"type": "string", "pattern": f"^{divided[place]}$"}
        elif variable.is_single and field.type == FieldDescriptor.TYPE_STRING:
            schema = text(rules_of(field).string, False)
            schema.setdefault("pattern", PLAIN_SEGMENT)
        else:
            schema = {"type": "string", "pattern": PLAIN_SEGMENT}
        result.append((at, schema))
    return result


def _segment_name(template: Template, variable: Variable, at: int) -> str:
    before = template.segments[at - 1] if at > variable.start else ""
    if before in ("", ONE, REST):
        return variable.field_path[-1]
    singular = re.sub("ies$", "y", before) if before.endswith("ies") else before.removesuffix("s")
    return re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", singular)


def _unique(name: str, used: set[str]) -> str:
    while name in used:
        name += "_"
    used.add(name)
    return name


def _field(descriptor: Descriptor, path: tuple[str, ...]) -> FieldDescriptor:
    for step in path[:-1]:
        descriptor = cast(Descriptor, descriptor.fields_by_name[step].message_type)
    return descriptor.fields_by_name[path[-1]]


def _first_sentence(comment: str) -> str:
    return re.split(r"(?<=\.)\s", comment, maxsplit=1)[0].rstrip(".")


def _view(contracts: Contracts, schemas: Schemas) -> Schema:
    """The composed view of a customer."""
    properties: Schema = {}
    for part in views.PARTS:
        rpc = contracts.rpc(part.rpc_path)
        assert rpc is not None
        output = rpc.descriptor.output_type
        field = output.fields_by_name[part.list_field] if part.list_field else None
        properties[part.name] = schemas.field(field, False) if field is not None else schemas.reference(output)
    missing = {
        "type": "array",
        "description": "The parts that could not be had, with the reason of each.",
        "items": {
            "type": "object",
            "properties": {
                "part": {"type": "string", "enum": [part.name for part in views.PARTS]},
                "reason": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
            },
            "required": ["part", "reason", "status", "detail"],
        },
    }
    schemas.components["CustomerView"] = {
        "type": "object",
        "description": "A customer as several services know it. Each part is there, or listed in `missing`.",
        "properties": properties | {"missing": missing},
        "required": ["missing"],
        "additionalProperties": False,
    }
    master = contracts.rpc(views.MASTER.rpc_path)
    assert master is not None
    comment = "Reads a customer with ratings, latest contacts and points in one answer. A part that fails is listed as missing."
    pattern = f"^{views.CUSTOMER.pattern}$"
    return {
        "operationId": "CustomerView_Get",
        "tags": ["CustomerService"],
        "summary": _first_sentence(comment),
        "description": comment,
        "parameters": [
            {"name": "customer", "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}},
            {"$ref": f"{PARAMETERS}RequestTimeout"},
        ],
        "responses": {
            "200": {
                "description": "Done.",
                "headers": {
                    "X-Request-Id": {"$ref": "#/components/headers/RequestId"},
                    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
                },
                "content": {"application/json": {"schema": {"$ref": f"{REF}CustomerView"}}},
            },
            **{status: {"$ref": RESPONSES + status} for status in ("400", "401", "403", "404", "429", "503", "504", "default")},
        },
    } | _access(master)
