"""Reading ratings: who sees what, pages, explanations."""

import grpc
import pytest

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.rating.v1 import rating_service_pb2 as pb
from concord.rating.v1.rating_service_pb2_grpc import RatingServiceStub

OPERATOR = {"kind": PrincipalKind.OPERATOR, "scopes": ["rating.read"]}
NORTH = {"institution": "north", "scopes": ["rating.read"]}


@pytest.fixture
async def running(start, master, rate_all):
    """Anna is known at north and south, and rated."""
    running = await start(rerate_paused=True)
    north, south = master.link("r1", "anna"), master.link("r2", "anna", "south")
    await running.deliver(
        master.customer("anna", [north, south]),
        master.holding("h1", north),
        master.margin("m1", north, "2015-10", 500_000),
        master.score("s1", south, "2015-12-31", 10_000),
    )
    await rate_all(running)
    return running


def stub(running, **caller):
    return RatingServiceStub(running.channel(**caller))


def name(master, customer="anna", scope="alliance"):
    return f"customers/{master.id(customer)}/ratings/{scope}"


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), reason(refused.value)


NOT_RATED = (grpc.StatusCode.NOT_FOUND, "RATING_NOT_FOUND")
NOT_LINKED = (grpc.StatusCode.NOT_FOUND, "CUSTOMER_NOT_FOUND")


async def test_a_rating_is_read_whole(running, master):
    rating = await stub(running, **NORTH).GetRating(pb.GetRatingRequest(name=name(master)))
    assert rating.name == name(master)
    assert [degree.kind for degree in rating.degrees] == [1, 2, 3, 4, 5, 6]
    by_kind = {degree.kind: degree for degree in rating.degrees}
    assert not by_kind[pb.DEGREE_KIND_SATISFACTION].HasField("value")
    assert by_kind[pb.DEGREE_KIND_SATISFACTION].reasons[0].code == "NOT_MEASURED_YET"
    assert by_kind[pb.DEGREE_KIND_CONTRIBUTION].value == 60
    assert by_kind[pb.DEGREE_KIND_CREDIT].value == 80
    assert len(by_kind[pb.DEGREE_KIND_COMPLETENESS].reasons) == 2
    assert [by_kind[kind].value for kind in (pb.DEGREE_KIND_COMPLETENESS, pb.DEGREE_KIND_CREDIBILITY)] == [70, 60]
    assert rating.scorecard_version == "scorecards/standard/versions/1"
    assert rating.customer_level == pb.CUSTOMER_LEVEL_GOLD
    assert rating.as_of_time.ToDatetime().year == 2016
    assert rating.etag


async def test_an_institution_reads_the_alliance_and_its_own_scope(running, master):
    north = stub(running, **NORTH)
    assert (await north.GetRating(pb.GetRatingRequest(name=name(master, scope="north")))).name.endswith("/north")
    assert await refusal(north.GetRating(pb.GetRatingRequest(name=name(master, scope="south")))) == NOT_RATED
    assert await refusal(north.ListRatingHistory(pb.ListRatingHistoryRequest(parent=name(master, scope="south")))) == NOT_RATED
    listed = await north.ListRatings(pb.ListRatingsRequest(parent=f"customers/{master.id('anna')}"))
    assert [rating.name.rsplit("/", 1)[1] for rating in listed.ratings] == ["alliance", "north"]
    everything = await stub(running, **OPERATOR).ListRatings(pb.ListRatingsRequest(parent=f"customers/{master.id('anna')}"))
    assert [rating.name.rsplit("/", 1)[1] for rating in everything.ratings] == ["alliance", "north", "south"]


