"""Search and lists, by values that can be read nowhere in the database."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc.aio import AioRpcError

from chassis.testing import reason
from concord.customer.v1 import customer_service_pb2 as pb
from customer.rpc import list_customers, search_customers

WHOLE, BEGINNING, SOUND, MISSPELT = pb.NAME_MATCH_WHOLE, pb.NAME_MATCH_BEGINNING, pb.NAME_MATCH_SOUND, pb.NAME_MATCH_MISSPELT


async def search(master, institution="bank", page_size=0, page_token="", kind=None, **criterion):
    stub = master.customers(institution, **({"kind": kind} if kind else {}))
    return await stub.SearchCustomers(pb.SearchCustomersRequest(page_size=page_size, page_token=page_token, **criterion))


async def names(master, institution="bank", **criterion):
    return [customer.name for customer in (await search(master, institution, **criterion)).customers]


async def refused(call):
    with pytest.raises(AioRpcError) as error:
        await call
    return reason(error.value)


async def test_search_by_every_value_of_a_customer(master):
    party = master.person(name="Jan Novák", national_id="710319/2745", passport="ab-99887", email="jan@example.com")
    party["phones"] = [{"number": "601123456"}, {"number": "12 bad 34"}]
    party["party_name"]["latin_name"] = "Nowak"
    one = (await master.ingest("k1", **party)).customer
    han = (await master.ingest("k2", party_name={"family_name": "單", "given_name": "小明"})).customer
    card = {"identifiers": [{"scheme": 1, "country_code": "CN", "value": "110105491231002"}]}
    old = (await master.ingest("k3", name="Wei Li", **card)).customer
    expected = {
        ("identifier", "710319/2745"): one,
        ("identifier", "7103192745"): one,
        ("identifier", "AB 99887"): one,
        ("identifier", "7103192746"): None,
        ("identifier", "110105491231002"): old,  # 15 digits and 18
        ("identifier", "11010519491231002x"): old,
        ("phone", "601 123 456"): one,
        ("phone", "+420601123456"): one,
        ("phone", "12 bad 34"): one,
        ("phone", "601123457"): None,
        ("email", "JAN@example.com"): one,
        ("email", "jan@example.org"): None,
        ("person_name", "novak"): one,
        ("person_name", "Jan Nov"): one,
        ("person_name", "nov jan"): one,
        ("person_name", "jan svoboda"): None,
        ("person_name", "单小"): han,
        ("person_name", "小明"): han,
        ("person_name", "明小"): None,
        ("person_name", "shan xiaoming"): han,
        ("person_name", "dan daming"): None,
        ("person_name", "Noavk"): one,
    }
    for (kind, value), customer in expected.items():
        assert await names(master, **{kind: value}) == ([customer] if customer else []), (kind, value)
        assert await names(master, "insurer", **{kind: value}) == []
    for value in ("...", "j"):
        assert await refused(search(master, person_name=value)) == {"...": "NAME_EMPTY", "j": "NAME_TOO_SHORT"}[value]
    assert await refused(search(master)) == "FIELD_INVALID"


async def test_names_are_ranked_and_paged_stage_by_stage(master, monkeypatch):
    stored = ["Wang Wei", "Wei Wang", "Wang Weimin", "Wang Weiqi", "Weijun Wang", "Vang Vei", "Li Na"]
    customers = {name: (await master.ingest(f"k{place}", name=name)).customer for place, name in enumerate(stored)}
    everything = await search(master, person_name="wang wei")
    assert list(everything.name_matches) == [WHOLE, WHOLE, BEGINNING, BEGINNING, BEGINNING]
    assert {customer.name for customer in everything.customers[:2]} == {customers["Wang Wei"], customers["Wei Wang"]}
    misspelt = await search(master, person_name="wank weimin")
    assert [(customer.name, match) for customer, match in zip(misspelt.customers, misspelt.name_matches, strict=True)] == [
        (customers["Wang Weimin"], MISSPELT)
    ]
    alike = await search(master, person_name="vank vei")
    assert customers["Vang Vei"] in {customer.name for customer in alike.customers}

    monkeypatch.setattr(search_customers, "EXAMINED_MAX", 1)
    monkeypatch.setattr(search_customers, "EXAMINED_AT_ONCE_MIN", 2)
    paged, matches, token = [], [], ""
    while True:
        page = await search(master, person_name="wang wei", page_size=2, page_token=token)
        assert len(page.customers) <= 2
        paged += [customer.name for customer in page.customers]
        matches += page.name_matches
        token = page.next_page_token
        if not token:
            break
    assert paged == [customer.name for customer in everything.customers]
    assert matches == list(everything.name_matches)


async def test_the_operator_finds_under_every_institutions_key_and_a_restricted_customer_is_not_found(master):
    mine = (await master.ingest("k1", name="Jan Novák", phone="601123456")).customer
    theirs = (await master.ingest("p1", master.policies, name="Eva Nováková", phone="601123456")).customer
    both = sorted([mine, theirs])
    assert sorted(await names(master, **master.operator, person_name="novak")) == both
    assert await names(master, **master.operator, phone="+420601123456") == both
    database = master.running.application.database
    async with database.transaction() as connection:
        await connection.execute("UPDATE customers SET restricted = true WHERE customer_id = $1", mine.removeprefix("customers/"))
    assert await names(master, **master.operator, phone="+420601123456") == [theirs]
    assert await names(master, person_name="novak") == []
    assert not (await master.customers().ListCustomers(pb.ListCustomersRequest())).customers


async def test_no_name_can_be_read_in_the_database(master):
    await master.ingest("k1", name="Xaveria Quintorova", email="xaveria@quintorova.example")
    await master.ingest("k1", day=1, name="Xaveria Quintorova", phone="601123456")
    async with master.running.application.database.connection() as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in tables:
            rows = await connection.fetch(f'SELECT t::text AS row FROM "{table}" t')
            text = "".join(row["row"] for row in rows).lower()
            for marker in ("xaveria", "quintorova"):
                assert marker not in text, table
                assert marker.encode().hex() not in text, table


async def test_list_filters(master, monkeypatch):
    one = (await master.ingest("k1", name="Jan", roles=[{"kind": 2}])).customer
    two = (await master.ingest("k2", name="Eva", born="1971-03-19", national_id="7153192749", roles=[{"kind": 1}])).customer
    three = (await master.ingest("p1", master.policies, name="Petr", roles=[{"kind": 2}])).customer

    async def listed(caller=None, **filters):
        stub = master.customers(**(caller or {}))
        found, token = [], ""
        while True:
            page = await stub.ListCustomers(pb.ListCustomersRequest(page_token=token, **filters))
            found += [customer.name for customer in page.customers]
            token = page.next_page_token
            if not token:
                return found

    everybody = sorted([one, two, three])
    assert await listed(master.operator) == everybody
    assert await listed(role_kind=2) == [one]
    assert await listed(role_kind=1) == [two]
    assert await listed(master.operator, role_kind=2) == sorted([one, three])
    assert await listed(master.operator, institution="institutions/insurer") == [three]
    assert await listed(institution="institutions/bank") == sorted([one, two])
    assert await refused(listed(institution="institutions/insurer")) == "INSTITUTION_NOT_FOUND"
    now = Timestamp()
    now.GetCurrentTime()
    assert await listed(changed_since_time=Timestamp(seconds=now.seconds - 600)) == sorted([one, two])
    assert await listed(changed_since_time=Timestamp(seconds=now.seconds + 600)) == []
    monkeypatch.setattr(list_customers, "EXAMINED_MAX", 1)  # pages without rows lead on
    low = await listed(completeness_percent_max=30)
    high = await listed(completeness_percent_min=31)
    assert (sorted(low + high), two in high) == (sorted([one, two]), True)
