"""Decisions about who is the same, made by hand: merge, unmerge, relink, reject. Each is one transaction and undoable.

Every customer concerned is locked before anything is read that a decision rests on; see `changes.Changes`.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from uuid import UUID

from chassis.errors import FailedPrecondition, NotFound, PermissionDenied
from chassis.identity import Principal
from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from customer.changes import Changes, Why
from customer.core import Core
from customer.domain.merging import REJECTED_PAIRS_MAX, Candidate, Proof, Restoration, objections, restoration, winner
from customer.domain.reviews import ReviewKind, content_key, pair_content, subject_key
from customer.domain.vocabulary import LinkOrigin, MoveReason, ResolutionReason
from customer.store import merges as merge_store
from customer.store import rejections as rejection_store
from customer.store import review_decisions as decision_store
from customer.store import reviews as review_store
from customer.store.merges import Merge, Relink
from customer.store.record_writes import RacedError
from customer.store.records import Member
from customer.store.rejections import Pair, Rejection

WITHDRAWN = "REJECTION_WITHDRAWN"
"""Why a decision NOT_SAME stands no more when its rejection is withdrawn."""


@dataclass(frozen=True, slots=True)
class Unmerged:
    """An undone merge, and what went back."""

    merge: Merge
    outcome: Restoration
    restored: Sequence[Member]
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One of two that are not the same: all records of a customer, or one record."""

    customer_id: UUID | None = None
    record_id: UUID | None = None


