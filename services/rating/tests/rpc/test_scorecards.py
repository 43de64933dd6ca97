"""Scorecards: written as versions, refused with every wrong field, activated for everybody."""

import asyncio

import grpc
import pytest

from chassis import errors
from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.rating.v1 import scorecard_service_pb2 as pb
from concord.rating.v1.rating_service_pb2 import GetRatingRequest
from concord.rating.v1.rating_service_pb2_grpc import RatingServiceStub
from concord.rating.v1.scorecard_service_pb2_grpc import ScorecardServiceStub

OPERATOR = {"kind": PrincipalKind.OPERATOR, "scopes": ["rating.read", "rating.admin"]}
PARENT = "scorecards/standard"


@pytest.fixture
async def running(start):
    return await start(rerate_delay_ms=0)


@pytest.fixture
def stub(running):
    return ScorecardServiceStub(running.channel(**OPERATOR))


async def create(stub, version, request_id="r1", parent=PARENT):
    return await stub.CreateScorecardVersion(
        pb.CreateScorecardVersionRequest(parent=parent, scorecard_version=version, request_id=request_id)
    )


async def seeded(stub):
    return await stub.GetScorecardVersion(pb.GetScorecardVersionRequest(name=f"{PARENT}/versions/1"))


async def test_the_first_version_is_there_and_active(stub):
    version = await seeded(stub)
    assert version.active
    assert version.reference_currency_code == "CNY"
    assert len(version.level_thresholds) == 3


async def test_versions_are_written_once_and_listed_newest_first(stub):
    version = await seeded(stub)
    version.loyalty.products_max = 9
    second = await create(stub, version)
    assert (second.name, second.active, second.loyalty.products_max) == (f"{PARENT}/versions/2", False, 9)
    assert await create(stub, version) == second
    third = await create(stub, version, "r2")
    assert third.name == f"{PARENT}/versions/3"
    other = await create(stub, version, "r3", "scorecards/private")
    assert other.name == "scorecards/private/versions/1"
    page = await stub.ListScorecardVersions(pb.ListScorecardVersionsRequest(parent=PARENT, page_size=2))
    assert [version.name[-1] for version in page.scorecard_versions] == ["3", "2"]
    rest = pb.ListScorecardVersionsRequest(parent=PARENT, page_size=2, page_token=page.next_page_token)
    last = await stub.ListScorecardVersions(rest)
    assert [version.name[-1] for version in last.scorecard_versions] == ["1"]
    assert last.next_page_token == ""


async def test_writers_at_the_same_time_get_different_versions(stub):
    version = await seeded(stub)
    written = await asyncio.gather(*(create(stub, version, f"r{i}") for i in range(6)))
    assert sorted(version.name[-1] for version in written) == ["2", "3", "4", "5", "6", "7"]


async def test_every_broken_rule_is_named(stub):
    version = await seeded(stub)
    version.loyalty.tenure_weight = 0.9
    version.credit.points[1].x = 0
    version.level_thresholds[1].customer_level = version.level_thresholds[0].customer_level
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await create(stub, version)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason(refused.value) == "SCORECARD_INVALID"
    fields = [field for field, _ in errors.from_rpc(refused.value).field_violations]
    assert fields == [
        "scorecard_version.loyalty",
        "scorecard_version.credit.points[1].x",
        "scorecard_version.level_thresholds[1].customer_level",
    ]


async def test_who_may_not(running, stub):
    staff = ScorecardServiceStub(
        running.channel(kind=PrincipalKind.STAFF, institution="north", scopes=["rating.read", "rating.admin"])
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await create(staff, await seeded(staff))
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ActivateScorecardVersion(pb.ActivateScorecardVersionRequest(name=f"{PARENT}/versions/9", request_id="r1"))
    assert reason(refused.value) == "SCORECARD_VERSION_NOT_FOUND"


async def test_activation_rates_everybody_again(running, stub, master):
    link = master.link("r1", "anna")
    await running.deliver(master.customer("anna", [link]), master.margin("m1", link, "2015-10", 500_000))
    reader = RatingServiceStub(running.channel(institution="north", scopes=["rating.read"]))
    request = GetRatingRequest(name=f"customers/{master.id('anna')}/ratings/alliance")
    assert (await read_until(reader, request, f"{PARENT}/versions/1")).degrees[2].value == 60
    version = await seeded(stub)
    version.reference_currency_code = "EUR"
    await create(stub, version)
    activated = await stub.ActivateScorecardVersion(
        pb.ActivateScorecardVersionRequest(name=f"{PARENT}/versions/2", request_id="r2")
    )
    assert activated.active
    assert not (await seeded(stub)).active
    again = await read_until(reader, request, f"{PARENT}/versions/2")
    assert not again.degrees[2].HasField("value")
    assert again.degrees[2].reasons[0].code == "CURRENCY_NOT_COUNTED"


async def read_until(reader, request, scorecard_version):
    async with asyncio.timeout(10):
        while True:
            try:
                rating = await reader.GetRating(request)
            except grpc.aio.AioRpcError as error:
                if reason(error) != "RATING_NOT_FOUND":
                    raise
            else:
                if rating.scorecard_version == scorecard_version:
                    return rating
            await asyncio.sleep(0.05)
