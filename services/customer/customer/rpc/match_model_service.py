"""MatchModelService: versions of the match model, and rematch runs."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from chassis import clock, pages
from chassis.database import Connection
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.ids import new_id, resource_id
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import match_model_service_pb2 as pb
from concord.customer.v1.match_model_service_pb2_grpc import MatchModelServiceServicer
from customer import match_messages
from customer.core import Core
from customer.domain.audit import Action
from customer.domain.match_jobs import ModelState
from customer.domain.match_model import Model, ModelInvalid, default_model
from customer.match_jobs import MatchWorker
from customer.store import match_models as store
from customer.store import rematches as rematch_store
from customer.store.match_models import MatchModels, ModelRow

FALSE_LINKS_SHARE = 0.001
RECORDS_COUNT = 100_000


class MatchModelServicer(MatchModelServiceServicer):
    """Translates; the work is in `match_jobs`."""

    def __init__(self, core: Core, commands: Commands, models: MatchModels, worker: MatchWorker) -> None:
        self._database = core.database
        self._audit = core.audit
        self._commands = commands
        self._models = models
        self._worker = worker

    async def ListMatchModels(self, request: pb.ListMatchModelsRequest, context: Any) -> pb.ListMatchModelsResponse:
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        now = clock.now()
        async with self._database.connection() as connection:
            in_force = await store.in_force(connection, now)
            rows = await store.page(connection, int(keys[0]) if keys else None, limit + 1)
        models = [match_messages.match_model(row, self._ready(row), in_force, now, whole=False) for row in rows[:limit]]
        if len(rows) > limit:
            return pb.ListMatchModelsResponse(
                match_models=models, next_page_token=pages.encode([str(rows[limit - 1].version)], request)
            )
        models.append(match_messages.shipped_model(default_model(), in_force, whole=False))
        return pb.ListMatchModelsResponse(match_models=models)

    async def GetMatchModel(self, request: pb.GetMatchModelRequest, context: Any) -> pb.MatchModel:
        version = match_messages.model_version(request.name)
        async with self._database.connection() as connection:
            if version == store.SHIPPED:
                in_force = await store.in_force(connection, clock.now())
                return match_messages.shipped_model(default_model(), in_force, whole=True)
            return await self._read(connection, version, clock.now())

    async def CreateMatchModel(self, request: pb.CreateMatchModelRequest, context: Any) -> pb.MatchModel:
        model = self._parsed(request.content_json)

        async def handler(unit: UnitOfWork) -> pb.MatchModel:
            share = float(model.details.get("false_links_share_max", 0))
            version = await store.insert(unit.connection, share, 0, unit.principal.subject, unit.now)
            await store.trained(unit.connection, version, model.renamed(str(version)).to_json())
            return await self._read(unit.connection, version, unit.now)

        return await self._commands.run(request, handler)

    async def TrainMatchModel(self, request: pb.TrainMatchModelRequest, context: Any) -> pb.MatchModel:
        async def handler(unit: UnitOfWork) -> pb.MatchModel:
            version = await store.insert(
                unit.connection,
                request.false_links_share_max or FALSE_LINKS_SHARE,
                request.records_count_max or RECORDS_COUNT,
                unit.principal.subject,
                unit.now,
            )
            return await self._read(unit.connection, version, unit.now)

        answer = await self._commands.run(request, handler)
        self._worker.wake.set()
        return answer

    async def ActivateMatchModel(self, request: pb.ActivateMatchModelRequest, context: Any) -> pb.MatchModel:
        version = match_messages.model_version(request.name)
        wanted = request.effective_time.ToDatetime(UTC) if request.HasField("effective_time") else None

        async def handler(unit: UnitOfWork) -> pb.MatchModel:
            row = await store.get(unit.connection, version, lock=True)
            if row is None:
                raise _no_model(request.name)
            if row.state != ModelState.TRAINED:
                raise FailedPrecondition("MODEL_NOT_TRAINED", f"{request.name} is not trained; wait until its state is DRAFT")
            if row.created_by == unit.principal.subject:
                raise FailedPrecondition("SECOND_PERSON_NEEDED", f"somebody else than its creator must activate {request.name}")
            await store.activate(unit.connection, version, unit.principal.subject, _effective_time(wanted, unit.now))
            await self._audit.append(unit, Action.MATCH_MODEL, resource=request.name)
            return await self._read(unit.connection, version, unit.now)

        answer = await self._commands.run(request, handler)
        await self._models.refresh()
        return answer

    async def StartRematch(self, request: pb.StartRematchRequest, context: Any) -> pb.Rematch:
        async def handler(unit: UnitOfWork) -> pb.Rematch:
            in_force = await store.in_force(unit.connection, unit.now)
            version = match_messages.model_version(request.match_model) if request.match_model else in_force
            if version != store.SHIPPED:
                row = await store.get(unit.connection, version)
                if row is None:
                    raise _no_model(request.match_model)
                if row.state != ModelState.TRAINED:
                    raise FailedPrecondition("MODEL_NOT_TRAINED", f"{request.match_model} is not trained; wait until it is DRAFT")
            if request.apply_links and version != in_force:
                raise FailedPrecondition(
                    "MODEL_NOT_IN_FORCE", f"links are applied by {match_messages.model_name(in_force)} only, which is in force"
                )
            rematch_id = new_id()
            await rematch_store.insert(
                unit.connection, rematch_id, version, request.apply_links, unit.principal.subject, unit.now
            )
            return await _rematch(unit.connection, rematch_id)

        answer = await self._commands.run(request, handler)
        self._worker.wake.set()
        return answer

    async def GetRematch(self, request: pb.GetRematchRequest, context: Any) -> pb.Rematch:
        async with self._database.connection() as connection:
            return await _rematch(connection, resource_id(request.name, "rematches"))

    async def ListRematchFindings(self, request: pb.ListRematchFindingsRequest, context: Any) -> pb.ListRematchFindingsResponse:
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        rematch_id = resource_id(request.parent, "rematches", "parent")
        async with self._database.connection() as connection:
            await _rematch(connection, rematch_id)
            rows = await rematch_store.findings(connection, rematch_id, int(keys[0]) if keys else 0, limit + 1)
        token = pages.encode([str(rows[limit - 1][0])], request) if len(rows) > limit else ""
        return pb.ListRematchFindingsResponse(
            findings=[match_messages.finding(request.parent, number, found) for number, found in rows[:limit]],
            next_page_token=token,
        )

    async def _read(self, connection: Connection, version: int, now: datetime) -> pb.MatchModel:
        row = await store.get(connection, version)
        if row is None:
            raise _no_model(match_messages.model_name(version))
        in_force = await store.in_force(connection, now)
        return match_messages.match_model(row, self._ready(row), in_force, now, whole=True)

    def _ready(self, row: ModelRow) -> Model | None:
        return Model.from_json(row.content, self._models.key) if row.content else None

    def _parsed(self, content: str) -> Model:
        try:
            return Model.from_json(content, self._models.key)
        except ModelInvalid as invalid:
            rule = str(invalid)
            raise InvalidArgument("MODEL_INVALID", f"content_json: {rule}", field_violations=[("content_json", rule)]) from None


def _effective_time(wanted: datetime | None, now: datetime) -> datetime:
    if wanted is not None and wanted < now:
        rule = "must not be in the past; leave it out for at once"
        raise InvalidArgument("EFFECTIVE_TIME_PAST", f"effective_time {rule}", field_violations=[("effective_time", rule)])
    return wanted or now


def _no_model(name: str) -> NotFound:
    return NotFound("MATCH_MODEL_NOT_FOUND", f"{name} does not exist")


async def _rematch(connection: Connection, rematch_id: UUID) -> pb.Rematch:
    row = await rematch_store.get(connection, rematch_id)
    if row is None:
        raise NotFound("REMATCH_NOT_FOUND", f"rematches/{rematch_id} does not exist")
    return match_messages.rematch(row, await rematch_store.counts(connection, rematch_id))
