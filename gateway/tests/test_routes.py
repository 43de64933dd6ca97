"""Templates, the route table, and what is refused at start."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import rpcs, templates
from gateway.contracts import ContractError
from gateway.problems import Problem
from gateway.routes import Route, RouteTable
from gateway.templates import TemplateError
from gateway.testing import matching

HEAD = """syntax = "proto3"; package concord.customer.v1;
import "google/api/annotations.proto"; import "google/api/httpbody.proto"; import "concord/options/v1/method_options.proto";
message A { string name = 1; B b = 2; repeated B bs = 3; map<string, string> m = 4; string request_id = 5; A again = 6; }
message B { string c = 1; }
service S { rpc M(%s) returns (%s) { %s } }
"""
ACCESS = "option (concord.options.v1.access) = {kinds: PRINCIPAL_KIND_STAFF object_check: OBJECT_CHECK_NONE};"


def table(*texts):
    return RouteTable([Route(text.split()[0], templates.parse(text.split()[1]), text, text) for text in texts])


@pytest.mark.parametrize(
    ("text", "segments", "variables", "verb"),
    [
        ("/v1/customers", ("v1", "customers"), [], ""),
        ("/v1/{name=customers/*}", ("v1", "customers", "*"), [(("name",), 1, 3)], ""),
        ("/v1/{a.b}/x/{c=**}:go", ("v1", "*", "x", "**"), [(("a", "b"), 1, 2), (("c",), 3, None)], "go"),
        ("/v1/{parent=a/*/b/*}/c:d", ("v1", "a", "*", "b", "*", "c"), [(("parent",), 1, 5)], "d"),
    ],
)
def test_templates_are_parsed(text, segments, variables, verb):
    parsed = templates.parse(text)
    assert (parsed.segments, parsed.verb) == (segments, verb)
    assert [(v.field_path, v.start, v.end) for v in parsed.variables] == variables


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1",
        "/",
        "/v1/",
        "/v1//a",
        "/{",
        "/{}",
        "/{a",
        "/{a=}",
        "/{a=b/}",
        "/{a={b}}",
        "/**/a",
        "/a:",
        "/a:b:c",
        "/a b",
        "/{A}",
        "/a}",
    ],
)
def test_bad_templates_are_refused(text):
    with pytest.raises(TemplateError):
        templates.parse(text)


def test_the_narrower_route_wins_and_methods_are_known():
    routes = table("GET /v1/{name=c/*}", "GET /v1/c/special", "DELETE /v1/{name=c/*}", "POST /v1/c:make", "GET /v1/{all=c/*/**}")

    def found(method, path):
        return routes.find(method, path)[0]

    assert found("GET", "/v1/c/special").name == "GET /v1/c/special"
    assert found("DELETE", "/v1/c/special").name == "DELETE /v1/{name=c/*}"
    assert found("GET", "/v1/c/other").name == "GET /v1/{name=c/*}"
    assert found("GET", "/v1/c/x/y/z").name == "GET /v1/{all=c/*/**}"
    assert found("POST", "/v1/c:make").name == "POST /v1/c:make"
    assert routes.find("GET", "/v1/c:make")[2] == ("POST",)
    assert routes.find("PUT", "/v1/c/special")[2] == ("DELETE", "GET")
    for path in ("/v1/c/x:make", "/v1/c/", "/v1/c//y", "/v1", "/v1/c/x/", "v1/c"):
        assert routes.find("GET", path)[0] is None, path


@pytest.mark.parametrize(
    "pair",
    [
        ("GET /v1/{a=c/*}", "GET /v1/c/{b}"),
        ("GET /v1/a/*", "GET /v1/*/b"),
        ("GET /v1/{a=**}", "GET /v1/{b=**}"),
        ("POST /v1/a:x", "POST /v1/a:x"),
    ],
)
def test_ambiguous_routes_are_refused(pair):
    with pytest.raises(ContractError, match="ambiguous"):
        table(*pair)


SEGMENTS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3)


@given(SEGMENTS, SEGMENTS, st.booleans(), st.booleans(), st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5))
def test_overlap_and_narrower_are_what_paths_show(one, other, one_rest, other_rest, path):
    first = templates.parse("/" + "/".join(one + ["**"] * one_rest))
    second = templates.parse("/" + "/".join(other + ["**"] * other_rest))

    def matches(template):
        pattern = "".join({"*": "/[^/]+", "**": "(/[^/]+)*"}.get(segment, f"/{segment}") for segment in template.segments)
        found = RouteTable([Route("GET", template, "it", None)]).find("GET", "/" + "/".join(path))[0] is not None
        assert found == (re.fullmatch(pattern, "/" + "/".join(path)) is not None)
        return found

    if matches(first) and matches(second):
        assert templates.overlap(first, second)
    if templates.is_narrower(first, second) and matches(first):
        assert matches(second)


def worked_out(compile_contracts, request="A", response="B", http="", access=ACCESS):
    contracts = compile_contracts(
        HEAD % (request, response, f"option (google.api.http) = {{{http}}}; {access}" if http else access)
    )
    return list(rpcs.transcoders(contracts))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"http": ""}, "lacks google.api.http"),
        ({"http": 'post: "/v1/a" body: "*"', "access": ""}, "lacks concord.options.v1.access"),
        ({"http": 'post: "/v1/a" body: "*"', "access": ACCESS.replace("};", " signed_request: true};")}, "signed request"),
        ({"http": 'post: "/v1/a" body: "*"', "request": "stream A"}, "streams"),
        ({"http": 'post: "/v1/a" body: "*"', "response": "stream A"}, "streams"),
        ({"http": 'post: "/v1/a" body: "*"', "response": "google.api.HttpBody"}, "HttpBody"),
        ({"http": 'get: "/v1/a"'}, "fits neither path nor query"),
        ({"http": 'get: "/v1/a" body: "*"'}, "takes no body"),
        ({"http": 'post: "/v1/a" body: "nope"'}, "names nope"),
        ({"http": 'post: "/v1/a" body: "name"'}, "single message"),
        ({"http": 'post: "/v1/a" body: "bs"'}, "single message"),
        ({"http": 'post: "/v1/{nope}" body: "*"'}, "names nope"),
        ({"http": 'post: "/v1/{b.nope}" body: "*"'}, "names nope"),
        ({"http": 'post: "/v1/{name.x}" body: "*"'}, "no message"),
        ({"http": 'post: "/v1/{bs}" body: "*"'}, "no single value"),
        ({"http": 'post: "/v1/{" body: "*"'}, "variable"),
        ({"http": 'custom: {kind: "QUERY" path: "/v1/a"} body: "*"'}, "custom"),
        ({"http": 'post: "/v1/a" body: "*" response_body: "c"'}, "response_body"),
    ],
)
def test_what_cannot_be_served_is_refused_at_start(compile_contracts, arguments, why):
    with pytest.raises(ContractError, match=re.escape(why)) as refused:
        worked_out(compile_contracts, **arguments)
    assert "S/M" in str(refused.value)


def test_all_of_concord_is_served_without_ambiguity(served):
    routes = [Route(t.binding.method, t.binding.template, t.rpc.name, t) for t in rpcs.transcoders(served)]
    found = RouteTable(routes)
    for transcoder in rpcs.transcoders(served):
        path = transcoder.binding.template.shape().replace("**", "x/y").replace("*", "x")
        assert found.find(transcoder.binding.method, path)[0].name == transcoder.rpc.name


@pytest.fixture(scope="module")
def echo(sample):
    return {t.binding.method: t for t in rpcs.transcoders(sample)}


def test_paths_are_decoded_by_the_rules(echo):
    whole = echo["POST"].request(["v1", "shelves", "a%2Fb", "books", "c%2fd", "%E4%B8%AD"], "", b"{}", {})
    assert whole.text == "shelves/a%2Fb/books/c%2fd/中"  # of several segments an encoded slash stays encoded
    single = echo["PATCH"].request(["v1", "child", "a%2Fb%25"], "", b"{}", {})
    assert single.text == "a/b%"


@pytest.mark.parametrize("segment", ["%", "%zz", "%ff", "%00", "%0a%00", "%ED%A0%80"])
def test_broken_paths_are_refused(echo, segment):
    with pytest.raises(Problem) as refused:
        echo["PATCH"].request(["v1", "child", segment], "", b"{}", {})
    assert (refused.value.reason, refused.value.errors[0][0]) == ("PATH_INVALID", "text")


def test_a_path_fills_numbers_and_nested_fields(echo):
    message = echo["GET"].request(["v1", "numbers", "-42", "of", "x"], "", None, {})
    assert (message.long, message.child.text) == (-42, "x")
    with pytest.raises(Problem) as refused:
        echo["GET"].request(["v1", "numbers", "4.5", "of", "x"], "", None, {})
    assert refused.value.errors[0][0] == "long"


def test_a_query_fills_every_kind_of_field(echo):
    query = (
        "text=%E4%B8%AD+x&whole=1&unsignedLong=18446744073709551615&ratio=1.5&smallRatio=NaN&flag=true&octets=_-8%3D&colour=COLOUR_BLUE"
        "&child.longNumber=7&atTime=2026-01-01T01:00:00.5%2B01:00&pause=-1.5s&updateMask=child.longNumber,text&wrappedLong=0"
        "&wrappedText=&wrappedFlag=false&maybe=0&texts=a&texts=b&colours=COLOUR_RED&colours=COLOUR_BLUE&zigzag=-1"
    )
    m = echo["GET"].request(["v1", "numbers", "1", "of", "x"], query, None, {})
    assert (m.text, m.whole, m.unsigned_long, m.ratio, m.flag) == ("中 x", 1, 2**64 - 1, 1.5, True)
    assert (m.octets, m.colour, m.child.long_number, m.zigzag) == (b"\xff\xef", -2, 7, -1)
    assert (m.at_time.seconds, m.at_time.nanos) == (1767225600, 500_000_000)
    assert (m.pause.seconds, m.pause.nanos) == (-1, -500_000_000)
    assert list(m.update_mask.paths) == ["child.long_number", "text"]
    assert all(m.HasField(name) for name in ("wrapped_long", "wrapped_text", "wrapped_flag", "maybe"))
    assert (list(m.texts), list(m.colours)) == (["a", "b"], [1, -2])


@pytest.mark.parametrize(
    "query", ["child=x", "child.text=x", "long=1", "texts.a=1", "=1", "a", "atTime=now", "flag=1", "colour=1", "&"]
)
def test_queries_that_fit_nothing_are_refused(echo, query):
    with pytest.raises(Problem) as refused:
        echo["GET"].request(["v1", "numbers", "1", "of", "x"], query, None, {})
    assert refused.value.reason == "QUERY_INVALID"


def test_a_response_body_is_the_named_field(echo, sample):
    message = echo["PATCH"].rpc.response_class()
    assert echo["PATCH"].encode_response(message) == {}
    message.child.long_number = 5
    assert echo["PATCH"].encode_response(message) == {"longNumber": "5"}


def test_examples_match_their_patterns():
    for pattern in (
        r"^customers/[0-9a-f]{8}$",
        r"^[a-z][a-z0-9-]{1,38}[a-z0-9]$",
        r"^([A-Z]{2})?$",
        r"^[0-9]{4}-(0[1-9]|1[0-2])$",
    ):
        assert re.search(pattern, matching(pattern))
