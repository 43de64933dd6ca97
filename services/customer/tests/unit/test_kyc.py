"""Rules of KYC and of screening."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer import kyc_standard, screening
from customer.domain.kyc import (
    Disposition,
    RiskLevel,
    StepResult,
    Subject,
    Topic,
    approval_refused,
    blocking_reason,
    months_later,
    risk_factors,
    risk_level,
)
from customer.domain.screening import Check, Form, Screened
from customer.domain.screening_index import ListedEntry, ScreeningIndex

STANDARD = kyc_standard.parsed(kyc_standard.shipped())
PLAIN = Subject("PERSON", frozenset({"CZ"}), True, True)


def level(subject: Subject, products=(), matches=()):
    return risk_level(STANDARD, risk_factors(STANDARD, subject, products, matches))


def test_risk_follows_the_factors():
    assert level(PLAIN) is RiskLevel.LOW
    assert level(PLAIN, ["private-banking"]) is RiskLevel.MEDIUM
    assert level(PLAIN, matches=[Topic.POLITICALLY_EXPOSED]) is RiskLevel.HIGH
    assert level(PLAIN, matches=[Topic.SANCTIONS]) is RiskLevel.PROHIBITED
    assert level(Subject("PERSON", frozenset({"IR"}), False, False)) is RiskLevel.HIGH


@given(st.sets(st.sampled_from(list(Topic))), st.sets(st.sampled_from(["fund", "private-banking"])))
def test_more_matches_never_make_less_risk(matches, products):
    assert level(PLAIN, products, matches) >= level(PLAIN, products)


def test_the_checklist_grows_with_the_risk():
    low = {step.step_id for step in STANDARD.checklist("PERSON", RiskLevel.LOW, [])}
    high = {step.step_id for step in STANDARD.checklist("PERSON", RiskLevel.HIGH, ["fund"])}
    assert low < high
    assert {"senior-approval", "suitability"} <= high
    assert "beneficial-owners" in {step.step_id for step in STANDARD.checklist("ORGANISATION", RiskLevel.LOW, [])}


def test_a_case_is_submitted_whole_and_approved_only_without_failures():
    checklist = STANDARD.checklist("PERSON", RiskLevel.LOW, [])
    results = {step.step_id: StepResult.PASSED for step in checklist}
    assert "purpose" in blocking_reason(checklist, {}, True, [])
    assert "not screened" in blocking_reason(checklist, results, False, [])
    assert "hit" in blocking_reason(checklist, results, True, [Disposition.OPEN])
    assert blocking_reason(checklist, results, True, [Disposition.FALSE_POSITIVE]) == ""
    assert approval_refused(RiskLevel.LOW, results) == ""
    assert "purpose" in approval_refused(RiskLevel.LOW, results | {"purpose": StepResult.FAILED})
    assert "sanctions" in approval_refused(RiskLevel.PROHIBITED, results)


@pytest.mark.parametrize(
    ("day", "months", "later"),
    [
        (date(2026, 1, 31), 1, date(2026, 2, 28)),
        (date(2024, 2, 29), 12, date(2025, 2, 28)),
        (date(2026, 11, 24), 36, date(2029, 11, 24)),
    ],
)
def test_months_later(day, months, later):
    assert months_later(day, months) == later


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("LOW: 0", "LOW: 5"), "risk_levels"),
        (("HIGH: 12}", "HUGE: 12}"), "review_months"),
        (("risk_levels: [HIGH]", "risk_levels: [VERY]"), "steps"),
        (("code: ADVERSE,", "code: ADVERS,"), "factors"),
        (("- step: purpose", "- step: address-proof"), "steps"),
    ],
)
def test_a_wrong_standard_is_named_by_its_field(change, field):
    with pytest.raises(ValueError, match=field):
        kyc_standard.parsed(kyc_standard.shipped().replace(*change))


def entry(entry_id: str, *names: str, years=(), countries=(), organisation=False, topic=Topic.SANCTIONS) -> ListedEntry:
    return ListedEntry(
        "un", "1", entry_id, topic, names[0], Screened(listed(*names), frozenset(years), frozenset(countries), organisation)
    )


def listed(*names: str):
    import json

    return {Form(form): frozenset(found) for form, found in json.loads(screening.entry_forms(names)).items()}


INDEX = ScreeningIndex(
    [
        entry("1", "WANG Wei", years=[1970], countries=["CN"]),
        entry("2", "欧阳修"),
        entry("3", "Ivan Petrovich Sidorov", years=[1960]),
        entry("4", "Golden Dragon Trading Ltd", organisation=True),
    ]
)


def hits(*names: str, years=(), organisation=False):
    subject = Screened(listed(*names), frozenset(years), frozenset(), organisation)
    return {found.entry_id: seen for found, seen in INDEX.screen(subject)}


def test_han_is_found_by_pinyin_and_the_other_way_round():
    assert hits("王伟")["1"].form is Form.PINYIN
    assert hits("歐陽修")["2"].form is Form.HAN
    assert hits("Ouyang Xiu")["2"].form is Form.PINYIN


def test_the_order_of_words_and_small_errors_do_not_hide_anybody():
    assert hits("Sidorov, Ivan Petrovich")["3"].score_percent == 100
    assert hits("Ivan Petrovic Sidorov")["3"].score_percent >= 90


def test_a_birth_year_alone_makes_nobody_alike_and_another_year_makes_less_alike():
    assert not hits("Anna Novak", years=[1970])
    same, other = hits("Wang Wei", years=[1970])["1"], hits("Wang Wei", years=[1990])["1"]
    assert (same.birth_year, other.birth_year) == (Check.AGREE, Check.DIFFER)
    assert same.score_percent == 100
    assert other.score_percent == 80, "a name alike in every letter stays a hit: the list's year may be wrong"


def test_organisations_are_compared_with_organisations():
    assert "4" in hits("Golden Dragon Trading Ltd.", organisation=True)
    assert "4" not in hits("Golden Dragon Trading Ltd.")
