"""Closes, confirms and settles batches: each step is one transaction, and what it publishes leaves with it."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from datetime import date, time, timedelta
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

from chassis.errors import FailedPrecondition, NotFound
from chassis.unit_of_work import Commands, UnitOfWork
from loyalty import settlement_files
from loyalty.domain.netting import instructions_of
from loyalty.domain.settlement import (
    BatchState,
    LineKind,
    business_date,
    cut_off_before,
    lines_of,
    merged,
    pairs_of,
    points_to_clear,
    positions_of,
)
from loyalty.store import agreements, configuration, reconciliations
from loyalty.store import ledger as ledger_store
from loyalty.store import settlement as store
from loyalty.store.settlement import Batch, PairState, Schedule
from loyalty.store.settlement_events import settlement_advanced
from loyalty.store.settlement_posting import clear, release

POLL_SECONDS = 5.0
RECONCILIATIONS_KEPT = timedelta(days=90)
"""Since they were begun."""
logger = logging.getLogger(__name__)


class Settler:
    """Runs in the background: keeps a batch open for each currency, and closes it when cut-offs have passed."""

    def __init__(self, commands: Commands, poll_seconds: float = POLL_SECONDS) -> None:
        self._commands = commands
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._poll_seconds)

    async def step(self) -> list[UUID]:
        """Closes what is due and makes the files; returns the batches that it closed."""
        async with self._commands.unit() as unit:
            await store.open_batches(unit.connection, unit.now)
            schedules = await store.schedules(unit.connection, unit.now)
            due = {s.agreement_id: (s.currency_code, day) for s in schedules if (day := due_date(s, unit)) is not None}
        closed = []
        for currency_code in sorted({currency for currency, _ in due.values()}):
            agreement_ids = {agreement_id for agreement_id, (currency, _) in due.items() if currency == currency_code}
            day = max(day for currency, day in due.values() if currency == currency_code)
            async with self._commands.unit() as unit:
                open_batch = await store.lock_open(unit.connection, currency_code)
                batch = await close(unit, open_batch, agreement_ids, day) if open_batch else None
            if batch is not None:
                closed.append(batch.batch_id)
                logger.info("settlement %s in %s was closed for %s", batch.batch_id, currency_code, day)
        await self._make_files()
        async with self._commands.unit() as unit:
            await reconciliations.delete_before(unit.connection, unit.now - RECONCILIATIONS_KEPT)
        return closed

    async def _make_files(self) -> None:
        """Of batches that were closed by whomever, so that files are described at once when somebody asks."""
        async with self._commands.database.connection() as connection:
            missing = await store.without_files(connection)
        for batch, institution_id in missing:
            await settlement_files.facts(self._commands.database, batch, institution_id)


def due_date(schedule: Schedule, unit: UnitOfWork) -> date | None:
    """The business day whose cut-off has passed for an agreement's oldest item; None while it has not."""
    zone = ZoneInfo(schedule.time_zone)
    cut_off = cut_off_before(unit.now, time.fromisoformat(schedule.cut_off_time), zone)
    return business_date(cut_off, zone) if schedule.oldest_time < cut_off else None


async def close(
    unit: UnitOfWork, batch: Batch, agreement_ids: Collection[UUID] | None = None, day: date | None = None
) -> Batch | None:
    """Closes an open batch, which the caller has locked. None when there is no item to settle.

    Items of all but the last moment are summed up before the ledger is locked, so that spending waits for little. Then the
    ledger's head is locked, its sequence is the cut-off, points go back to their issuers, and all is written: one transaction.

    Args:
        unit: the transaction.
        batch: the open batch.
        agreement_ids: those that are cut off; None for all of the currency.
        day: the business day that ended.
    """
    connection, currency_code = unit.connection, batch.currency_code
    before = await store.last_sequence(connection)
    spans = await store.open_spans(connection, currency_code, before)
    wanted = [span for span in spans if agreement_ids is None or span.agreement_id in agreement_ids]
    found = await store.groups(connection, currency_code, wanted)
    head = await ledger_store.lock_head(connection)
    spans = await store.open_spans(connection, currency_code, head.sequence)
    spans = [span for span in spans if agreement_ids is None or span.agreement_id in agreement_ids]
    rest = [span._replace(after_sequence=max(span.after_sequence, before)) for span in spans]
    groups = merged([*found, *await store.groups(connection, currency_code, rest)])
    if not groups:
        return None
    concerned = {group.terms.agreement_id for group in groups}
    lines = lines_of(groups)
    pairs = pairs_of(lines)
    closed = batch._replace(
        state=BatchState.CLOSED, cut_off_sequence=head.sequence, cut_off_hash=head.hash, business_date=day,
        close_time=unit.now, version=batch.version + 1,
    )  # fmt: skip
    await store.write_closed(
        connection, closed, [span for span in spans if span.agreement_id in concerned], lines, pairs,
        instructions_of(positions_of(pairs)),
    )  # fmt: skip
    issuers = await store.issuers(connection, {group.terms.program_id for group in groups})
    await clear(unit, head, closed.batch_id, points_to_clear(groups, issuers), issuers)
    await store.open_batches(connection, unit.now)
    unit.publish(settlement_advanced(closed, {side for pair in pairs for side in (pair.first, pair.second)}))
    return closed


