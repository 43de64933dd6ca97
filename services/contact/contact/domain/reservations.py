"""Who gets a slot, and what becomes of it when the message shall go out."""

import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from contact.domain.caps import Cap, Slot, decide
from contact.domain.kinds import CAPPED_PURPOSES, HOLDING_STATES, State

RESERVATION_LIFETIME = timedelta(minutes=10)
"""A slot that is not used for so long is given back."""


class Outcome(enum.IntEnum):
    """What became of a request for a slot, numbered as in `concord.contact.v1.ReserveOutcome`."""

    RESERVED = 1
    CUSTOMER_UNKNOWN = 2
    NO_PERMISSION_TO_CONTACT = 3
    CAPPED = 4
    EXPIRED = 5
    CUSTOMER_MERGED = 6
    CUSTOMER_RESTRICTED = 7
    ALREADY_REACHED = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one touch, with when its slot expires, when one is free, or who took the customer over."""

    outcome: Outcome
    expires_at: datetime | None = None
    next_free_at: datetime | None = None
    is_new: bool = False
    winner: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A touch that asked before."""

    state: State
    expires_at: datetime | None


@dataclass(slots=True)
class Desk:
    """What must be known to hand out slots for one message of one institution, read while the customers are locked.

    Args:
        wanted: institution, channel and purpose of the message; its time is now.
        caps: of the alliance and of the institution.
        known: touches that asked before.
        linked: customers the institution has a link with.
        permitted: customers who have given permission for this channel and purpose.
        history: of each customer, the contacts that use slots.
        merged: customers that were merged, and who took them over.
        restricted: customers with whom nothing may be done.
        waves: the wave of each touch.
        reached: (customer, wave) of the touches that hold a slot, or used one.
    """

    wanted: Slot
    caps: Sequence[Cap]
    known: Mapping[uuid.UUID, Known]
    linked: frozenset[uuid.UUID]
    permitted: frozenset[uuid.UUID]
    history: dict[uuid.UUID, list[Slot]] = field(default_factory=dict)
    merged: Mapping[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    restricted: frozenset[uuid.UUID] = frozenset()
    waves: Mapping[uuid.UUID, str] = field(default_factory=dict)
    reached: set[tuple[uuid.UUID, str]] = field(default_factory=set)

    def hand_out(self, items: Sequence[tuple[uuid.UUID, uuid.UUID]]) -> dict[uuid.UUID, Answer]:
        """An answer for each (touch, customer), as if they had come one after the other: a slot given is history for the next."""
        answers: dict[uuid.UUID, Answer] = {}
        for touch_id, customer_id in items:
            if touch_id in answers:
                continue
            answers[touch_id] = self._answer(touch_id, customer_id)
            if answers[touch_id].is_new:
                if touch_id in self.waves:
                    self.reached.add((customer_id, self.waves[touch_id]))
                if self.wanted.purpose in CAPPED_PURPOSES:
                    self.history.setdefault(customer_id, []).append(self.wanted)
        return answers

    def _answer(self, touch_id: uuid.UUID, customer_id: uuid.UUID) -> Answer:
        now = self.wanted.time
        if touch_id in self.known:
            return _again(self.known[touch_id], now)
        if customer_id in self.merged:
            return Answer(Outcome.CUSTOMER_MERGED, winner=self.merged[customer_id])
        if customer_id not in self.linked:
            return Answer(Outcome.CUSTOMER_UNKNOWN)
        if customer_id in self.restricted:
            return Answer(Outcome.CUSTOMER_RESTRICTED)
        if (customer_id, self.waves.get(touch_id, "")) in self.reached:
            return Answer(Outcome.ALREADY_REACHED)
        if self.wanted.purpose in CAPPED_PURPOSES:
            if customer_id not in self.permitted:
                return Answer(Outcome.NO_PERMISSION_TO_CONTACT)
            free_at = decide(self.caps, self.history.get(customer_id, ()), self.wanted)
            if free_at > now:
                return Answer(Outcome.CAPPED, next_free_at=free_at)
        return Answer(Outcome.RESERVED, expires_at=now + RESERVATION_LIFETIME, is_new=True)


def _again(known: Known, now: datetime) -> Answer:
    held = known.state in HOLDING_STATES and not is_expired(known, now)
    return Answer(Outcome.RESERVED, expires_at=known.expires_at) if held else Answer(Outcome.EXPIRED)


def is_expired(known: Known, now: datetime) -> bool:
    """Whether a reservation was not used in time. At its very end it is over."""
    return known.state is State.RESERVED and known.expires_at is not None and known.expires_at <= now


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What becomes of a reservation when its touch shall be carried out."""

    state: State
    reason: str = ""


def dispatch(
    known: Known, now: datetime, *, needs_permission: bool, permitted: bool, restricted: bool = False, reached: bool = False
) -> Dispatch:
    """Sends, or gives the slot back: what is known of the customer binds at the moment of sending, not of planning.

    Args:
        known: the touch's reservation.
        now: by the database's clock.
        needs_permission: whether its purpose needs one.
        permitted: whether there is one.
        restricted: whether nothing may be done with the customer.
        reached: whether another touch of the same wave has reached this person.
    """
    if is_expired(known, now):
        return Dispatch(State.RELEASED, "EXPIRED")
    if restricted:
        return Dispatch(State.RELEASED, Outcome.CUSTOMER_RESTRICTED.name)
    if reached:
        return Dispatch(State.RELEASED, Outcome.ALREADY_REACHED.name)
    if needs_permission and not permitted:
        return Dispatch(State.RELEASED, "NO_PERMISSION_TO_CONTACT")
    return Dispatch(State.DELIVERED)
