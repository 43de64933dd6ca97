"""Merging, unmerging, relinking and rejecting, by the API and by what is published."""

import asyncio

import pytest
from customer_stewards import Steward, customer_links, golden, reason_of, two_people
from grpc import StatusCode
from grpc.aio import AioRpcError

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.customer.v1 import customer_events_pb2 as events_pb
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import sharing_consent_service_pb2 as consent_pb
from concord.customer.v1.party_pb2 import Party
from concord.customer.v1.sharing_consent_service_pb2_grpc import SharingConsentServiceStub

MOVED = "concord.customer.v1.customer.records_moved"
UPDATED = "concord.customer.v1.customer.updated"


async def moves(master):
    return [event.message(events_pb.RecordsMoved) for event in await master.running.events(MOVED)]


async def test_a_merge_moves_everything_and_its_undoing_gives_everything_back(master):
    jan, eva = await two_people(master, jan_records=2, eva_records=1)
    before = {name: await golden(master, name) for name in (jan, eva)}
    operator = Steward(master)

    merged = await operator.merge(eva, jan)
    assert (merged.customer, [one.name.rsplit("/", 2)[0] for one in merged.merges]) == (jan, [eva])
    assert await golden(master, eva) == await golden(master, jan)
    assert len((await master.get(jan, **master.operator)).linked_records) == 3
    [event] = await moves(master)
    assert (event.reason, f"customers/{event.from_customer_id}", f"customers/{event.to_customer_id}") == ("MERGE", eva, jan)
    assert len(event.record_links) == 1
    states = [one.message(events_pb.CustomerChanged) for one in await master.running.events(UPDATED)]
    last = {f"customers/{state.customer_id}": state for state in states}
    assert (len(last[jan].record_links), len(last[eva].record_links)) == (3, 0)
    assert last[eva].merged_into_customer_id == jan.removeprefix("customers/")

    undone = await operator.unmerge(eva)
    assert (undone.customer, undone.records_restored_count, undone.records_not_restored_count) == (eva, 1, 0)
    assert {name: await golden(master, name) for name in (jan, eva)} == before
    event = (await moves(master))[-1]
    assert (event.reason, f"customers/{event.to_customer_id}") == ("UNMERGE", eva)
    state = [one.message(events_pb.CustomerChanged) for one in await master.running.events(UPDATED)]
    assert {f"customers/{one.customer_id}": one.merged_into_customer_id for one in state}[eva] == ""

    again = await operator.merge(jan, eva)  # merged once more, and the other way round asked for
    assert again.customer == jan
    merges = (await operator.list_merges(eva)).merges
    assert [one.HasField("undo_time") for one in merges] == [False, True]


async def test_the_winner_is_computed_most_records_then_the_oldest(master):
    jan, eva = await two_people(master, jan_records=1, eva_records=2)
    assert (await Steward(master).merge(jan, eva)).customer == eva
    ota, ida = await two_people(master, "o", "i")
    assert (await Steward(master).merge(ida, ota)).customer == ota


@pytest.mark.parametrize("first", ["a", "b"])
async def test_a_chain_of_merges_comes_apart_in_any_order(master, first):
    a, b = await two_people(master, "a", "b", jan_records=1, eva_records=2)
    c, _ = await two_people(master, "c", "d", jan_records=4)
    before = {name: await golden(master, name) for name in (a, b, c)}
    operator = Steward(master)
    assert (await operator.merge(a, b)).customer == b
    assert (await operator.merge(b, c)).customer == c
    assert await golden(master, a) == await golden(master, b) == await golden(master, c)
    order = [a, b] if first == "a" else [b, a]
    one = await operator.unmerge(order[0])
    if first == "a":
        assert (one.records_restored_count, one.records_not_restored_count) == (1, 0)
        assert await golden(master, a) == before[a]
        assert await golden(master, b) == await golden(master, c)
    else:
        assert one.records_restored_count == 3  # what b had at the merge: its own and a's
        assert await golden(master, a) == await golden(master, b)
        assert await golden(master, c) == before[c]
    two = await operator.unmerge(order[1])
    assert (two.records_restored_count, two.records_not_restored_count) == ((2, 1) if first == "a" else (1, 0))
    assert {name: await golden(master, name) for name in (a, b, c)} == before
    if first == "a":
        assert [(left.reason, left.customer) for left in two.records_not_restored] == [("RELINKED", a)]


