from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.clock import now
from concord.customer.v1 import attribute_pb2, customer_service_pb2, intake_service_pb2, party_pb2
from customer.domain import vocabulary
from customer.domain.blind_index import BlindIndex
from customer.domain.intake import Rejected, activity_id, day, instant, outcome_of_state
from customer.domain.resolution import Customers, Document, Identity
from customer.domain.vocabulary import Outcome, ResolutionReason

C1, C2, C3 = (UUID(int=number) for number in (1, 2, 3))
R1, R2, R3 = (UUID(int=number) for number in (11, 12, 13))
ID1, ID2 = Document(1, "CZ", "1"), Document(1, "CZ", "2")
PASS1, PASS2 = Document(2, "CZ", "1"), Document(2, "CZ", "2")


def who(*documents, born="", kind=1):
    return Identity(kind, born, frozenset(documents))


@pytest.mark.parametrize(
    ("one", "two", "contradicts"),
    [
        (who(ID1), who(ID1), False),
        (who(ID1), who(ID2), True),
        (who(ID1), who(PASS2), False),
        (who(ID1, PASS1), who(ID1, PASS2), True),
        (who(ID1, ID2), who(ID2), False),
        (who(Document(1, "SK", "1")), who(ID2), False),
        (who(ID1, born="1970-01-01"), who(ID1, born="1970-01-02"), True),
        (who(ID1, born="1970-01-01"), who(ID1), False),
        (who(ID1), who(ID1, kind=2), True),
    ],
)
def test_contradictions_go_both_ways(one, two, contradicts):
    assert one.contradicts(two) == two.contradicts(one) == contradicts


def test_a_new_record_goes_to_the_oldest_customer_that_shares_a_document_and_does_not_contradict():
    customers = Customers()
    customers.link(C1, R1, who(ID1, born="1970-01-01"))
    customers.link(C2, R2, who(ID1, born="1980-01-01"))
    customers.link(C3, R3, who(ID1))
    assert customers.resolve(who(ID1)) == (C1, ResolutionReason.IDENTITY_DOCUMENT)
    assert customers.resolve(who(ID1, born="1980-01-01")) == (C2, ResolutionReason.IDENTITY_DOCUMENT)
    assert customers.resolve(who(ID1, born="1990-01-01")) == (C3, ResolutionReason.IDENTITY_DOCUMENT)
    assert customers.resolve(who(ID2)) == (None, ResolutionReason.NEW_CUSTOMER)
    assert customers.resolve(who()) == (None, ResolutionReason.NEW_CUSTOMER)


@pytest.mark.parametrize(
    ("mine", "others_of_c1", "others_of_c2", "new", "expected"),
    [
        (who(ID1), who(ID1), who(ID2), who(ID1, born="1970-01-01"), C1),  # the same documents: it stays
        (who(ID1), who(ID1), who(ID2), who(ID2), C2),
        (who(ID1), who(ID1), who(PASS1), who(ID2), None),  # contradicts where it is, and nobody has it
        (who(ID1), None, who(PASS1), who(ID2), C1),  # alone, so that nothing contradicts
        (who(ID1), None, who(ID2), who(ID2), C2),
        (who(ID1), who(ID1), who(PASS1), who(ID1, PASS1), C1),  # rather where it is
        (who(ID1), who(ID1), who(ID2), who(), C1),
    ],
)
def test_a_known_record_with_other_documents(mine, others_of_c1, others_of_c2, new, expected):
    customers = Customers()
    customers.link(C1, R1, mine)
    if others_of_c1:
        customers.link(C1, R2, others_of_c1)
    customers.link(C2, R3, others_of_c2)
    assert customers.resolve_again(new, mine, R1, C1)[0] == expected


documents = st.frozensets(st.sampled_from([ID1, ID2, PASS1, PASS2]), max_size=2)
identities = st.builds(Identity, st.just(1), st.sampled_from(["", "1970-01-01", "1980-01-01"]), documents)


@given(st.lists(identities, max_size=12))
def test_records_of_a_customer_never_contradict_and_each_shares_a_document_with_another(stated):
    customers = Customers()
    for number, identity in enumerate(stated):
        customer_id, _ = customers.resolve(identity)
        customers.link(customer_id or UUID(int=1000 + number), UUID(int=number), identity)
    for members in customers.members.values():
        for record, identity in members.items():
            others = [other for key, other in members.items() if key != record]
            assert not any(identity.contradicts(other) for other in others)
            assert not others or any(identity.shares_document(other) for other in others)


@pytest.mark.parametrize(
    ("known", "content", "later", "outcome"),
    [
        (None, b"a", 0, Outcome.CREATED),
        (b"a", b"a", -1, Outcome.UNCHANGED),
        (b"a", b"a", 1, Outcome.UNCHANGED),
        (b"a", b"b", -1, Outcome.STALE),
        (b"a", b"b", 0, Outcome.UPDATED),
        (b"a", b"b", 1, Outcome.UPDATED),
    ],
)
def test_outcomes(known, content, later, outcome):
    at = now()
    seen = at.replace(year=at.year + later)
    assert outcome_of_state(known, at if known else None, content, seen) == outcome


def test_instants_and_days():
    present = now()
    assert instant(0, 1_999, "f", present).microsecond == 1
    for seconds in (-10_000_000_000, int(present.timestamp()) + 90_000, 10**15):
        with pytest.raises(Rejected, match="TIME_OUT_OF_RANGE"):
            instant(seconds, 0, "f", present)
    assert day("", "f") is None
    with pytest.raises(Rejected, match="DATE_INVALID"):
        day("2026-02-30", "f")


def test_hashes_are_keyed_and_kinds_do_not_meet():
    one, other = BlindIndex(b"1" * 32), BlindIndex(b"2" * 32)
    assert one.phone("+420601123456") == one.phone("+420601123456") != other.phone("+420601123456")
    assert len({one.phone("1"), one.identifier("1"), one.email("1"), one.source_key("s", "1"), one.content(b"1")}) == 5
    assert one.document(6, "US", "X") == one.document(6, "DE", "X")
    assert one.document(1, "US", "X") != one.document(1, "DE", "X")
    with pytest.raises(ValueError, match="32 bytes"):
        BlindIndex(b"short")


def test_activity_ids_never_change():
    assert str(activity_id("institutions/bank/sourceSystems/core", "a1")) == "a6ceeecc-6921-5e86-a1da-62109dd15653"


def test_words_have_the_numbers_of_the_contracts():
    pairs = [
        (vocabulary.Attribute, attribute_pb2.Attribute, "ATTRIBUTE_"),
        (vocabulary.PartyKind, attribute_pb2.PartyKind, "PARTY_KIND_"),
        (vocabulary.IdentifierScheme, party_pb2.IdentifierScheme, "IDENTIFIER_SCHEME_"),
        (vocabulary.SurvivorshipRule, customer_service_pb2.SurvivorshipRule, "SURVIVORSHIP_RULE_"),
        (vocabulary.ResolutionReason, intake_service_pb2.ResolutionReason, "RESOLUTION_REASON_"),
        (vocabulary.Outcome, intake_service_pb2.IngestOutcome, "INGEST_OUTCOME_"),
    ]
    for mine, theirs, prefix in pairs:
        assert {prefix + word.name: int(word) for word in mine if word} == {k: v for k, v in theirs.items() if v}
