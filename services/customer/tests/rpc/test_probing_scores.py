"""Institution B guesses values of A's: no weight, score, order or credibility may say how near a guess came."""

import base64
from uuid import UUID

from customer_stewards import Steward

from chassis import clock
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import quality_service_pb2 as quality_pb
from concord.customer.v1 import record_service_pb2 as record_pb
from concord.customer.v1 import review_service_pb2 as review_pb
from concord.customer.v1.intake_service_pb2 import RESOLUTION_REASON_MATCH_WEIGHT
from concord.customer.v1.quality_service_pb2_grpc import QualityServiceStub
from concord.customer.v1.record_service_pb2_grpc import RecordServiceStub
from customer.domain.matching import Explanation
from customer.store import reviews
from customer.store.reviews import NewItem, ReviewKind

POLICIES = "institutions/insurer/sourceSystems/policies"
WEAK_LINK = quality_pb.QUALITY_FINDING_WEAK_LINK
PERSON = {"name": "Jan Novák", "born": "1985-03-12", "phone": "+420601123456"}
NUMBER, OTHER_NUMBER = "850312/0010", "850312/0021"


async def opened(master, *pairs):
    """Opens possible matches of two records with a weight."""
    items = [
        NewItem(
            ReviewKind.POSSIBLE_MATCH, (record_id(one),), (record_id(other),), b"1", weight,
            Explanation(weight, ()).to_bytes(), "probe",
        )
        for one, other, weight in pairs
    ]  # fmt: skip
    async with master.running.application.database.transaction() as connection:
        assert await reviews.open_items(connection, items, clock.now()) == len(items)


def record_id(result):
    return UUID(result.record.rsplit("/", 1)[1])


async def test_a_link_tells_b_no_bits_of_what_was_compared_with_a(master):
    known = await master.ingest("a", **PERSON)
    guess = await master.ingest("guess", POLICIES, **PERSON)
    assert guess.customer == known.customer
    parent = record_pb.ListRecordsRequest(parent=guess.customer)
    history = record_pb.ListLinkHistoryRequest(parent=guess.customer)
    insurer = RecordServiceStub(master.channel("insurer"))
    operator = RecordServiceStub(master.channel(scopes=("customer.read", "personal.read"), **master.operator))
    seen = {link.record: link for link in (await insurer.ListLinkHistory(history)).links}
    told = seen[guess.record]
    assert (told.weight_bits, list(told.scores), told.customer) == (0.0, [], guess.customer)
    assert (await insurer.GetRecord(record_pb.GetRecordRequest(name=guess.record))).link == told
    assert {one.name: one.link for one in (await insurer.ListRecords(parent)).records} == seen
    everything = {link.record: link for link in (await operator.ListLinkHistory(history)).links}
    assert everything[guess.record].weight_bits > 0
    assert "phone" in {score.attribute for score in everything[guess.record].scores}


async def test_a_link_between_records_of_one_institution_is_explained_to_it(master):
    await master.ingest("p1", POLICIES, **PERSON)
    second = await master.ingest("p2", POLICIES, **PERSON)
    stub = RecordServiceStub(master.channel("insurer"))
    link = (await stub.GetRecord(record_pb.GetRecordRequest(name=second.record))).link
    assert link.weight_bits > 0
    assert "phone" in {score.attribute for score in link.scores}


async def test_the_quality_that_b_sees_does_not_depend_on_how_near_a_came(master):
    """Credibility falls with a weak link: read back, it would tell the bits."""

    async def seen(born, sex):
        said = {"name": "Ota Dvořák", "born": born}
        await master.ingest(f"a{born}", **said, sex=sex)
        mine = await master.ingest(f"b{born}", POLICIES, **said, sex=1)
        assert mine.resolution_reason == RESOLUTION_REASON_MATCH_WEIGHT
        stub = QualityServiceStub(master.channel("insurer"))
        found = await stub.GetQuality(quality_pb.GetQualityRequest(name=f"{mine.customer}/quality"))
        return [(one.attribute, one.credibility_percent, list(one.findings)) for one in found.reasons]

    alike = await seen("1971-02-03", sex=1)
    assert WEAK_LINK not in {finding for *_, findings in alike for finding in findings}
    assert alike == await seen("1972-05-08", sex=2)


async def test_a_dry_run_answers_b_by_its_own_records_alone(master):
    """Else a number of four unknown digits is found in a thousand questions: a wrong one changes the zone."""
    await master.ingest("a", **PERSON, national_id=NUMBER, email="jan.novak@seznam.cz")
    mine = await master.ingest("b", POLICIES, **PERSON)
    stub = master.customers("insurer")

    async def ask(**guess):
        party = master.source_record("x", **PERSON, **guess).party
        return await stub.ResolveCustomer(customer_pb.ResolveCustomerRequest(party=party))

    assert (await ask()).customer == mine.customer
    right, wrong = await ask(national_id=NUMBER), await ask(national_id=OTHER_NUMBER)
    assert right == wrong
    assert await ask(email="jan.novak@seznam.cz") == await ask(email="another@mail.cz")


async def test_a_possible_match_shows_b_its_weight_and_its_place_only_where_b_knows_both_sides(master):
    """B may not learn by the weight, nor by the order or the page token of a list, how near its guess came."""
    operator, insurer = Steward(master), Steward(master, "insurer")
    people = [{"name": f"{letter * 7} Stranger", "born": f"19{41 + place}-01-01"} for place, letter in enumerate("ABCD")]
    bank = [await master.ingest(f"s{place}", **person) for place, person in enumerate(people)]
    own = [await master.ingest(f"p{place}", POLICIES, **person) for place, person in enumerate(people)]
    for one, other in zip(bank, own, strict=True):
        if one.customer != other.customer:
            await operator.relink(other.record, one.customer)
    await opened(master, (bank[0], own[1], 30.0), (own[0], own[2], 10.0), (bank[1], own[3], 20.0))
    items = [item for item in await operator.items(order=review_pb.REVIEW_ORDER_HEAVIEST) if item.model_version == "probe"]
    assert [item.weight_bits for item in items] == [30.0, 20.0, 10.0]
    wanted = review_pb.ListReviewItemsRequest(
        kind=review_pb.REVIEW_KIND_POSSIBLE_MATCH, order=review_pb.REVIEW_ORDER_HEAVIEST, page_size=1
    )
    weights, token = [], ""
    while True:
        wanted.page_token = token
        page = await insurer.reviews.ListReviewItems(wanted)
        weights += [item.weight_bits for item in page.review_items if item.model_version == "probe"]
        for item in page.review_items:
            assert (await insurer.item(item.name)).weight_bits == item.weight_bits
        token = page.next_page_token
        if not token:
            break
        assert b"30.0" not in base64.urlsafe_b64decode(token + "==")
        assert b"20.0" not in base64.urlsafe_b64decode(token + "==")
    assert weights == [10.0, 0.0, 0.0]