async def test_who_has_no_link_learns_nothing(running, master):
    east = stub(running, institution="east", scopes=["rating.read"])
    anna = await refusal(east.GetRating(pb.GetRatingRequest(name=name(master))))
    nobody = await refusal(east.GetRating(pb.GetRatingRequest(name=name(master, "nobody"))))
    assert anna == nobody == NOT_LINKED
    assert await refusal(east.ListRatings(pb.ListRatingsRequest(parent=f"customers/{master.id('anna')}"))) == NOT_LINKED
    staff = stub(running, kind=PrincipalKind.STAFF, institution="east", scopes=["rating.read"])
    assert await refusal(staff.ExplainRating(pb.ExplainRatingRequest(name=name(master)))) == NOT_LINKED
    bound = stub(running, **NORTH, customer=str(master.id("ben")))
    assert await refusal(bound.GetRating(pb.GetRatingRequest(name=name(master)))) == NOT_LINKED


async def test_scope_and_kind_are_checked(running, master):
    code, _ = await refusal(stub(running, institution="north").GetRating(pb.GetRatingRequest(name=name(master))))
    assert code == grpc.StatusCode.PERMISSION_DENIED
    code, _ = await refusal(stub(running, **NORTH).ExplainRating(pb.ExplainRatingRequest(name=name(master))))
    assert code == grpc.StatusCode.PERMISSION_DENIED  # a channel explains nothing
    code, _ = await refusal(stub(running, **NORTH).GetRating(pb.GetRatingRequest(name="customers/x/ratings/alliance")))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_who_is_not_rated_yet_is_not_found(running, master):
    await running.deliver(master.customer("ben", [master.link("r3", "ben")]))
    assert await refusal(stub(running, **NORTH).GetRating(pb.GetRatingRequest(name=name(master, "ben")))) == NOT_RATED


async def test_a_merged_customer_answers_with_the_winner(running, master, rate_all):
    await running.deliver(
        master.moved("anna", "ben", [master.link("r1", "ben"), master.link("r2", "ben", "south")]),
        master.customer("ben"),
        master.customer("anna", merged_into="ben"),
    )
    await rate_all(running)
    rating = await stub(running, **NORTH).GetRating(pb.GetRatingRequest(name=name(master, "anna")))
    assert rating.name == name(master, "ben")
    east = stub(running, institution="east", scopes=["rating.read"])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await east.GetRating(pb.GetRatingRequest(name=name(master, "anna")))
    assert reason(refused.value) == "CUSTOMER_NOT_FOUND"
    assert str(master.id("ben")) not in (refused.value.details() or "")


async def test_history_is_read_by_pages_newest_first(running, master, rate_all):
    link = master.seen_link("r1", "anna")
    for i, ppm in enumerate((20_000, 30_000, 40_000, 50_000)):
        await running.deliver(master.score(f"score {i}", link, f"2016-02-0{i + 1}", ppm))
        await rate_all(running)
    north = stub(running, **NORTH)
    request = pb.ListRatingHistoryRequest(parent=name(master), page_size=2)
    pages = []
    while True:
        page = await north.ListRatingHistory(request)
        pages.append([round(rating.degrees[3].value, 2) for rating in page.ratings])
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert pages == [[50, 57.5], [65, 72.5], [80]]
    request.parent = name(master, scope="north")
    assert await refusal(north.ListRatingHistory(request)) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_an_explanation_is_computed_again_and_lists_everything(running, master):
    staff = stub(running, kind=PrincipalKind.STAFF, institution="north", scopes=["rating.read"])
    explained = await staff.ExplainRating(pb.ExplainRatingRequest(name=name(master)))
    kept = await staff.GetRating(pb.GetRatingRequest(name=name(master)))
    assert explained.rating == kept
    facts = {fact.code: fact.value for fact in explained.facts}
    assert facts["result_12_months_minor_units"] == "500000"
    assert facts["default_probability_ppm"] == "10000"
    assert facts["first_opened_date"] == "2010-01-01"
    assert facts["records_count"] == "2"
    for degree in explained.degrees:
        if degree.HasField("value"):
            assert sum(part.contribution for part in degree.reasons) == pytest.approx(degree.value, abs=0.01)
    await running.deliver(master.score("s2", master.seen_link("r1", "anna"), "2016-02-01", 50_000))
    pending = await staff.ExplainRating(pb.ExplainRatingRequest(name=name(master)))
    assert pending.rating.degrees[3].value == 50
    assert pending.rating.etag == ""  # not written yet
