"""Erases customers, as far as the law lets, and later what it kept: delete, destroy the keys, tell everybody."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from functools import cache
from importlib import resources
from uuid import UUID

import yaml

from chassis import clock
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.ids import new_id
from chassis.unit_of_work import Commands, UnitOfWork
from customer import published
from customer.changes import Changes
from customer.core import Core
from customer.domain import retention
from customer.domain.audit import Action
from customer.domain.retention import Due, Relationship
from customer.store import anchors, restrictions, vault_sweep
from customer.store import erasure as store
from customer.store import holdings as holding_store
from customer.store import quality as quality_store
from customer.store.erasure import Erasure, ErasureState, Place
from customer.store.record_writes import RacedError
from customer.store.restrictions import Restriction

SWEEP_PAUSE_SECONDS = 60.0
RECHECK_DAYS = 30
"""A retained erasure whose customer has opened a new holding meanwhile is looked at again so much later."""
ORPHAN_AGE = timedelta(days=1)
ORPHANS_SWEPT_EVERY = timedelta(hours=1)
RETENTION = "RETENTION"
"""Why a customer is restricted whose erasure waits."""
INSTITUTION_KINDS = ("BANK", "BROKER", "INSURER", "RETAILER", "FEEDER")

logger = logging.getLogger(__name__)


@cache
def standard() -> retention.Standard:
    """The rules of retention in force."""
    text = (resources.files("customer") / "data" / "retention.yaml").read_text(encoding="utf-8")
    return retention.standard_from(yaml.safe_load(text), INSTITUTION_KINDS)


async def request(
    unit: UnitOfWork, core: Core, changes: Changes, customer_id: UUID, institution_id: str | None, legal_basis_code: str
) -> Erasure:
    """Erases the institution's records of a loaded customer (None: all of them) now, as far as no rule keeps them.

    The rest is restricted until it is due. The keys are destroyed by `finish`, after the commit.

    Raises:
        InvalidArgument: LEGAL_BASIS_UNKNOWN.
        FailedPrecondition: RELATIONSHIP_OPEN, a holding is open.
    """
    if legal_basis_code not in standard().legal_bases:
        rule = f"must be one of {', '.join(standard().legal_bases)}"
        field = "legal_basis_code"
        raise InvalidArgument("LEGAL_BASIS_UNKNOWN", f"{field} {rule}", field_violations=[(field, rule)])
    mine = [one for one in changes.members[customer_id].values() if institution_id in (None, one.institution_id)]
    record_ids = sorted(member.record_id for member in mine)
    relationships = await store.relationships(unit.connection, record_ids)
    if any(one.open for one in relationships):
        raise FailedPrecondition(
            "RELATIONSHIP_OPEN", "a holding of the customer is open: close it first; what a contract needs cannot be erased"
        )
    erasure = Erasure(
        new_id(), customer_id, institution_id or "", ErasureState.SHREDDING, legal_basis_code, unit.now.date(), [], record_ids,
        unit.principal.subject, unit.now,
    )  # fmt: skip
    await _execute(unit, core, changes, erasure, relationships)
    return erasure


async def _execute(
    unit: UnitOfWork, core: Core, changes: Changes, erasure: Erasure, relationships: Sequence[Relationship]
) -> None:
    """Deletes what is due, restricts the rest, publishes, and writes the erasure."""
    today = unit.now.date()
    dues = {one.institution_id: _due(one, today) for one in relationships}
    places = await store.places(unit.connection, erasure.record_ids)
    now_due = [place for place in places if dues[place.institution_id].on <= today]
    kept = [place for place in places if dues[place.institution_id].on > today]
    waiting = [dues[institution_id] for institution_id in {place.institution_id for place in kept}]
    erasure.due_date = min((due.on for due in waiting), default=today)
    erasure.retention_rules = sorted({rule for due in waiting for rule in due.rules})
    if now_due:
        erasure.state = ErasureState.SHREDDING
        await _purge(unit, changes, now_due)
    else:
        erasure.state = ErasureState.RETAINED
    await _restrict(unit, erasure, kept, dues)
    await refresh(unit, changes, changes.members)
    await changes.write()
    for customer_id in {place.customer_id for place in now_due}:
        erased = [place.record_id for place in now_due if place.customer_id == customer_id]
        whole = not changes.members[customer_id]
        if whole:
            await quality_store.forget(unit.connection, [customer_id])
        unit.publish(published.customer_erased(customer_id, erased, whole, changes.now))
    if now_due:
        erasure.erased_at = changes.now
    await store.write(unit.connection, erasure)
    if now_due:
        await core.audit.append(
            unit,
            Action.ERASED,
            customers={place.customer_id: None for place in now_due},
            records=[place.record_id for place in now_due],
            reason_code=erasure.legal_basis_code,
            resource=f"erasures/{erasure.erasure_id}",
        )


def _due(relationship: Relationship, today: date) -> Due:
    if relationship.open:
        return Due(today + timedelta(days=RECHECK_DAYS), ("RELATIONSHIP_OPEN",))
    return retention.due(standard().rules, relationship, today)


async def _purge(unit: UnitOfWork, changes: Changes, erased: Sequence[Place]) -> None:
    joint = await store.purge(unit.connection, erased, changes.now)
    for place in erased:
        if changes.members.get(place.customer_id, {}).pop(place.record_id, None) is None:
            raise RacedError("a record went to another customer")
        changes.touch(place.customer_id)
    rows, holders = await holding_store.of_ids(unit.connection, joint)
    for row in rows:
        mine = [holder for holder in holders if holder.holding_id == row.holding_id]
        unit.publish(published.holding_changed(row, mine, unit.epoch))


async def _restrict(unit: UnitOfWork, erasure: Erasure, kept: Sequence[Place], dues: dict[str, Due]) -> None:
    """One restriction for each institution that must keep records; those it has had for this erasure are replaced."""
    before = [
        one.restriction_id
        for customer_id in {place.customer_id for place in kept}
        for one in await restrictions.of_customer(unit.connection, customer_id, None)
        if one.erasure_id == erasure.erasure_id
    ]
    await restrictions.lift(unit.connection, before, unit.now)
    anchor = {(place.customer_id, place.institution_id): place for place in reversed(kept)}
    for place in anchor.values():
        until = dues[place.institution_id].on
        await restrictions.write(
            unit.connection,
            Restriction(
                new_id(), place.record_id, place.customer_id, place.institution_id, RETENTION, until, erasure.erasure_id, unit.now
            ),
        )


async def refresh(unit: UnitOfWork, changes: Changes, customer_ids: Iterable[UUID]) -> None:
    """Computes anew whether loaded customers are restricted; one that changes is touched."""
    institutions = {
        customer_id: {member.institution_id for member in changes.members[customer_id].values()} for customer_id in customer_ids
    }
    restricted, _ = await anchors.follow(unit.connection, {}, institutions)
    for customer_id, whether in restricted.items():
        if changes.rows[customer_id].restricted != whether:
            changes.rows[customer_id].restricted = whether
            changes.touch(customer_id)


async def cancel(unit: UnitOfWork, core: Core, erasure_id: UUID, institution_id: str | None) -> Erasure:
    """Withdraws an erasure that waits, and lifts its restrictions.

    Raises:
        NotFound: ERASURE_NOT_FOUND.
        FailedPrecondition: ERASURE_NOT_WAITING.
    """
    erasure = await store.get(unit.connection, erasure_id, institution_id, lock=True)
    if erasure is None:
        raise NotFound("ERASURE_NOT_FOUND", f"erasures/{erasure_id} does not exist, or is not yours")
    if erasure.state != ErasureState.RETAINED:
        raise FailedPrecondition("ERASURE_NOT_WAITING", "only an erasure that waits for its due date can be withdrawn")
    places = await store.places(unit.connection, erasure.record_ids)
    changes = Changes(unit, core)
    await changes.load({place.customer_id for place in places})
    for customer_id in list(changes.members):
        found = await restrictions.of_customer(unit.connection, customer_id, None)
        mine = [one.restriction_id for one in found if one.erasure_id == erasure_id]
        await restrictions.lift(unit.connection, mine, unit.now)
    await refresh(unit, changes, changes.members)
    await changes.write()
    erasure.state = ErasureState.CANCELLED
    await store.write(unit.connection, erasure)
    return erasure


async def finish(commands: Commands, core: Core, erasure_id: UUID) -> Erasure:
    """Destroys the keys of the records that are deleted. May be repeated: after a kill the sweep does it."""
    async with commands.unit() as unit:
        erasure = await store.get(unit.connection, erasure_id, None, lock=True)
        assert erasure is not None
        if erasure.state == ErasureState.SHREDDING:
            left = {place.record_id for place in await store.places(unit.connection, erasure.record_ids)}
            await core.vault.shred([record_id for record_id in erasure.record_ids if record_id not in left])
            erasure.state = ErasureState.RETAINED if left else ErasureState.ERASED
            await store.write(unit.connection, erasure)
    return erasure


async def _execute_due(commands: Commands, core: Core, erasure_id: UUID) -> None:
    """What a rule kept is due, unless something was opened meanwhile."""
    async with commands.unit() as unit:
        erasure = await store.get(unit.connection, erasure_id, None, lock=True)
        if erasure is None or erasure.state != ErasureState.RETAINED or erasure.due_date > unit.now.date():
            return
        places = await store.places(unit.connection, erasure.record_ids)
        changes = Changes(unit, core)
        await changes.load({place.customer_id for place in places})
        await _execute(unit, core, changes, erasure, await store.relationships(unit.connection, erasure.record_ids))
        if not places:  # other erasures took all of them
            erasure.state = ErasureState.SHREDDING
            await store.write(unit.connection, erasure)


class Sweep:
    """Finishes erasures, executes those that are due, and removes keys that nothing uses. Replicas may do it side by side."""

    def __init__(self, commands: Commands, core: Core, now: clock.Clock = clock.now) -> None:
        self._commands = commands
        self._core = core
        self._now = now
        self._orphans_swept_at = now()  # what starts anew again and again need not sweep each time

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(SWEEP_PAUSE_SECONDS)

    async def once(self) -> None:
        """One round."""
        async with self._core.database.connection() as connection:
            erasure_ids = await store.unfinished(connection, self._now().date())
        for erasure_id in erasure_ids:
            try:
                await _execute_due(self._commands, self._core, erasure_id)
                await finish(self._commands, self._core, erasure_id)
            except RacedError:
                logger.info("an erasure waits for the next round: a record was moved")
        if self._now() - self._orphans_swept_at > ORPHANS_SWEPT_EVERY:
            self._orphans_swept_at = self._now()
            await self._sweep_orphans()

    async def _sweep_orphans(self) -> None:
        try:
            count = await vault_sweep.sweep(self._core.database, self._core.vault, self._now() - ORPHAN_AGE)
        except vault_sweep.NotOurs as error:
            logger.error("%s", error)
        else:
            if count:
                logger.info("%d keys that nothing used were destroyed", count)
