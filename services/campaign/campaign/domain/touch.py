"""Touches: their ids, and what became of them."""

import uuid
from enum import StrEnum

TOUCH_NAMESPACE = uuid.UUID("3b0f7d9e-6c1a-5d54-9a7f-0c2f6b1de0a4")
PAUSE_SECONDS_MIN = 0.5
PAUSE_SECONDS_MAX = 60.0


class TouchState(StrEnum):
    """Where a touch stands."""

    PLANNED = "PLANNED"
    DELIVERED = "DELIVERED"
    READ = "READ"
    FAILED = "FAILED"
    REFUSED = "REFUSED"


# A slot that was given back unused will never be carried out.
_TOUCH_STATES = {
    "DELIVERED": TouchState.DELIVERED,
    "READ": TouchState.READ,
    "FAILED": TouchState.FAILED,
    "RELEASED": TouchState.FAILED,
}
SETTLED_CONTACT_STATES = tuple(_TOUCH_STATES)
"""States of a contact after which its touch waits for nothing."""


def touch_id(campaign_id: uuid.UUID, wave: int, customer_id: uuid.UUID) -> uuid.UUID:
    """The one touch of a customer in a wave: whoever computes it gets the same."""
    return uuid.uuid5(TOUCH_NAMESPACE, f"{campaign_id}|{wave}|{customer_id}")


def touch_state(refused_reason: str | None, contact_state: str | None) -> TouchState:
    """The state of a touch, from its planning and from what contact last said of it."""
    if refused_reason is not None:
        return TouchState.REFUSED
    return _TOUCH_STATES.get(contact_state or "", TouchState.PLANNED)


def pause_seconds(failures_count: int) -> float:
    """How long a wave waits after so many failures in a row, the present one included."""
    return min(PAUSE_SECONDS_MIN * 2.0 ** min(failures_count - 1, 10), PAUSE_SECONDS_MAX)
