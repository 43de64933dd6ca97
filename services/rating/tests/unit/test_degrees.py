"""The degrees: bounds, monotony, reasons that add up, and what is missing is null."""

import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.domain import degrees
from rating.domain.facts import (
    ALLIANCE,
    AttributeQuality,
    Facts,
    Holding,
    MasterQuality,
    MonthMargin,
    MonthTurnover,
    RiskScore,
    month_of,
)
from rating.domain.rating import explained_facts, rate
from rating.domain.scorecard import (
    DegreeKind,
    Level,
    LevelThreshold,
    LoyaltyParameters,
    PiecewiseLinearMap,
    Scorecard,
)

AS_OF = datetime(2016, 12, 31, 12, tzinfo=UTC)
MONTH = month_of(AS_OF.date())
SCORECARD = Scorecard(
    loyalty=LoyaltyParameters(0.4, 3.0, 0.3, 5, 0.3),
    contribution=PiecewiseLinearMap(((-1000.0, 0.0), (0.0, 10.0), (10_000.0, 100.0))),
    credit=PiecewiseLinearMap(((0.0, 100.0), (10_000.0, 80.0), (1_000_000.0, 0.0))),
    level_thresholds=(
        LevelThreshold(Level.GOLD, ((DegreeKind.LOYALTY, 60.0), (DegreeKind.CONTRIBUTION, 50.0))),
        LevelThreshold(Level.SILVER, ((DegreeKind.LOYALTY, 30.0),)),
    ),
    reference_currency_code="CNY",
)

days = st.dates(date(1990, 1, 1), date(2016, 12, 31))
holdings = st.builds(Holding, kind=st.sampled_from(["A", "B", "C"]), open_date=days | st.none(), close_date=days | st.none())
months = st.integers(MONTH - 12, MONTH)
currencies = st.sampled_from(["CNY", "CZK"])
amounts = st.integers(0, 10**15)
turnovers = st.builds(
    MonthTurnover,
    month=months,
    currency_code=currencies,
    in_minor_units=amounts,
    out_minor_units=amounts,
    fees_minor_units=amounts,
    transactions_count=st.integers(0, 100),
)
margins = st.builds(
    MonthMargin, month=months, currency_code=currencies, result_minor_units=st.integers(-(10**15), 10**15), partial=st.booleans()
)
parts = st.builds(
    AttributeQuality,
    attribute=st.sampled_from(["ATTRIBUTE_NAME", "ATTRIBUTE_PHONE", "ATTRIBUTE_SEX"]),
    required_weight=st.integers(0, 30),
    credibility_percent=st.integers(0, 100),
    findings=st.sampled_from([(), ("MISSING",), ("INVALID",), ("SOURCES_AGREE", "VERIFIED")]),
)


@st.composite
def qualities(draw):
    """Figures as the customer master computes them from their parts."""
    found = draw(st.lists(parts, max_size=3, unique_by=lambda part: part.attribute))
    required = sum(part.required_weight for part in found)
    sound = sum(part.required_weight for part in found if not {"MISSING", "INVALID"} & set(part.findings))
    stated = [(max(part.required_weight, 1), part.credibility_percent) for part in found if "MISSING" not in part.findings]
    mean = sum(weight * percent for weight, percent in stated) / (sum(weight for weight, _ in stated) or 1)
    return MasterQuality(round(100 * sound / (required or 1)), round(mean), tuple(found))


facts = st.builds(
    Facts,
    scope=st.sampled_from([ALLIANCE, "north"]),
    as_of=st.just(AS_OF),
    quality=st.none() | qualities(),
    holdings=st.lists(holdings, max_size=4).map(tuple),
    turnover=st.lists(turnovers, max_size=30).map(tuple),
    margins=st.lists(margins, max_size=15).map(tuple),
    risk_score=st.none()
    | st.builds(
        RiskScore,
        occurred_at=st.just(AS_OF - timedelta(days=10)),
        activity_id=st.just(uuid.UUID(int=1)),
        default_probability_ppm=st.integers(0, 1_000_000),
    ),
)


