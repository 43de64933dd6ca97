import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign.domain.audience import (
    CODES,
    KNOWLEDGE_OPERATORS,
    NUMBER_FIELDS,
    NUMBER_OPERATORS,
    SCOPED_FIELDS,
    TEXT_OPERATORS,
    Condition,
    Field,
    Operator,
    expression,
    profile_key,
    violations,
)
from campaign.domain.evaluator import CelEvaluator, RuleInvalid, select
from campaign.domain.profile import Profile

EVALUATOR = CelEvaluator()
SCOPES = ["", "alliance", "northbank"]
PROGRAMS = ["shop", "air-miles"]
NUMBERS = st.one_of(st.sampled_from([0.0, 1990.0, 50.0, -1.0, 1e300, 5e-324]), st.floats(allow_nan=False, allow_infinity=False))
TEXTS = st.one_of(
    st.sampled_from(["cs", "zh-Hans", '"', "\\", "'", "${x}", "\\u0041", "南", "😀", "\u2028", "a\u00a0b"]),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20),
)


def matches(rule, profile: Profile) -> bool:
    """The rule, read directly: what CEL must say too."""
    return all(any(meets(condition, profile) for condition in group) for group in rule)


def meets(condition: Condition, profile: Profile) -> bool:
    values: Mapping[str, Any] = profile.numbers if condition.field in NUMBER_FIELDS else profile.texts
    value = values.get(profile_key(condition.field, condition.field_key))
    match condition.operator:
        case Operator.IS_KNOWN:
            return value is not None
        case Operator.IS_UNKNOWN:
            return value is None
    if value is None:
        return False
    match condition.operator:
        case Operator.AT_LEAST:
            return bool(value >= condition.number)
        case Operator.LESS_THAN:
            return bool(value < condition.number)
        case Operator.ONE_OF:
            return value in condition.texts
        case Operator.NONE_OF:
            return value not in condition.texts
    raise AssertionError(condition.operator)


def texts_of(field: Field):
    if field in CODES:
        return st.sampled_from(CODES[field])
    return st.sampled_from(["CZ", "CN", "US"]) if field is Field.COUNTRY else TEXTS


@st.composite
def conditions(draw):
    field = draw(st.sampled_from(Field))
    key = ""
    if field in SCOPED_FIELDS:
        key = draw(st.sampled_from(SCOPES))
    elif field is Field.POINTS_BALANCE:
        key = draw(st.sampled_from(PROGRAMS))
    fitting = (NUMBER_OPERATORS if field in NUMBER_FIELDS else TEXT_OPERATORS) | KNOWLEDGE_OPERATORS
    operator = draw(st.sampled_from(sorted(fitting)))
    if operator in NUMBER_OPERATORS:
        return Condition(field, operator, key, number=draw(NUMBERS))
    if operator in TEXT_OPERATORS:
        return Condition(field, operator, key, texts=tuple(draw(st.lists(texts_of(field), min_size=1, max_size=4))))
    return Condition(field, operator, key)


RULES = st.lists(st.lists(conditions(), min_size=1, max_size=4).map(tuple), max_size=4).map(tuple)


@st.composite
def profiles(draw, rule):
    """A profile in which each field is unknown, or at a value of the rule, or at another."""
    numbers, texts = {}, {}
    for condition in [condition for group in rule for condition in group]:
        key = profile_key(condition.field, condition.field_key)
        if draw(st.booleans()):
            continue
        if condition.field in NUMBER_FIELDS:
            numbers[key] = draw(st.one_of(st.just(condition.number), NUMBERS))
        else:
            texts[key] = draw(st.one_of(st.sampled_from(condition.texts or ("x",)), texts_of(condition.field)))
    return Profile(uuid.uuid4(), numbers, texts)


@st.composite
def rules_and_profiles(draw):
    rule = draw(RULES)
    return rule, draw(st.lists(profiles(rule), min_size=1, max_size=5))


@settings(max_examples=300, deadline=None)
@given(rules_and_profiles())
def test_cel_says_what_the_rule_says(case):
    rule, people = case
    assert violations(rule, "northbank") == []
    selection = EVALUATOR.compile(expression(rule)).select(people)
    assert selection.failures_count == 0
    assert [member.customer_id for member in selection.members] == [each.customer_id for each in people if matches(rule, each)]


def test_a_rule_that_fails_at_run_time_matches_nobody_and_is_counted():
    unknown = Profile(uuid.uuid4(), {}, {})
    known = Profile(uuid.uuid4(), {"birth_year": 1990.0}, {})
    selection = EVALUATOR.compile('number["birth_year"] > 1980.0').select([unknown, known, unknown])
    assert selection.members == [known]
    assert selection.failures_count == 2


@pytest.mark.parametrize("text", ["", "birth_year > 1", 'number["a"] > "b"', 'number["a"]', "1", "true &&", 'text["a"] > 1.0'])
def test_what_is_not_a_condition_does_not_compile(text):
    with pytest.raises(RuleInvalid):
        EVALUATOR.compile(text)


def test_the_largest_rule_compiles_and_a_rule_is_compiled_once():
    group = tuple(Condition(Field.BIRTH_YEAR, Operator.LESS_THAN, number=float(year)) for year in range(1980, 2000))
    text = expression((group,) * 20)
    assert EVALUATOR.compile(text) is EVALUATOR.compile(text)
    assert EVALUATOR.compile(text).select([Profile(uuid.uuid4(), {"birth_year": 1979.0}, {})]).members


async def test_a_long_selection_lets_others_run_and_keeps_the_order():
    people = [Profile(uuid.uuid4(), {"birth_year": float(year)}, {}) for year in range(1000, 2000)]
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    selection = await select(EVALUATOR.compile('number["birth_year"] < 1500.0'), people)
    task.cancel()
    assert selection.members == people[:500]
    assert turns >= 9