async def confirm(unit: UnitOfWork, batch: Batch, institution_id: str, counterparty: str, person: str) -> Batch:
    """One side of pairs agrees; the batch is locked. Pairs on which both sides agree count no longer against the caps of their
    agreements, and packs have borne what they bear. When all agree the batch is confirmed.

    Raises:
        FailedPrecondition: SETTLEMENT_OPEN.
        NotFound: PAIR_NOT_FOUND.
    """
    require_closed(batch)
    before = await store.pairs(unit.connection, batch.batch_id)
    mine = [
        state for state in before
        if institution_id in (state.pair.first, state.pair.second)
        and counterparty in ("", state.pair.first, state.pair.second)
    ]  # fmt: skip
    if not mine or counterparty == institution_id:
        raise NotFound(
            "PAIR_NOT_FOUND", f"institutions/{institution_id} has no pair with institutions/{counterparty} in this settlement"
        )
    await store.confirm_pairs(unit.connection, batch.batch_id, institution_id, counterparty, person, unit.now)
    after = await store.pairs(unit.connection, batch.batch_id)
    agreed = [now.pair for was, now in zip(before, after, strict=True) if now.confirmed and not was.confirmed]
    for pair in agreed:
        await _release(unit, batch, pair.first, pair.second)
    if agreed and all(state.confirmed for state in after):
        batch = batch._replace(state=BatchState.CONFIRMED, confirm_time=unit.now)
        unit.publish(settlement_advanced(batch, _institutions(after)))
    return await _advanced(unit, batch, after)


async def acknowledge(unit: UnitOfWork, batch: Batch, payer: str, payee: str, person: str) -> Batch:
    """A payment has come; the batch is locked. When all have, it is settled.

    Raises:
        FailedPrecondition: SETTLEMENT_NOT_CONFIRMED.
        NotFound: PAYMENT_NOT_FOUND.
    """
    if batch.state not in (BatchState.CONFIRMED, BatchState.SETTLED):
        raise FailedPrecondition(
            "SETTLEMENT_NOT_CONFIRMED", f"the settlement is {batch.state}; both sides of each pair must confirm before it is paid"
        )
    payments = await store.payments(unit.connection, batch.batch_id)
    if not any(payment.instruction[:2] == (payer, payee) for payment in payments):
        raise NotFound("PAYMENT_NOT_FOUND", f"this settlement has no payment from institutions/{payer} to institutions/{payee}")
    await store.acknowledge(unit.connection, batch.batch_id, payer, payee, person, unit.now)
    return await _advanced(unit, batch, await store.pairs(unit.connection, batch.batch_id))


def require_closed(batch: Batch) -> None:
    """Raises FailedPrecondition (SETTLEMENT_OPEN) for a batch that still takes items."""
    if batch.state is BatchState.OPEN:
        raise FailedPrecondition("SETTLEMENT_OPEN", "the settlement still takes items; it must be closed first")


async def _advanced(unit: UnitOfWork, batch: Batch, pairs: Sequence[PairState]) -> Batch:
    """Writes a batch as it is now; one that is confirmed and paid is settled."""
    payments = await store.payments(unit.connection, batch.batch_id)
    if batch.state is BatchState.CONFIRMED and all(payment.acknowledge_time for payment in payments):
        batch = batch._replace(state=BatchState.SETTLED, settle_time=unit.now)
        unit.publish(settlement_advanced(batch, _institutions(pairs)))
    batch = batch._replace(version=batch.version + 1)
    await store.advance(unit.connection, batch)
    return batch


def _institutions(pairs: Sequence[PairState]) -> set[str]:
    return {side for state in pairs for side in (state.pair.first, state.pair.second)}


async def _release(unit: UnitOfWork, batch: Batch, first: str, second: str) -> None:
    """What a pair settles counts no longer; packs fall by what they bore."""
    exposures: dict[UUID, Fraction] = {}
    packs: dict[UUID, int] = {}
    for line in await store.lines(unit.connection, batch.batch_id):
        if {line.payer, line.payee} != {first, second}:
            continue
        if line.kind is LineKind.PRINCIPAL:
            exposures[line.agreement_id] = exposures.get(line.agreement_id, Fraction(0)) + line.amount
        elif line.kind is LineKind.PREFUNDED:
            packs[line.agreement_id] = packs.get(line.agreement_id, 0) + int(line.amount)
    if any(packs.values()):
        await configuration.raise_version(unit.connection)
    for agreement_id, minor_units in sorted(packs.items()):
        if minor_units:
            reference = f"settlements/{batch.batch_id}"
            await agreements.add_pack(unit.connection, agreement_id, -minor_units, reference, "settlement", unit.now)
    await release(unit, batch.batch_id, f"{first}/{second}", exposures)
