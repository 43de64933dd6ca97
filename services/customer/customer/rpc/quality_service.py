"""QualityService: how complete and credible a golden customer is, as the caller sees it."""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from chassis import clock
from chassis.identity import current_principal
from chassis.ids import resource_id
from concord.customer.v1 import quality_service_pb2 as pb
from concord.customer.v1.quality_service_pb2_grpc import QualityServiceServicer
from customer.core import Core
from customer.domain.golden import golden
from customer.domain.quality import Quality, assess
from customer.publishing import by_match
from customer.rpc.callers import customer_not_found, require_linked, viewing_institution
from customer.rpc.search_customers import visible
from customer.statements import view
from customer.store import customers as customer_store
from customer.store import links as link_store
from customer.store import quality as quality_store
from customer.store.search import Viewer
from customer.survivorship_standard import quality_standard


class QualityServicer(QualityServiceServicer):
    """Translates."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def GetQuality(self, request: pb.GetQualityRequest, context: Any) -> pb.CustomerQuality:
        principal = current_principal()
        asked_id = resource_id(request.name.removesuffix("/quality"), "customers")
        customer_id = await require_linked(self._core, principal, asked_id)
        [quality] = await self._qualities(Viewer(viewing_institution(principal)), [customer_id])
        if quality is None:
            raise customer_not_found(asked_id)
        return quality

    async def BatchGetQualities(self, request: pb.BatchGetQualitiesRequest, context: Any) -> pb.BatchGetQualitiesResponse:
        ids = [resource_id(name, "customers", f"names[{place}]") for place, name in enumerate(request.names)]
        found = await self._qualities(Viewer(None), ids)
        gone = [customer_id for customer_id, quality in zip(ids, found, strict=True) if quality is None]
        if gone:
            async with self._core.database.connection() as connection:
                winners = {one: await customer_store.winner(connection, one) for one in gone}
            merged = [one for one in gone if winners[one] != one]
            answers = await self._qualities(Viewer(None), [winners[one] for one in merged])
            instead = dict(zip(merged, answers, strict=True))
            found = [quality or instead.get(customer_id) for customer_id, quality in zip(ids, found, strict=True)]
        return pb.BatchGetQualitiesResponse(qualities=[quality for quality in found if quality is not None])

    async def _qualities(self, viewer: Viewer, customer_ids: Sequence[UUID]) -> list[pb.CustomerQuality | None]:
        now, standard = clock.now(), quality_standard()
        records = await visible(self._core, viewer, customer_ids)
        async with self._core.database.connection() as connection:
            policy = await self._core.policies.at(connection, now)
            kinds = await quality_store.holding_kinds(connection, customer_ids, viewer.institution_id, now.date())
            matched = [member.record_id for members in records for member in members if by_match(member)]
            weights = await link_store.weights_bits(connection, matched, viewer.institution_id)
        answers: list[pb.CustomerQuality | None] = []
        for customer_id, members in zip(customer_ids, records, strict=True):
            if not members:
                answers.append(None)
                continue
            believed = golden([view(member) for member in members], policy, now)
            quality = assess(believed, kinds.get(customer_id, ()), weights, standard, now)
            answers.append(_message(customer_id, quality, policy.version))
        return answers


def _message(customer_id: UUID, quality: Quality, policy_version: int) -> pb.CustomerQuality:
    return pb.CustomerQuality(
        name=f"customers/{customer_id}/quality",
        stage=cast(Any, int(quality.stage)),
        completeness_percent=quality.completeness_percent,
        credibility_percent=quality.credibility_percent,
        reasons=[
            pb.QualityReason(
                attribute=cast(Any, int(reason.attribute)),
                required_weight=reason.weight,
                credibility_percent=round(reason.credibility_percent),
                findings=[cast(Any, int(finding)) for finding in reason.findings],
            )
            for reason in quality.reasons
        ],
        next_attribute=cast(Any, int(quality.next_attribute or 0)),
        next_advice=cast(Any, int(quality.next_advice)),
        policy_version=policy_version,
    )