@given(facts)
def test_a_degree_is_within_bounds_and_its_reasons_add_up(facts):
    for compute in degrees.DEGREES:
        degree = compute(facts, SCORECARD)
        assert degree.reasons
        assert 0 <= degree.confidence <= 1
        if degree.value is None:
            assert degree.confidence == 0
            assert all(reason.contribution == 0 for reason in degree.reasons)
        else:
            assert 0 <= degree.value <= 100
            assert sum(reason.contribution for reason in degree.reasons) == pytest.approx(degree.value, abs=1e-9)


@given(facts)
def test_a_rating_has_all_six_degrees_in_order_and_every_fact_has_a_text(facts):
    rating = rate(facts, SCORECARD)
    assert [degree.kind for degree in rating.degrees] == list(DegreeKind)
    assert rate(facts, SCORECARD) == rating
    assert all(code and text for code, text in explained_facts(facts, SCORECARD).items())


@given(st.lists(st.integers(-5000, 20_000), min_size=2, max_size=2).map(sorted))
def test_contribution_rises_with_the_result(results):
    low, high = (value_of(degrees.contribution(_with_margin(result), SCORECARD)) for result in results)
    assert low <= high


@given(st.lists(st.integers(0, 1_000_000), min_size=2, max_size=2).map(sorted))
def test_credit_falls_with_the_default_probability(probabilities):
    scores = [RiskScore(AS_OF, uuid.UUID(int=1), ppm) for ppm in probabilities]
    better, worse = (value_of(degrees.credit(replace(EMPTY, risk_score=score), SCORECARD)) for score in scores)
    assert better >= worse


@given(days, days, st.integers(0, 4))
def test_loyalty_rises_with_tenure_and_products(one, other, kinds_count):
    early, late = sorted([one, other])
    holdings = tuple(Holding(f"kind {i}", late, None) for i in range(kinds_count))
    values = [
        value_of(degrees.loyalty(replace(EMPTY, holdings=(Holding("kind 0", opened, None), *holdings)), SCORECARD))
        for opened in (late, early)
    ]
    more = (Holding("kind 0", early, None), *holdings, Holding("new kind", late, None))
    values.append(value_of(degrees.loyalty(replace(EMPTY, holdings=more), SCORECARD)))
    assert values == sorted(values)


def test_completeness_and_credibility_are_the_masters_own_figures():
    quality = MasterQuality(
        54,
        73,
        (
            AttributeQuality("ATTRIBUTE_NAME", 30, 80),
            AttributeQuality("ATTRIBUTE_PHONE", 25, 60, ("SOURCES_CONFLICT",)),
            AttributeQuality("ATTRIBUTE_IDENTIFIER", 20, 10, ("INVALID",)),
            AttributeQuality("ATTRIBUTE_EMAIL", 15, 0, ("MISSING",)),
            AttributeQuality("ATTRIBUTE_SEX", 0, 90, ("VERIFIED",)),
        ),
    )
    known = replace(EMPTY, quality=quality)
    complete, credible = degrees.completeness(known, SCORECARD), degrees.credibility(known, SCORECARD)
    assert (complete.value, credible.value) == (54, 73)
    assert [reason.code for reason in complete.reasons] == [
        "NAME_KNOWN", "PHONE_KNOWN", "EMAIL_MISSING", "IDENTIFIER_INVALID",
    ]  # fmt: skip
    assert "Right with 60 %: SOURCES_CONFLICT." in [reason.description for reason in credible.reasons]
    assert credible.confidence == pytest.approx(75 / 90)  # what is required and filled