async def test_what_moved_on_since_stays_and_is_explained(master):
    jan, eva = await two_people(master, jan_records=2, eva_records=2)
    operator = Steward(master)
    record = (await customer_links(master, eva))[0]
    await operator.merge(jan, eva)
    loser, winner = (eva, jan) if (await golden(master, eva))[0] == jan else (jan, eva)
    moved = record if loser == eva else (await customer_links(master, winner))[0]
    relinked = await operator.relink(moved)
    assert relinked.former_customer == winner
    undone = await operator.unmerge(loser)
    assert undone.records_restored_count + undone.records_not_restored_count == 2
    for left in undone.records_not_restored:
        assert (left.record, left.reason, left.customer) == (moved, "RELINKED", relinked.customer)
    with pytest.raises(AioRpcError) as refused:
        await operator.unmerge(loser)
    assert reason(refused.value) == "CUSTOMER_NOT_MERGED"


async def test_nobody_writes_through_a_loser_and_everybody_reads_through_it(master):
    jan, eva = await two_people(master, jan_records=2)
    ota, _ = await two_people(master, "o", "i", jan_records=1)
    operator = Steward(master)
    await operator.merge(jan, eva)
    for call in (
        operator.merge(eva, ota),
        operator.reject(eva, ota),
        operator.relink((await customer_links(master, ota))[0], eva),
    ):
        with pytest.raises(AioRpcError) as refused:
            await call
        assert reason(refused.value) == "CUSTOMER_MERGED"
    consents = SharingConsentServiceStub(
        master.channel("bank", scopes=("consent.write", "consent.read"), kind=PrincipalKind.STAFF, client="consents")
    )
    with pytest.raises(AioRpcError) as refused:
        await consents.GrantSharingConsent(
            consent_pb.GrantSharingConsentRequest(
                parent=eva,
                purpose_code="SERVICE",
                attributes=[2],  # type: ignore[list-item]
                begin_time=master.at(0),
                evidence_reference="form-1",
                request_id=master.request_id(),
            )
        )
    assert reason(refused.value) == "CUSTOMER_MERGED"
    holdings = await master.customers().ListHoldings(customer_pb.ListHoldingsRequest(parent=eva))
    assert len(holdings.holdings) == 0
    # A token made out for the loser acts for the winner, by either name, and for nobody else.
    bound = master.customers(customer=eva.removeprefix("customers/"))
    assert {(await bound.GetCustomer(customer_pb.GetCustomerRequest(name=name))).name for name in (jan, eva)} == {jan}
    assert await reason_of(bound.GetCustomer(customer_pb.GetCustomerRequest(name=ota))) == "CUSTOMER_NOT_FOUND"
    assert (await operator.list_merges(eva)).merges


async def test_rules_forbid_and_only_the_operator_overrides(master):
    jan, eva = await two_people(master, jan_records=1, same_scheme=True)
    bank = Steward(master, "bank")
    assert await reason_of(bank.merge(jan, eva)) == "MERGE_FORBIDDEN"
    assert await reason_of(bank.merge(jan, eva, override="DOCUMENT_WAS_WRONG")) == "OVERRIDE_NOT_ALLOWED"
    assert await reason_of(Steward(master).merge(jan, eva)) == "MERGE_FORBIDDEN"
    merged = await Steward(master).merge(jan, eva, override="DOCUMENT_WAS_WRONG")
    assert merged.merges[0].override_reason == "DOCUMENT_WAS_WRONG"
    [record] = await customer_links(master, (await two_people(master, "o", "i"))[0])
    firm = await master.ingest("firm", name="Ocel a.s.", party_kind="PARTY_KIND_ORGANISATION")
    assert await reason_of(Steward(master).relink(record, firm.customer)) == "MERGE_FORBIDDEN"


