"""KYC cases: what several of their commands share, and the reviews that come due by themselves."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from chassis.database import Connection
from chassis.ids import new_id
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1.attribute_pb2 import PartyKind
from concord.customer.v1.party_pb2 import Party
from customer import kyc_standard, screening
from customer.changes import Changes
from customer.core import Core
from customer.domain.golden import golden
from customer.domain.identity_documents import is_birth_date
from customer.domain.kyc import Disposition, Factor, Standard, StepResult, Subject, Topic, Trigger, risk_factors, risk_level
from customer.screening import Lists
from customer.statements import digest, view
from customer.store import kyc as store
from customer.store import records, screening_lists, verifications
from customer.store.vault import bound_to
from customer.store.verifications import CaseVerified

SWEEP_SECONDS = 30.0
SWEPT_AT_ONCE_MAX = 100


@dataclass(frozen=True, slots=True)
class Known:
    """A customer as one institution knows it: its own records only."""

    customer_id: UUID
    record_ids: Sequence[UUID]
    parties: Sequence[Party]

    @property
    def party_kind(self) -> str:
        """PERSON or ORGANISATION."""
        organisation = any(party.party_kind == PartyKind.PARTY_KIND_ORGANISATION for party in self.parties)
        return "ORGANISATION" if organisation else "PERSON"


async def known(connection: Connection, core: Core, customer_id: UUID, institution_id: str) -> Known | None:
    """The customer by the institution's records; None without a link."""
    [members] = await records.visible(connection, core.vault, [(customer_id, institution_id)])
    own = sorted((member for member in members if member.institution_id == institution_id), key=lambda member: member.record_id)
    if not own:
        return None
    return Known(customer_id, [member.record_id for member in own], [member.party for member in own])


def _subject(customer: Known, now: datetime) -> Subject:
    today = now.date()
    return Subject(
        customer.party_kind,
        screening.subject_of(customer.parties, today).country_codes,
        any(is_birth_date(party.birth_date, today) for party in customer.parties),
        any(identifier.valid for party in customer.parties for identifier in party.identifiers),
    )


def factors(standard: Standard, customer: Known, products: Collection[str], hits: Iterable[Any], now: datetime) -> list[Factor]:
    """The risk factors that hold for a case."""
    matches = [Topic(hit["topic"]) for hit in hits if hit["disposition"] == Disposition.TRUE_MATCH]
    return risk_factors(standard, _subject(customer, now), products, matches)


async def open_case(
    unit: UnitOfWork, customer: Known, institution_id: str, trigger: Trigger, products: Collection[str], by: str | None
) -> asyncpg.Record | None:
    """A new case under the standard in force; None while another is not decided."""
    content = kyc_standard.shipped()
    standard = kyc_standard.parsed(content)
    await store.keep_standard(unit.connection, standard.version, content)
    held = factors(standard, customer, products, [], unit.now)
    due = unit.now + timedelta(days=standard.due_days)
    values = store.case_values(new_id(), institution_id, customer.record_ids[0], unit.now, due) | {
        "trigger": trigger,
        "party_kind": customer.party_kind,
        "product_codes": sorted(products),
        "standard_version": standard.version,
        "risk_level": risk_level(standard, held),
        "factor_codes": [factor.code for factor in held],
        "opened_by": by,
    }
    return await store.insert_case(unit.connection, values)


async def standard_of(connection: Connection, case: Any) -> Standard:
    """The standard a case was opened under."""
    return kyc_standard.parsed(await store.standard(connection, case["standard_version"]))


async def refresh_risk(unit: UnitOfWork, case: Any, customer: Known, more: dict[str, Any]) -> None:
    """Computes the risk of a locked case again, and changes more of its columns with it."""
    standard = await standard_of(unit.connection, case)
    held = factors(standard, customer, case["product_codes"], await store.hits(unit.connection, case["case_id"]), unit.now)
    changes = {"risk_level": risk_level(standard, held), "factor_codes": [factor.code for factor in held]}
    await store.update_case(unit.connection, case["case_id"], changes | more)


async def screen(unit: UnitOfWork, core: Core, lists: Lists, case: Any, customer: Known) -> None:
    """Screens the customer of a locked case; what was disposed of with the same content keeps its disposition."""
    connection = unit.connection
    remembered = await store.remembered(connection, customer.record_ids)
    subject = screening.subject_of(customer.parties, unit.now.date())
    rows = []
    for entry, seen in await lists.screen(connection, subject):
        content = screening.compared(core.index, subject, entry)
        disposition = remembered.get((entry.list_id, entry.entry_id, content), Disposition.OPEN)
        rows.append(
            (
                new_id(),
                entry.list_id,
                entry.list_version,
                entry.entry_id,
                entry.topic,
                content,
                entry.name,
                seen.score_percent,
                seen.form,
                seen.birth_year,
                seen.country,
                disposition,
                disposition != Disposition.OPEN,
            )
        )
    await store.replace_hits(connection, case["case_id"], rows)
    await refresh_risk(unit, case, customer, {"screen_time": unit.now})


def last_results(evidence: Iterable[Any]) -> dict[str, StepResult]:
    """What the last evidence of each step says."""
    return {row["step_id"]: StepResult(row["result"]) for row in evidence}


