"""SettlementService: settlements as each institution sees them, their steps, and their files."""

from uuid import UUID

import grpc

from chassis import pages
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition
from chassis.identity import current_principal
from chassis.ids import resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import settlement_service_pb2 as pb
from concord.loyalty.v1.settlement_service_pb2_grpc import SettlementServiceServicer
from loyalty import settlement_files, settling
from loyalty.domain.settlement import BatchState
from loyalty.rpc import settlement_messages as messages
from loyalty.store import settlement as store
from loyalty.store import settlement_items as items_store
from loyalty.store.settlement import Batch
from loyalty.store.settlement_items import Place

PAGE_DEFAULT, PAGE_MAX = 50, 200
ITEMS_DEFAULT, ITEMS_MAX = 500, 5000
Context = grpc.aio.ServicerContext[object, object]


class SettlementServicer(SettlementServiceServicer):
    """Translates; the steps are in `settling`."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def ListSettlements(self, request: pb.ListSettlementsRequest, context: Context) -> pb.ListSettlementsResponse:
        (institution_id,) = resource_segments(request.parent, "institutions", field="parent")
        institution = messages.viewer(current_principal(), institution_id)
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        state = messages.STATE_OF.get(request.state, "")
        async with self._database.connection() as connection:
            found = await store.page(
                connection, institution, state, request.currency_code, UUID(keys[0]) if keys else None, limit + 1
            )
        token = pages.encode([str(found[limit - 1].batch_id)], request) if len(found) > limit else ""
        return pb.ListSettlementsResponse(
            settlements=[messages.head(batch, institution) for batch in found[:limit]], next_page_token=token
        )

    async def GetSettlement(self, request: pb.GetSettlementRequest, context: Context) -> pb.Settlement:
        async with self._database.connection() as connection:
            batch, institution, _ = await messages.require(connection, current_principal(), request.name)
            return await messages.to_settlement(connection, batch, institution)

    async def CloseSettlement(self, request: pb.CloseSettlementRequest, context: Context) -> pb.Settlement:
        async def handler(unit: UnitOfWork) -> pb.Settlement:
            batch, institution, _ = await messages.require(unit.connection, unit.principal, request.name, lock=True)
            if batch.state is not BatchState.OPEN:
                raise FailedPrecondition("SETTLEMENT_NOT_OPEN", f"the settlement is {batch.state}; it was closed before")
            closed = await settling.close(unit, batch)
            if closed is None:
                raise FailedPrecondition("NOTHING_TO_SETTLE", f"there is no item in {batch.currency_code} to settle")
            return await messages.to_settlement(unit.connection, closed, institution)

        return await self._commands.run(request, handler)

    async def ConfirmSettlement(self, request: pb.ConfirmSettlementRequest, context: Context) -> pb.Settlement:
        counterparty = ""
        if request.counterparty:
            (counterparty,) = resource_segments(request.counterparty, "institutions", field="counterparty")
        if request.file_sha256:
            await self._check_file(request.name, request.file_sha256)

        async def handler(unit: UnitOfWork) -> pb.Settlement:
            batch, institution, _ = await messages.require(unit.connection, unit.principal, request.name, lock=True)
            assert institution is not None  # the contract admits no `-`
            batch = await settling.confirm(unit, batch, institution, counterparty, unit.principal.subject)
            return await messages.to_settlement(unit.connection, batch, institution)

        return await self._commands.run(request, handler)

    async def AcknowledgePayment(self, request: pb.AcknowledgePaymentRequest, context: Context) -> pb.Settlement:
        (payer,) = resource_segments(request.payer, "institutions", field="payer")

        async def handler(unit: UnitOfWork) -> pb.Settlement:
            batch, institution, _ = await messages.require(unit.connection, unit.principal, request.name, lock=True)
            assert institution is not None  # the contract admits no `-`
            batch = await settling.acknowledge(unit, batch, payer, institution, unit.principal.subject)
            return await messages.to_settlement(unit.connection, batch, institution)

        return await self._commands.run(request, handler)

    async def ListSettlementItems(
        self, request: pb.ListSettlementItemsRequest, context: Context
    ) -> pb.ListSettlementItemsResponse:
        limit = pages.page_size(request.page_size, ITEMS_DEFAULT, ITEMS_MAX)
        after = place_of(pages.decode(request.page_token, request))
        async with self._database.connection() as connection:
            batch, institution, _ = await messages.require(connection, current_principal(), request.parent, field="parent")
            spans = await self._spans(connection, batch, institution)
            found, end = await items_store.page(connection, batch.currency_code, spans, after or Place(), limit)
        token = pages.encode(keys_of(end), request) if len(found) == limit else ""
        return pb.ListSettlementItemsResponse(settlement_items=map(messages.to_item, found), next_page_token=token)

    async def GetSettlementFile(self, request: pb.GetSettlementFileRequest, context: Context) -> pb.SettlementFile:
        async with self._database.connection() as connection:
            batch, institution = await _closed(connection, request.name)
        facts = await settlement_files.facts(self._database, batch, institution)
        return pb.SettlementFile(
            name=request.name,
            sha256=facts.sha256,
            size_bytes=facts.size_bytes,
            rows_count=facts.rows_count,
            items_count=facts.totals.items_count,
            points=facts.totals.points,
            amount=messages.exact(facts.totals.amount),
            ledger_hash=batch.cut_off_hash or b"",
        )

    async def DownloadSettlementFile(
        self, request: pb.DownloadSettlementFileRequest, context: Context
    ) -> pb.DownloadSettlementFileResponse:
        limit = pages.page_size(request.page_size, ITEMS_MAX, ITEMS_MAX)
        after = place_of(pages.decode(request.page_token, request))
        async with self._database.connection() as connection:
            batch, institution = await _closed(connection, request.name)
            text, end, _ = await settlement_files.page(connection, batch, institution, after, limit)
        return pb.DownloadSettlementFileResponse(csv=text, next_page_token=pages.encode(keys_of(end), request) if end else "")

    async def _spans(self, connection: Connection, batch: Batch, institution: str | None) -> list[store.Span]:
        if batch.state is not BatchState.OPEN:
            return await settlement_files.spans_of(connection, batch, institution)
        spans = await store.open_spans(connection, batch.currency_code, await store.last_sequence(connection))
        parties = await store.parties(connection, [span.agreement_id for span in spans])
        return [span for span in spans if institution is None or institution in parties[span.agreement_id]]

    async def _check_file(self, name: str, sha256: bytes) -> None:
        async with self._database.connection() as connection:
            batch, institution = await _closed(connection, f"{name}/file")
        facts = await settlement_files.facts(self._database, batch, institution)
        if facts.sha256 != sha256:
            rule = "must be that of the file as it is downloaded now"
            raise FailedPrecondition(
                "FILE_MISMATCH", f"file_sha256 {rule}: another file was checked", field_violations=[("file_sha256", rule)]
            )


async def _closed(connection: Connection, name: str) -> tuple[Batch, str]:
    """The closed settlement of a file's name, and whose file it is."""
    batch, institution, _ = await messages.require(connection, current_principal(), name.removesuffix("/file"))
    settling.require_closed(batch)
    assert institution is not None  # the contract admits no `-`
    return batch, institution


def place_of(keys: list[str]) -> Place | None:
    """The place in a page token."""
    return Place(keys[0] == "C", UUID(keys[1]), int(keys[2]), keys[3]) if keys else None


def keys_of(place: Place) -> list[str]:
    """The page token's keys of a place."""
    return ["C" if place.correction else "I", str(place.agreement_id), str(place.sequence), place.last]
