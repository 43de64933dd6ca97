"""Audience rules: what may be asked of a profile, and the CEL text that asks it."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from campaign.domain.texts import is_plain

ALLIANCE = "alliance"
EXPRESSION_CHARACTERS_MAX = 100_000
"""What the evaluator takes."""

Violation: TypeAlias = tuple[str, str]
"""Path of a wrong field, and what would be right."""


class Field(IntEnum):
    """Fields of a profile, numbered as in the contract."""

    BIRTH_YEAR = 1
    SEX = 2
    COUNTRY = 3
    ADMINISTRATIVE_AREA = 4
    LANGUAGE = 5
    CUSTOMER_LEVEL = 6
    LIFECYCLE_STAGE = 7
    LOYALTY = 8
    SATISFACTION = 9
    CONTRIBUTION = 10
    CREDIT = 11
    COMPLETENESS = 12
    CREDIBILITY = 13
    POINTS_BALANCE = 14


class Operator(IntEnum):
    """Comparisons, numbered as in the contract."""

    AT_LEAST = 1
    LESS_THAN = 2
    ONE_OF = 3
    NONE_OF = 4
    IS_KNOWN = 5
    IS_UNKNOWN = 6


DEGREES = (Field.LOYALTY, Field.SATISFACTION, Field.CONTRIBUTION, Field.CREDIT, Field.COMPLETENESS, Field.CREDIBILITY)
NUMBER_FIELDS = frozenset({Field.BIRTH_YEAR, Field.POINTS_BALANCE, *DEGREES})
SCOPED_FIELDS = frozenset({Field.CUSTOMER_LEVEL, Field.LIFECYCLE_STAGE, *DEGREES})
NUMBER_OPERATORS = frozenset({Operator.AT_LEAST, Operator.LESS_THAN})
TEXT_OPERATORS = frozenset({Operator.ONE_OF, Operator.NONE_OF})
KNOWLEDGE_OPERATORS = frozenset({Operator.IS_KNOWN, Operator.IS_UNKNOWN})
CODES = {
    Field.SEX: ("SEX_FEMALE", "SEX_MALE", "SEX_OTHER"),
    Field.CUSTOMER_LEVEL: ("CUSTOMER_LEVEL_BASIC", "CUSTOMER_LEVEL_SILVER", "CUSTOMER_LEVEL_GOLD", "CUSTOMER_LEVEL_PLATINUM"),
    Field.LIFECYCLE_STAGE: (
        "LIFECYCLE_STAGE_PROSPECT",
        "LIFECYCLE_STAGE_GROWTH",
        "LIFECYCLE_STAGE_MATURE",
        "LIFECYCLE_STAGE_DECLINE",
        "LIFECYCLE_STAGE_LOST",
    ),
}
COUNTRY_CODE = re.compile(r"[A-Z]{2}")


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on one field. `field_key` is the programme of points, or the scope of levels, stages and degrees."""

    field: Field
    operator: Operator
    field_key: str = ""
    number: float = 0.0
    texts: tuple[str, ...] = ()


Group: TypeAlias = tuple[Condition, ...]
"""Conditions of which one must be met."""
Rule: TypeAlias = tuple[Group, ...]
"""Groups that must all be met; none means everybody."""


def profile_key(field: Field, field_key: str = "") -> str:
    """The key under which a profile holds a field, such as `sex`, `customer_level:alliance`, `points_balance:shop`."""
    if field in SCOPED_FIELDS:
        return f"{field.name.lower()}:{field_key or ALLIANCE}"
    return f"{field.name.lower()}:{field_key}" if field is Field.POINTS_BALANCE else field.name.lower()


def violations(rule: Rule, institution_id: str) -> list[Violation]:
    """What is wrong with the rule of a campaign of this institution; paths are relative to the rule."""
    found = [
        (f"all_of[{i}].any_of[{j}].{path}", text)
        for i, group in enumerate(rule)
        for j, condition in enumerate(group)
        for path, text in _condition_violations(condition, institution_id)
    ]
    found += [(f"all_of[{i}].any_of", "must hold a condition") for i, group in enumerate(rule) if not group]
    if not found and len(expression(rule)) > EXPRESSION_CHARACTERS_MAX:
        found.append(("all_of", f"is too long: as an expression it must not exceed {EXPRESSION_CHARACTERS_MAX} characters"))
    return found


