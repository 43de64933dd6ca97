import grpc
import pytest

from chassis.errors import from_rpc
from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.campaign.v1.offer_service_pb2 import CreateOfferRequest, GetOfferRequest, ListOffersRequest, Offer
from concord.campaign.v1.offer_service_pb2_grpc import OfferServiceStub


@pytest.fixture
async def stub(running):
    return OfferServiceStub(running.channel(kind=PrincipalKind.STAFF, institution="northbank", scopes=WRITE))


WRITE = ["campaign.read", "campaign.write"]


def create(offer_id="spring", request_id="r1", parent="institutions/northbank", **texts):
    offer = Offer(**({"display_name": "Spring", "title": "More for your savings", "body": "From May on."} | texts))
    return CreateOfferRequest(parent=parent, offer_id=offer_id, offer=offer, request_id=request_id)


async def test_an_offer_is_written_once_and_read(stub):
    made = await stub.CreateOffer(create(), timeout=5)
    assert made.name == "institutions/northbank/offers/spring"
    assert made.create_time.seconds > 0
    assert await stub.CreateOffer(create(), timeout=5) == made  # the same request
    assert await stub.GetOffer(GetOfferRequest(name=made.name), timeout=5) == made
    with pytest.raises(grpc.aio.AioRpcError) as taken:
        await stub.CreateOffer(create(request_id="r2"), timeout=5)
    assert taken.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason(taken.value) == "OFFER_EXISTS"


async def test_offers_are_listed_by_id_in_pages(stub):
    names = ["autumn", "spring", "summer", "winter-sale", "xmas"]
    for name in reversed(names):
        await stub.CreateOffer(create(name, request_id=name), timeout=5)
    seen, request = [], ListOffersRequest(parent="institutions/northbank", page_size=2)
    while True:
        page = await stub.ListOffers(request, timeout=5)
        seen += [offer.name.rsplit("/", 1)[1] for offer in page.offers]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == names


async def test_wrong_texts_are_named(stub):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CreateOffer(create(title="a\x00b", body="\x07"), timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [path for path, _ in from_rpc(refused.value).field_violations] == ["offer.title", "offer.body"]


async def test_another_institutions_offers_do_not_exist(stub, running):
    await stub.CreateOffer(create(), timeout=5)
    other = OfferServiceStub(running.channel(kind=PrincipalKind.STAFF, institution="otherbank", scopes=WRITE))
    for call, request in [
        (other.GetOffer, GetOfferRequest(name="institutions/northbank/offers/spring")),
        (other.ListOffers, ListOffersRequest(parent="institutions/northbank")),
        (other.CreateOffer, create("summer")),
        (stub.GetOffer, GetOfferRequest(name="institutions/northbank/offers/none")),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as hidden:
            await call(request, timeout=5)
        assert hidden.value.code() is grpc.StatusCode.NOT_FOUND
    operator = OfferServiceStub(running.channel(kind=PrincipalKind.OPERATOR, scopes=WRITE))
    assert (await operator.GetOffer(GetOfferRequest(name="institutions/northbank/offers/spring"), timeout=5)).title