async def test_a_rejection_outranks_everything_follows_merges_and_can_be_taken_back(master):
    jan, eva = await two_people(master, jan_records=2)
    ota, _ = await two_people(master, "o", "i")
    operator = Steward(master)
    rejected = await operator.reject(jan, eva)
    assert (list(rejected.left_customers), list(rejected.right_customers), rejected.pairs_count) == ([jan], [eva], 2)
    assert await reason_of(operator.merge(jan, eva)) == "MATCH_REJECTED"
    merged = await operator.merge(eva, ota)
    assert await reason_of(operator.merge(jan, merged.customer)) == "MATCH_REJECTED"
    assert await reason_of(operator.relink((await customer_links(master, jan))[0], merged.customer)) == "MATCH_REJECTED"
    [listed] = (await operator.list_rejections(merged.customer)).match_rejections
    assert (listed.name, list(listed.right_customers)) == (rejected.name, [merged.customer])
    taken_back = await operator.withdraw(rejected.name)
    assert taken_back.HasField("withdraw_time")
    assert await operator.withdraw(rejected.name) == taken_back
    assert (await operator.merge(jan, merged.customer)).merges


async def test_the_intake_never_links_what_was_rejected_nor_moves_what_was_decided(master):
    person = {"name": "Karel Vomáčka", "born": "1980-05-05", "passport": "33221100"}
    one = await master.ingest("r1", **person)
    other = await master.ingest("r2", name="Někdo Jiný", born="1944-01-30")
    assert one.customer != other.customer
    operator = Steward(master)
    await operator.reject(one.customer, other.customer)
    again = await master.ingest("r2", day=1, **person)  # now it says the same, the document too
    assert again.customer == other.customer

    moved = await operator.relink((await master.ingest("r3", **person)).record)
    again = await master.ingest("r3", day=2, **person | {"phone": "601123456"})
    assert again.customer == moved.customer != one.customer


async def test_what_a_rule_merged_can_be_undone_too(master):
    one = await master.ingest("b1", name="Karel Vomáčka", born="1980-05-05", passport="33221100")
    other = await master.ingest("b2", name="Jinak Psaný", email="karel@example.org", born="1980-05-05")
    assert one.customer != other.customer
    before = {each.customer: await golden(master, each.customer) for each in (one, other)}
    # A record of its own that goes over by a rule takes its customer along.
    moved = await master.ingest("b2", day=1, name="Karel Vomáčka", born="1980-05-05", passport="33221100")
    assert moved.customer == one.customer
    assert (await golden(master, other.customer))[0] == one.customer
    [merge] = (await Steward(master).list_merges(other.customer)).merges
    assert (merge.winner, merge.decided_by) == (one.customer, "")
    assert (await Steward(master).unmerge(other.customer)).records_restored_count == 1
    assert await golden(master, one.customer) == before[one.customer]
    assert (await golden(master, other.customer))[0] == other.customer
    again = await master.ingest("b2", day=2, name="Karel Vomáčka", born="1980-05-05", passport="33221100", phone="601123456")
    assert again.customer == other.customer, "no rule moves what was decided by hand"


async def test_a_steward_decides_only_about_customers_of_its_institution(master):
    jan, eva = await two_people(master)
    theirs = await master.ingest("p1", master.policies, name="Zora Cizí", born="1933-03-03")
    bank = Steward(master, "bank")
    for call in (bank.merge(jan, theirs.customer), bank.reject(theirs.customer, jan), bank.relink(theirs.record, jan)):
        with pytest.raises(AioRpcError) as refused:
            await call
        assert refused.value.code() is StatusCode.NOT_FOUND
    merged = await Steward(master).merge(jan, theirs.customer)
    assert await reason_of(bank.unmerge(theirs.customer)) == "CUSTOMER_NOT_FOUND"
    assert [one.decided_by for one in merged.merges] == ["-/tester"]
    assert not (await bank.list_merges(jan)).merges  # nothing of its own was moved
    both = await bank.merge(jan, eva)
    assert [one.decided_by for one in both.merges] == ["bank/tester"]
    with pytest.raises(AioRpcError) as refused:
        await Steward(master, "insurer").withdraw((await Steward(master).reject(*(await two_people(master, "o", "i")))).name)
    assert refused.value.code() is StatusCode.NOT_FOUND


