"""Disputes: who may say what, in which order, and what an accepted one corrects."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from loyalty.domain.disputes import Dispute, DisputeState, check_claim, proposed, resolved, withdrawn
from loyalty.domain.four_eyes import Refused

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OPENED = Dispute(UUID(int=1), UUID(int=2), 7, 0, "bank", "shop", 100, 60, "RETURNED", DisputeState.OPEN, "ann", NOON)


def refused(act) -> str:
    with pytest.raises(Refused) as error:
        act()
    return error.value.reason


def test_two_persons_accept_and_the_correction_is_the_difference():
    first = proposed(OPENED, True, "AGREED", "bob")
    assert refused(lambda: resolved(first, True, "bob", NOON)) == "APPROVAL_BY_SAME_PERSON"
    ended = resolved(first, True, "cid", NOON)
    assert (ended.state, ended.correction_points, ended.version) == (DisputeState.ACCEPTED, -40, 3)
    for act in (
        lambda: proposed(ended, True, "X", "d"),
        lambda: resolved(ended, True, "d", NOON),
        lambda: withdrawn(ended, NOON),
    ):
        assert refused(act) == "DISPUTE_DECIDED"


def test_a_proposal_is_rejected_sent_back_or_replaced():
    first = proposed(OPENED, False, "PROVEN", "bob")
    assert resolved(first, True, "cid", NOON).state is DisputeState.REJECTED
    back = resolved(first, False, "cid", NOON)
    assert (back.state, back.proposed_by, back.resolution_code) == (DisputeState.OPEN, None, "")
    assert refused(lambda: resolved(back, True, "cid", NOON)) == "DISPUTE_NOT_PROPOSED"
    assert proposed(first, True, "AGREED", "cid").proposed_by == "cid"
    assert withdrawn(first, NOON).state is DisputeState.WITHDRAWN


@pytest.mark.parametrize(
    ("item", "claimed", "valid"),
    [(9, 0, 1), (9, 18, 1), (9, 19, 0), (9, -1, 0), (9, 9, 0), (-5, 0, 1), (-5, -10, 1), (-5, 1, 0)],
)  # fmt: skip
def test_claims_lie_between_nothing_and_twice_the_item(item, claimed, valid):
    if valid:
        check_claim(item, claimed)
        assert replace(OPENED, item_points=item, claimed_points=claimed).correction_points == claimed - item
    else:
        assert refused(lambda: check_claim(item, claimed)) == "CLAIM_INVALID"
