"""Institutions' own files against settlements, and disputes about single items."""

import csv
import io

import grpc
import pytest

from chassis.testing import reason
from concord.loyalty.v1 import settlement_service_pb2 as pb
from loyalty.rpc import reconciliation_service


async def refused(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason(error.value)


@pytest.fixture
async def closed(house):
    """A settlement with three items of the bank to the shop, and one to the broker; the name for the shop."""
    with_shop, with_broker = await house.agreement("bank", "shop", price=(1, 3)), await house.agreement("bank", "broker")
    house.operations = await house.items(
        (with_shop, "bank", "shop", "bank-points", 30), (with_shop, "bank", "shop", "bank-points", 31),
        (with_shop, "bank", "shop", "bank-points", -5), (with_broker, "bank", "broker", "bank-points", 99),
    )  # fmt: skip
    return (await house.closed()).replace("/-/", "/shop/")


class Comparing:
    def __init__(self, house, name: str, institution: str = "shop") -> None:
        self.house, self.settlement, self.stub = house, name, house.reconciliations(institution)
        self.name = ""

    async def begin(self, *parts: str | bytes) -> None:
        request = pb.CreateReconciliationRequest(parent=self.settlement, request_id=self.house.request_id())
        self.name = (await self.stub.CreateReconciliation(request)).name
        for number, part in enumerate(parts, 1):
            await self.upload(number, part)

    async def upload(self, number: int, part: str | bytes):
        content = part.encode() if isinstance(part, str) else part
        return await self.stub.UploadReconciliationPart(
            self.house.asking(pb.UploadReconciliationPartRequest, self.name, part_number=number, content=content)
        )

    async def compare(self, parts_count: int = 1):
        return await self.stub.CompareReconciliation(
            self.house.asking(pb.CompareReconciliationRequest, self.name, parts_count=parts_count)
        )

    async def rows(self, **fields):
        answer = await self.stub.ListReconciliationRows(pb.ListReconciliationRowsRequest(parent=self.name, **fields))
        return [(row.result, row.line_number, row.their_points, row.our_points) for row in answer.rows]


async def test_matched_missing_and_different(house, closed):
    first, second, third, hidden = house.operations
    comparing = Comparing(house, closed)
    text = f"operation,points,amount\r\n{first},30,10\r\n{second},31,10\r\n{hidden},99,99\r\n"
    await comparing.begin(text[:50], text[50:])
    assert await refused(comparing.compare(1)) == "PARTS_MISSING"
    found = await comparing.compare(2)
    assert (found.state, found.matched_count, found.different_count, found.missing_here_count, found.missing_there_count) == (
        pb.RECONCILIATION_STATE_COMPARED, 1, 1, 1, 1,
    )  # fmt: skip
    assert (found.their_points, found.our_points) == (160, 56)
    assert (found.our_amount.numerator, found.our_amount.denominator) == ("56", "3")
    assert await comparing.rows() == [
        (pb.RECONCILIATION_RESULT_MATCHED, 2, 30, 30), (pb.RECONCILIATION_RESULT_DIFFERENT, 3, 31, 31),
        (pb.RECONCILIATION_RESULT_MISSING_HERE, 4, 99, 0), (pb.RECONCILIATION_RESULT_MISSING_THERE, 0, 0, -5),
    ]  # fmt: skip
    assert await comparing.rows(result=pb.RECONCILIATION_RESULT_DIFFERENT) == [(pb.RECONCILIATION_RESULT_DIFFERENT, 3, 31, 31)]
    download = pb.DownloadReconciliationRowsRequest(parent=comparing.name, page_size=3)
    page = await comparing.stub.DownloadReconciliationRows(download)
    download.page_token = page.next_page_token
    rows = list(csv.reader(io.StringIO(page.csv + (await comparing.stub.DownloadReconciliationRows(download)).csv, newline="")))
    assert tuple(rows[0]) == reconciliation_service.ROWS_HEADER
    assert [(row[0], row[7], row[8]) for row in rows[1:]] == [
        ("MATCHED", "10", "10"), ("DIFFERENT", "10", "31/3"), ("MISSING_HERE", "99", "0"), ("MISSING_THERE", "0", "-5/3"),
    ]  # fmt: skip
    assert await refused(comparing.compare(2)) == "RECONCILIATION_COMPARED"
    assert await refused(comparing.upload(3, "x")) == "RECONCILIATION_COMPARED"
    assert third


async def test_our_own_file_matches(house, closed):
    comparing = Comparing(house, closed)
    await comparing.begin(await house.download("shop", closed.replace("/shop/", "/-/")))
    found = await comparing.compare()
    assert (found.matched_count, found.different_count, found.missing_here_count, found.missing_there_count) == (3, 0, 0, 0)
    assert (found.their_points, found.their_amount) == (found.our_points, found.our_amount)


async def test_references_match_where_the_institution_gave_them(house, closed):
    comparing = Comparing(house, closed)
    sequence = await house.sequence_of(house.operations[0])
    await comparing.begin(f"reference,points,amount\nR-{sequence},30,10\nR-0,1,1\n")
    found = await comparing.compare()
    assert (found.matched_count, found.missing_here_count, found.missing_there_count) == (1, 1, 2)
    bank = Comparing(house, closed.replace("/shop/", "/bank/"), "bank")  # the references are the shop's
    await bank.begin(f"reference,points,amount\nR-{sequence},30,10\n")
    assert (await bank.compare()).missing_here_count == 1


async def test_a_bad_file_is_refused_whole_and_may_be_sent_anew(house, closed):
    comparing = Comparing(house, closed)
    await comparing.begin(f"operation,points,amount\n{house.operations[0]},30,10\n{house.operations[1]},x,10\n")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await comparing.compare()
    assert reason(error.value) == "FILE_INVALID"
    assert error.value.details() == "line 3, points: must be whole points of at most 15 digits, with - before what was given back"
    assert await comparing.rows() == []
    assert await refused(comparing.upload(1, "operation")) == "PART_EXISTS"
    state = await comparing.stub.GetReconciliation(pb.GetReconciliationRequest(name=comparing.name))
    assert (state.state, state.parts_count) == (pb.RECONCILIATION_STATE_CREATED, 1)


async def test_a_reconciliation_is_its_institutions_own(house, closed):
    comparing = Comparing(house, closed)
    await comparing.begin("operation,points,amount\n")
    theirs = comparing.name.replace("/shop/", "/bank/")
    for call in (
        house.reconciliations("bank").GetReconciliation(pb.GetReconciliationRequest(name=theirs)),
        house.reconciliations("bank").ListReconciliationRows(pb.ListReconciliationRowsRequest(parent=theirs)),
        house.reconciliations("bank").CompareReconciliation(house.asking(pb.CompareReconciliationRequest, theirs, parts_count=1)),
    ):
        assert await refused(call) == "RECONCILIATION_NOT_FOUND"
    assert await refused(Comparing(house, closed, "bank").begin()) == "INSTITUTION_NOT_FOUND"


async def opened(house, closed, institution="bank", subject="ann", **fields):
    name = closed.replace("/shop/", f"/{institution}/")
    sequence = await house.sequence_of(house.operations[1])
    dispute = pb.Dispute(**{"sequence": sequence, "claimed_points": 21, "reason_code": "RETURNED", **fields})
    return await house.disputes(institution, subject).OpenDispute(
        pb.OpenDisputeRequest(parent=name, dispute=dispute, request_id=house.request_id())
    )


async def decide(house, dispute, subject, institution="shop", **fields):
    name = dispute.name.replace("/bank/", f"/{institution}/")
    stub = house.disputes(institution, subject)
    if "accept" in fields:
        asked = house.asking(pb.ProposeDisputeResolutionRequest, name, resolution_code="SEEN", **fields)
        return await stub.ProposeDisputeResolution(asked)
    return await stub.ResolveDispute(house.asking(pb.ResolveDisputeRequest, name, **{"approve": True, **fields}))


async def test_an_accepted_dispute_is_corrected_in_a_later_settlement(house, closed):
    dispute = await opened(house, closed)
    assert (dispute.state, dispute.item_points, dispute.decider) == (pb.DISPUTE_STATE_OPEN, 31, "institutions/shop")
    assert await refused(decide(house, dispute, "bob")) == "DISPUTE_NOT_PROPOSED"
    assert await refused(decide(house, dispute, "ann", "bank", accept=True)) == "DISPUTE_OTHER_SIDE"
    await decide(house, dispute, "bob", accept=True)
    assert await refused(decide(house, dispute, "bob")) == "APPROVAL_BY_SAME_PERSON"
    accepted = await decide(house, dispute, "cid")
    assert (accepted.state, accepted.correcting_settlement) == (pb.DISPUTE_STATE_ACCEPTED, "")
    before = await house.settlements("bank").GetSettlement(pb.GetSettlementRequest(name=closed.replace("/shop/", "/bank/")))
    later = await house.closed()
    found = await house.settlements().GetSettlement(pb.GetSettlementRequest(name=later))
    [line] = found.lines
    assert (line.kind, line.points, line.amount.numerator, line.amount.denominator) == (
        pb.SETTLEMENT_LINE_KIND_CORRECTION, -10, "-10", "3",
    )  # fmt: skip
    assert [(p.institution, p.amount.minor_units) for p in found.positions] == [
        ("institutions/bank", 3), ("institutions/shop", -3),
    ]  # fmt: skip
    [item] = (
        await house.settlements("shop").ListSettlementItems(pb.ListSettlementItemsRequest(parent=later.replace("/-/", "/shop/")))
    ).settlement_items
    assert (item.dispute, item.points) == (f"disputes/{dispute.name.rpartition('/')[2]}", -10)
    assert "CORRECTION" in await house.download("bank", later)
    again = await house.disputes("bank").GetDispute(pb.GetDisputeRequest(name=dispute.name))
    assert again.correcting_settlement == later.replace("/-/", "/bank/")
    unchanged = await house.settlements("bank").GetSettlement(pb.GetSettlementRequest(name=before.name))
    assert unchanged == before
    assert await refused(opened(house, closed)) == "DISPUTE_EXISTS"


async def test_rejected_withdrawn_and_what_cannot_be_disputed(house, closed):
    first = await opened(house, closed)
    await decide(house, first, "bob", accept=False)
    assert (await decide(house, first, "cid")).state == pb.DISPUTE_STATE_REJECTED
    second = await opened(house, closed)
    stub = house.disputes("bank")
    assert (
        await refused(
            house.disputes("shop").WithdrawDispute(
                house.asking(pb.WithdrawDisputeRequest, second.name.replace("/bank/", "/shop/"))
            )
        )
        == "DISPUTE_OTHER_SIDE"
    )
    gone = await stub.WithdrawDispute(house.asking(pb.WithdrawDisputeRequest, second.name))
    assert gone.state == pb.DISPUTE_STATE_WITHDRAWN
    assert await refused(opened(house, closed, claimed_points=31)) == "CLAIM_INVALID"
    assert await refused(opened(house, closed, claimed_points=-1)) == "CLAIM_INVALID"
    assert await refused(opened(house, closed, position=7)) == "ITEM_NOT_FOUND"
    hidden = await house.sequence_of(house.operations[3])
    assert await refused(opened(house, closed, "shop", sequence=hidden)) == "ITEM_NOT_FOUND"
    mine = (await stub.ListDisputes(pb.ListDisputesRequest(parent="institutions/bank"))).disputes
    assert [dispute.name for dispute in mine] == [second.name, first.name]
    theirs = await house.disputes("broker").ListDisputes(pb.ListDisputesRequest(parent="institutions/broker"))
    assert not theirs.disputes
    hidden_name = first.name.replace("/bank/", "/broker/")
    assert await refused(house.disputes("broker").GetDispute(pb.GetDisputeRequest(name=hidden_name))) == "DISPUTE_NOT_FOUND"
    nothing = await house.settlements().ListSettlements(house.listing("-", state=pb.SETTLEMENT_STATE_OPEN))
    assert await refused(house.close(nothing.settlements[0].name)) == "NOTHING_TO_SETTLE"
