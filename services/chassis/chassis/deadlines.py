"""When the present call must have been answered: carried on to the calls it makes."""

import contextvars
import time

DEFAULT_SECONDS = 10.0
SECONDS_MAX = 60.0
OUTGOING_SECONDS_MAX = 5.0
MARGIN_SECONDS = 0.05

_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("deadline", default=None)


def set_remaining(seconds: float) -> None:
    """Sets the deadline of the rest of this task."""
    _deadline.set(time.monotonic() + seconds)


def outgoing_seconds() -> float:
    """How long a call made now may take: 5 s, or what the present call has left, less a margin to answer in."""
    deadline = _deadline.get()
    if deadline is None:
        return OUTGOING_SECONDS_MAX
    return max(0.0, min(OUTGOING_SECONDS_MAX, deadline - time.monotonic() - MARGIN_SECONDS))
