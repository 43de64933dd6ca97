import pytest

from chassis.clock import now
from concord.customer.v1 import attribute_pb2, customer_service_pb2, intake_service_pb2, party_pb2, record_service_pb2
from customer.domain import vocabulary
from customer.domain.intake import Rejected, activity_id, day, instant, outcome_of_state
from customer.domain.vocabulary import Outcome


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


def test_activity_ids_never_change():
    assert str(activity_id("institutions/bank/sourceSystems/core", "a1")) == "a6ceeecc-6921-5e86-a1da-62109dd15653"


def test_words_have_the_numbers_of_the_contracts():
    pairs = [
        (vocabulary.Attribute, attribute_pb2.Attribute, "ATTRIBUTE_"),
        (vocabulary.PartyKind, attribute_pb2.PartyKind, "PARTY_KIND_"),
        (vocabulary.IdentifierScheme, party_pb2.IdentifierScheme, "IDENTIFIER_SCHEME_"),
        (vocabulary.SurvivorshipRule, customer_service_pb2.SurvivorshipRule, "SURVIVORSHIP_RULE_"),
        (vocabulary.ResolutionReason, intake_service_pb2.ResolutionReason, "RESOLUTION_REASON_"),
        (vocabulary.LinkOrigin, record_service_pb2.LinkOrigin, "LINK_ORIGIN_"),
        (vocabulary.Outcome, intake_service_pb2.IngestOutcome, "INGEST_OUTCOME_"),
    ]
    for mine, theirs, prefix in pairs:
        assert {prefix + word.name: int(word) for word in mine if word} == {k: v for k, v in theirs.items() if v}
