"""ScreeningListService: lists that customers are screened against."""

from datetime import datetime
from typing import Any

from chassis import pages
from chassis.database import Database
from chassis.errors import AlreadyExists, FailedPrecondition, NotFound
from chassis.ids import resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import screening_list_service_pb2 as pb
from concord.customer.v1.screening_list_service_pb2_grpc import ScreeningListServiceServicer
from customer.messages import timestamp
from customer.screening import entry_forms
from customer.store import screening_lists as store


class ScreeningListServicer(ScreeningListServiceServicer):
    """Translates."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreateScreeningListVersion(
        self, request: pb.CreateScreeningListVersionRequest, context: Any
    ) -> pb.ScreeningListVersion:
        list_id = resource_segments(request.parent, "screeningLists", field="parent")[0]

        async def handler(unit: UnitOfWork) -> pb.ScreeningListVersion:
            if not await store.insert_version(unit.connection, list_id, request.version, request.topic, unit.now):
                raise AlreadyExists(
                    "LIST_VERSION_EXISTS", f"{request.parent}/versions/{request.version} exists; choose another version"
                )
            return _version(await store.get_version(unit.connection, list_id, request.version))

        return await self._commands.run(request, handler)

    async def AddScreeningEntries(self, request: pb.AddScreeningEntriesRequest, context: Any) -> pb.ScreeningListVersion:
        list_id, version = resource_segments(request.name, "screeningLists", "versions")
        rows = [
            (
                entry.entry_id,
                list(entry.names),
                entry_forms(entry.names),
                sorted({int(birth[:4]) for birth in entry.birth_dates}),
                sorted(set(entry.country_codes)),
                entry.organisation,
            )
            for entry in {entry.entry_id: entry for entry in request.entries}.values()
        ]

        async def handler(unit: UnitOfWork) -> pb.ScreeningListVersion:
            row = await store.get_version(unit.connection, list_id, version, lock=True)
            if row is None:
                raise _no_version(request.name)
            if row["activate_time"] is not None:
                raise FailedPrecondition(
                    "LIST_VERSION_ACTIVE", f"{request.name} was activated and never changes; begin another version"
                )
            await store.add_entries(unit.connection, list_id, version, rows)
            return _version(await store.get_version(unit.connection, list_id, version))

        return await self._commands.run(request, handler)

    async def ActivateScreeningListVersion(
        self, request: pb.ActivateScreeningListVersionRequest, context: Any
    ) -> pb.ScreeningListVersion:
        list_id, version = resource_segments(request.name, "screeningLists", "versions")

        async def handler(unit: UnitOfWork) -> pb.ScreeningListVersion:
            row = await store.get_version(unit.connection, list_id, version, lock=True)
            if row is None:
                raise _no_version(request.name)
            if row["entries_count"] == 0:
                raise FailedPrecondition(
                    "LIST_VERSION_EMPTY", f"{request.name} has no entries; add them first, an empty list screens nobody"
                )
            if not row["active"]:
                await store.activate(unit.connection, list_id, version, unit.now)
            return _version(await store.get_version(unit.connection, list_id, version))

        return await self._commands.run(request, handler)

    async def ListScreeningListVersions(
        self, request: pb.ListScreeningListVersionsRequest, context: Any
    ) -> pb.ListScreeningListVersionsResponse:
        list_id = resource_segments(request.parent, "screeningLists", field="parent")[0]
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        before = datetime.fromisoformat(keys[0]) if keys else None
        async with self._database.connection() as connection:
            rows = await store.list_versions(connection, list_id, before, limit + 1)
        token = pages.encode([rows[limit - 1]["create_time"].isoformat()], request) if len(rows) > limit else ""
        return pb.ListScreeningListVersionsResponse(versions=[_version(row) for row in rows[:limit]], next_page_token=token)


def _no_version(name: str) -> NotFound:
    return NotFound("LIST_VERSION_NOT_FOUND", f"{name} does not exist; create it first")


def _version(row: Any) -> pb.ScreeningListVersion:
    return pb.ScreeningListVersion(
        name=f"screeningLists/{row['list_id']}/versions/{row['list_version']}",
        topic=row["topic"],
        entries_count=row["entries_count"],
        active=row["active"],
        create_time=timestamp(row["create_time"]),
        activate_time=timestamp(row["activate_time"]) if row["activate_time"] else None,
    )
