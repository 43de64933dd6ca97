"""ReconciliationService: compares settlements with institutions' own files."""

import csv
import io
from uuid import UUID

import grpc

from chassis import pages
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from chassis.identity import Principal, current_principal
from chassis.ids import new_id, parse_id
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import settlement_service_pb2 as pb
from concord.loyalty.v1.settlement_service_pb2_grpc import ReconciliationServiceServicer
from loyalty import settlement_files, settling
from loyalty.domain import reconciliation as domain
from loyalty.domain.reconciliation import ROWS_MAX, Parsed, Row, Unreadable
from loyalty.domain.settlement_file import Item, Totals
from loyalty.rpc import settlement_messages as messages
from loyalty.store import reconciliations as store
from loyalty.store import settlement_items as items_store
from loyalty.store.reconciliations import Reconciliation
from loyalty.store.settlement import Batch
from loyalty.store.settlement_items import Place

ROWS_DEFAULT, ROWS_PAGE_MAX = 500, 5000
SIZE_BYTES_MAX = 64 << 20
"""Of all parts of a file together."""
ROWS_HEADER = (
    "result", "line", "operation", "reference", "program", "their_points", "our_points", "their_amount", "our_amount",
)  # fmt: skip
Context = grpc.aio.ServicerContext[object, object]


