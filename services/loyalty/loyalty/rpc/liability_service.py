"""LiabilityService: what issuers owe their members, what it is worth, and what it earns."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import grpc

from chassis import clock, pages
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, InvalidArgument
from chassis.identity import current_principal
from chassis.ids import resource_segments
from concord.common.v1.money_pb2 import Money
from concord.loyalty.v1 import liability_service_pb2 as pb
from concord.loyalty.v1.liability_service_pb2_grpc import LiabilityServiceServicer
from loyalty.domain import liability as domain
from loyalty.domain.liability import Cohort, Movement
from loyalty.rpc.errors import program_not_found
from loyalty.rpc.settlement_messages import exact, viewer
from loyalty.store import liability as store
from loyalty.store.liability import Owed, Program

DAYS_DEFAULT, DAYS_PAGE_MAX = 500, 5000
PERIOD_DAYS_MAX = 3700
"""Days of one report: ten years."""
DAYS_HEADER = (
    "date", "institution", "program", "issued_points", "redeemed_points", "expired_points", "withdrawn_points",
    "outstanding_points", "owed_currency", "owed_numerator", "owed_denominator",
)  # fmt: skip
Context = grpc.aio.ServicerContext[object, object]


class LiabilityServicer(LiabilityServiceServicer):
    """Reads one snapshot a report."""

    def __init__(self, database: Database, clock: clock.Clock = clock.now) -> None:
        self._database = database
        self._clock = clock

    async def ReportLiabilities(self, request: pb.ReportLiabilitiesRequest, context: Context) -> pb.ReportLiabilitiesResponse:
        begin, end = _period(request.begin_date, request.end_date, self._today())
        async with self._snapshot() as connection:
            programs = await _programs(connection, request.parent)
            ids = [program.program_id for program in programs]
            movements = _by_program(await store.movements(connection, ids, begin, end))
            balances = await store.issuer_balances(connection, ids) if end >= self._today() else {}
            liabilities = [
                _liability(program, movements.get(program.program_id, []), begin, cohorts, balances.get(program.program_id))
                for program in programs
                for cohorts in [await store.cohorts(connection, program.program_id, end)]
            ]
        return pb.ReportLiabilitiesResponse(liabilities=liabilities, begin_date=begin.isoformat(), end_date=end.isoformat())

    async def ReportRevenue(self, request: pb.ReportRevenueRequest, context: Context) -> pb.ReportRevenueResponse:
        begin, end = _period(request.begin_date, request.end_date, self._today())
        (program_id,) = resource_segments(request.program, "programs", field="program")
        async with self._snapshot() as connection:
            found = [program for program in await _programs(connection, request.parent) if program.program_id == program_id]
            if not found:
                raise program_not_found(program_id)
            value, currency_code = found[0].value, found[0].currency_code
            if value is None or currency_code is None:
                raise FailedPrecondition("LIABILITY_VALUE_MISSING", f"{request.program} states no value of a point; set it first")
            before = await store.cohorts(connection, program_id, begin - timedelta(days=1))
            now = await store.cohorts(connection, program_id, end)
        rate, rate_before = domain.breakage_rate(now), domain.breakage_rate(before)
        earlier = {cohort.month: cohort for cohort in before}
        response = pb.ReportRevenueResponse(breakage_rate=exact(rate))
        period = deferred = 0
        for cohort in now:
            was = earlier.get(cohort.month)
            earned = (
                domain.recognized(round(was.issued_points * value), was.redeemed_points, domain.expected_points(was, rate_before))
                if was
                else 0
            )
            allocated = round(cohort.issued_points * value)
            expected = domain.expected_points(cohort, rate)
            revenue = domain.revenue(allocated, earned, cohort.redeemed_points, expected)
            period += revenue.period_minor_units
            deferred += revenue.allocated_minor_units - revenue.recognized_minor_units
            response.cohorts.append(_revenue(cohort, revenue, currency_code))
        response.period.CopyFrom(Money(currency_code=currency_code, minor_units=period))
        response.deferred.CopyFrom(Money(currency_code=currency_code, minor_units=deferred))
        return response

    async def ReportPoints(self, request: pb.ReportPointsRequest, context: Context) -> pb.ReportPointsResponse:
        limit = pages.page_size(request.page_size, DAYS_DEFAULT, DAYS_PAGE_MAX)
        days, token = await self._days(request, limit)
        return pb.ReportPointsResponse(days=days, next_page_token=token)

    async def DownloadPointsReport(
        self, request: pb.DownloadPointsReportRequest, context: Context
    ) -> pb.DownloadPointsReportResponse:
        limit = pages.page_size(request.page_size, DAYS_PAGE_MAX, DAYS_PAGE_MAX)
        days, token = await self._days(request, limit)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if not request.page_token:
            writer.writerow(DAYS_HEADER)
        for day in days:
            points = (
                day.date, day.institution.partition("/")[2], day.program.partition("/")[2], day.issued_points,
                day.redeemed_points, day.expired_points, day.withdrawn_points, day.outstanding_points,
            )  # fmt: skip
            for owed in day.owed or [pb.OwedAmount()]:
                writer.writerow((*points, owed.currency_code, owed.amount.numerator, owed.amount.denominator))
        return pb.DownloadPointsReportResponse(csv=text.getvalue(), next_page_token=token)

    async def _days(
        self, request: pb.ReportPointsRequest | pb.DownloadPointsReportRequest, limit: int
    ) -> tuple[list[pb.PointsDay], str]:
        """A page of days, by programme and day."""
        keys = pages.decode(request.page_token, request)
        begin, end = _period(request.begin_date, request.end_date, date.fromisoformat(keys[2]) if keys else self._today())
        start = date.fromisoformat(keys[1]) if keys else begin
        days: list[pb.PointsDay] = []
        async with self._snapshot() as connection:
            for program in await _programs(connection, request.parent):
                if keys and program.program_id < keys[0]:
                    continue
                first = start if keys and program.program_id == keys[0] else begin
                if len(days) == limit:
                    return days, pages.encode([program.program_id, first.isoformat(), end.isoformat()], request)
                last = min(end, first + timedelta(days=limit - len(days) - 1))
                movements = await store.movements(connection, [program.program_id], first, last)
                owed = await store.owed(connection, [program.program_id], first, last)
                days += _program_days(program, movements, owed, first, last)
                if last < end:
                    return days, pages.encode(
                        [program.program_id, (last + timedelta(days=1)).isoformat(), end.isoformat()], request
                    )
        return days, ""

    def _today(self) -> date:
        """The last day anywhere, so that nothing of now is left out."""
        return self._clock().astimezone(ZoneInfo("Pacific/Kiritimati")).date()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection


async def _programs(connection: Connection, parent: str) -> list[Program]:
    (institution_id,) = resource_segments(parent, "institutions", field="parent")
    return await store.programs(connection, viewer(current_principal(), institution_id))


def _period(begin_text: str, end_text: str, today: date) -> tuple[date, date]:
    """First and last day.

    Raises:
        InvalidArgument: DATE_INVALID, PERIOD_INVALID.
    """
    end = _date("end_date", end_text) if end_text else today
    begin = _date("begin_date", begin_text) if begin_text else end.replace(day=1)
    if not begin <= end < begin + timedelta(days=PERIOD_DAYS_MAX):
        rule = f"must not lie after end_date ({end}), and not {PERIOD_DAYS_MAX} days before it"
        raise InvalidArgument("PERIOD_INVALID", f"begin_date {rule}", field_violations=[("begin_date", rule)])
    return begin, end


def _date(field: str, text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = date.min
    if found.year < 1900:
        rule = "must be a day of the calendar from 1900 on, such as 2026-11-24"
        raise InvalidArgument("DATE_INVALID", f"{field} {rule}", field_violations=[(field, rule)])
    return found


def _by_program(movements: Iterable[Movement]) -> dict[str, list[Movement]]:
    found: dict[str, list[Movement]] = {}
    for movement in movements:
        found.setdefault(movement.program_id, []).append(movement)
    return found


def _liability(
    program: Program, movements: Sequence[Movement], begin: date, cohorts: Sequence[Cohort], issuer_balance: int | None
) -> pb.LiabilityRollForward:
    rolled = domain.roll_forward(movements, program.institution_id, begin)
    lots_points = sum(cohort.outstanding_points for cohort in cohorts) + rolled.debt_points
    message = pb.LiabilityRollForward(
        program=f"programs/{program.program_id}",
        institution=f"institutions/{program.institution_id}",
        lots_points=lots_points,
        tied=lots_points == rolled.closing_points and issuer_balance in (None, rolled.issuer_balance_points),
        **{name: value for name, value in rolled._asdict().items() if name != "debt_points"},
    )
    if program.value is not None:
        worth = domain.valuation(cohorts, program.value)
        message.fair_value.currency_code = program.currency_code or ""
        message.fair_value.value_numerator = program.value.numerator
        message.fair_value.value_denominator = program.value.denominator
        message.fair_value.breakage_rate.CopyFrom(exact(worth.breakage_rate))
        message.fair_value.breakage_points.CopyFrom(exact(worth.breakage_points))
        message.fair_value.exact_amount.CopyFrom(exact(worth.fair_value))
        message.fair_value.amount.CopyFrom(Money(currency_code=program.currency_code or "", minor_units=round(worth.fair_value)))
    return message


def _revenue(cohort: Cohort, revenue: domain.Revenue, currency_code: str) -> pb.RevenueCohort:
    def money(minor_units: int) -> Money:
        return Money(currency_code=currency_code, minor_units=minor_units)

    return pb.RevenueCohort(
        month=cohort.month.isoformat(),
        issued_points=cohort.issued_points,
        redeemed_points=cohort.redeemed_points,
        expired_points=cohort.expired_points,
        outstanding_points=cohort.outstanding_points,
        expected_points=exact(revenue.expected_points),
        allocated=money(revenue.allocated_minor_units),
        recognized=money(revenue.recognized_minor_units),
        period=money(revenue.period_minor_units),
        deferred=money(revenue.allocated_minor_units - revenue.recognized_minor_units),
    )


def _program_days(
    program: Program, movements: Iterable[Movement], owed: Iterable[Owed], first: date, last: date
) -> list[pb.PointsDay]:
    """The days from the first to the last, also those on which nothing moved."""
    moved: dict[date, list[Movement]] = {}
    for movement in movements:
        moved.setdefault(movement.day, []).append(movement)
    arisen: dict[date, list[Owed]] = {}
    for one in owed:
        arisen.setdefault(one.day, []).append(one)
    outstanding, amounts = 0, dict[str, Fraction]()
    days = []
    for number in range(-1, (last - first).days + 1):  # -1: everything before the first
        day = first + timedelta(days=number)
        totals = domain.day_totals(moved.get(day, ()), outstanding)
        outstanding = totals.outstanding_points
        for one in arisen.get(day, ()):
            signed = one.amount if one.payer == program.institution_id else -one.amount
            amounts[one.currency_code] = amounts.get(one.currency_code, Fraction(0)) + signed
        if number >= 0:
            days.append(
                pb.PointsDay(
                    date=day.isoformat(),
                    institution=f"institutions/{program.institution_id}",
                    program=f"programs/{program.program_id}",
                    owed=[
                        pb.OwedAmount(currency_code=currency, amount=exact(amount))
                        for currency, amount in sorted(amounts.items())
                    ],
                    **totals._asdict(),
                )
            )
    return days
