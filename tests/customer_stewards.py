"""A steward for the tests of merging and of the queues."""

from typing import Any

import pytest
from grpc.aio import AioRpcError

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.customer.v1 import link_service_pb2 as link_pb
from concord.customer.v1 import review_service_pb2 as review_pb
from concord.customer.v1.link_service_pb2_grpc import LinkServiceStub
from concord.customer.v1.review_service_pb2_grpc import ReviewServiceStub

WHY = "CONFIRMED_BY_TELEPHONE"
_COUNTRIES = {"j": "CZ", "e": "SK", "o": "PL", "i": "HU", "a": "AT", "b": "DE", "c": "FR", "d": "IT"}


class Steward:
    """The operator's steward, or an institution's."""

    def __init__(self, master: Any, institution: str | None = None, subject: str = "tester") -> None:
        kind = PrincipalKind.STAFF if institution else PrincipalKind.OPERATOR
        channel = master.channel(institution, scopes=("match.decide", "personal.read"), kind=kind, subject=subject)
        self._id = master.request_id
        self.links, self.reviews = LinkServiceStub(channel), ReviewServiceStub(channel)

    async def merge(self, *customers: str, override: str = "", request_id: str = "") -> Any:
        return await self.links.MergeCustomers(
            link_pb.MergeCustomersRequest(
                customers=customers, reason_code=WHY, override_reason=override, request_id=request_id or self._id()
            )
        )

    async def unmerge(self, customer: str, reject_match: bool = False, request_id: str = "") -> Any:
        return await self.links.UnmergeCustomer(
            link_pb.UnmergeCustomerRequest(
                name=customer, reason_code=WHY, reject_match=reject_match, request_id=request_id or self._id()
            )
        )

    async def relink(self, record: str, customer: str = "", override: str = "") -> Any:
        return await self.links.RelinkRecord(
            link_pb.RelinkRecordRequest(
                name=record, customer=customer, reason_code=WHY, override_reason=override, request_id=self._id()
            )
        )

    async def reject(self, left: str, right: str) -> Any:
        return await self.links.RejectMatch(
            link_pb.RejectMatchRequest(left=left, right=right, reason_code=WHY, request_id=self._id())
        )

    async def withdraw(self, name: str) -> Any:
        return await self.links.WithdrawMatchRejection(link_pb.WithdrawMatchRejectionRequest(name=name, request_id=self._id()))

    async def list_merges(self, customer: str) -> Any:
        return await self.links.ListMerges(link_pb.ListMergesRequest(parent=customer))

    async def list_rejections(self, customer: str) -> Any:
        return await self.links.ListMatchRejections(link_pb.ListMatchRejectionsRequest(parent=customer))

    async def items(self, **wanted: Any) -> list[Any]:
        return list((await self.reviews.ListReviewItems(review_pb.ListReviewItemsRequest(**wanted))).review_items)

    async def item(self, name: str) -> Any:
        return await self.reviews.GetReviewItem(review_pb.GetReviewItemRequest(name=name))

    async def claim(self, name: str, lease_seconds: int = 0) -> Any:
        return await self.reviews.ClaimReviewItem(
            review_pb.ClaimReviewItemRequest(name=name, lease_seconds=lease_seconds, request_id=self._id())
        )

    async def release(self, item: Any) -> Any:
        return await self.reviews.ReleaseReviewItem(
            review_pb.ReleaseReviewItemRequest(name=item.name, claim_number=item.claim_number, request_id=self._id())
        )

    async def decide(self, item: Any, decision: str, **more: Any) -> Any:
        return await self.reviews.DecideReviewItem(
            review_pb.DecideReviewItemRequest(
                name=item.name,
                claim_number=item.claim_number,
                decision=f"REVIEW_DECISION_{decision}",  # type: ignore[arg-type]
                reason_code=WHY,
                request_id=self._id(),
                **more,
            )
        )

    async def claim_and_decide(self, name: str, decision: str, **more: Any) -> Any:
        return await self.decide(await self.claim(name), decision, **more)

    async def undo(self, name: str) -> Any:
        return await self.reviews.UndoDecision(review_pb.UndoDecisionRequest(name=name, reason_code=WHY, request_id=self._id()))

    async def figures(self) -> Any:
        return await self.reviews.GetReviewFigures(review_pb.GetReviewFiguresRequest())


async def two_people(
    master: Any, one: str = "j", other: str = "e", jan_records: int = 1, eva_records: int = 1, same_scheme: bool = False
) -> tuple[str, str]:
    """Two people who have nothing in common; each record of one states the same passport, by default of different countries."""
    names: dict[str, str] = {}
    for letter, count in ((one, jan_records), (other, eva_records)):
        country = "CZ" if same_scheme else _COUNTRIES[letter]
        passport = {"scheme": 2, "country_code": country, "value": f"{100_000_000 + ord(letter) * 1013}"}
        born = f"19{40 + ord(letter) % 26}-0{ord(letter) % 9 + 1}-1{ord(letter) % 10}"
        for place in range(count):
            said = {"name": f"{letter.upper() * 3}{letter * 4} {letter.upper()}x{letter * 5}", "born": born}
            ingested = await master.ingest(f"{letter}{place}", day=place, **said, identifiers=[passport])
            assert names.setdefault(letter, ingested.customer) == ingested.customer
    return names[one], names[other]


async def golden(master: Any, name: str) -> tuple[str, Any]:
    """Whom a name answers with, and what is believed of it: all but what says when and why its records came."""
    customer = await master.get(name, **master.operator)
    said = type(customer)()
    said.CopyFrom(customer)
    for field in ("etag", "update_time", "linked_records"):
        said.ClearField(field)
    records = sorted(one.record for one in customer.linked_records)
    return customer.name, (said.SerializeToString(deterministic=True), records)


async def customer_links(master: Any, name: str) -> list[str]:
    """The records of a customer."""
    return sorted(one.record for one in (await master.get(name, **master.operator)).linked_records)


async def reason_of(call: Any) -> str:
    """The reason for which a call is refused."""
    with pytest.raises(AioRpcError) as refused:
        await call
    return reason(refused.value)
