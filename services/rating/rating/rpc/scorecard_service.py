"""ScorecardService: versions of scorecards."""

from typing import Any

from chassis import pages
from chassis.database import Database
from chassis.errors import InvalidArgument, NotFound
from chassis.ids import resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.rating.v1 import scorecard_service_pb2 as pb
from concord.rating.v1.scorecard_service_pb2_grpc import ScorecardServiceServicer
from rating.domain.scorecard import violations
from rating.rpc.convert import before_version, scorecard_from_proto, scorecard_to_proto
from rating.store import scorecards
from rating.store.scorecards import ScorecardVersion

PAGE_DEFAULT = 50
PAGE_MAX = 200


class ScorecardServicer(ScorecardServiceServicer):
    """Serves scorecards."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreateScorecardVersion(self, request: pb.CreateScorecardVersionRequest, context: Any) -> pb.ScorecardVersion:
        [scorecard_id] = resource_segments(request.parent, "scorecards", field="parent")
        content = scorecard_from_proto(request.scorecard_version)
        broken = violations(content)
        if broken:
            raise InvalidArgument(
                "SCORECARD_INVALID",
                "; ".join(f"{field} {rule}" for field, rule in broken),
                field_violations=[(f"scorecard_version.{field}", rule) for field, rule in broken],
            )

        async def handler(unit: UnitOfWork) -> pb.ScorecardVersion:
            return scorecard_to_proto(await scorecards.create(unit.connection, scorecard_id, content, unit.now))

        return await self._commands.run(request, handler)

    async def GetScorecardVersion(self, request: pb.GetScorecardVersionRequest, context: Any) -> pb.ScorecardVersion:
        scorecard_id, version = _names(request.name)
        async with self._database.connection() as connection:
            return scorecard_to_proto(_found(await scorecards.get(connection, scorecard_id, version), request.name))

    async def ListScorecardVersions(
        self, request: pb.ListScorecardVersionsRequest, context: Any
    ) -> pb.ListScorecardVersionsResponse:
        [scorecard_id] = resource_segments(request.parent, "scorecards", field="parent")
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        before = before_version(request)
        async with self._database.connection() as connection:
            found = await scorecards.page(connection, scorecard_id, before, limit + 1)
        response = pb.ListScorecardVersionsResponse(scorecard_versions=[scorecard_to_proto(version) for version in found[:limit]])
        if len(found) > limit:
            response.next_page_token = pages.encode([str(found[limit - 1].version)], request)
        return response

    async def ActivateScorecardVersion(self, request: pb.ActivateScorecardVersionRequest, context: Any) -> pb.ScorecardVersion:
        scorecard_id, version = _names(request.name)

        async def handler(unit: UnitOfWork) -> pb.ScorecardVersion:
            _found(await scorecards.get(unit.connection, scorecard_id, version), request.name)
            await scorecards.activate(unit.connection, scorecard_id, version, unit.now)
            return scorecard_to_proto(_found(await scorecards.get(unit.connection, scorecard_id, version), request.name))

        return await self._commands.run(request, handler)


def _names(name: str) -> tuple[str, int]:
    scorecard_id, version = resource_segments(name, "scorecards", "versions")
    return scorecard_id, int(version)


def _found(version: ScorecardVersion | None, name: str) -> ScorecardVersion:
    if version is None:
        raise NotFound("SCORECARD_VERSION_NOT_FOUND", f"{name} does not exist")
    return version
