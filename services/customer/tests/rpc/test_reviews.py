"""The stewards' queues over real sockets: who sees what, claims, decisions and their undoing, figures."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from customer_stewards import Steward, golden, reason_of
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from grpc.aio import AioRpcError

from chassis import clock
from concord.customer.v1 import review_service_pb2 as pb
from customer.domain.matching import Contribution, Explanation
from customer.domain.reviews import pair_content
from customer.domain.vocabulary import Attribute
from customer.store import rejections, reviews
from customer.store.reviews import NewItem, ReviewKind

MATCH = pb.REVIEW_KIND_POSSIBLE_MATCH
SCORES = Explanation(3.5, (Contribution("prior", "PRIOR", -16.0), Contribution("birth_date", "SAME", 19.5)))


def record_id(name):
    return UUID(name.rsplit("/", 1)[1])


async def open_items(master, *items):
    async with master.running.application.database.transaction() as connection:
        return await reviews.open_items(connection, items, clock.now())


def match(one, other, content=b"1", weight=3.5):
    """A possible match of two records, named."""
    return NewItem(
        ReviewKind.POSSIBLE_MATCH, (record_id(one),), (record_id(other),), content, weight, SCORES.to_bytes(), "test-1"
    )


async def strangers(master, count):
    """Records of people who have nothing in common."""
    people = [{"name": f"{chr(65 + number) * 7} Stranger", "born": f"19{40 + number}-01-01"} for number in range(count)]
    return [await master.ingest(f"s{number}", **person) for number, person in enumerate(people)]


async def test_a_pair_is_open_once_however_often_and_whichever_way_round_it_is_found(master):
    one, other, third = await strangers(master, 3)
    assert await open_items(master, match(one.record, other.record), match(other.record, one.record)) == 1
    assert await open_items(master, match(one.record, other.record)) == 0
    operator = Steward(master)
    [item] = await operator.items(kind=MATCH)
    assert (item.kind, item.state, item.weight_bits, item.model_version) == (1, pb.REVIEW_STATE_OPEN, 3.5, "test-1")
    merged = (await operator.merge(other.customer, third.customer)).customer
    assert await open_items(master, match(one.record, third.record)) == 0  # the same two customers by another record
    assert await open_items(master, match(other.record, third.record)) == 0  # one customer
    assert await open_items(master, match(one.record, other.record, b"2", 9.0)) == 1  # the content changed
    [item] = await operator.items(customer=merged, kind=MATCH)
    assert item.weight_bits == 9.0


async def test_both_sides_are_seen_with_scores_by_those_who_may(master):
    one, other = await strangers(master, 2)
    theirs = await master.ingest("p0", master.policies, name="Zzzzzz Cizí", born="1922-02-02")
    await open_items(master, match(one.record, other.record), match(other.record, theirs.record))
    operator, bank, insurer = Steward(master), Steward(master, "bank"), Steward(master, "insurer")
    items = await operator.items()
    assert len(items) == 2
    assert not any(item.left.HasField("golden") or item.attribute_scores for item in items)
    [mine] = await bank.items()
    assert await insurer.items() == []
    [hidden] = [item.name for item in items if item.name != mine.name]
    for steward in (bank, insurer):
        with pytest.raises(AioRpcError) as refused:
            await steward.item(hidden)
        assert refused.value.code() is StatusCode.NOT_FOUND
        with pytest.raises(AioRpcError):
            await steward.claim(hidden)
    whole = await bank.item(mine.name)
    assert {whole.left.customer, whole.right.customer} == {one.customer, other.customer}
    assert {whole.left.golden.party_name.full_name, whole.right.golden.party_name.full_name} == {
        "AAAAAAA Stranger", "BBBBBBB Stranger",
    }  # fmt: skip
    assert [(score.attribute, score.level, score.bits) for score in whole.attribute_scores] == [
        ("prior", "PRIOR", -16.0), ("birth_date", "SAME", 19.5),
    ]  # fmt: skip
    # Linked with both customers by now, but not by the records that were compared: no scores, and none of the other's values.
    for place, customer in enumerate((theirs.customer, other.customer)):
        await master.ingest(f"x{place}", name=f"{'XY'[place] * 8} Bridge", born=f"190{place}-01-01")
        bridge = await master.ingest(f"x{place}", name=f"{'XY'[place] * 8} Bridge", born=f"190{place}-01-01")
        await operator.relink(bridge.record, customer)
    whole = await bank.item(hidden)
    assert not whole.attribute_scores
    assert "Cizí" not in str(whole)
    assert (await operator.item(hidden)).attribute_scores
    assert len(await operator.items(institution="institutions/insurer")) == 0
    with pytest.raises(AioRpcError) as refused:
        await bank.items(institution="institutions/insurer")
    assert refused.value.code() is StatusCode.NOT_FOUND


async def test_a_claim_keeps_others_out_until_its_lease_ends(master):
    one, other = await strangers(master, 2)
    await open_items(master, match(one.record, other.record))
    anna, bert = Steward(master, "bank", "anna"), Steward(master, "bank", "bert")
    [item] = await anna.items()
    claims = await asyncio.gather(anna.claim(item.name), bert.claim(item.name), return_exceptions=True)
    [claim] = [answer for answer in claims if not isinstance(answer, Exception)]
    winner, loser = (anna, bert) if claim is claims[0] else (bert, anna)
    assert claim.state == pb.REVIEW_STATE_CLAIMED
    assert await reason_of(loser.claim(item.name)) == "ITEM_CLAIMED"
    assert await reason_of(loser.decide(claim, "NOT_SAME")) == "CLAIM_LOST"
    assert await anna.items() == []
    assert len(await winner.items(state=pb.REVIEW_STATE_CLAIMED, mine=True)) == 1
    assert await loser.items(state=pb.REVIEW_STATE_CLAIMED, mine=True) == []
    renewed = await winner.claim(item.name, lease_seconds=1)
    assert renewed.claim_number == claim.claim_number
    await asyncio.sleep(1.05)
    stolen = await loser.claim(item.name)
    assert stolen.claim_number == claim.claim_number + 1
    assert await reason_of(winner.decide(claim, "MERGE")) == "CLAIM_LOST"
    released = await loser.release(stolen)
    assert released.state == pb.REVIEW_STATE_OPEN
    claim = await winner.claim(item.name)
    await open_items(master, match(one.record, other.record, b"changed"))
    assert await reason_of(winner.decide(claim, "MERGE")) == "CLAIM_LOST"  # it changed under the steward's eyes
    decided = await winner.claim_and_decide(item.name, "NOT_SAME")
    assert decided.state == pb.REVIEW_STATE_DECIDED
    assert await reason_of(loser.claim(item.name)) == "ITEM_NOT_OPEN"


async def test_matches_are_merged_rejected_put_off_and_all_of_it_is_undone(master):
    one, other = await strangers(master, 2)
    content = pair_content(b"a", b"b")
    await open_items(master, match(one.record, other.record, content))
    operator = Steward(master)
    before = [await golden(master, each.customer) for each in (one, other)]
    [item] = await operator.items()

    merged = await operator.claim_and_decide(item.name, "MERGE")
    assert (merged.state, merged.decision) == (pb.REVIEW_STATE_DECIDED, pb.REVIEW_DECISION_MERGE)
    assert (await golden(master, one.customer))[0] == (await golden(master, other.customer))[0]
    assert await open_items(master, match(one.record, other.record, content)) == 0
    undone = await operator.undo(item.name)
    assert undone.state == pb.REVIEW_STATE_OPEN
    assert [await golden(master, each.customer) for each in (one, other)] == before

    await operator.claim_and_decide(item.name, "NOT_SAME")
    assert await reason_of(operator.merge(one.customer, other.customer)) == "MATCH_REJECTED"
    async with master.running.application.database.connection() as connection:
        found = await rejections.rejected_with(connection, [record_id(one.record)])
    assert found == {record_id(one.record): {record_id(other.record)}}
    assert await open_items(master, match(one.record, other.record, content)) == 0
    await operator.undo(item.name)
    assert (await operator.merge(one.customer, other.customer)).merges
    assert await operator.items(kind=MATCH) == []  # the two are one customer by now
    assert (await operator.item(item.name)).state == pb.REVIEW_STATE_SETTLED
    assert await reason_of(operator.claim(item.name)) == "ITEM_NOT_OPEN"
    await operator.unmerge(other.customer)
    assert len(await operator.items()) == 1

    until = Timestamp(seconds=int(clock.now().timestamp()) + 3600)
    late = Timestamp(seconds=until.seconds + int(timedelta(days=400).total_seconds()))
    assert await reason_of(operator.claim_and_decide(item.name, "DEFER", defer_time=late)) == "DEFER_TIME_INVALID"
    deferred = await operator.claim_and_decide(item.name, "DEFER", defer_time=until)
    assert (deferred.state, deferred.defer_time) == (pb.REVIEW_STATE_DEFERRED, until)
    assert (await operator.items(), len(await operator.items(state=pb.REVIEW_STATE_DEFERRED))) == ([], 1)
    await operator.undo(item.name)
    assert len(await operator.items()) == 1
    assert await reason_of(operator.undo(item.name)) == "ITEM_NOT_DECIDED"
    assert await reason_of(operator.claim_and_decide(item.name, "SPLIT")) == "DECISION_NOT_ALLOWED"


async def test_a_doubtful_cluster_is_split_and_joined_again(master):
    one, other, third = await strangers(master, 3)
    operator = Steward(master)
    whole = (await operator.merge(one.customer, other.customer, third.customer)).customer
    before = await golden(master, whole)
    cluster = NewItem(
        ReviewKind.DOUBTFUL_CLUSTER, (record_id(one.record), record_id(other.record)), (record_id(third.record),), b"c", -4.0
    )
    await open_items(master, cluster)
    [item] = await operator.items(kind=pb.REVIEW_KIND_DOUBTFUL_CLUSTER)
    assert (item.left.records_count, item.right.records_count) == (2, 1)
    split = await operator.claim_and_decide(item.name, "SPLIT")
    assert split.left.customer == whole != split.right.customer
    assert await reason_of(operator.merge(whole, split.right.customer)) == "MATCH_REJECTED"
    await operator.undo(item.name)
    assert await golden(master, whole) == before
    assert await golden(master, split.right.customer) == before  # its id answers with the customer that took it back
    await operator.claim_and_decide(item.name, "ACKNOWLEDGE")
    assert await open_items(master, cluster) == 0


async def test_failed_checks_and_conflicts_come_from_the_intake_and_a_choice_is_pinned(master):
    jan = {"name": "Jan Novák", "born": "1970-12-13", "national_id": "701213/0016", "passport": "44556677"}
    first = await master.ingest("k1", **jan)
    bank, insurer, operator = Steward(master, "bank"), Steward(master, "insurer"), Steward(master)
    [failed] = await bank.items(kind=pb.REVIEW_KIND_FAILED_VALIDATION)
    assert failed.attribute == Attribute.IDENTIFIER
    assert all(code.startswith("identifier:") for code in failed.codes)
    assert "701213" not in str(failed)
    await bank.claim_and_decide(failed.name, "ACKNOWLEDGE")
    await master.ingest(
        "k1", day=1, name="Jan Novák", born="1970-12-13", national_id="701213/0016", passport="44556677", phone="601"
    )
    assert await bank.items(kind=pb.REVIEW_KIND_FAILED_VALIDATION, customer=first.customer) != []  # the phone failed too
    theirs = await master.ingest("p1", master.policies, name="Jan Novák", born="1970-12-14", phone="601123456")
    if theirs.customer != first.customer:
        await operator.merge(first.customer, theirs.customer)
    [conflict] = await operator.items(kind=pb.REVIEW_KIND_CONFLICT)
    assert (conflict.attribute, list(conflict.codes)) == (Attribute.BIRTH_DATE, ["birth_date:DIFFERS"])
    assert await bank.items(kind=pb.REVIEW_KIND_CONFLICT) == []  # of a record that is not the bank's alone
    assert await insurer.items(kind=pb.REVIEW_KIND_CONFLICT) == []
    born = {(await master.get(first.customer, **master.operator)).birth_date}
    other = first.record if born == {"1970-12-14"} else theirs.record
    assert await reason_of(operator.claim_and_decide(conflict.name, "CHOOSE")) == "CHOSEN_RECORD_INVALID"
    await operator.claim_and_decide(conflict.name, "CHOOSE", chosen_record=other)
    chosen = await master.get(first.customer, **master.operator)
    assert {chosen.birth_date} | born == {"1970-12-13", "1970-12-14"}
    assert chosen.birth_date not in born
    await operator.undo(conflict.name)
    assert {(await master.get(first.customer, **master.operator)).birth_date} == born


async def test_a_value_that_was_corrected_leaves_the_queue(master):
    bad = {"name": "Jan Novák", "born": "1970-12-13", "national_id": "701213/0016"}
    await master.ingest("k1", **bad)
    operator = Steward(master)
    assert len(await operator.items(kind=pb.REVIEW_KIND_FAILED_VALIDATION)) == 1
    await master.ingest("k1", day=1, **bad | {"national_id": "701213/0015"})
    assert await operator.items(kind=pb.REVIEW_KIND_FAILED_VALIDATION) == []
    [settled] = await operator.items(kind=pb.REVIEW_KIND_FAILED_VALIDATION, state=pb.REVIEW_STATE_SETTLED)
    assert await reason_of(operator.claim(settled.name)) == "ITEM_NOT_OPEN"


async def test_lists_come_in_pages_by_age_or_weight_and_figures_add_up(master):
    ingested = await strangers(master, 8)
    records = [one.record for one in ingested]
    for number in range(7):
        await open_items(master, match(records[number], records[number + 1], weight=float(number % 3)))
    bank, insurer = Steward(master, "bank", "anna"), Steward(master, "insurer")
    for order, key in (
        (pb.REVIEW_ORDER_OLDEST, lambda item: item.name),
        (pb.REVIEW_ORDER_HEAVIEST, lambda item: -item.weight_bits),
    ):
        items, token = [], ""
        while True:
            page = await bank.reviews.ListReviewItems(
                pb.ListReviewItemsRequest(order=order, page_size=2, page_token=token, kind=pb.REVIEW_KIND_POSSIBLE_MATCH)
            )
            items.extend(page.review_items)
            if not (token := page.next_page_token):
                break
        assert len({item.name for item in items}) == 7
        assert [key(item) for item in items] == sorted(key(item) for item in items)
    await bank.claim_and_decide(items[0].name, "NOT_SAME")
    await bank.claim_and_decide(items[1].name, "NOT_SAME")
    await bank.undo(items[1].name)
    await bank.claim(items[2].name)
    figures = await bank.figures()
    [queue] = [one for one in figures.queues if one.kind == pb.REVIEW_KIND_POSSIBLE_MATCH]
    assert (queue.open_count, queue.claimed_count, queue.deferred_count, queue.decided_count) == (5, 1, 0, 1)
    assert 0 <= queue.age_p50_seconds <= queue.age_p90_seconds <= queue.age_max_seconds < 60
    [throughput] = figures.throughputs
    assert (throughput.steward, throughput.kind, throughput.decided_count) == ("bank/anna", 1, 1)
    theirs = await insurer.figures()
    assert not theirs.throughputs
    assert not [one for one in theirs.queues if one.kind == pb.REVIEW_KIND_POSSIBLE_MATCH]


async def test_withdrawing_a_rejection_opens_the_questions_again_that_it_answered(master):
    one, other, third = await strangers(master, 3)
    operator = Steward(master)
    await open_items(master, match(one.record, other.record))
    await open_items(master, match(one.record, third.record))
    [first, second] = await operator.items(kind=MATCH)

    rejection = await operator.reject(one.customer, other.customer)  # beside the queue: it closes the item
    assert [item.name for item in await operator.items(kind=MATCH)] == [second.name]
    await operator.withdraw(rejection.name)
    assert sorted(item.name for item in await operator.items(kind=MATCH)) == sorted([first.name, second.name])
    await operator.withdraw(rejection.name)  # a second time changes nothing

    await operator.claim_and_decide(first.name, "NOT_SAME")  # through the queue: it decides the item
    [rejection] = (await operator.list_rejections(other.customer)).match_rejections[:1]
    await operator.withdraw(rejection.name)
    again = await operator.item(first.name)
    assert (again.state, again.decision) == (pb.REVIEW_STATE_OPEN, pb.REVIEW_DECISION_UNSPECIFIED)
    assert await reason_of(operator.undo(first.name)) == "ITEM_NOT_DECIDED"
    merged = await operator.claim_and_decide(first.name, "MERGE")
    assert merged.state == pb.REVIEW_STATE_DECIDED

    # What was settled for another reason stays so.
    rejection = await operator.reject(one.customer, third.customer)
    await operator.withdraw(rejection.name)
    assert [item.name for item in await operator.items(kind=MATCH)] == [second.name]


async def test_a_split_is_undone_after_its_sides_were_merged_on(master):
    one, other, third, fourth = await strangers(master, 4)
    operator = Steward(master)
    whole = (await operator.merge(one.customer, other.customer, third.customer)).customer
    before = await golden(master, whole)
    cluster = NewItem(
        ReviewKind.DOUBTFUL_CLUSTER, (record_id(one.record), record_id(other.record)), (record_id(third.record),), b"c", -4.0
    )
    await open_items(master, cluster)
    [item] = await operator.items(kind=pb.REVIEW_KIND_DOUBTFUL_CLUSTER)
    split = (await operator.claim_and_decide(item.name, "SPLIT")).right.customer
    winner = (await operator.merge(split, fourth.customer)).customer
    loser = ({split, fourth.customer} - {winner}).pop()
    if loser == split:
        with pytest.raises(AioRpcError) as refused:
            await operator.undo(item.name)
        assert f"unmerge {split} first" in (refused.value.details() or "")
        assert (await operator.item(item.name)).state == pb.REVIEW_STATE_DECIDED, "nothing is half undone"
    await operator.unmerge(loser)
    await operator.undo(item.name)
    assert await golden(master, whole) == before

    # Merged again with what it was split from: there is nothing to move, and the decision is undone.
    split = (await operator.claim_and_decide(item.name, "SPLIT")).right.customer
    [rejection] = (await operator.list_rejections(split)).match_rejections[:1]
    await operator.withdraw(rejection.name)
    await operator.merge(whole, split)
    undone = await operator.undo(item.name)
    assert undone.state == pb.REVIEW_STATE_OPEN
    assert (await golden(master, whole))[1] == before[1]
