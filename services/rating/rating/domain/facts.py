"""What is known of one customer in one scope, summed over the records of that scope, and the windows it is looked at through."""

import calendar
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime

ALLIANCE = "alliance"
WINDOW_MONTHS = 12
MONTHS_OF_YEAR = 12
DAYS_OF_YEAR = 365.25


@dataclass(frozen=True, slots=True)
class AttributeQuality:
    """One attribute's part in the master's figures.

    Findings are words of the contract without prefix, such as MISSING. `required_weight` is 0 for one that is not required.
    """

    attribute: str
    required_weight: int
    credibility_percent: int
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MasterQuality:
    """How complete and credible the customer master says the golden customer is, each 0 to 100, and why."""

    completeness_percent: int
    credibility_percent: int
    attributes: tuple[AttributeQuality, ...]


@dataclass(frozen=True, slots=True)
class Holding:
    """A holding that the customer owns; one that it may only dispose of is not here."""

    kind: str
    open_date: date | None
    close_date: date | None


@dataclass(frozen=True, slots=True)
class MonthTurnover:
    """Transactions of a calendar month in one currency; both amounts zero or more."""

    month: int
    currency_code: str
    in_minor_units: int
    out_minor_units: int
    fees_minor_units: int
    transactions_count: int


@dataclass(frozen=True, slots=True)
class MonthMargin:
    """Result of a month in one currency: interest margin and fees, less cost, expected loss and capital charge."""

    month: int
    currency_code: str
    result_minor_units: int
    partial: bool
    """Whether a part of it was in another currency and is missing here."""


@dataclass(frozen=True, slots=True)
class RiskScore:
    """An official risk score."""

    occurred_at: datetime
    activity_id: uuid.UUID
    default_probability_ppm: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a rating stands on. `as_of` is the latest instant any of it speaks of, so old data rates as it did when new."""

    scope: str
    as_of: datetime
    quality: MasterQuality | None = None
    """As the master last said; of the alliance's scope only."""
    attributes_stated_count: int = 0
    holdings: tuple[Holding, ...] = ()
    turnover: tuple[MonthTurnover, ...] = ()
    margins: tuple[MonthMargin, ...] = ()
    risk_score: RiskScore | None = None
    records_count: int = 0
    journey_steps_count: int = 0
    complaints_count: int = 0


def month_of(day: date) -> int:
    """Months since the year 0: neighbours differ by one."""
    return day.year * MONTHS_OF_YEAR + day.month - 1


def first_day(month: int) -> date:
    """The first day of a month; of one before the calendar begins, its beginning."""
    return date(month // MONTHS_OF_YEAR, month % MONTHS_OF_YEAR + 1, 1) if month >= MONTHS_OF_YEAR else date.min


def last_complete_month(as_of: datetime) -> int:
    """The last month that facts up to `as_of` can cover whole: a month begun would look like a fall."""
    day = as_of.astimezone(UTC).date()
    is_last_day = day.day == calendar.monthrange(day.year, day.month)[1]
    return month_of(day) if is_last_day else month_of(day) - 1


def first_opened(facts: Facts) -> date | None:
    """When the first holding was opened; None without a holding of known date."""
    return min((holding.open_date for holding in facts.holdings if holding.open_date), default=None)


def open_holdings(facts: Facts) -> list[Holding]:
    """Holdings that are not closed."""
    return [holding for holding in facts.holdings if holding.close_date is None]


def main_currency(facts: Facts) -> str | None:
    """The currency of most of the window's transactions; of equals the first by its code."""
    counts: dict[str, int] = {}
    for month in facts.turnover:
        counts[month.currency_code] = counts.get(month.currency_code, 0) + month.transactions_count
    return min(counts, key=lambda code: (-counts[code], code), default=None)


def monthly_turnover(facts: Facts) -> dict[int, int]:
    """Money in and out of each month with transactions in the main currency, in minor units."""
    currency = main_currency(facts)
    sums: dict[int, int] = {}
    for month in facts.turnover:
        if month.currency_code == currency:
            sums[month.month] = sums.get(month.month, 0) + month.in_minor_units + month.out_minor_units
    return sums


def margin_months(facts: Facts, currency_code: str) -> dict[int, int]:
    """Results of the last twelve months in a currency: up to the month of `as_of` where it is there, else the one before."""
    this_month = month_of(facts.as_of.astimezone(UTC).date())
    months = {margin.month for margin in facts.margins}
    end = this_month if this_month in months else this_month - 1
    sums: dict[int, int] = {}
    for margin in facts.margins:
        if margin.currency_code == currency_code and end - WINDOW_MONTHS < margin.month <= end:
            sums[margin.month] = sums.get(margin.month, 0) + margin.result_minor_units
    return sums
