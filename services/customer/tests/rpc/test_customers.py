from typing import Any

import pytest
from grpc.aio import AioRpcError

from chassis.testing import reason
from concord.common.v1.money_pb2 import Money
from concord.customer.v1 import customer_service_pb2 as pb
from concord.customer.v1 import intake_service_pb2 as intake_pb
from concord.customer.v1.party_pb2 import Party

MASKED = ("customer.read",)
NOBODY = "customers/0190a0b0-0000-7000-8000-000000000000"


async def refused(call):
    with pytest.raises(AioRpcError) as error:
        await call
    return reason(error.value)


async def search(master, institution="bank", **criterion):
    response = await master.customers(institution).SearchCustomers(pb.SearchCustomersRequest(**criterion))
    return [customer.name for customer in response.customers]


async def test_without_a_link_a_customer_does_not_exist(master):
    mine = await master.ingest("k1", name="Jan")
    for call in (
        master.get(mine.customer, "insurer"),
        master.get(NOBODY),
        master.get(mine.customer, customer=NOBODY.removeprefix("customers/")),
        master.customers("insurer").ListHoldings(pb.ListHoldingsRequest(parent=mine.customer)),
    ):
        assert await refused(call) == "CUSTOMER_NOT_FOUND"
    bound = await master.get(mine.customer, customer=mine.customer.removeprefix("customers/"))
    assert bound.party_name.full_name == "Jan"


async def test_personal_fields_are_masked_without_the_scope(master):
    mine = await master.ingest("k1", name="Jan Novák", national_id="7103192745", phone="601123456", born="1971-03-19")
    customer = await master.get(mine.customer, scopes=MASKED)
    assert customer.party_name.full_name == "J***"
    assert customer.identifiers[0].value == "***45"
    assert customer.phones[0].number == "***56"
    assert "1971" not in customer.birth_date
    assert len(customer.provenances) == 5


async def test_list_by_pages(master):
    names = sorted([(await master.ingest(f"k{i}", name=f"Person {i}")).customer for i in range(5)])
    await master.ingest("p1", master.policies, name="Not of the bank")
    listed, token = [], ""
    while True:
        page = await master.customers().ListCustomers(pb.ListCustomersRequest(page_size=2, page_token=token))
        assert len(page.customers) <= 2
        listed += [one.name for one in page.customers]
        token = page.next_page_token
        if not token:
            break
    assert listed == names
    everybody = await master.customers(**master.operator).ListCustomers(pb.ListCustomersRequest())
    assert len(everybody.customers) == 6
    only = master.customers(customer=names[2].removeprefix("customers/"))
    assert [one.name for one in (await only.ListCustomers(pb.ListCustomersRequest())).customers] == [names[2]]


async def test_a_token_is_bound_to_its_search(master):
    for i in range(3):
        await master.ingest(f"k{i}", name=f"Wang {i}")
    page = await master.customers().SearchCustomers(pb.SearchCustomersRequest(person_name="wang", page_size=2))
    assert (len(page.customers), bool(page.next_page_token)) == (2, True)
    again = pb.SearchCustomersRequest(person_name="wang", page_size=2, page_token=page.next_page_token)
    assert len((await master.customers().SearchCustomers(again)).customers) == 1
    again.person_name = "li"
    assert await refused(master.customers().SearchCustomers(again)) == "PAGE_TOKEN_INVALID"


async def test_search_follows_a_changed_record(master):
    one = await master.ingest("k1", name="Jan Novák", phone="601123456")
    await master.ingest("k1", day=1, name="Petr Malý", phone="602222222")
    assert await search(master, person_name="novak") == []
    assert await search(master, phone="601123456") == []
    assert await search(master, person_name="maly") == [one.customer]
    assert await search(master, phone="602222222") == [one.customer]


async def test_resolve_names_linked_customers_only_and_changes_nothing(master):
    mine = await master.ingest("k1", name="Jan", born="1971-03-19", national_id="7103192745")

    async def resolve(institution, **fields):
        request = pb.ResolveCustomerRequest(party=Party(**master.person(**fields)))
        answer = await master.customers(institution).ResolveCustomer(request)
        return answer.customer, answer.resolution_reason

    assert await resolve("bank", national_id="710319/2745") == (mine.customer, "IDENTITY_DOCUMENT")
    assert await resolve("bank", national_id="710319/2745", born="1980-01-01") == ("", "NEW_CUSTOMER")
    assert await resolve("bank", name="Jan") == ("", "NEW_CUSTOMER")
    unknown, known = await resolve("insurer", national_id="8001011238"), await resolve("insurer", national_id="7103192745")
    assert unknown == known == ("", "NEW_CUSTOMER")
    async with master.running.application.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM customers") == 1


async def test_holdings_of_a_customer_by_pages_own_institution_only(master):
    one = await master.ingest("k1", name="Jan", national_id="7103192745")
    await master.ingest("p1", master.policies, name="Jan", national_id="7103192745")
    for parent, key, count in ((master.core, "k1", 3), (master.policies, "p1", 1)):
        fields: Any = {
            "kind": 1,
            "product_code": "classic",
            "open_date": "1996-02-29",
            "holders": [{"source_record_key": key, "role": 1}],
        }
        stated = [
            intake_pb.SourceHolding(
                source_holding_key=f"h{i}",
                observe_time=master.at(0),
                amount=Money(currency_code="CZK", minor_units=100 + i),
                **fields,
            )
            for i in range(count)
        ]
        await master.intake(parent.split("/")[1]).BatchUpsertHoldings(
            intake_pb.BatchUpsertHoldingsRequest(parent=parent, source_holdings=stated, request_id=master.request_id())
        )
    stub = master.customers()
    page = await stub.ListHoldings(pb.ListHoldingsRequest(parent=one.customer, page_size=2))
    rest = await stub.ListHoldings(pb.ListHoldingsRequest(parent=one.customer, page_size=2, page_token=page.next_page_token))
    holdings = [*page.holdings, *rest.holdings]
    assert (len(page.holdings), len(holdings), rest.next_page_token) == (2, 3, "")
    assert {holding.amount.minor_units for holding in holdings} == {100, 101, 102}
    assert all(holding.name.startswith(f"{one.customer}/holdings/") for holding in holdings)
    assert {(holding.source_system, holding.open_date, holding.role) for holding in holdings} == {(master.core, "1996-02-29", 1)}
    everything = await master.customers(**master.operator).ListHoldings(pb.ListHoldingsRequest(parent=one.customer))
    assert len(everything.holdings) == 4
