"""How long the law keeps data: pure functions of rules, which are data, and of what was between a customer and an institution."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any


@dataclass(frozen=True, slots=True)
class Rule:
    """Data of former customers of these kinds of institutions in these countries is kept for so many years."""

    code: str
    countries: frozenset[str]
    institution_kinds: frozenset[str]
    years: int
    source: str


@dataclass(frozen=True, slots=True)
class Standard:
    """The rules, and the sources of the legal bases for erasure by their code."""

    legal_bases: Mapping[str, str]
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Relationship:
    """What was between a customer and an institution.

    Args:
        open: a holding is open.
        ended_on: when the last holding was closed or the last KYC case decided; None for a prospect.
    """

    institution_id: str
    country_code: str
    institution_kind: str
    open: bool
    ended_on: date | None


@dataclass(frozen=True, slots=True)
class Due:
    """From when data may be erased, and the codes of the rules that keep it until then."""

    on: date
    rules: tuple[str, ...]


def due(rules: Iterable[Rule], relationship: Relationship, today: date) -> Due:
    """When what this institution knows may be erased; today when no rule keeps it."""
    ended_on = relationship.ended_on
    if ended_on is None:
        return Due(today, ())
    keeping = {
        rule.code: end
        for rule in rules
        if relationship.country_code in rule.countries
        and relationship.institution_kind in rule.institution_kinds
        and (end := years_later(ended_on, rule.years)) > today
    }
    return Due(max(keeping.values(), default=today), tuple(sorted(keeping)))


def years_later(day: date, years: int) -> date:
    """The same day so many years later; the 29th of February becomes the 1st of March, so that nothing is kept too short."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return date(day.year + years, 3, 1)


def standard_from(data: Mapping[str, Any], institution_kinds: Sequence[str]) -> Standard:
    """The standard as it is written in YAML.

    Raises:
        ValueError: naming the rule, the field and what would be right.
    """
    rules = []
    for item in data["retention_rules"]:
        code = item["code"]
        if unknown := set(item["institution_kinds"]) - set(institution_kinds):
            right = ", ".join(institution_kinds)
            raise ValueError(f"retention_rules {code}: institution_kinds {', '.join(sorted(unknown))} must be of {right}")
        if not isinstance(item["years"], int) or not 0 < item["years"] <= 100:
            raise ValueError(f"retention_rules {code}: years must be a whole number from 1 to 100")
        if not item.get("source"):
            raise ValueError(f"retention_rules {code}: source must name the law")
        countries = frozenset(map(str, item["countries"]))
        rules.append(Rule(code, countries, frozenset(item["institution_kinds"]), item["years"], item["source"]))
    if len({rule.code for rule in rules}) < len(rules):
        raise ValueError("retention_rules: each code must stand once")
    return Standard({item["code"]: item["source"] for item in data["legal_bases"]}, tuple(rules))