def test_what_is_missing_is_null_with_its_reason_never_zero():
    codes = {degree.kind.name: (degree.value, degree.reasons[0].code) for degree in rate(EMPTY, SCORECARD).degrees}
    assert codes == {
        "LOYALTY": (None, "NO_HOLDING"),
        "SATISFACTION": (None, "NOT_MEASURED_YET"),
        "CONTRIBUTION": (None, "NO_MARGIN"),
        "CREDIT": (None, "NO_RISK_SCORE"),
        "COMPLETENESS": (None, "NOT_TOLD_YET"),
        "CREDIBILITY": (None, "NOT_TOLD_YET"),
    }
    nothing = MasterQuality(0, 0, (AttributeQuality("ATTRIBUTE_NAME", 30, 0, ("MISSING",)),))
    stated = rate(replace(EMPTY, quality=nothing), SCORECARD)
    assert (stated.degrees[4].value, stated.degrees[4].reasons[0].code) == (0, "NAME_MISSING")
    assert (stated.degrees[5].value, stated.degrees[5].reasons[0].code) == (None, "NOTHING_STATED")
    elsewhere = {degree.kind.name: degree for degree in rate(replace(EMPTY, scope="north"), SCORECARD).degrees}
    for kind in ("COMPLETENESS", "CREDIBILITY"):
        assert (elsewhere[kind].value, elsewhere[kind].reasons[0].code) == (None, "ALLIANCE_ONLY")


def test_margins_in_another_currency_are_not_counted_and_said_so():
    other = MonthMargin(MONTH, "CZK", 1_000_000, False)
    alone = degrees.contribution(replace(EMPTY, margins=(other,)), SCORECARD)
    assert (alone.value, alone.reasons[0].code) == (None, "CURRENCY_NOT_COUNTED")
    both = degrees.contribution(replace(EMPTY, margins=(other, MonthMargin(MONTH, "CNY", 0, False))), SCORECARD)
    assert both.value == 10
    assert [reason.code for reason in both.reasons] == ["RESULT_12_MONTHS", "CURRENCY_NOT_COUNTED"]
    assert both.confidence == pytest.approx(1 / 12)


def test_the_margin_window_is_twelve_months_up_to_the_latest_that_can_be_there():
    old = MonthMargin(MONTH - 12, "CNY", 10_000, False)
    assert degrees.contribution(replace(EMPTY, margins=(old,)), SCORECARD).value == 100  # this month's is not there yet
    now = MonthMargin(MONTH, "CNY", 0, False)
    assert degrees.contribution(replace(EMPTY, margins=(old, now)), SCORECARD).value == 10


def test_steadiness_needs_three_months_and_ignores_a_month_that_has_just_begun():
    def steadiness(as_of, amounts):
        turnover = tuple(MonthTurnover(MONTH - i, "CZK", amount, 0, 0, 1) for i, amount in enumerate(amounts))
        return degrees.steadiness(replace(EMPTY, as_of=as_of, turnover=turnover))

    assert steadiness(AS_OF, [100, 100]) is None
    assert steadiness(AS_OF, [100, 100, 100]) == 1
    assert steadiness(AS_OF, [0, 100, 100, 100]) < 1
    assert steadiness(AS_OF.replace(day=2), [1, 100, 100, 100]) == 1
    assert steadiness(AS_OF, [1200, 0, 0]) == 0


def test_loyalty_without_turnover_leaves_the_weight_to_tenure_and_products():
    holding = Holding("DEPOSIT", date(2006, 12, 31), None)
    degree = degrees.loyalty(replace(EMPTY, holdings=(holding,)), SCORECARD)
    tenure, products = 100 * 0.4 * 0.9643 / 0.7, 100 * 0.3 * 0.2 / 0.7
    assert degree.value == pytest.approx(tenure + products, abs=0.01)
    assert degree.confidence == pytest.approx(0.7)
    assert [reason.code for reason in degree.reasons] == ["TENURE", "PRODUCTS", "TURNOVER_NOT_MEASURED"]


def test_tenure_ends_with_the_last_holding():
    closed = Holding("DEPOSIT", date(2006, 12, 31), date(2006, 12, 31))
    assert degrees.loyalty(replace(EMPTY, holdings=(closed,)), SCORECARD).value == 0


def test_the_piecewise_map_meets_its_points_and_is_constant_outside():
    curve = SCORECARD.contribution
    assert [curve(x) for x in (-9e9, -1000, -500, 0, 5000, 10_000, 9e9)] == [0, 0, 5, 10, 55, 100, 100]


EMPTY = Facts(scope=ALLIANCE, as_of=AS_OF)


def value_of(degree) -> float:
    """The value of a degree that must have one."""
    assert degree.value is not None
    return float(degree.value)


def _with_margin(result):
    return replace(EMPTY, margins=(MonthMargin(MONTH, "CNY", result, False),))
