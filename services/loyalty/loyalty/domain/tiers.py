"""Tiers of a programme: up at once, down only at a review and only below a lower mark. Pure: whole points or minor units.

A tier is reached at its `threshold` and kept as long as a review finds its `keep_threshold`, which is not higher. So one who was
taken down needs the whole threshold again: nobody goes up and down on the same amount.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

TIERS_MAX = 20
MONTHS_MAX = 120
PERCENT_MAX = 10_000


class Basis(StrEnum):
    """What qualifies: points that activities earned, or the money of those that earned, in one currency."""

    POINTS = "POINTS"
    AMOUNT = "AMOUNT"


class Window(StrEnum):
    """Over which months it is summed, in the programme's zone: those of the calendar year, or the last ones with the present."""

    CALENDAR_YEAR = "CALENDAR_YEAR"
    ROLLING = "ROLLING"


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier. `percent` is what earn rules see as `tier_percent`."""

    tier_id: str
    display_name: str
    threshold: int
    keep_threshold: int
    percent: int = 100


@dataclass(frozen=True, slots=True)
class Scheme:
    """One version of a programme's tiers, lowest first. Below the first tier there is none."""

    program_id: str
    version: int
    basis: Basis
    window: Window
    tiers: tuple[Tier, ...]
    window_months: int = 12
    review_months: int = 12
    currency_code: str = ""

    def rank(self, tier_id: str) -> int:
        """From 1; 0 for no tier, or one that this version does not have."""
        return next((rank for rank, tier in enumerate(self.tiers, 1) if tier.tier_id == tier_id), 0)

    def tier(self, rank: int) -> Tier | None:
        """The tier of a rank; None for 0."""
        return self.tiers[rank - 1] if rank else None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a member stands: the tier's id ("" for none), and the day of the next review."""

    tier_id: str = ""
    review_date: date | None = None


def violations(scheme: Scheme) -> list[tuple[str, str]]:
    """What is wrong with a scheme: field and rule."""
    found = []
    if not 1 <= len(scheme.tiers) <= TIERS_MAX:
        found.append(("tiers", f"must be 1 to {TIERS_MAX}"))
    if len({tier.tier_id for tier in scheme.tiers}) < len(scheme.tiers):
        found.append(("tiers", "must have different ids"))
    for i, tier in enumerate(scheme.tiers):
        if tier.threshold <= 0 or (i and tier.threshold <= scheme.tiers[i - 1].threshold):
            found.append((f"tiers[{i}].threshold", "must be above 0 and above that of the tier before"))
        if not 0 <= tier.keep_threshold <= tier.threshold:
            found.append((f"tiers[{i}].keep_threshold", "must be 0 to threshold"))
        elif i and tier.keep_threshold < scheme.tiers[i - 1].keep_threshold:
            found.append((f"tiers[{i}].keep_threshold", "must not be below that of the tier before"))
        if not 100 <= tier.percent <= PERCENT_MAX:
            found.append((f"tiers[{i}].percent", f"must be 100 to {PERCENT_MAX}"))
    if bool(scheme.currency_code) is not (scheme.basis is Basis.AMOUNT):
        found.append(("currency_code", "must be given where amounts qualify, and only there"))
    for name in ("window_months", "review_months"):
        if not 1 <= getattr(scheme, name) <= MONTHS_MAX:
            found.append((name, f"must be 1 to {MONTHS_MAX}"))
    return found


def first_month(scheme: Scheme, today: date) -> date:
    """The first day of the window that a day lies in."""
    if scheme.window is Window.CALENDAR_YEAR:
        return date(today.year, 1, 1)
    return months_after(today, 1 - scheme.window_months)


def months_after(day: date, months: int) -> date:
    """The first day of the month so many months after that of a day."""
    number = day.year * 12 + day.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


def review_after(scheme: Scheme, today: date) -> date:
    """The day of the review after a day: the first of a month."""
    return months_after(today, scheme.review_months)


def reached(scheme: Scheme, qualifying: int) -> int:
    """The rank that an amount reaches."""
    return sum(qualifying >= tier.threshold for tier in scheme.tiers)


def raised(scheme: Scheme, standing: Standing, qualifying: int, today: date) -> Standing:
    """After something qualified: up at once, never down. The review moves with it."""
    rank = reached(scheme, qualifying)
    tier = scheme.tier(rank)
    if tier is None or rank <= scheme.rank(standing.tier_id):
        return standing
    return Standing(tier.tier_id, review_after(scheme, today))


def reviewed(scheme: Scheme, standing: Standing, qualifying_at_end: Sequence[int], today: date) -> Standing:
    """At the review: kept where the window that ends, or the one that begins, holds the tier's lower mark; else down to the
    highest tier whose mark is held. Before its day a review changes nothing.

    Args:
        scheme: in force.
        standing: before.
        qualifying_at_end: what qualified in the window that ended the day before, and in the present one.
        today: in the programme's zone.
    """
    if standing.review_date is None or today < standing.review_date:
        return standing
    best = max(qualifying_at_end, default=0)
    rank = scheme.rank(standing.tier_id)
    kept = max((r for r in range(1, rank + 1) if best >= scheme.tiers[r - 1].keep_threshold), default=0)
    kept = max(kept, reached(scheme, best))
    tier = scheme.tier(kept)
    return Standing(tier.tier_id, review_after(scheme, today)) if tier else Standing()


def next_tier(scheme: Scheme, standing: Standing, qualifying: int) -> tuple[Tier, int] | None:
    """The tier above, and what is missing to it; None at the top."""
    rank = scheme.rank(standing.tier_id)
    if rank >= len(scheme.tiers):
        return None
    above = scheme.tiers[rank]
    return above, max(0, above.threshold - qualifying)