class ReconciliationServicer(ReconciliationServiceServicer):
    """Takes files, compares, and shows what was found."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreateReconciliation(self, request: pb.CreateReconciliationRequest, context: Context) -> pb.Reconciliation:
        async def handler(unit: UnitOfWork) -> pb.Reconciliation:
            batch, institution, _ = await messages.require(unit.connection, unit.principal, request.parent, field="parent")
            settling.require_closed(batch)
            assert institution is not None  # the contract admits no `-`
            reconciliation_id = new_id()
            await store.create(unit.connection, reconciliation_id, batch.batch_id, institution, unit.now)
            return messages.to_reconciliation(await _get(unit.connection, reconciliation_id))

        return await self._commands.run(request, handler)

    async def UploadReconciliationPart(self, request: pb.UploadReconciliationPartRequest, context: Context) -> pb.Reconciliation:
        async def handler(unit: UnitOfWork) -> pb.Reconciliation:
            found, _, _ = await _require(unit.connection, unit.principal, request.name, lock=True)
            _require_not_compared(found)
            if found.size_bytes + len(request.content) > SIZE_BYTES_MAX:
                raise ResourceExhausted("FILE_TOO_LARGE", f"a file may have {SIZE_BYTES_MAX} bytes; compare smaller settlements")
            if not await store.add_part(unit.connection, found.reconciliation_id, request.part_number, request.content):
                rule = "has other content already; parts cannot be changed, begin a new reconciliation"
                raise FailedPrecondition("PART_EXISTS", f"part_number {rule}", field_violations=[("part_number", rule)])
            return messages.to_reconciliation(await _get(unit.connection, found.reconciliation_id))

        return await self._commands.run(request, handler)

    async def CompareReconciliation(self, request: pb.CompareReconciliationRequest, context: Context) -> pb.Reconciliation:
        async def handler(unit: UnitOfWork) -> pb.Reconciliation:
            found, batch, institution = await _require(unit.connection, unit.principal, request.name, lock=True)
            _require_not_compared(found)
            parts = await store.parts(unit.connection, found.reconciliation_id)
            if list(parts) != list(range(1, request.parts_count + 1)):
                rule = f"must be the number of parts, all of which are there; {len(parts)} are"
                raise FailedPrecondition("PARTS_MISSING", f"parts_count {rule}", field_violations=[("parts_count", rule)])
            parsed = _parsed(b"".join(parts.values()))
            items = await _items(unit.connection, batch, institution)
            references: dict[int, str] = {}
            if parsed.by_reference:
                sequences = [item.sequence for item in items]
                references = await store.references(unit.connection, sequences, institution)
            rows = domain.compare(parsed, domain.ours_by_key(items, parsed, references))
            ours = Totals().plus(items)
            await store.write(
                unit.connection, found.reconciliation_id, rows, (parsed.totals.points, ours.points),
                (parsed.totals.amount, ours.amount), unit.now,
            )  # fmt: skip
            return messages.to_reconciliation(await _get(unit.connection, found.reconciliation_id))

        return await self._commands.run(request, handler)

    async def GetReconciliation(self, request: pb.GetReconciliationRequest, context: Context) -> pb.Reconciliation:
        async with self._database.connection() as connection:
            found, _, _ = await _require(connection, current_principal(), request.name)
        return messages.to_reconciliation(found)

    async def ListReconciliationRows(
        self, request: pb.ListReconciliationRowsRequest, context: Context
    ) -> pb.ListReconciliationRowsResponse:
        limit = pages.page_size(request.page_size, ROWS_DEFAULT, ROWS_PAGE_MAX)
        rows, token = await self._rows(request, request.result, limit)
        return pb.ListReconciliationRowsResponse(rows=map(messages.to_row, rows), next_page_token=token)

    async def DownloadReconciliationRows(
        self, request: pb.DownloadReconciliationRowsRequest, context: Context
    ) -> pb.DownloadReconciliationRowsResponse:
        limit = pages.page_size(request.page_size, ROWS_PAGE_MAX, ROWS_PAGE_MAX)
        rows, token = await self._rows(request, 0, limit)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if not request.page_token:
            writer.writerow(ROWS_HEADER)
        for row in rows:
            writer.writerow(
                (
                    row.result.name, row.line_number or "", row.operation_id or "", _harmless(row.reference), row.program_id,
                    row.their_points, row.our_points, row.their_amount, row.our_amount,
                )
            )  # fmt: skip
        return pb.DownloadReconciliationRowsResponse(csv=text.getvalue(), next_page_token=token)

    async def _rows(
        self, request: pb.ListReconciliationRowsRequest | pb.DownloadReconciliationRowsRequest, result: int, limit: int
    ) -> tuple[list[Row], str]:
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            found, _, _ = await _require(connection, current_principal(), request.parent, field="parent")
            rows = await store.rows_page(connection, found.reconciliation_id, result, int(keys[0]) if keys else 0, limit + 1)
        token = pages.encode([str(rows[limit - 1][0])], request) if len(rows) > limit else ""
        return [row for _, row in rows[:limit]], token


async def _items(connection: Connection, batch: Batch, institution: str) -> list[Item]:
    """All items that the institution may see.

    Raises:
        ResourceExhausted: SETTLEMENT_TOO_LARGE.
    """
    spans = await settlement_files.spans_of(connection, batch, institution)
    items: list[Item] = []
    after = Place()
    while True:
        found, after = await items_store.page(connection, batch.currency_code, spans, after, ROWS_PAGE_MAX)
        items += found
        if len(items) > ROWS_MAX:
            raise ResourceExhausted(
                "SETTLEMENT_TOO_LARGE", f"a settlement of more than {ROWS_MAX} items is not compared here; download its file"
            )
        if len(found) < ROWS_PAGE_MAX:
            return items


def _parsed(content: bytes) -> Parsed:
    try:
        return domain.parse(content)
    except Unreadable as wrong:
        where = f"line {wrong.line_number}, {wrong.column}"
        raise InvalidArgument(
            "FILE_INVALID",
            f"{where}: {wrong.rule}",
            metadata={"line_number": str(wrong.line_number), "column": wrong.column},
            field_violations=[(wrong.column, f"line {wrong.line_number}: {wrong.rule}")],
        ) from None


def _require_not_compared(found: Reconciliation) -> None:
    if found.compare_time is not None:
        raise FailedPrecondition("RECONCILIATION_COMPARED", "it was compared before; begin a new one for another file")


async def _get(connection: Connection, reconciliation_id: UUID) -> Reconciliation:
    found = await store.get(connection, reconciliation_id)
    assert found is not None
    return found


async def _require(
    connection: Connection, principal: Principal, name: str, *, lock: bool = False, field: str = "name"
) -> tuple[Reconciliation, Batch, str]:
    """A reconciliation, its settlement, and whose it is.

    Raises:
        NotFound: there is none, or it is another institution's.
    """
    batch, institution, (text,) = await messages.require(connection, principal, name, "reconciliations", field=field)
    found = await store.get(connection, parse_id(text, field), lock=lock)
    if found is None or found.batch_id != batch.batch_id or institution not in (None, found.institution_id):
        raise NotFound("RECONCILIATION_NOT_FOUND", f"{name} does not exist")
    return found, batch, found.institution_id


def _harmless(text: str) -> str:
    # A spreadsheet runs what begins like a formula.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
