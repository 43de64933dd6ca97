import uuid

import pytest

from campaign.domain import offer
from campaign.domain.campaign import Draft, violations
from campaign.domain.touch import PAUSE_SECONDS_MAX, TouchState, pause_seconds, touch_id, touch_state
from concord.contact.v1.contact_service_pb2 import ContactState

A, B = uuid.UUID(int=1), uuid.UUID(int=2)


def test_a_touch_id_depends_on_campaign_wave_and_customer_only():
    assert touch_id(A, 1, B) == touch_id(A, 1, B) == uuid.UUID("7c40d807-5f15-582e-b74a-d6260eddf512")
    assert len({touch_id(A, 1, B), touch_id(A, 2, B), touch_id(B, 1, A), touch_id(A, 1, A), touch_id(A, 11, B)}) == 5


@pytest.mark.parametrize(("contact_state", "expected"), [
    (None, "PLANNED"), ("RESERVED", "PLANNED"), ("SENT", "PLANNED"), ("UNKNOWN", "PLANNED"),
    ("DELIVERED", "DELIVERED"), ("READ", "READ"), ("FAILED", "FAILED"), ("RELEASED", "FAILED"),
])  # fmt: skip
def test_a_touch_follows_its_contact(contact_state, expected):
    assert contact_state is None or ContactState.Value(f"CONTACT_STATE_{contact_state}")
    assert touch_state(None, contact_state) == expected
    assert touch_state("CAPPED", contact_state) is TouchState.REFUSED


def test_pauses_grow_and_end():
    pauses = [pause_seconds(count) for count in range(1, 200)]
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == PAUSE_SECONDS_MAX


@pytest.mark.parametrize(("draft", "paths"), [
    (Draft("Spring", "institutions/northbank/offers/spring", "INBOX", ()), []),
    (Draft(" ", "institutions/northbank/offers/spring", "INBOX", ()), ["display_name"]),
    (Draft("a\nb", "institutions/northbank/offers/spring", "INBOX", ()), ["display_name"]),
    (Draft("Spring", "institutions/otherbank/offers/spring", "INBOX", ()), ["offer"]),
    (Draft("Spring", "", "INBOX", ()), ["offer"]),
    (Draft("Spring", "institutions/northbank/offers/", "SMS", ()), ["offer", "channel"]),
])  # fmt: skip
def test_wrong_drafts_are_named(draft, paths):
    assert [path for path, _ in violations(draft, "northbank")] == paths


def test_wrong_offers_are_named():
    assert offer.violations("Spring", "More", "From May on.\n\tAsk us.") == []
    assert [path for path, _ in offer.violations("a\x00", "\n", "a\x07")] == ["display_name", "title", "body"]
