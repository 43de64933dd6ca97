"""The port behind which rules are evaluated, and its implementation by CEL."""

import asyncio
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from cel_expr_python import cel  # type: ignore[import-untyped]

from campaign.domain.profile import Profile

RULES_CACHED_MAX = 64
SLICE_PROFILES_MAX = 100


class RuleInvalid(Exception):
    """The expression does not compile to a condition."""


class Selection(NamedTuple):
    """Who meets a rule, and for how many profiles the rule failed: those are not members."""

    members: list[Profile]
    failures_count: int


class CompiledRule(Protocol):
    """A rule, ready to be asked."""

    def select(self, profiles: Iterable[Profile]) -> Selection:
        """Those of the profiles that meet the rule, in their order."""


async def select(rule: CompiledRule, profiles: Sequence[Profile]) -> Selection:
    """As `rule.select`, but lets other calls run now and then: a long rule takes a quarter of a second for 1,000 profiles."""
    members, failures_count = [], 0
    for first in range(0, len(profiles), SLICE_PROFILES_MAX):
        chosen = rule.select(profiles[first : first + SLICE_PROFILES_MAX])
        members += chosen.members
        failures_count += chosen.failures_count
        await asyncio.sleep(0)
    return Selection(members, failures_count)


class Evaluator(Protocol):
    """Compiles rules. May be shared by everything in a process."""

    def compile(self, expression: str) -> CompiledRule:
        """The rule of a CEL expression over the maps `number` and `text`.

        Raises:
            RuleInvalid: when it is not a valid condition.
        """


class CelEvaluator:
    """CEL by Google's C++ implementation: typed, a few microseconds a profile, bounded in time."""

    def __init__(self) -> None:
        texts = cel.Type.STRING
        self._environment = cel.NewEnv(
            variables={"number": cel.Type.Map(texts, cel.Type.DOUBLE), "text": cel.Type.Map(texts, texts)}
        )
        self._compiled = lru_cache(RULES_CACHED_MAX)(self._compile)

    def compile(self, expression: str) -> CompiledRule:
        """See `Evaluator`. A rule is compiled once, as long as it is in use."""
        return self._compiled(expression)

    def _compile(self, expression: str) -> CompiledRule:
        try:
            compiled = self._environment.compile(expression)
        except RuntimeError as error:
            raise RuleInvalid(str(error)) from None
        if compiled.return_type() != cel.Type.BOOL:
            raise RuleInvalid("the expression is not a condition")
        return _CelRule(compiled)


class _CelRule:
    def __init__(self, compiled: cel.Expression) -> None:
        self._compiled = compiled

    def select(self, profiles: Iterable[Profile]) -> Selection:
        members, failures_count = [], 0
        for profile in profiles:
            if profile.restricted:
                continue
            value = self._compiled.eval(data={"number": profile.numbers, "text": profile.texts}).value()
            # A run-time error comes back as a text, which is true to Python: only True itself is a match.
            if value is True:
                members.append(profile)
            elif value is not False:
                failures_count += 1
        return Selection(members, failures_count)
