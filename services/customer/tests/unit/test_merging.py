"""Who wins a merge, what forbids it, what goes back."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from customer.domain.merging import (
    DOCUMENT_DIFFERS,
    PARTY_KIND_DIFFERS,
    Candidate,
    Proof,
    objections,
    restoration,
    winner,
)
from customer.domain.reviews import Claim, ReviewKind, subject_key

DAY = datetime(2026, 1, 1, tzinfo=UTC)
PASSPORT, NATIONAL_ID = (2, "CZ"), (1, "CZ")


def candidate(number, records_count, days=0):
    return Candidate(UUID(int=number), records_count, DAY + timedelta(days=days))


def proof(*documents, kind=1):
    return Proof(kind, frozenset((scheme, country, number) for (scheme, country), number in documents))


def test_the_winner_has_most_records_then_is_oldest_then_has_the_lowest_id():
    assert winner([candidate(1, 1), candidate(2, 3, days=9), candidate(3, 2)]) == UUID(int=2)
    assert winner([candidate(1, 2, days=2), candidate(2, 2, days=1), candidate(3, 1)]) == UUID(int=2)
    assert winner([candidate(2, 2), candidate(1, 2)]) == UUID(int=1)


@given(st.permutations([candidate(1, 1), candidate(2, 4, 3), candidate(3, 4, 1), candidate(4, 4, 1)]))
def test_the_order_of_the_call_chooses_no_winner(candidates):
    assert winner(candidates) == UUID(int=3)


def test_what_forbids_a_merge():
    jan, other = proof((NATIONAL_ID, "1")), proof((NATIONAL_ID, "2"))
    assert objections([[jan], [other]]) == [DOCUMENT_DIFFERS]
    assert objections([[jan], [proof((NATIONAL_ID, "1"), (PASSPORT, "9"))]]) == []
    assert objections([[jan], [proof((PASSPORT, "9"))]]) == []
    assert objections([[jan, proof((NATIONAL_ID, "2"))], [other]]) == []  # they share one of the scheme
    assert objections([[proof(((1, "CZ"), "1"))], [proof(((1, "SK"), "2"))]]) == []
    assert objections([[proof()], [proof(kind=2)]]) == [PARTY_KIND_DIFFERS]
    assert objections([[proof()], [proof()], [other, proof(kind=2)], [jan]]) == [DOCUMENT_DIFFERS, PARTY_KIND_DIFFERS]
    assert objections([[jan]]) == []


def test_only_what_is_still_with_the_winner_goes_back():
    mine, moved, erased, winner_id, other = (UUID(int=number) for number in range(1, 6))
    outcome = restoration([mine, moved, erased], {mine: winner_id, moved: other}, winner_id)
    assert outcome.restored == {mine}
    assert outcome.elsewhere == {moved: other}
    assert outcome.erased == {erased}


def test_a_claim_is_fenced_by_its_number_and_its_lease():
    claim = Claim(3, "bank/a", DAY + timedelta(minutes=5))
    assert claim.permits("bank/a", 3, DAY)
    assert not claim.permits("bank/a", 2, DAY)
    assert not claim.permits("bank/b", 3, DAY)
    assert not claim.permits("bank/a", 3, DAY + timedelta(minutes=5))
    assert claim.held_by_other("bank/b", DAY)
    assert not claim.held_by_other("bank/b", DAY + timedelta(minutes=6))
    assert not Claim(0, None, None).running(DAY)


def test_a_pair_is_one_subject_whichever_way_round_and_a_record_one_for_each_kind():
    a, b = UUID(int=1), UUID(int=2)
    match = ReviewKind.POSSIBLE_MATCH
    assert subject_key(match, [a], [b]) == subject_key(match, [b], [a])
    assert subject_key(ReviewKind.CONFLICT, [a], [b]) == subject_key(ReviewKind.CONFLICT, [], [b])
    assert subject_key(ReviewKind.FAILED_VALIDATION, [a], []) != subject_key(ReviewKind.CONFLICT, [], [a])