class Merging:
    """One decision by hand about customers of a unit of work, for its caller. Used once."""

    def __init__(self, unit: UnitOfWork, core: Core, reason_code: str, override_reason: str = "") -> None:
        self.unit = unit
        self.core = core
        self.reason_code = reason_code
        self.override_reason = override_reason
        self.by = steward(unit.principal)
        self.changes = Changes(unit, core)

    async def merge(self, customer_ids: Collection[UUID]) -> tuple[UUID, list[Merge]]:
        """Merges customers into one; the winner is computed.

        Raises:
            NotFound: one does not exist, or the caller's institution has no link with it.
            FailedPrecondition: CUSTOMER_MERGED, CUSTOMER_RESTRICTED, CUSTOMER_EMPTY, MATCH_REJECTED, MERGE_FORBIDDEN.
        """
        ids = sorted(set(customer_ids))
        await self._load_live(ids)
        members = {one: self._members(one) for one in ids}
        for one in ids:
            if not members[one]:
                raise FailedPrecondition("CUSTOMER_EMPTY", f"customers/{one} has no records; there is nothing to merge")
        await self._refuse_rejected([[member.record_id for member in members[one]] for one in ids])
        self._refuse_forbidden([members[one] for one in ids])
        rows = self.changes.rows
        winner_id = winner(Candidate(one, len(members[one]), rows[one].create_time) for one in ids)
        made = []
        for loser_id in ids:
            if loser_id != winner_id:
                made.append(await self._merge_one(loser_id, winner_id, members[loser_id]))
        await self.changes.write()
        return winner_id, made

    async def _merge_one(self, loser_id: UUID, winner_id: UUID, members: Sequence[Member]) -> Merge:
        merge = Merge(
            new_id(), loser_id, winner_id, self.reason_code, self.override_reason, self.by, self.changes.now, None,
            sum(sees(self.unit.principal, member.institution_id) for member in members),
        )  # fmt: skip
        await merge_store.insert_unless_known(self.unit.connection, merge, [member.record_id for member in members])
        self._move(members, winner_id, ResolutionReason.MERGE, MoveReason.MERGE)
        self.changes.rows[loser_id].merged_into = winner_id
        return merge

    async def unmerge(self, loser_id: UUID, reject_match: bool = False) -> Unmerged:
        """Undoes the merge of a loser: it gets back exactly what it had, as far as that is still with the winner.

        Raises:
            NotFound: it does not exist, or the caller's institution was not linked with both.
            FailedPrecondition: CUSTOMER_NOT_MERGED, NOTHING_TO_RESTORE.
        """
        connection, changes = self.unit.connection, self.changes
        path = (await merge_store.chains(connection, [loser_id])).get(loser_id)
        if path is None:
            raise unknown_customer(loser_id)
        await changes.load(path)
        # The chain was read before it was locked.
        if any(changes.rows[one].merged_into != after for one, after in zip(path, [*path[1:], None], strict=True)):
            raise RacedError("a merge was decided or undone meanwhile")
        live_id = path[-1]
        merge = await merge_store.live(connection, loser_id)
        if merge is None:
            self._require_linked(loser_id, live_id)
            raise FailedPrecondition("CUSTOMER_NOT_MERGED", f"customers/{loser_id} is not merged into another; nothing to undo")
        snapshot = await merge_store.records_of(connection, merge.merge_id)
        self._require_was_linked(loser_id, live_id, snapshot)
        outcome = restoration(snapshot, {record: owner for record, owner in snapshot.items() if owner}, live_id)
        if not outcome.restored:
            raise FailedPrecondition(
                "NOTHING_TO_RESTORE", "none of the records it had is still with the winner; the redirect stays"
            )
        back = [member for member in self._members(live_id) if member.record_id in outcome.restored]
        stay = [member for member in self._members(live_id) if member.record_id not in outcome.restored]
        self._move(back, loser_id, ResolutionReason.UNMERGE, MoveReason.UNMERGE)
        changes.rows[loser_id].merged_into = None
        await merge_store.undo(connection, merge.merge_id, self.by, self.reason_code, self.changes.now)
        await changes.write()
        rejection = await self._reject(back, stay) if reject_match and stay else None
        return Unmerged(merge, outcome, back, rejection)

    def _require_was_linked(self, loser_id: UUID, live_id: UUID, snapshot: Collection[UUID]) -> None:
        """A steward undoes only what the institution is linked with on both sides."""
        principal = self.unit.principal
        own = {member.record_id for member in self._members(live_id) if member.institution_id == principal.institution}
        if not principal.sees_all and (not own & set(snapshot) or not own - set(snapshot)):
            raise unknown_customer(loser_id)

    async def relink(self, record_id: UUID, customer_id: UUID | None) -> tuple[UUID, UUID]:
        """Links one record with another customer, or with a new one.

        Returns:
            The former customer and the present one.

        Raises:
            NotFound: the record or customer does not exist for the caller.
            FailedPrecondition: as for a merge, and RECORD_LINKED_ALREADY, RECORD_ALONE; CUSTOMER_EMPTY for an erased one.
        """
        [former] = await self._owners([record_id])
        await self._load_live([former, *([customer_id] if customer_id else [])])
        member = self._member(former, record_id)
        if customer_id == former:
            raise FailedPrecondition("RECORD_LINKED_ALREADY", f"the record belongs to customers/{former} already")
        if customer_id is None and len(self._members(former)) == 1:
            raise FailedPrecondition("RECORD_ALONE", "the record has a customer of its own already")
        if customer_id is None:
            target = self.changes.new_customer()
        else:
            target, theirs = customer_id, self._members(customer_id)
            if not theirs:
                raise FailedPrecondition("CUSTOMER_EMPTY", f"customers/{target} was erased; leave customer empty for a new one")
            await self._refuse_rejected([[record_id], [other.record_id for other in theirs]])
            self._refuse_forbidden([[member], theirs])
        self._move([member], target, ResolutionReason.STEWARD, MoveReason.RELINK)
        await self.changes.write()
        relink = Relink(new_id(), record_id, former, target, self.reason_code, self.override_reason, self.by, self.changes.now)
        await merge_store.insert_relink(self.unit.connection, relink)
        return former, target

    async def reject(self, left: Side, right: Side) -> Rejection:
        """States that two sides are not the same.

        Raises:
            NotFound: one does not exist for the caller.
            FailedPrecondition: SAME_CUSTOMER, CUSTOMER_MERGED, CUSTOMER_EMPTY, REJECTION_TOO_LARGE.
        """
        customers = [await self._customer_of(left), await self._customer_of(right)]
        await self._load_live(customers)
        sides = [
            [self._member(customer_id, side.record_id)] if side.record_id else self._members(customer_id)
            for side, customer_id in zip((left, right), customers, strict=True)
        ]
        if not all(sides):
            raise FailedPrecondition("CUSTOMER_EMPTY", "a customer without records cannot be told from another")
        return await self._reject(sides[0], sides[1])

    async def split(self, left: Collection[UUID], right: Collection[UUID]) -> tuple[UUID, Rejection]:
        """Gives the right side's records a new customer, and keeps the rules from joining the two again.

        Raises:
            FailedPrecondition: NOT_ONE_CUSTOMER, when the records are spread by now.
        """
        owners = set(await self._owners([*left, *right]))
        await self._load_live(owners)
        if len(owners) != 1:
            raise FailedPrecondition("NOT_ONE_CUSTOMER", "its records belong to several customers by now; nothing to split")
        [former] = owners
        moving = [self._member(former, record_id) for record_id in right]
        staying = [member for member in self._members(former) if member not in moving]
        target = self.changes.new_customer()
        self._move(moving, target, ResolutionReason.STEWARD, MoveReason.RELINK)
        await self.changes.write()
        return target, await self._reject(staying, moving)

    async def unsplit(self, record_ids: Collection[UUID], split_id: UUID, left: Collection[UUID]) -> None:
        """Moves records of a split back to the customer of the left side, as far as they are still where the split put them."""
        owners = await self._owners([*record_ids, *left])
        by_record = dict(zip([*record_ids, *left], owners, strict=True))
        homes = {by_record[record_id] for record_id in left}
        if len(homes) != 1:
            raise FailedPrecondition("NOT_ONE_CUSTOMER", "the records that stayed belong to several customers by now")
        [home] = homes
        paths = await merge_store.chains(self.unit.connection, [split_id])
        end = paths[split_id][-1] if split_id in paths else split_id
        if end == home:
            return  # they were merged again by hand: nothing is left to move
        if end != split_id:
            raise FailedPrecondition(
                "SPLIT_MERGED_ON",
                f"customers/{split_id}, which the split made, was merged into customers/{end} since;"
                f" unmerge customers/{split_id} first, then undo this decision",
                metadata={"split_customer": f"customers/{split_id}", "winner": f"customers/{end}"},
            )
        await self._load_live({home, split_id})
        moving = [member for member in self._members(split_id) if member.record_id in set(record_ids)]
        self._move(moving, home, ResolutionReason.STEWARD, MoveReason.RELINK)
        await self.changes.write()

    async def _reject(self, left: Sequence[Member], right: Sequence[Member]) -> Rejection:
        if len(left) * len(right) > REJECTED_PAIRS_MAX:
            raise FailedPrecondition(
                "REJECTION_TOO_LARGE", f"more than {REJECTED_PAIRS_MAX} pairs of records; reject single records instead"
            )
        if {member.customer_id for member in left} & {member.customer_id for member in right}:
            raise FailedPrecondition("SAME_CUSTOMER", "both sides belong to one customer; unmerge or relink first")
        pairs = [
            Pair(one.record_id, other.record_id, content_key(pair_content(one.content_hash, other.content_hash)))
            for one in left
            for other in right
        ]
        own = {member.record_id for member in (*left, *right) if sees(self.unit.principal, member.institution_id)}
        own_count = sum(pair.left in own and pair.right in own for pair in pairs)
        rejection = Rejection(new_id(), self.reason_code, self.by, self.changes.now, None, own_count)
        await rejection_store.insert(self.unit.connection, rejection, pairs)
        about = (subject_key(ReviewKind.POSSIBLE_MATCH, [pair.left], [pair.right]) for pair in pairs)
        await review_store.close(self.unit.connection, about, self.changes.now)
        return rejection

    async def _customer_of(self, side: Side) -> UUID:
        if side.customer_id:
            return side.customer_id
        assert side.record_id is not None
        return (await self._owners([side.record_id]))[0]

    # ---- what every decision checks

    async def _load_live(self, customer_ids: Iterable[UUID]) -> None:
        """Locks customers that must be alive and known to the caller."""
        ids = sorted(set(customer_ids))
        paths = await merge_store.chains(self.unit.connection, ids)
        await self.changes.load(sorted(set(chain(ids, *paths.values()))))
        for one in ids:
            row = self.changes.rows.get(one)
            if row is None:
                raise unknown_customer(one)
            self._require_linked(one, paths[one][-1])
            if row.merged_into:
                raise FailedPrecondition(
                    "CUSTOMER_MERGED",
                    f"customers/{one} was merged; use customers/{paths[one][-1]}",
                    metadata={"winner": f"customers/{paths[one][-1]}"},
                )
        self._refuse_restricted(ids)

    def _require_linked(self, customer_id: UUID, live_id: UUID) -> None:
        principal = self.unit.principal
        if principal.sees_all or any(one.institution_id == principal.institution for one in self._members(live_id)):
            return
        raise unknown_customer(customer_id)

    def _refuse_restricted(self, customer_ids: Iterable[UUID]) -> None:
        for one in customer_ids:
            if self.changes.rows[one].restricted:
                raise FailedPrecondition(
                    "CUSTOMER_RESTRICTED", f"customers/{one} is kept for retention only; its restriction must be lifted first"
                )

    async def _refuse_rejected(self, sides: Sequence[Sequence[UUID]]) -> None:
        for place, side in enumerate(sides[:-1]):
            others = [record_id for other in sides[place + 1 :] for record_id in other]
            found = await rejection_store.between(self.unit.connection, side, others)
            if found:
                raise FailedPrecondition(
                    "MATCH_REJECTED",
                    f"matchRejections/{found[0]} says that they are not the same; withdraw it first",
                    metadata={"match_rejection": f"matchRejections/{found[0]}"},
                )

    def _refuse_forbidden(self, sides: Sequence[Sequence[Member]]) -> None:
        if self.override_reason and not self.unit.principal.sees_all:
            raise PermissionDenied("OVERRIDE_NOT_ALLOWED", "only the operator overrides rules; leave override_reason empty")
        today = self.changes.now.date()
        found = objections([[proof(member, today) for member in side] for side in sides])
        if found and not self.override_reason:
            raise FailedPrecondition(
                "MERGE_FORBIDDEN",
                "another kind of party, or different valid documents of one scheme; the operator may give override_reason",
                metadata={"objections": ",".join(found)},
            )

    async def _owners(self, record_ids: Sequence[UUID]) -> list[UUID]:
        owners = await merge_store.owners(self.unit.connection, record_ids)
        for record_id in record_ids:
            if record_id not in owners:
                raise unknown_record()
        return [owners[record_id] for record_id in record_ids]

    def _members(self, customer_id: UUID) -> list[Member]:
        return sorted(self.changes.members.get(customer_id, {}).values(), key=lambda member: member.record_id)

    def _member(self, customer_id: UUID, record_id: UUID) -> Member:
        member = self.changes.members.get(customer_id, {}).get(record_id)
        if member is None:
            raise RacedError("the record was moved meanwhile")
        return member

    def _move(self, members: Iterable[Member], to: UUID, why: ResolutionReason, reason: MoveReason) -> None:
        for member in list(members):
            self.changes.move(member, to, Why(why, LinkOrigin.MANUAL, decided_by=self.by), reason)


