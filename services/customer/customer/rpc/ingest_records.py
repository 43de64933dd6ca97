"""Source records between contract and intake: prepared before the transaction, answered one by one."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from chassis.unit_of_work import UnitOfWork
from concord.customer.v1 import intake_service_pb2 as pb
from customer import ingest
from customer.core import Core
from customer.domain.blind_index import BlindIndex
from customer.domain.intake import Rejected
from customer.ingest import Taken
from customer.prepare import Prepared, prepare
from customer.store.institutions import SourceSystem

PREPARED_AT_ONCE_MAX = 25
"""Standardising takes about 0.1 ms a record; between so many the event loop turns."""


async def prepare_all(
    now: datetime, index: BlindIndex, items: Sequence[tuple[SourceSystem, pb.SourceRecord]]
) -> list[Prepared | Rejected]:
    """Each record ready to be decided on, or why it is refused."""
    prepared: list[Prepared | Rejected] = []
    for place, (source, record) in enumerate(items):
        if place % PREPARED_AT_ONCE_MAX == PREPARED_AT_ONCE_MAX - 1:
            await asyncio.sleep(0)
        try:
            prepared.append(prepare(now, index, source, record))
        except Rejected as rejected:
            prepared.append(rejected)
    return prepared


async def take(
    unit: UnitOfWork, core: Core, records: Sequence[pb.SourceRecord], prepared: Sequence[Prepared | Rejected]
) -> list[pb.IngestRecordResult]:
    """Takes records, in order; each has an outcome of its own."""
    accepted = [item for item in prepared if isinstance(item, Prepared)]
    taken = iter(await ingest.take(unit, core, accepted))
    outcomes = [next(taken) if isinstance(item, Prepared) else item for item in prepared]
    return [_result(record, outcome) for record, outcome in zip(records, outcomes, strict=True)]


def _result(record: pb.SourceRecord, outcome: Taken | Rejected) -> pb.IngestRecordResult:
    if isinstance(outcome, Rejected):
        error = pb.ItemError(field=outcome.field, reason=outcome.reason, description=outcome.description)
        return pb.IngestRecordResult(source_record_key=record.source_record_key, outcome=pb.INGEST_OUTCOME_REJECTED, error=error)
    return pb.IngestRecordResult(
        source_record_key=record.source_record_key,
        outcome=pb.IngestOutcome.ValueType(outcome.outcome),
        record=outcome.record,
        customer=f"customers/{outcome.customer_id}",
        resolution_reason=pb.ResolutionReason.ValueType(outcome.reason),
    )
