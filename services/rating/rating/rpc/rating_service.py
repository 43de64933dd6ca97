"""RatingService: reads ratings. An institution may read `alliance` and its own scope of customers it has a link with."""

import uuid
from dataclasses import replace
from typing import Any

from chassis import clock, pages
from chassis.customer_states import readable
from chassis.database import Connection, Database
from chassis.errors import NotFound
from chassis.identity import current_principal
from chassis.ids import parse_id, resource_segments
from concord.rating.v1 import rating_service_pb2 as pb
from concord.rating.v1.rating_service_pb2_grpc import RatingServiceServicer
from rating.domain.facts import ALLIANCE
from rating.domain.rating import explained_facts, rate
from rating.rpc.convert import before_version, degrees_to_proto, rating_to_proto
from rating.store import facts, ratings, scorecards
from rating.store.ratings import RatingVersion

PAGE_DEFAULT = 50
PAGE_MAX = 200


class RatingServicer(RatingServiceServicer):
    """Serves ratings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetRating(self, request: pb.GetRatingRequest, context: Any) -> pb.Rating:
        async with self._database.connection() as connection:
            customer_id, scope = await _readable(connection, request.name)
            rating = await ratings.get(connection, customer_id, scope)
        if rating is None:
            raise _not_found(request.name)
        return rating_to_proto(rating)

    async def ListRatings(self, request: pb.ListRatingsRequest, context: Any) -> pb.ListRatingsResponse:
        [text] = resource_segments(request.parent, "customers", field="parent")
        async with self._database.connection() as connection:
            customer_id = await readable(connection, current_principal(), parse_id(text, "parent"))
            found = await ratings.scopes(connection, customer_id)
        return pb.ListRatingsResponse(ratings=[rating_to_proto(rating) for rating in found if _may_read(rating.scope)])

    async def ListRatingHistory(self, request: pb.ListRatingHistoryRequest, context: Any) -> pb.ListRatingHistoryResponse:
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        before = before_version(request)
        async with self._database.connection() as connection:
            customer_id, scope = await _readable(connection, request.parent, "parent")
            if await ratings.get(connection, customer_id, scope) is None:
                raise _not_found(request.parent)
            found = await ratings.history(connection, customer_id, scope, before, limit + 1)
        response = pb.ListRatingHistoryResponse(ratings=[rating_to_proto(rating) for rating in found[:limit]])
        if len(found) > limit:
            response.next_page_token = pages.encode([str(found[limit - 1].version)], request)
        return response

    async def ExplainRating(self, request: pb.ExplainRatingRequest, context: Any) -> pb.RatingExplanation:
        async with self._database.connection() as connection:
            customer_id, scope = await _readable(connection, request.name)
            loaded = (await facts.load(connection, [customer_id])).get((customer_id, scope))
            scorecard = await scorecards.active(connection)
            kept = await ratings.get(connection, customer_id, scope)
        if loaded is None:
            raise _not_found(request.name)
        rating = rate(loaded, scorecard.content)
        explained = RatingVersion(customer_id, scope, 0, rating, scorecard.scorecard_id, scorecard.version, clock.now())
        if kept is not None and kept.says_the_same(explained):
            explained = replace(explained, version=kept.version, created_at=kept.created_at)
        return pb.RatingExplanation(
            rating=rating_to_proto(explained),
            facts=[pb.RatingFact(code=code, value=value) for code, value in explained_facts(loaded, scorecard.content).items()],
            degrees=degrees_to_proto(rating.degrees),
        )


async def _readable(connection: Connection, name: str, field: str = "name") -> tuple[uuid.UUID, str]:
    """The customer and scope of a rating that the caller may read."""
    text, scope = resource_segments(name, "customers", "ratings", field=field)
    customer_id = await readable(connection, current_principal(), parse_id(text, field))
    if not _may_read(scope):
        raise _not_found(name)
    return customer_id, scope


def _may_read(scope: str) -> bool:
    principal = current_principal()
    return principal.sees_all or scope in (ALLIANCE, principal.institution)


def _not_found(name: str) -> NotFound:
    return NotFound("RATING_NOT_FOUND", f"{name} does not exist, is not rated yet, or is not yours to read")
