"""ImportService: bulk imports of files and streams."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from chassis import clock, pages
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import new_id, parse_id, resource_segments
from chassis.masking import may_see_personal
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import import_service_pb2 as pb
from concord.customer.v1.import_service_pb2_grpc import ImportServiceServicer
from customer.domain import imports, intake
from customer.domain.blind_index import BlindIndex
from customer.domain.import_reading import check_beginning, header
from customer.domain.import_rows import FIELDS, Unreadable, mapping
from customer.domain.imports import CODECS, Format, State
from customer.domain.row_splitter import Place, RowSplitter
from customer.import_worker import PART_PLACE, REJECTED_KEY_PLACE, ImportWorker
from customer.messages import timestamp
from customer.rpc.callers import require_source_systems, require_unbound
from customer.store import imports as store
from customer.store.imports import ImportRow, Rejection
from customer.store.vault import Vault, bound_to

SIZE_BYTES_MAX = 16 << 30
"""Of all parts of an import together."""
REJECTIONS_HEADER = ("row", "line", "source_record_key", "field", "rule", "description")


class ImportServicer(ImportServiceServicer):
    """Translates; the work is in `import_worker`."""

    def __init__(self, database: Database, commands: Commands, vault: Vault, index: BlindIndex, worker: ImportWorker) -> None:
        self._database = database
        self._commands = commands
        self._vault = vault
        self._index = index
        self._worker = worker

    async def CreateImport(self, request: pb.CreateImportRequest, context: Any) -> pb.BulkImport:
        require_unbound(current_principal())
        wanted = request.bulk_import
        try:
            mapped = mapping((column.column, column.field) for column in wanted.columns)
        except Unreadable as wrong:
            raise _refused("bulk_import.columns", wrong) from None

        async def handler(unit: UnitOfWork) -> pb.BulkImport:
            source = (await require_source_systems(unit.connection, unit.principal, [request.parent]))[request.parent]
            row = ImportRow(
                import_id=new_id(), source_system_number=source.number, institution_id=source.institution_id,
                format=wanted.format, encoding=wanted.encoding, delimiter=wanted.delimiter or ",",
                columns=json.dumps(list(mapped.items())),
                default_country_code=wanted.default_country_code, default_observe_time=_observe_time(wanted, unit.now),
                display_name=wanted.display_name, state=State.CREATED, parts_count=0,
                size_bytes=0, offset_bytes=0, line_number=1,
                rows_read_count=0, created_count=0, updated_count=0, unchanged_count=0, stale_count=0, rejected_count=0,
                rows_count=None, error_field=None, error_reason=None, error_description=None, rejections_key_id=new_id(),
                parts_kept=True, rejections_kept=True, create_time=unit.now, start_time=None, finish_time=None,
                source_system_id=source.source_system_id,
            )  # fmt: skip
            await self._vault.create(dict.fromkeys((row.import_id, row.rejections_key_id), row.institution_id))
            await store.insert(unit.connection, row)
            return _bulk_import(row, 0, unit.now)

        return await self._commands.run(request, handler)

    async def UploadImportPart(self, request: pb.UploadImportPartRequest, context: Any) -> pb.UploadImportPartResponse:
        require_unbound(current_principal())
        content = request.content

        async def handler(unit: UnitOfWork) -> pb.UploadImportPartResponse:
            row = await _require(unit.connection, unit.principal, request.name, lock=True)
            if row.state != State.CREATED:
                raise FailedPrecondition("IMPORT_STARTED", f"{row.name} takes no more parts; create another import")
            if row.size_bytes + len(content) > SIZE_BYTES_MAX:
                raise FailedPrecondition("IMPORT_TOO_LARGE", f"an import may have {SIZE_BYTES_MAX >> 30} GiB; divide the file")
            if request.part_number == 1:
                _check_first_part(row, content)
            key = (await self._vault.keys([row.import_id]))[row.import_id]
            sealed = key.seal(content, bound_to(PART_PLACE, row.import_id, request.part_number))
            content_hash = self._index.content(content)
            if not await store.insert_part(
                unit.connection, row.import_id, request.part_number, len(content), content_hash, sealed
            ):
                raise FailedPrecondition(
                    "PART_DIFFERS", f"part {request.part_number} was uploaded with other bytes; create another import"
                )
            return pb.UploadImportPartResponse(contiguous_parts_count=await _parts_count(unit.connection, row.import_id))

        return await self._commands.run(request, handler)

    async def StartImport(self, request: pb.StartImportRequest, context: Any) -> pb.BulkImport:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.BulkImport:
            row = await _require(unit.connection, unit.principal, request.name, lock=True)
            if row.state != State.CREATED:
                raise FailedPrecondition("IMPORT_STARTED", f"{row.name} was started or has ended; create another import")
            there = await _parts_count(unit.connection, row.import_id)
            total = len(await store.part_sizes(unit.connection, row.import_id))
            if there != request.parts_count or total != there:
                raise FailedPrecondition(
                    "PARTS_MISSING",
                    f"parts 1 to {there} are there, {total} in all, and parts_count is {request.parts_count}: upload the others",
                    metadata={"contiguous_parts_count": str(there)},
                )
            await store.start(unit.connection, row.import_id, request.parts_count)
            return await _read(unit.connection, row.import_id, unit.now)

        started = await self._commands.run(request, handler)
        self._worker.wake.set()
        return started

    async def GetImport(self, request: pb.GetImportRequest, context: Any) -> pb.BulkImport:
        async with self._database.connection() as connection:
            row = await _require(connection, current_principal(), request.name)
            return _bulk_import(row, await _parts_count(connection, row.import_id), clock.now())

    async def ListImports(self, request: pb.ListImportsRequest, context: Any) -> pb.ListImportsResponse:
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            source = (await require_source_systems(connection, current_principal(), [request.parent]))[request.parent]
            before = parse_id(keys[0], "page_token") if keys else None
            rows = await store.list_before(connection, source.number, before, limit + 1)
            counts = await store.contiguous_parts_counts(connection, [row.import_id for row in rows])
        now = clock.now()
        shown = [_bulk_import(row, counts.get(row.import_id, row.parts_count), now) for row in rows[:limit]]
        token = pages.encode([str(rows[limit - 1].import_id)], request) if len(rows) > limit else ""
        return pb.ListImportsResponse(bulk_imports=shown, next_page_token=token)

    async def CancelImport(self, request: pb.CancelImportRequest, context: Any) -> pb.BulkImport:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.BulkImport:
            row = await _require(unit.connection, unit.principal, request.name, lock=True)
            await store.finish(unit.connection, row.import_id, State.CANCELLED, unit.now)
            return await _read(unit.connection, row.import_id, unit.now)

        cancelled = await self._commands.run(request, handler)
        self._worker.wake.set()
        return cancelled

    async def ListImportRejections(
        self, request: pb.ListImportRejectionsRequest, context: Any
    ) -> pb.ListImportRejectionsResponse:
        rows, keys, token = await self._rejections(request)
        return pb.ListImportRejectionsResponse(
            rejections=[
                pb.ImportRejection(
                    row_number=row.row_number, line_number=row.line_number, source_record_key=key, field=row.field,
                    reason=row.reason, description=row.description,
                ) for row, key in zip(rows, keys, strict=True)
            ],
            next_page_token=token,
        )  # fmt: skip

    async def DownloadImportRejections(
        self, request: pb.DownloadImportRejectionsRequest, context: Any
    ) -> pb.DownloadImportRejectionsResponse:
        rows, keys, token = await self._rejections(request)
        if not may_see_personal(current_principal()):
            keys = [""] * len(rows)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if not request.page_token:
            writer.writerow(REJECTIONS_HEADER)
        for row, key in zip(rows, keys, strict=True):
            writer.writerow((row.row_number, row.line_number or "", _harmless(key), row.field, row.reason, row.description))
        return pb.DownloadImportRejectionsResponse(csv=text.getvalue(), next_page_token=token)

    async def ListImportFields(self, request: pb.ListImportFieldsRequest, context: Any) -> pb.ListImportFieldsResponse:
        fields = [pb.ImportField(field=field.name, description=field.description, example=field.example) for field in FIELDS]
        return pb.ListImportFieldsResponse(fields=fields)

    async def _rejections(
        self, request: pb.ListImportRejectionsRequest | pb.DownloadImportRejectionsRequest
    ) -> tuple[Sequence[Rejection], list[str], str]:
        """A page of rejected rows, the source's own keys of those, and the next page's token."""
        limit = pages.page_size(request.page_size, default=500, maximum=5000)
        after = int((pages.decode(request.page_token, request) or ["0"])[0])
        async with self._database.connection() as connection:
            row = await _require(connection, current_principal(), request.parent, field="parent")
            found = await store.rejections(connection, row.import_id, after, limit + 1)
        token = pages.encode([str(found[limit - 1].row_number)], request) if len(found) > limit else ""
        found = found[:limit]
        data_keys = await self._vault.keys([row.rejections_key_id]) if found else {}
        if found and not data_keys:
            return [], [], ""  # their time is over; the rows go in a moment
        return found, [_opened(data_keys[row.rejections_key_id], row, item) for item in found], token


def _opened(key: Any, row: ImportRow, item: Rejection) -> str:
    if item.sealed_key is None:
        return ""
    return str(key.open(item.sealed_key, bound_to(REJECTED_KEY_PLACE, row.import_id, item.row_number)).decode())


def _harmless(text: str) -> str:
    # A spreadsheet runs what begins like a formula.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _check_first_part(row: ImportRow, content: bytes) -> None:
    """Says at once what is wrong with the beginning of a file, before all of it is uploaded.

    Raises:
        InvalidArgument: naming the column or the header.
    """
    if row.format == Format.PARQUET:
        if not b"PAR1".startswith(content[:4]):
            raise _refused("content", Unreadable("file", "FORMAT_WRONG", "the file is no Parquet file"))
        return
    try:
        check_beginning(content, CODECS[row.encoding])
        first = next(RowSplitter(Place(), row.delimiter).feed(content), None)
        if row.format == Format.CSV and first is not None:
            header(first, row.encoding, row.delimiter, mapping(row.mapping))
    except Unreadable as wrong:
        raise _refused("content", wrong) from None


def _refused(field: str, wrong: Unreadable) -> InvalidArgument:
    return InvalidArgument(
        wrong.reason, f"{wrong.field}: {wrong.description}", field_violations=[(field, f"{wrong.field}: {wrong.description}")]
    )


def _observe_time(wanted: pb.BulkImport, now: datetime) -> datetime:
    if not wanted.HasField("default_observe_time"):
        return now
    stated = wanted.default_observe_time
    try:
        return intake.instant(stated.seconds, stated.nanos, "bulk_import.default_observe_time", now)
    except intake.Rejected as rejected:
        raise InvalidArgument(
            rejected.reason, f"{rejected.field} {rejected.description}", field_violations=[(rejected.field, rejected.description)]
        ) from None


async def _require(
    connection: Connection, principal: Principal, name: str, *, lock: bool = False, field: str = "name"
) -> ImportRow:
    """The import with this name.

    Raises:
        NotFound: there is none, or it is another institution's.
    """
    institution_id, source_system_id, import_text = resource_segments(
        name, "institutions", "sourceSystems", "imports", field=field
    )
    require_institution(principal, institution_id)
    import_id = parse_id(import_text, field)
    row = await store.get(connection, import_id, lock=lock)
    if row is None or (row.institution_id, row.source_system_id) != (institution_id, source_system_id):
        raise NotFound("IMPORT_NOT_FOUND", f"{name} does not exist")
    return row


async def _parts_count(connection: Connection, import_id: UUID) -> int:
    return (await store.contiguous_parts_counts(connection, [import_id])).get(import_id, 0)


async def _read(connection: Connection, import_id: UUID, now: datetime) -> pb.BulkImport:
    row = await store.get(connection, import_id)
    assert row is not None
    return _bulk_import(row, await _parts_count(connection, import_id), now)


def _bulk_import(row: ImportRow, contiguous_parts_count: int, now: datetime) -> pb.BulkImport:
    message = pb.BulkImport(
        name=row.name,
        format=cast(Any, row.format),
        encoding=cast(Any, row.encoding),
        delimiter=row.delimiter,
        columns=[pb.ImportColumn(column=column, field=field) for column, field in row.mapping],
        default_country_code=row.default_country_code,
        default_observe_time=timestamp(row.default_observe_time),
        display_name=row.display_name,
        state=cast(Any, row.state),
        contiguous_parts_count=contiguous_parts_count if row.parts_kept else row.parts_count,
        size_bytes=row.size_bytes,
        rows_read_count=row.rows_read_count,
        created_count=row.created_count,
        updated_count=row.updated_count,
        unchanged_count=row.unchanged_count,
        stale_count=row.stale_count,
        rejected_count=row.rejected_count,
        create_time=timestamp(row.create_time),
    )
    read, total = (row.rows_read_count, row.rows_count) if row.rows_count is not None else (row.offset_bytes, row.size_bytes)
    message.progress_percent = imports.progress_percent(row.state, read, total)
    if row.start_time is not None:
        message.start_time.CopyFrom(timestamp(row.start_time))
        seconds = ((row.finish_time or now.astimezone(UTC)) - row.start_time).total_seconds()
        message.rows_per_second = round(row.rows_read_count / seconds, 1) if seconds > 0 else 0.0
    if row.finish_time is not None:
        message.finish_time.CopyFrom(timestamp(row.finish_time))
    if row.error_reason is not None:
        message.error.field, message.error.reason = row.error_field or "", row.error_reason
        message.error.description = row.error_description or ""
    return message
