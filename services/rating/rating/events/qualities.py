"""Asks the customer master how complete and credible customers are; while it is slow or away ratings keep what it last said."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import grpc

from concord.customer.v1 import quality_service_pb2 as pb
from concord.customer.v1.attribute_pb2 import Attribute
from rating.domain.facts import AttributeQuality, MasterQuality

if TYPE_CHECKING:
    from concord.customer.v1.quality_service_pb2_grpc import QualityServiceAsyncStub

ANSWER_SECONDS_MAX = 3.0
REST_SECONDS = 10.0
"""For how long the master is not asked again after it was away, or too slow: others are rated meanwhile."""
ASK_AGAIN_AFTER = timedelta(seconds=30)
"""When a customer is rated again whose figures were asked for in vain."""
AGE_MAX = timedelta(days=7)
"""Figures age without any event; older ones are asked for again."""
Told = dict[uuid.UUID, MasterQuality]

logger = logging.getLogger(__name__)


class Qualities:
    """What the customer master says, in batches of at most 500."""

    def __init__(self, stub: "QualityServiceAsyncStub") -> None:
        self._stub = stub
        self._rests_until = 0.0

    async def ask(self, customer_ids: Sequence[uuid.UUID]) -> tuple[Told, set[uuid.UUID]]:
        """What was told, and of whom the master did not answer. One it does not know is in neither."""
        if not customer_ids:
            return {}, set()
        loop = asyncio.get_running_loop()
        if loop.time() < self._rests_until:
            return {}, set(customer_ids)
        names = [f"customers/{customer_id}" for customer_id in customer_ids]
        try:
            answer = await self._stub.BatchGetQualities(pb.BatchGetQualitiesRequest(names=names), timeout=ANSWER_SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            return await self._without_answer(customer_ids, error)
        # A merged customer is answered for with its winner's name: that is no figure of its own.
        told = {uuid.UUID(quality.name.split("/")[1]): _quality(quality) for quality in answer.qualities}
        return {customer_id: told[customer_id] for customer_id in customer_ids if customer_id in told}, set()

    async def _without_answer(
        self, customer_ids: Sequence[uuid.UUID], error: grpc.aio.AioRpcError
    ) -> tuple[Told, set[uuid.UUID]]:
        away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        if away or len(customer_ids) == 1:
            what = "the customer service" if away else f"customers/{customer_ids[0]}"
            logger.warning("no quality of %s: %s; ratings keep what was last said", what, error.code().name)
            if away:
                self._rests_until = asyncio.get_running_loop().time() + REST_SECONDS
            return {}, set(customer_ids)
        half = len(customer_ids) // 2  # one that cannot be answered for must not take the others with it
        told, unanswered = await self.ask(customer_ids[:half])
        more_told, more_unanswered = await self.ask(customer_ids[half:])
        return told | more_told, unanswered | more_unanswered


def _quality(message: pb.CustomerQuality) -> MasterQuality:
    parts = (
        AttributeQuality(
            Attribute.Name(reason.attribute),
            reason.required_weight,
            reason.credibility_percent,
            tuple(_finding(finding) for finding in reason.findings),
        )
        for reason in message.reasons
    )
    return MasterQuality(message.completeness_percent, message.credibility_percent, tuple(parts))


def _finding(number: int) -> str:
    """Its word; of one that is newer than this release its number."""
    try:
        return pb.QualityFinding.Name(cast("pb.QualityFinding.ValueType", number)).removeprefix("QUALITY_FINDING_")
    except ValueError:
        return str(number)