async def keep_verified(unit: UnitOfWork, core: Core, case: Any, evidence: Sequence[Any], approved: bool) -> None:
    """What a decided case verified counts in survivorship from now on, on all records of the institution that state it.

    What evidence denied counts no longer, whatever is decided. The customer is published again.
    """
    standard, results = await standard_of(unit.connection, case), last_results(evidence)
    dates = {row["step_id"]: row["record_time"].date() for row in evidence}
    done = [(step, results[step.step_id]) for step in standard.steps if step.step_id in results and step.verifies]
    denied = {attribute for step, result in done if result is StepResult.FAILED for attribute in step.verifies}
    passed = {
        attribute: (step.method, dates[step.step_id])
        for step, result in done
        if approved and result is StepResult.PASSED
        for attribute in step.verifies - denied
    }
    if not passed and not denied:
        return
    changes = Changes(unit, core)
    await changes.load([case["customer_id"]])
    own = [one for one in changes.members[case["customer_id"]].values() if one.institution_id == case["institution_id"]]
    views = [view(member) for member in own]
    believed = golden(views, await core.policies.at(unit.connection, unit.now), unit.now)
    keys = await core.vault.keys([member.record_id for member in own])
    rows = []
    for attribute, (method, on) in passed.items():
        best = believed.get(attribute, ())
        if not best or not best[0].valid:
            continue
        one = CaseVerified(method, on, digest(best[0].key))
        for member, seen in zip(own, views, strict=True):
            if any(stated.key == best[0].key for stated in seen.statements.get(attribute, ())):
                rows.append((member.record_id, attribute, one, keys[member.record_id]))
                member.verified = {**member.verified, attribute: one}
    for member in own:
        member.verified = {attribute: one for attribute, one in member.verified.items() if attribute not in denied}
    await verifications.end(unit.connection, changes.now, [(one.record_id, attribute) for one in own for attribute in denied])
    await verifications.add(unit.connection, case["case_id"], changes.now, rows)
    changes.touch(case["customer_id"])
    await changes.write()


async def seal(core: Core, record_id: UUID, place: str, row_id: UUID, text: bytes) -> bytes | None:
    """Text sealed under the record's key, bound to its row; None when the record was erased."""
    key = (await core.vault.keys([record_id])).get(record_id)
    return key.seal(text, bound_to(place, row_id)) if key else None


async def unseal(core: Core, record_id: UUID, place: str, row_id: UUID, sealed: bytes | None) -> bytes:
    """What was sealed; empty when there is nothing or its key is gone."""
    key = (await core.vault.keys([record_id])).get(record_id) if sealed else None
    return key.open(sealed, bound_to(place, row_id)) if key and sealed else b""


class Reviews:
    """Opens the cases that come due: review dates, expired evidence, and people who resemble a newly activated list."""

    def __init__(self, core: Core, commands: Commands, lists: Lists) -> None:
        self._core = core
        self._commands = commands
        self._lists = lists

    async def run(self) -> None:
        """Runs until cancelled. Replicas may run at once: a record has one open case."""
        while True:
            busy = await self.sweep()
            await asyncio.sleep(0 if busy else SWEEP_SECONDS)

    async def sweep(self) -> bool:
        """One round; true when there is more to do at once."""
        async with self._commands.unit() as unit:
            due = await store.due_for_review(unit.connection, unit.now.date(), SWEPT_AT_ONCE_MAX)
            for case in due:
                trigger = Trigger.PERIODIC_REVIEW if case["review_due"] else Trigger.DOCUMENT_EXPIRY
                await self._reopen(unit, case, trigger)
        async with self._commands.unit() as unit:
            more = await self._rescreen(unit)
        return more or len(due) == SWEPT_AT_ONCE_MAX

    async def _reopen(self, unit: UnitOfWork, case: Any, trigger: Trigger) -> None:
        customer = await known(unit.connection, self._core, case["customer_id"], case["institution_id"])
        if customer is not None:
            await open_case(unit, customer, case["institution_id"], trigger, case["product_codes"], None)

    async def _rescreen(self, unit: UnitOfWork) -> bool:
        version = await screening_lists.to_rescreen(unit.connection)
        if version is None:
            return False
        cases = await store.approved_after(unit.connection, version["rescreened_until"], SWEPT_AT_ONCE_MAX)
        for case in cases:
            customer = await known(unit.connection, self._core, case["customer_id"], case["institution_id"])
            if customer is not None and await self._has_news(unit, customer, version["list_id"]):
                await open_case(unit, customer, case["institution_id"], Trigger.LIST_UPDATE, case["product_codes"], None)
        done = len(cases) < SWEPT_AT_ONCE_MAX
        until = cases[-1]["record_id"] if cases else version["rescreened_until"]
        await screening_lists.rescreened(unit.connection, version["list_id"], version["list_version"], until, done)
        return not done

    async def _has_news(self, unit: UnitOfWork, customer: Known, list_id: str) -> bool:
        subject = screening.subject_of(customer.parties, unit.now.date())
        remembered = await store.remembered(unit.connection, customer.record_ids)
        for entry, _ in await self._lists.screen(unit.connection, subject):
            content = screening.compared(self._core.index, subject, entry)
            if entry.list_id == list_id and (entry.list_id, entry.entry_id, content) not in remembered:
                return True
        return False
