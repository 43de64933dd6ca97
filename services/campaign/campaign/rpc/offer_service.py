"""OfferService: translates."""

from typing import Any

import asyncpg

from campaign.domain import offer
from campaign.domain.campaign import offer_prefix
from campaign.rpc.translate import institution_id, refuse
from campaign.store import offers
from chassis import pages
from chassis.database import Database
from chassis.errors import AlreadyExists, NotFound
from chassis.identity import current_principal, require_institution
from chassis.ids import resource_segments, slug
from chassis.unit_of_work import Commands, UnitOfWork
from concord.campaign.v1.offer_service_pb2 import (
    CreateOfferRequest,
    GetOfferRequest,
    ListOffersRequest,
    ListOffersResponse,
    Offer,
)
from concord.campaign.v1.offer_service_pb2_grpc import OfferServiceServicer

PAGE_DEFAULT = 50
PAGE_MAX = 200


class OfferServicer(OfferServiceServicer):
    """See the contract."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreateOffer(self, request: CreateOfferRequest, context: Any) -> Offer:
        institution = institution_id(request.parent)
        offer_id = slug(request.offer_id, "offer_id")
        given = request.offer
        refuse("offer.", offer.violations(given.display_name, given.title, given.body))

        async def handler(unit: UnitOfWork) -> Offer:
            row = await offers.insert(
                unit.connection, institution, offer_id, given.display_name, given.title, given.body, unit.now
            )
            if row is None:
                raise AlreadyExists(
                    "OFFER_EXISTS",
                    f"{offer_prefix(institution)}{offer_id} exists, and offers never change; choose another offer_id",
                    field_violations=[("offer_id", "is taken")],
                )
            return _to_proto(row)

        return await self._commands.run(request, handler)

    async def GetOffer(self, request: GetOfferRequest, context: Any) -> Offer:
        institution, offer_id = resource_segments(request.name, "institutions", "offers")
        require_institution(current_principal(), institution)
        async with self._database.connection() as connection:
            row = await offers.get(connection, institution, offer_id)
        if row is None:
            raise NotFound("OFFER_NOT_FOUND", f"{offer_prefix(institution)}{offer_id} does not exist")
        return _to_proto(row)

    async def ListOffers(self, request: ListOffersRequest, context: Any) -> ListOffersResponse:
        institution = institution_id(request.parent)
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            rows = await offers.page(connection, institution, keys[0] if keys else "", limit + 1)
        return ListOffersResponse(
            offers=map(_to_proto, rows[:limit]),
            next_page_token=pages.encode([rows[limit - 1]["offer_id"]], request) if len(rows) > limit else "",
        )


def _to_proto(row: asyncpg.Record) -> Offer:
    return Offer(
        name=f"{offer_prefix(row['institution_id'])}{row['offer_id']}",
        display_name=row["display_name"],
        title=row["title"],
        body=row["body"],
        create_time=row["create_time"],
    )
