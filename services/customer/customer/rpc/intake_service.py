"""IntakeService: records, holdings and activities from source systems."""

import time
from typing import Any

from google.protobuf.message import Message

from chassis import clock
from chassis.gatherer import Gatherer
from chassis.identity import current_principal, require_institution
from chassis.ids import resource_segments
from chassis.unit_of_work import Answer, Call, Commands, UnitOfWork
from concord.customer.v1 import intake_service_pb2 as pb
from concord.customer.v1.intake_service_pb2_grpc import IntakeServiceServicer
from customer.core import Core
from customer.rpc.callers import only_customer, require_source_systems, require_unbound, unknown_source_system
from customer.rpc.ingest_records import prepare_all, take
from customer.rpc.record_activities import record
from customer.rpc.upsert_holdings import upsert
from customer.store import institutions as institution_store
from customer.store import records as record_store
from customer.store.institutions import SourceSystem

GATHERED_RECORDS_MAX = 200
BATCHES_IN_FLIGHT_MAX = 2
"""While one waits for the database the next is prepared; those that may concern the same people wait for each other there."""
SOURCES_REMEMBERED_SECONDS = 2.0


class IntakeServicer(IntakeServiceServicer):
    """Translates; the work is in `ingest_records`, `upsert_holdings` and `record_activities`."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core = core
        self._database = core.database
        self._commands = commands
        self._index = core.index
        self._sources: dict[str, SourceSystem] = {}
        self._sources_until = 0.0
        self._gatherer: Gatherer[Call, Message] = Gatherer(
            self._ingest_calls, items_max=GATHERED_RECORDS_MAX, batches_in_flight_max=BATCHES_IN_FLIGHT_MAX
        )

    async def IngestRecord(self, request: pb.IngestRecordRequest, context: Any) -> pb.IngestRecordResult:
        principal = current_principal()
        require_unbound(principal)
        require_institution(principal, resource_segments(request.parent, "institutions", "sourceSystems", field="parent")[0])
        answer = await self._gatherer.submit(self._commands.call(request))
        assert isinstance(answer, pb.IngestRecordResult)
        return answer

    async def _ingest_calls(self, calls: list[Call]) -> list[Message | Exception]:
        """What needs no transaction is done before it, once for all attempts."""
        sources = await self._known_sources({call.request.parent for call in calls})
        known = [call for call in calls if call.request.parent in sources]
        items = [(sources[call.request.parent], call.request.source_record) for call in known]
        prepared = await prepare_all(clock.now(), self._index, items)
        ready = {id(call): item for call, item in zip(known, prepared, strict=True)}

        async def handler(unit: UnitOfWork, fresh: list[Call]) -> list[Answer]:
            mine = [call for call in fresh if id(call) in ready]
            results = iter(
                await take(unit, self._core, [call.request.source_record for call in mine], [ready[id(call)] for call in mine])
            )
            return [next(results) if id(call) in ready else unknown_source_system(call.request.parent) for call in fresh]

        return await self._commands.run_many(calls, handler)

    async def _known_sources(self, names: set[str]) -> dict[str, SourceSystem]:
        """Source systems by name, remembered for a moment: the intake needs of them what hardly ever changes."""
        now = time.monotonic()
        if now > self._sources_until:
            self._sources, self._sources_until = {}, now + SOURCES_REMEMBERED_SECONDS
        missing = [(parts[1], parts[3]) for parts in (name.split("/") for name in names - self._sources.keys())]
        if missing:
            async with self._database.connection() as connection:
                self._sources |= await institution_store.find_source_systems(connection, missing)
        return {name: self._sources[name] for name in names & self._sources.keys()}

    async def BatchIngestRecords(self, request: pb.BatchIngestRecordsRequest, context: Any) -> pb.BatchIngestRecordsResponse:
        principal = current_principal()
        require_unbound(principal)
        async with self._database.connection() as connection:
            source = (await require_source_systems(connection, principal, [request.parent]))[request.parent]
        records = request.source_records
        prepared = await prepare_all(clock.now(), self._index, [(source, record) for record in records])

        async def handler(unit: UnitOfWork) -> pb.BatchIngestRecordsResponse:
            return pb.BatchIngestRecordsResponse(results=await take(unit, self._core, records, prepared))

        return await self._commands.run(request, handler)

    async def LookupRecords(self, request: pb.LookupRecordsRequest, context: Any) -> pb.LookupRecordsResponse:
        principal = current_principal()
        async with self._database.connection() as connection:
            source = (await require_source_systems(connection, principal, [request.parent]))[request.parent]
            keys = {key: (source.number, self._index.source_key(source.name, key)) for key in request.source_record_keys}
            found = await record_store.find_by_source_key(connection, keys.values())
            only = await only_customer(connection, principal)
        response = pb.LookupRecordsResponse()
        for key in request.source_record_keys:
            known = found.get(keys[key])
            if known is not None and only in (None, known.customer_id):
                response.records.add(
                    source_record_key=key,
                    record=f"{source.name}/records/{known.record_id}",
                    customer=f"customers/{known.customer_id}",
                )
        return response

    async def BatchUpsertHoldings(self, request: pb.BatchUpsertHoldingsRequest, context: Any) -> pb.BatchUpsertHoldingsResponse:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.BatchUpsertHoldingsResponse:
            sources = await require_source_systems(unit.connection, unit.principal, [request.parent])
            results = await upsert(unit, self._core, sources[request.parent], request.source_holdings)
            return pb.BatchUpsertHoldingsResponse(results=results)

        return await self._commands.run(request, handler)

    async def RecordActivities(self, request: pb.RecordActivitiesRequest, context: Any) -> pb.RecordActivitiesResponse:
        async def handler(unit: UnitOfWork) -> pb.RecordActivitiesResponse:
            names = {activity.source_system for activity in request.activities}
            sources = await require_source_systems(unit.connection, unit.principal, names)
            only = await only_customer(unit.connection, unit.principal)
            return pb.RecordActivitiesResponse(results=await record(unit, self._index, sources, request.activities, only))

        return await self._commands.run(request, handler)
