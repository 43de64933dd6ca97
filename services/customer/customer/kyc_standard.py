"""Reads the KYC standard, which is data, and says clearly what is wrong with it."""

from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from customer.domain.kyc import Factor, RiskLevel, Standard, Step
from customer.domain.vocabulary import Attribute, VerificationMethod

_LEVELS = {level.name: level for level in RiskLevel}
_CODES = {
    "COUNTRY_HIGH_RISK", "COUNTRY_UNKNOWN", "PRODUCT_HIGH_RISK", "BIRTH_DATE_UNKNOWN", "NO_VALID_DOCUMENT", "ORGANISATION",
    "POLITICALLY_EXPOSED", "ADVERSE", "SANCTIONED",
}  # fmt: skip


def shipped() -> str:
    """The YAML of the standard in force."""
    return (resources.files("customer") / "data" / "kyc_standard.yaml").read_text(encoding="utf-8")


@lru_cache(16)
def parsed(content: str) -> Standard:
    """The standard in a YAML text.

    Raises:
        ValueError: naming the field, the rule and what would be right.
    """
    data: dict[str, Any] = yaml.safe_load(content)
    points = {_level(name, "risk_levels"): int(value) for name, value in data["risk_levels"].items()}
    if points.get(RiskLevel.LOW) != 0 or sorted(points.values()) != [points[level] for level in sorted(points)]:
        raise ValueError("risk_levels: LOW must begin at 0 points and each level above at more points than the one below")
    factors = {
        item["code"]: Factor(item["code"], item["points"], item["description"], item.get("prohibited", False))
        for item in data["factors"]
    }
    if unknown := _CODES ^ set(factors):
        raise ValueError(f"factors: must name each of {', '.join(sorted(_CODES))} once; look at {', '.join(sorted(unknown))}")
    months = {_level(name, "review_months"): int(value) for name, value in data["review_months"].items()}
    if missing := {RiskLevel.LOW, RiskLevel.MEDIUM, RiskLevel.HIGH} - set(months):
        raise ValueError(f"review_months: must have {', '.join(level.name for level in sorted(missing))}")
    steps = [
        Step(
            item["step"], item["instruction"], item.get("waivable", False), frozenset(item.get("party_kinds", ())),
            frozenset(_level(name, f"steps[{item['step']}].risk_levels") for name in item.get("risk_levels", ())),
            frozenset(item.get("products", ())), *_verifies(item),
        )
        for item in data["steps"]
    ]  # fmt: skip
    if len({step.step_id for step in steps}) != len(steps):
        raise ValueError("steps: each id must stand once")
    return Standard(
        str(data["version"]), points, months, int(data["due_days"]), factors, frozenset(data["high_risk_countries"]),
        frozenset(data["high_risk_products"]), steps,
    )  # fmt: skip


def _verifies(step: dict[str, Any]) -> tuple[frozenset[Attribute], VerificationMethod]:
    """What a step verifies, and how."""
    words, method = step.get("verifies", ()), step.get("method", VerificationMethod.DOCUMENT_SEEN.name)
    for word in words:
        if word not in Attribute.__members__ or word == Attribute.PARTY_KIND.name:
            raise ValueError(f"steps[{step['step']}].verifies: {word} is no attribute; such as NAME, IDENTIFIER, ADDRESS")
    if method not in VerificationMethod.__members__:
        raise ValueError(f"steps[{step['step']}].method: {method} is no method; use {', '.join(VerificationMethod.__members__)}")
    return frozenset(Attribute[word] for word in words), VerificationMethod[method]


def _level(name: str, field: str) -> RiskLevel:
    if name not in _LEVELS:
        raise ValueError(f"{field}: {name} is no risk level; use {', '.join(_LEVELS)}")
    return _LEVELS[name]
