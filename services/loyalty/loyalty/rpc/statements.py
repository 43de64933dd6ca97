"""AccountService: statements, their sums and CSV, and lots."""

import csv
import io
from datetime import UTC, datetime
from typing import TypeAlias

import asyncpg
import grpc

from chassis import clock, pages
from chassis.database import Database
from chassis.errors import InvalidArgument
from chassis.identity import current_principal
from chassis.ids import resource_id, resource_segments
from concord.loyalty.v1 import account_service_pb2 as pb
from loyalty.rpc import account_messages as messages
from loyalty.rpc.account_access import require_seen
from loyalty.store import statements as store
from loyalty.store.statements import Asked, Place

LINES_DEFAULT, LINES_MAX = 50, 200
DOWNLOAD_LINES_MAX = 5000
PLACE = ("sequence", "owner", "program_id")
HEADER = (
    "post_time", "effective_time", "operation", "kind", "account", "program", "institution", "amount_points", "balance_points",
    "pending_change_points", "held_change_points", "debt_change_points", "expire_time",
)  # fmt: skip
Context = grpc.aio.ServicerContext[object, object]
LinesRequest: TypeAlias = pb.ListStatementLinesRequest | pb.DownloadStatementRequest
AnyRequest: TypeAlias = LinesRequest | pb.ListLotsRequest | pb.SummarizeStatementRequest


class StatementMethods:
    """What AccountService tells of what happened."""

    _database: Database

    async def ListStatementLines(self, request: pb.ListStatementLinesRequest, context: Context) -> pb.ListStatementLinesResponse:
        rows, token = await self._lines(request, pages.page_size(request.page_size, LINES_DEFAULT, LINES_MAX))
        return pb.ListStatementLinesResponse(statement_lines=map(messages.to_line, rows), next_page_token=token)

    async def DownloadStatement(self, request: pb.DownloadStatementRequest, context: Context) -> pb.DownloadStatementResponse:
        limit = pages.page_size(request.page_size, DOWNLOAD_LINES_MAX, DOWNLOAD_LINES_MAX)
        rows, token = await self._lines(request, limit)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if not request.page_token:
            writer.writerow(HEADER)
        for row in rows:
            line = messages.to_line(row)
            writer.writerow(
                (
                    line.post_time.ToJsonString(), line.effective_time.ToJsonString(), line.operation, row["kind"],
                    line.account, row["program_id"], row["institution_id"], line.amount_points, line.balance_points,
                    line.pending_change_points, line.held_change_points, line.debt_change_points, row["ends"] or "",
                )
            )  # fmt: skip
        return pb.DownloadStatementResponse(csv=text.getvalue(), next_page_token=token)

    async def SummarizeStatement(self, request: pb.SummarizeStatementRequest, context: Context) -> pb.StatementSummary:
        asked = _asked(request)
        async with self._database.connection() as connection:
            page, expiring = await store.summary(connection, asked, clock.now())
            await require_seen(connection, current_principal(), asked.account_id, page.account)
        return messages.to_summary(page.rows, expiring)

    async def ListLots(self, request: pb.ListLotsRequest, context: Context) -> pb.ListLotsResponse:
        asked, keys = _asked(request), pages.decode(request.page_token, request)
        limit = pages.page_size(request.page_size, LINES_DEFAULT, LINES_MAX)
        after = (datetime.fromisoformat(keys[0]) if keys[0] else None, int(keys[1])) if keys else None
        async with self._database.connection() as connection:
            page = await store.lots(connection, asked, after, limit + 1)
            await require_seen(connection, current_principal(), asked.account_id, page.account)
        token = ""
        if len(page.rows) > limit:
            last = page.rows[limit - 1]
            token = pages.encode([last["expire_time"].isoformat() if last["expire_time"] else "", str(last["lot_id"])], request)
        return pb.ListLotsResponse(lots=map(messages.to_lot, page.rows[:limit]), next_page_token=token)

    async def _lines(self, request: LinesRequest, limit: int) -> tuple[list[asyncpg.Record], str]:
        asked, keys = _asked(request), pages.decode(request.page_token, request)
        before = Place(int(keys[0]), keys[1], keys[2]) if keys else None
        async with self._database.connection() as connection:
            page = await store.lines(connection, asked, before, limit + 1)
            await require_seen(connection, current_principal(), asked.account_id, page.account)
        rows = page.rows
        more = len(rows) > limit
        return rows[:limit], pages.encode([str(rows[limit - 1][key]) for key in PLACE], request) if more else ""


def _asked(request: AnyRequest) -> Asked:
    program_id = resource_segments(request.program, "programs", field="program")[0] if request.program else ""
    asked = Asked(resource_id(request.parent, "accounts", field="parent"), current_principal().institution or "", program_id)
    if isinstance(request, pb.ListLotsRequest):
        return asked
    begin, end = (
        getattr(request, field).ToDatetime(UTC) if request.HasField(field) else None for field in ("begin_time", "end_time")
    )
    if begin is not None and end is not None and begin > end:
        rule = "must not be after end_time"
        raise InvalidArgument("PERIOD_INVALID", f"begin_time {rule}", field_violations=[("begin_time", rule)])
    kinds = () if isinstance(request, pb.SummarizeStatementRequest) else tuple(messages.KIND_NAMES[k] for k in request.kinds)
    return asked._replace(kinds=kinds, begin_time=begin, end_time=end)