async def withdraw(unit: UnitOfWork, rejection_id: UUID) -> None:
    """Takes a rejection back, and opens the questions again that it answered; a second time changes nothing.

    Raises:
        NotFound: there is none that the caller may know of.
    """
    institution = None if unit.principal.sees_all else unit.principal.institution or ""
    rejection = await rejection_store.get(unit.connection, rejection_id, institution, lock=True)
    if rejection is None:
        raise NotFound("MATCH_REJECTION_NOT_FOUND", f"matchRejections/{rejection_id} does not exist, or is not yours")
    if rejection.withdrawn_at is not None:
        return
    by = steward(unit.principal)
    await rejection_store.withdraw(unit.connection, rejection_id, by, unit.now)
    await decision_store.undo_of_rejection(unit.connection, rejection_id, by, WITHDRAWN, unit.now)
    pairs = await rejection_store.pairs(unit.connection, rejection_id)
    about = [subject_key(ReviewKind.POSSIBLE_MATCH, [one], [other]) for one, other in pairs]
    await review_store.reopen(unit.connection, about, rejection.decided_at, unit.now)


def steward(principal: Principal) -> str:
    """Who decides: institution and opaque subject."""
    return f"{principal.institution or '-'}/{principal.subject}"


def shown_steward(principal: Principal, decided_by: str) -> str:
    """Who decided, as far as this caller may know: another institution's stewards are nobody's business."""
    return decided_by if principal.sees_all or decided_by.startswith(f"{principal.institution}/") else ""


def sees(principal: Principal, institution_id: str) -> bool:
    """Whether a record of this institution is shown to the caller."""
    return principal.sees_all or principal.institution == institution_id


def proof(member: Member, today: date) -> Proof:
    """What a record proves about identity today."""
    documents = (
        (one.scheme, one.country_code, one.value)
        for one in member.party.identifiers
        if one.valid and not (one.valid_until_date and one.valid_until_date < today.isoformat())
    )
    return Proof(member.party.party_kind, frozenset(documents))


def unknown_customer(customer_id: UUID) -> NotFound:
    """The refusal of a customer that the caller must not know of."""
    return NotFound("CUSTOMER_NOT_FOUND", f"customers/{customer_id} does not exist, or your institution has no link with it")


def unknown_record() -> NotFound:
    """The refusal of a record that the caller must not know of."""
    return NotFound("RECORD_NOT_FOUND", "the record does not exist, or is not your institution's")