def _condition_violations(condition: Condition, institution_id: str) -> Iterator[Violation]:
    yield from _key_violations(condition, institution_id)
    fitting = (NUMBER_OPERATORS if condition.field in NUMBER_FIELDS else TEXT_OPERATORS) | KNOWLEDGE_OPERATORS
    if condition.operator not in fitting:
        yield "operator", f"must be {_listed(operator.name for operator in sorted(fitting))} for {condition.field.name}"
        return
    if condition.operator not in NUMBER_OPERATORS and condition.number != 0:
        yield "number", f"must not be set for {condition.operator.name}"
    if condition.operator not in TEXT_OPERATORS:
        if condition.texts:
            yield "texts", f"must not be set for {condition.operator.name}"
    elif not condition.texts:
        yield "texts", f"must hold a text for {condition.operator.name}"
    else:
        yield from _text_violations(condition)


def _key_violations(condition: Condition, institution_id: str) -> Iterator[Violation]:
    name, key = condition.field.name, condition.field_key
    if condition.field in SCOPED_FIELDS:
        if key not in ("", ALLIANCE, institution_id):
            yield "field_key", f"must be {ALLIANCE} or {institution_id} for {name}: ratings of others are not yours"
    elif condition.field is Field.POINTS_BALANCE:
        if not key:
            yield "field_key", f"must be the programme's id for {name}"
    elif key:
        yield "field_key", f"must not be set for {name}"


def _text_violations(condition: Condition) -> Iterator[Violation]:
    codes = CODES.get(condition.field)
    for i, text in enumerate(condition.texts):
        if codes is not None and text not in codes:
            yield f"texts[{i}]", f"must be {_listed(codes)} for {condition.field.name}"
        elif condition.field is Field.COUNTRY and not COUNTRY_CODE.fullmatch(text):
            yield f"texts[{i}]", "must be an ISO 3166-1 alpha-2 code, such as CZ"
        elif not is_plain(text):
            yield f"texts[{i}]", "must not hold control characters"


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


def expression(rule: Rule) -> str:
    """The rule as CEL over two maps: `number` (string to double) and `text` (string to string)."""
    return " && ".join(f"({' || '.join(map(_condition_expression, group))})" for group in rule) or "true"


def _condition_expression(condition: Condition) -> str:
    variable = "number" if condition.field in NUMBER_FIELDS else "text"
    key = _quoted(profile_key(condition.field, condition.field_key))
    known, value = f"{key} in {variable}", f"{variable}[{key}]"
    match condition.operator:
        case Operator.IS_KNOWN:
            return known
        case Operator.IS_UNKNOWN:
            return f"!({known})"
        case Operator.AT_LEAST:
            return f"({known} && {value} >= {condition.number!r})"
        case Operator.LESS_THAN:
            return f"({known} && {value} < {condition.number!r})"
    texts = f"[{', '.join(map(_quoted, condition.texts))}]"
    return f"({known} && {value} in {texts})" if condition.operator is Operator.ONE_OF else f"({known} && !({value} in {texts}))"


def _quoted(text: str) -> str:
    # JSON's escapes are CEL's too, as long as characters beyond ASCII stay as they are.
    return json.dumps(text, ensure_ascii=False)


def to_json(rule: Rule) -> str:
    """The rule as it is stored."""
    return json.dumps(
        [
            [
                {
                    "field": condition.field.name,
                    "field_key": condition.field_key,
                    "operator": condition.operator.name,
                    "number": condition.number,
                    "texts": condition.texts,
                }
                for condition in group
            ]
            for group in rule
        ]
    )


def from_json(stored: str) -> Rule:
    """The rule that `to_json` wrote."""
    return tuple(
        tuple(
            Condition(
                Field[item["field"]], Operator[item["operator"]], item["field_key"], float(item["number"]), tuple(item["texts"])
            )
            for item in group
        )
        for group in json.loads(stored)
    )
