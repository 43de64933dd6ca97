"""How often a customer may be contacted: rolling caps, and when a slot is free again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

ANY = 0
"""Instead of a channel or purpose: all of them together."""


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `contacts_max` contacts within any `window`, counted from now backwards.

    Args:
        contacts_max: at least 1.
        window: its length. A contact exactly this old no longer counts.
        channel: counts this channel only, or ANY.
        purpose: counts this purpose only, or ANY.
        institution: counts this institution's contacts only; None counts those of the whole alliance.
    """

    contacts_max: int
    window: timedelta
    channel: int = ANY
    purpose: int = ANY
    institution: str | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A contact that uses a slot, or wants one: one that is reserved counts as used at the time it was reserved."""

    institution: str
    channel: int
    purpose: int
    time: datetime


def binds(cap: Cap, slot: Slot) -> bool:
    """Whether a cap counts this contact."""
    return (
        cap.channel in (ANY, slot.channel) and cap.purpose in (ANY, slot.purpose) and cap.institution in (None, slot.institution)
    )


def next_free(cap: Cap, times: Iterable[datetime], at: datetime) -> datetime:
    """The earliest instant, not before `at`, at which one more contact stays within the cap.

    Args:
        cap: the cap.
        times: of the contacts it counts; of each customer's newest at least `contacts_max`.
        at: now.
    """
    newest = sorted(times, reverse=True)
    if len(newest) < cap.contacts_max:
        return at
    # One slot is free as soon as the window has left this one behind: then one contact less than the cap remains in it.
    return max(at, newest[cap.contacts_max - 1] + cap.window)


def decide(caps: Sequence[Cap], history: Sequence[Slot], wanted: Slot) -> datetime:
    """When the wanted contact may be made: `wanted.time` itself when a slot is free now, else the exact earliest instant.

    Every cap that counts the contact binds. While nothing is sent caps only loosen, so the last to free decides.
    """
    at = wanted.time
    return max(
        (next_free(cap, (slot.time for slot in history if binds(cap, slot)), at) for cap in caps if binds(cap, wanted)),
        default=at,
    )
