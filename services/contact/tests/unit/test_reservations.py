"""Handing out slots, and what becomes of them."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concord.contact.v1 import contact_service_pb2 as contacts_pb
from concord.contact.v1 import permission_service_pb2 as permissions_pb
from concord.contact.v1 import reservation_service_pb2 as reservations_pb
from contact.domain import kinds
from contact.domain.caps import Cap, Slot
from contact.domain.kinds import Purpose, State
from contact.domain.reservations import RESERVATION_LIFETIME, Answer, Desk, Known, Outcome, dispatch, is_expired

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ANNA, BO = uuid.UUID(int=1), uuid.UUID(int=2)
WEEK = timedelta(days=7)


def desk(purpose=Purpose.MARKETING, **changes):
    fields: dict[str, Any] = {
        "wanted": Slot("north", 1, purpose, NOW),
        "caps": [Cap(2, WEEK)],
        "known": {},
        "linked": frozenset({ANNA, BO}),
        "permitted": frozenset({ANNA, BO}),
        "history": {},
    }
    return Desk(**(fields | changes))


def touches(count):
    return [uuid.UUID(int=100 + number) for number in range(count)]


def test_items_of_a_batch_come_one_after_the_other():
    first, second, third, other = touches(4)
    answers = desk().hand_out([(first, ANNA), (second, ANNA), (third, ANNA), (other, BO)])
    reserved = Answer(Outcome.RESERVED, expires_at=NOW + RESERVATION_LIFETIME, is_new=True)
    assert answers == {
        first: reserved,
        second: reserved,
        third: Answer(Outcome.CAPPED, next_free_at=NOW + WEEK),
        other: reserved,
    }


def test_service_contacts_need_no_permission_and_are_not_capped():
    items = [(touch, ANNA) for touch in touches(5)]
    answers = desk(Purpose.SERVICE, permitted=frozenset()).hand_out(items)
    assert {answer.outcome for answer in answers.values()} == {Outcome.RESERVED}


@pytest.mark.parametrize("purpose", [Purpose.MARKETING, Purpose.SALES])
def test_marketing_and_sales_need_permission(purpose):
    [touch] = touches(1)
    assert desk(purpose, permitted=frozenset({BO})).hand_out([(touch, ANNA)])[touch].outcome is Outcome.NO_PERMISSION_TO_CONTACT


def test_a_customer_without_a_link_is_unknown_whatever_else_holds():
    [touch] = touches(1)
    assert desk(linked=frozenset({BO})).hand_out([(touch, ANNA)])[touch].outcome is Outcome.CUSTOMER_UNKNOWN


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (State.RESERVED, Outcome.RESERVED),
        (State.DELIVERED, Outcome.RESERVED),
        (State.READ, Outcome.RESERVED),
        (State.RELEASED, Outcome.EXPIRED),
        (State.FAILED, Outcome.EXPIRED),
    ],
)
def test_a_touch_that_asked_before(state, outcome):
    [touch] = touches(1)
    expires_at = NOW + timedelta(minutes=3)
    answer = desk(known={touch: Known(state, expires_at)}, permitted=frozenset()).hand_out([(touch, ANNA)])[touch]
    assert answer.outcome is outcome
    assert answer.expires_at == (expires_at if outcome is Outcome.RESERVED else None)
    assert not answer.is_new


def test_a_reservation_that_is_over_is_expired_although_it_is_not_swept():
    [touch] = touches(1)
    over = Known(State.RESERVED, NOW)
    assert is_expired(over, NOW)
    assert desk(known={touch: over}).hand_out([(touch, ANNA)])[touch].outcome is Outcome.EXPIRED


@given(st.lists(st.sampled_from([ANNA, BO]), max_size=20), st.integers(1, 4))
def test_a_batch_gives_each_customer_what_is_left_and_no_more(customers, contacts_max):
    items = list(zip(touches(len(customers)), customers, strict=True))
    answers = desk(caps=[Cap(contacts_max, WEEK)]).hand_out(items)
    for customer in (ANNA, BO):
        outcomes = [answers[touch].outcome for touch, whose in items if whose == customer]
        assert outcomes[:contacts_max] == [Outcome.RESERVED] * min(contacts_max, len(outcomes))
        assert outcomes[contacts_max:] == [Outcome.CAPPED] * max(0, len(outcomes) - contacts_max)


def test_what_is_dispatched():
    live, over = Known(State.RESERVED, NOW + timedelta(seconds=1)), Known(State.RESERVED, NOW)
    assert dispatch(live, needs_permission=True, permitted=True, now=NOW).state is State.DELIVERED
    assert dispatch(live, needs_permission=False, permitted=False, now=NOW).state is State.DELIVERED
    assert dispatch(live, needs_permission=True, permitted=False, now=NOW).reason == "NO_PERMISSION_TO_CONTACT"
    assert dispatch(over, needs_permission=True, permitted=True, now=NOW).reason == "EXPIRED"


@pytest.mark.parametrize(
    ("mine", "contract", "prefix"),
    [
        (kinds.Direction, contacts_pb.ContactDirection, "CONTACT_DIRECTION_"),
        (kinds.Purpose, contacts_pb.ContactPurpose, "CONTACT_PURPOSE_"),
        (kinds.State, contacts_pb.ContactState, "CONTACT_STATE_"),
        (kinds.Permission, permissions_pb.PermissionState, "PERMISSION_STATE_"),
        (Outcome, reservations_pb.ReserveOutcome, "RESERVE_OUTCOME_"),
    ],
)
def test_numbers_are_those_of_the_contract(mine, contract, prefix):
    for name, number in contract.items():
        if number:
            assert mine[name.removeprefix(prefix)] == number
