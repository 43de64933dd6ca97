"""Disputes about items of closed batches: the other institution decides, by two persons. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from loyalty.domain.four_eyes import Refused

DISPUTABLE_FOR = timedelta(days=90)
"""After its batch was closed an item can be disputed for so long."""


class DisputeState(StrEnum):
    """Where a dispute is."""

    OPEN = "OPEN"
    PROPOSED_TO_ACCEPT = "PROPOSED_TO_ACCEPT"
    PROPOSED_TO_REJECT = "PROPOSED_TO_REJECT"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    WITHDRAWN = "WITHDRAWN"


PROPOSED = (DisputeState.PROPOSED_TO_ACCEPT, DisputeState.PROPOSED_TO_REJECT)
UNDECIDED = (DisputeState.OPEN, *PROPOSED)


@dataclass(frozen=True, slots=True)
class Dispute:
    """A dispute about one item: `claimed_points` would be right in place of `item_points`."""

    dispute_id: UUID
    batch_id: UUID
    sequence: int
    position: int
    opener_institution_id: str
    decider_institution_id: str
    item_points: int
    claimed_points: int
    reason_code: str
    state: DisputeState
    opened_by: str
    open_time: datetime
    version: int = 1
    resolution_code: str = ""
    proposed_by: str | None = None
    resolved_by: str | None = None
    resolve_time: datetime | None = None

    @property
    def correction_points(self) -> int:
        """Points of the correcting item, should it be accepted."""
        return self.claimed_points - self.item_points


def check_claim(item_points: int, claimed_points: int) -> None:
    """Whether a claim can be right: between nothing and twice the item, so that a mistyped claim is seen here.

    Raises:
        Refused: CLAIM_INVALID.
    """
    within = 0 <= claimed_points * (1 if item_points > 0 else -1) <= 2 * abs(item_points)
    if claimed_points == item_points or not within:
        bounds = f"{min(0, 2 * item_points)} to {max(0, 2 * item_points)}"
        raise Refused("CLAIM_INVALID", f"claimed_points must be {bounds} and not the item's own {item_points}")


def proposed(dispute: Dispute, accept: bool, resolution_code: str, person: str) -> Dispute:
    """The deciding side's first person says how it shall end; a new proposal replaces the old one.

    Raises:
        Refused: DISPUTE_DECIDED.
    """
    _require(dispute, UNDECIDED)
    state = DisputeState.PROPOSED_TO_ACCEPT if accept else DisputeState.PROPOSED_TO_REJECT
    return _changed(dispute, state=state, resolution_code=resolution_code, proposed_by=person)


def resolved(dispute: Dispute, approve: bool, person: str, now: datetime) -> Dispute:
    """The deciding side's second person ends it as proposed, or sends it back.

    Raises:
        Refused: DISPUTE_DECIDED, DISPUTE_NOT_PROPOSED, APPROVAL_BY_SAME_PERSON.
    """
    _require(dispute, UNDECIDED)
    if dispute.state not in PROPOSED:
        raise Refused("DISPUTE_NOT_PROPOSED", "nobody has proposed how it shall end: propose that first")
    if person == dispute.proposed_by:
        raise Refused("APPROVAL_BY_SAME_PERSON", "you proposed it; somebody else of your institution must approve")
    if not approve:
        return _changed(dispute, state=DisputeState.OPEN, resolution_code="", proposed_by=None)
    accepted = dispute.state is DisputeState.PROPOSED_TO_ACCEPT
    state = DisputeState.ACCEPTED if accepted else DisputeState.REJECTED
    return _changed(dispute, state=state, resolved_by=person, resolve_time=now)


def withdrawn(dispute: Dispute, now: datetime) -> Dispute:
    """Its opener gives it up.

    Raises:
        Refused: DISPUTE_DECIDED.
    """
    _require(dispute, UNDECIDED)
    return _changed(dispute, state=DisputeState.WITHDRAWN, resolve_time=now)


def _require(dispute: Dispute, states: tuple[DisputeState, ...]) -> None:
    if dispute.state not in states:
        raise Refused("DISPUTE_DECIDED", f"the dispute is {dispute.state}; only one that is not decided is changed")


def _changed(dispute: Dispute, **changes: object) -> Dispute:
    return replace(dispute, version=dispute.version + 1, **changes)  # type: ignore[arg-type]
