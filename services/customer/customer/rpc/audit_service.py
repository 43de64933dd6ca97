"""AuditService: who did what to whose data."""

from typing import Any

from chassis import pages
from chassis.errors import InvalidArgument
from chassis.identity import current_principal
from chassis.ids import resource_id
from concord.customer.v1 import audit_service_pb2 as pb
from concord.customer.v1.audit_service_pb2_grpc import AuditServiceServicer
from customer.core import Core
from customer.domain.audit import Entry
from customer.messages import timestamp
from customer.rpc.callers import viewing_institution
from customer.store import audit


class AuditServicer(AuditServiceServicer):
    """Translates."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Any) -> pb.ListAuditEntriesResponse:
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        before = int(keys[0]) if keys else None
        customer_id = resource_id(request.customer, "customers", "customer") if request.customer else None
        institution = viewing_institution(current_principal())
        async with self._core.database.connection() as connection:
            entries = await audit.page(connection, institution, customer_id, request.action, before, limit + 1)
        token = pages.encode([str(entries[limit - 1].number)], request) if len(entries) > limit else ""
        return pb.ListAuditEntriesResponse(audit_entries=[_message(entry) for entry in entries[:limit]], next_page_token=token)

    async def VerifyAuditTrail(self, request: pb.VerifyAuditTrailRequest, context: Any) -> pb.VerifyAuditTrailResponse:
        if bool(request.known_entries_count) != bool(request.known_head_hash):
            field, rule = "known_head_hash", "goes with known_entries_count, as an earlier call answered both"
            raise InvalidArgument("KNOWN_INCOMPLETE", f"{field} {rule}", field_violations=[(field, rule)])
        known = bytes.fromhex(request.known_head_hash)
        async with self._core.database.transaction() as connection:
            # One snapshot: entries that are appended meanwhile are not looked at.
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            count, head, finding = await self._core.audit.verify(connection, request.known_entries_count, known)
        return pb.VerifyAuditTrailResponse(
            intact=finding is None,
            entries_count=count,
            head_hash=head.hex(),
            first_broken_entry=f"auditEntries/{finding.number}" if finding else "",
            reason=finding.reason if finding else "",
        )


def _message(entry: Entry) -> pb.AuditEntry:
    return pb.AuditEntry(
        name=f"auditEntries/{entry.number}",
        record_time=timestamp(entry.recorded_at),
        institution=f"institutions/{entry.institution_id}" if entry.institution_id else "",
        client=entry.client,
        subject=entry.subject,
        action=entry.action,
        reason_code=entry.reason_code,
        customers=[f"customers/{customer_id}" for customer_id in entry.customer_ids],
        record_ids=[str(record_id) for record_id in entry.record_ids],
        resource=entry.resource,
        chain_hash=entry.chain_hash.hex(),
    )
