"""InstitutionService: the members of the alliance and the systems that feed the master."""

import json
from collections.abc import Sequence
from typing import Any, cast

from chassis import etags, pages
from chassis.database import Database
from chassis.errors import AlreadyExists, InvalidArgument, NotFound
from chassis.identity import current_principal, require_institution
from chassis.ids import resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import institution_service_pb2 as pb
from concord.customer.v1.attribute_pb2 import Attribute
from concord.customer.v1.institution_service_pb2_grpc import InstitutionServiceServicer
from customer import messages, published
from customer.rpc.callers import unknown_source_system
from customer.standards import time_zones
from customer.store import institutions as store

# The other services use this word for the whole: a rating's scope, a contact policy.
_RESERVED_IDS = {"alliance"}
_UPDATABLE = ("display_name", "default_rank", "attribute_ranks")


class InstitutionServicer(InstitutionServiceServicer):
    """Translates."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreateInstitution(self, request: pb.CreateInstitutionRequest, context: Any) -> pb.Institution:
        wanted = request.institution
        if request.institution_id in _RESERVED_IDS:
            raise _invalid("institution_id", "ID_RESERVED", "must not be a word of the platform: choose another id")
        _require_display_name(wanted.display_name, "institution.display_name")
        if wanted.time_zone not in time_zones():
            raise _invalid("institution.time_zone", "TIME_ZONE_UNKNOWN", "must be an IANA time zone such as Asia/Shanghai")

        async def handler(unit: UnitOfWork) -> pb.Institution:
            row = await store.insert_institution(
                unit.connection, request.institution_id, wanted.display_name, wanted.kind, wanted.time_zone,
                wanted.country_code, unit.now,
            )  # fmt: skip
            if row is None:
                raise AlreadyExists("INSTITUTION_EXISTS", f"institutions/{request.institution_id} exists; choose another id")
            unit.publish(published.institution_changed(row, unit.epoch))
            return _institution(row)

        return await self._commands.run(request, handler)

    async def GetInstitution(self, request: pb.GetInstitutionRequest, context: Any) -> pb.Institution:
        institution_id = resource_segments(request.name, "institutions")[0]
        async with self._database.connection() as connection:
            row = await store.get_institution(connection, institution_id)
        if row is None:
            raise _no_institution(institution_id)
        return _institution(row)

    async def ListInstitutions(self, request: pb.ListInstitutionsRequest, context: Any) -> pb.ListInstitutionsResponse:
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        after = (pages.decode(request.page_token, request) or [""])[0]
        async with self._database.connection() as connection:
            rows = await store.list_institutions(connection, after, limit + 1)
        token = pages.encode([rows[limit - 1]["institution_id"]], request) if len(rows) > limit else ""
        return pb.ListInstitutionsResponse(institutions=[_institution(row) for row in rows[:limit]], next_page_token=token)

    async def CreateSourceSystem(self, request: pb.CreateSourceSystemRequest, context: Any) -> pb.SourceSystem:
        institution_id = resource_segments(request.parent, "institutions", field="parent")[0]
        wanted = request.source_system
        _require_display_name(wanted.display_name, "source_system.display_name")
        _require_rank(wanted.default_rank)
        ranks = _ranks(wanted.attribute_ranks)

        async def handler(unit: UnitOfWork) -> pb.SourceSystem:
            require_institution(unit.principal, institution_id)
            if await store.get_institution(unit.connection, institution_id) is None:
                raise _no_institution(institution_id)
            row = await store.insert_source_system(
                unit.connection,
                institution_id,
                request.source_system_id,
                wanted.display_name,
                wanted.default_rank,
                ranks,
                unit.now,
            )
            if row is None:
                name = f"{request.parent}/sourceSystems/{request.source_system_id}"
                raise AlreadyExists("SOURCE_SYSTEM_EXISTS", f"{name} exists; choose another id")
            return _source_system(row)

        return await self._commands.run(request, handler)

    async def GetSourceSystem(self, request: pb.GetSourceSystemRequest, context: Any) -> pb.SourceSystem:
        institution_id, source_system_id = resource_segments(request.name, "institutions", "sourceSystems")
        require_institution(current_principal(), institution_id)
        async with self._database.connection() as connection:
            row = await store.get_source_system(connection, institution_id, source_system_id)
        if row is None:
            raise unknown_source_system(request.name)
        return _source_system(row)

    async def ListSourceSystems(self, request: pb.ListSourceSystemsRequest, context: Any) -> pb.ListSourceSystemsResponse:
        institution_id = resource_segments(request.parent, "institutions", field="parent")[0]
        require_institution(current_principal(), institution_id)
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        after = (pages.decode(request.page_token, request) or [""])[0]
        async with self._database.connection() as connection:
            if await store.get_institution(connection, institution_id) is None:
                raise _no_institution(institution_id)
            rows = await store.list_source_systems(connection, institution_id, after, limit + 1)
        token = pages.encode([rows[limit - 1]["source_system_id"]], request) if len(rows) > limit else ""
        return pb.ListSourceSystemsResponse(source_systems=[_source_system(row) for row in rows[:limit]], next_page_token=token)

    async def UpdateSourceSystem(self, request: pb.UpdateSourceSystemRequest, context: Any) -> pb.SourceSystem:
        wanted = request.source_system
        institution_id, source_system_id = resource_segments(
            wanted.name, "institutions", "sourceSystems", field="source_system.name"
        )
        fields = _fields(request)
        ranks = _ranks(wanted.attribute_ranks)

        async def handler(unit: UnitOfWork) -> pb.SourceSystem:
            require_institution(unit.principal, institution_id)
            row = await store.get_source_system(unit.connection, institution_id, source_system_id, lock=True)
            if row is None:
                raise unknown_source_system(wanted.name)
            etags.require(request.etag, etags.etag(row["version"]))
            changed = await store.update_source_system(
                unit.connection,
                row["source_system_number"],
                wanted.display_name if "display_name" in fields else row["display_name"],
                wanted.default_rank if "default_rank" in fields else row["default_rank"],
                ranks if "attribute_ranks" in fields else json.loads(row["attribute_ranks"]),
                unit.now,
            )
            return _source_system(changed)

        return await self._commands.run(request, handler)


def _fields(request: pb.UpdateSourceSystemRequest) -> set[str]:
    """The fields to take: those of the mask, or without one those that are set."""
    wanted = request.source_system
    fields = set(request.update_mask.paths) or {field for field in _UPDATABLE if getattr(wanted, field)}
    if "*" in fields:
        fields = set(_UPDATABLE)
    if not fields or not fields <= set(_UPDATABLE):
        raise _invalid("update_mask", "UPDATE_MASK_INVALID", "must name some of displayName, defaultRank, attributeRanks")
    if "display_name" in fields:
        _require_display_name(wanted.display_name, "source_system.display_name")
    if "default_rank" in fields:
        _require_rank(wanted.default_rank)
    return fields


def _require_display_name(display_name: str, field: str) -> None:
    if not display_name.strip():
        raise _invalid(field, "DISPLAY_NAME_MISSING", "must be 1 to 200 characters")


def _require_rank(rank: int) -> None:
    if not rank:
        raise _invalid("source_system.default_rank", "RANK_MISSING", "must be 1 to 1000; 1 is believed first")


def _ranks(attribute_ranks: Sequence[pb.AttributeRank]) -> dict[int, int]:
    ranks = {int(rank.attribute): rank.rank for rank in attribute_ranks}
    if len(ranks) < len(attribute_ranks):
        raise _invalid("source_system.attribute_ranks", "ATTRIBUTE_DUPLICATE", "must name each attribute once at most")
    return ranks


def _invalid(field: str, reason: str, rule: str) -> InvalidArgument:
    return InvalidArgument(reason, f"{field} {rule}", field_violations=[(field, rule)])


def _no_institution(institution_id: str) -> NotFound:
    return NotFound("INSTITUTION_NOT_FOUND", f"institutions/{institution_id} does not exist, or is not yours")


def _institution(row: Any) -> pb.Institution:
    return pb.Institution(
        name=f"institutions/{row['institution_id']}",
        display_name=row["display_name"],
        kind=row["kind"],
        time_zone=row["time_zone"],
        country_code=row["country_code"],
        etag=etags.etag(row["version"]),
        create_time=messages.timestamp(row["create_time"]),
        update_time=messages.timestamp(row["update_time"]),
    )


def _source_system(row: Any) -> pb.SourceSystem:
    ranks = json.loads(row["attribute_ranks"])
    return pb.SourceSystem(
        name=f"institutions/{row['institution_id']}/sourceSystems/{row['source_system_id']}",
        display_name=row["display_name"],
        default_rank=row["default_rank"],
        attribute_ranks=[
            pb.AttributeRank(attribute=cast("Attribute.ValueType", int(attribute)), rank=rank)
            for attribute, rank in sorted(ranks.items(), key=lambda item: int(item[0]))
        ],
        etag=etags.etag(row["version"]),
        create_time=messages.timestamp(row["create_time"]),
        update_time=messages.timestamp(row["update_time"]),
    )
