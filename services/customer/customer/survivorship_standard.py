"""The standards of survivorship and quality that come with the platform."""

from functools import cache
from importlib import resources
from typing import Any

import yaml

from concord.customer.v1.holding_pb2 import HoldingKind
from customer.domain import quality, survivorship
from customer.domain.quality import QualityStandard
from customer.domain.survivorship import Policy

FIRST_VERSION = 1


@cache
def first_policy() -> Policy:
    """Version 1 of the policy: what holds before anybody has activated another one."""
    standard = survivorship.standard_from(_data("survivorship_policy.yaml"))
    if broken := survivorship.violations(standard):
        raise ValueError("; ".join(f"{field} {rule}" for field, rule in broken))
    return Policy(FIRST_VERSION, standard)


@cache
def quality_standard() -> QualityStandard:
    """What completeness and credibility ask for."""
    kinds = {name.removeprefix("HOLDING_KIND_"): number for name, number in HoldingKind.items() if number}
    return quality.standard_from(_data("quality_standard.yaml"), kinds)


def _data(file: str) -> Any:
    return yaml.safe_load((resources.files("customer") / "data" / file).read_text(encoding="utf-8"))