async def test_a_repeated_request_is_one_effect(master):
    jan, eva = await two_people(master)
    operator = Steward(master)
    first, second = await asyncio.gather(operator.merge(jan, eva, request_id="m1"), operator.merge(jan, eva, request_id="m1"))
    assert first == second
    assert len(await moves(master)) == 1
    undone = await operator.unmerge(eva, request_id="u1", reject_match=True)
    assert await operator.unmerge(eva, request_id="u1", reject_match=True) == undone
    assert undone.match_rejection.startswith("matchRejections/")
    assert await reason_of(operator.merge(jan, eva)) == "MATCH_REJECTED"


async def test_merges_of_overlapping_customers_at_once_neither_die_nor_lose_anything(master):
    people = [(await master.ingest(f"k{number}", name=f"{'ABCDEFGH'[number] * 6} Person")).customer for number in range(8)]
    operator = Steward(master)

    async def merge(one, other):
        return await operator.merge(people[one], people[other])

    tried = (merge(one, (one + step) % 8) for step in (1, 3, 2) for one in range(8))
    done = await asyncio.gather(*tried, return_exceptions=True)
    refused = {reason(answer) for answer in done if isinstance(answer, AioRpcError)}
    assert refused <= {"CUSTOMER_MERGED"}
    assert sum(not isinstance(answer, BaseException) for answer in done) >= 3
    async with master.running.application.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM links WHERE superseded_at IS NULL") == 8
        alive = await connection.fetch("SELECT customer_id FROM customers WHERE merged_into IS NULL")
        linked = await connection.fetch("SELECT DISTINCT customer_id FROM records")
    assert {row[0] for row in alive} == {row[0] for row in linked}
    for person in people:
        assert (await master.get(person, **master.operator)).name == f"customers/{(await golden(master, person))[0][10:]}"


async def test_a_token_bound_to_a_loser_finds_its_winner_and_after_the_unmerge_itself(master):
    jan, eva = await two_people(master, jan_records=2)
    ota, _ = await two_people(master, "o", "i", jan_records=1)
    winner = (await Steward(master).merge(jan, eva)).customer
    loser = ({jan, eva} - {winner}).pop()

    async def found_by(customer):
        mine = master.customers(customer=customer.removeprefix("customers/"))
        seen = await mine.GetCustomer(customer_pb.GetCustomerRequest(name=customer))
        party = Party(party_kind=seen.party_kind, party_name=seen.party_name, identifiers=seen.identifiers[:1])
        resolved = await mine.ResolveCustomer(customer_pb.ResolveCustomerRequest(party=party))
        listed = await mine.ListCustomers(customer_pb.ListCustomersRequest())
        searched = await mine.SearchCustomers(customer_pb.SearchCustomersRequest(person_name=seen.party_name.full_name))
        return [one.name for one in listed.customers], [one.name for one in searched.customers], resolved.customer

    assert await found_by(loser) == ([winner], [winner], winner)
    bound = {"customer": winner.removeprefix("customers/")}
    assert (await master.get(loser, **bound)).name == winner  # any id of the same person
    assert await reason_of(master.get(ota, **bound)) == "CUSTOMER_NOT_FOUND"
    await Steward(master).unmerge(loser)
    assert await found_by(loser) == ([loser], [loser], loser)
    assert await reason_of(master.get(loser, **bound)) == "CUSTOMER_NOT_FOUND"
