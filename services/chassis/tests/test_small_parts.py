"""Page tokens, etags, ids, settings, metrics."""

import base64
import subprocess
import sys
import uuid
from datetime import UTC, datetime

import asyncpg
import pytest
from echo_service import contract as pb
from hypothesis import given
from hypothesis import strategies as st

from chassis import etags, ids, pages
from chassis.config import Settings
from chassis.database import is_unavailable
from chassis.errors import Aborted, InvalidArgument, NotFound
from chassis.identity import PrincipalKind, require_institution
from chassis.testing import principal

texts = st.text(max_size=50)
requests = st.builds(
    lambda behaviour, numbers: pb.GetEchoRequest(behaviour=behaviour, numbers=numbers),
    texts,
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5),
)


@given(st.lists(texts, min_size=1, max_size=4), requests, st.integers(0, 1000))
def test_a_page_token_gives_back_its_keys_whatever_the_page_size(keys, request, size):
    token = pages.encode(keys, request)
    request.page_token, request.page_size = token, size
    assert pages.decode(token, request) == keys


@given(st.lists(texts, min_size=1, max_size=4), requests, requests)
def test_a_page_token_is_bound_to_the_other_arguments(keys, request, other):
    if request == other:
        return
    with pytest.raises(InvalidArgument) as refused:
        pages.decode(pages.encode(keys, request), other)
    assert refused.value.reason == "PAGE_TOKEN_INVALID"


@given(st.one_of(st.text(min_size=1, max_size=80), st.binary(min_size=1, max_size=60).map(lambda raw: raw.hex())))
def test_no_text_but_ours_is_a_page_token(text):
    with pytest.raises(InvalidArgument):
        pages.decode(text, pb.GetEchoRequest())


@given(st.lists(texts, min_size=1, max_size=4), st.integers(0, 10**6), st.integers(1, 255))
def test_a_forged_page_token_is_refused(keys, place, change):
    request = pb.GetEchoRequest(behaviour="same")
    content = bytearray(base64.urlsafe_b64decode(pages.encode(keys, request) + "=="))
    content[place % len(content)] ^= change
    with pytest.raises(InvalidArgument):
        pages.decode(base64.urlsafe_b64encode(bytes(content)).decode(), request)


def test_replicas_of_a_service_read_one_anothers_page_tokens(monkeypatch):
    monkeypatch.setattr(pages, "_key", pages._key)
    request = pb.GetEchoRequest(behaviour="same")
    pages.bind("the key of one service")
    token = pages.encode(["1"], request)
    pages.bind("the key of another")
    with pytest.raises(InvalidArgument):
        pages.decode(token, request)
    pages.bind("the key of one service")
    assert pages.decode(token, request) == ["1"]


def test_a_page_token_of_another_method_is_refused():
    with pytest.raises(InvalidArgument):
        pages.decode(pages.encode(["1"], pb.GetEchoRequest()), pb.AddRequest())
    assert pages.decode("", pb.GetEchoRequest()) == []


def test_page_sizes():
    assert [pages.page_size(size, 50, 500) for size in (0, 1, 500, 501)] == [50, 1, 500, 500]
    with pytest.raises(InvalidArgument):
        pages.page_size(-1, 50, 500)


def test_etags():
    etags.require("", etags.etag(3))
    etags.require(etags.etag(3), etags.etag(3))
    with pytest.raises(Aborted) as refused:
        etags.require(etags.etag(2), etags.etag(3))
    assert refused.value.reason == "ETAG_MISMATCH"


def test_new_ids_grow_with_time():
    made = [ids.new_id() for _ in range(1000)]
    assert made == sorted(made)
    assert {each.version for each in made} == {7}
    instant = datetime.now(UTC)
    assert made[0] < ids.id_floor(instant.replace(year=instant.year + 1))
    assert ids.id_floor(instant.replace(year=instant.year - 1)) < made[0]


def test_resource_names():
    customer = uuid.uuid4()
    assert ids.resource_id(f"customers/{customer}", "customers") == customer
    assert ids.resource_segments("institutions/a/sourceSystems/b", "institutions", "sourceSystems") == ["a", "b"]
    for wrong in (
        "",
        "customers/",
        "customers/x",
        f"customer/{customer}",
        f"customers/{customer}/x",
        f"customers/{customer.hex}",
    ):
        with pytest.raises(InvalidArgument):
            ids.resource_id(wrong, "customers")
    assert ids.slug("north-bank", "institution_id") == "north-bank"
    for wrong in ("ab", "Bank", "1bank", "bank-", "a" * 41, "bänk"):
        with pytest.raises(InvalidArgument):
            ids.slug(wrong, "institution_id")


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (ConnectionRefusedError(), True),
        (asyncpg.CannotConnectNowError(), True),
        (asyncpg.TooManyConnectionsError(), True),
        (asyncpg.DeadlockDetectedError(), True),
        (asyncpg.LockNotAvailableError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InterfaceError("the server expects 1 argument for this query, 2 were passed"), False),
        (asyncpg.DataError("invalid input for query argument $1"), False),
        (asyncpg.QueryCanceledError(), False),
        (asyncpg.UniqueViolationError(), False),
        (FileNotFoundError(), False),
        (ValueError(), False),
    ],
)
def test_what_says_that_the_database_is_away(error, unavailable):
    assert is_unavailable(error) is unavailable


def test_another_institution_does_not_exist():
    require_institution(principal(institution="a"), "a")
    require_institution(principal(kind=PrincipalKind.OPERATOR), "a")
    require_institution(principal(kind=PrincipalKind.SERVICE), "a")
    for caller in (principal(institution="b"), principal(), principal(kind=PrincipalKind.PARTNER, institution="b")):
        with pytest.raises(NotFound):
            require_institution(caller, "a")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"CONCORD_IDENTITY_KEYS": "{}"},
            "CONCORD_DATABASE_URL is missing. Set it to postgresql://user:password@host:port/database.",
        ),
        ({"CONCORD_DATABASE_URL": "mysql://x", "CONCORD_IDENTITY_KEYS": "{}"}, "CONCORD_DATABASE_URL is wrong"),
        (
            {"CONCORD_DATABASE_URL": "postgresql://x", "CONCORD_IDENTITY_KEYS": "{}", "CONCORD_TRACE_RATIO": "2"},
            "CONCORD_TRACE_RATIO is wrong: Input should be less than or equal to 1. Set it to share of traces",
        ),
    ],
)
def test_a_wrong_setting_is_named_by_its_variable(variables, line):
    program = "from chassis.config import *; load(Settings)"
    run = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert line in run.stderr
    assert "Traceback" not in run.stderr


def test_settings_are_documented():
    assert all(field.description for field in Settings.model_fields.values())
