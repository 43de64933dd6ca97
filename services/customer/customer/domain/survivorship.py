"""The survivorship policy: which source overrides which, which is more credible. Pure."""

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from math import isfinite
from typing import Any, NamedTuple

from customer.domain.vocabulary import Attribute, SurvivorshipRule, VerificationMethod

TRUST_POINTS_MAX = 100.0
HALF_RANK_MIN = 2
SECONDS_A_DAY = 86_400.0
VERIFIED_AHEAD_MAX = timedelta(days=1)
"""It may be tomorrow already where somebody verified."""
DECIDING_RULES = (
    SurvivorshipRule.PIN,
    SurvivorshipRule.VERIFIED,
    SurvivorshipRule.TRUST,
    SurvivorshipRule.RECENCY,
    SurvivorshipRule.FREQUENCY,
    SurvivorshipRule.COMPLETENESS,
)
"""The rules that a policy may name, in the order that it should have a reason to change."""
_SLUG = r"(\*|[a-z][a-z0-9-]{1,38}[a-z0-9])"
_SOURCE_SYSTEM = re.compile(f"institutions/{_SLUG}/sourceSystems/{_SLUG}")
_SOURCE_SYSTEM_RULE = "must be institutions/{institution}/sourceSystems/{source_system}, where * stands for any"


class Verified(NamedTuple):
    """An attribute of a record was verified: by its own source, as the record says, or by a decided KYC case."""

    method: int
    on: date
    key: Hashable | None = None
    """The value that a KYC case verified; None where the source says so, of whatever it states."""


class Trust(NamedTuple):
    """How far a value is trusted, 0 to 100, and why: base × decay × validation, but not below the reserve."""

    points: float
    base_points: float
    decay: float
    validation: float
    from_rank: bool
    """Whether the base comes from the rank that the source's institution gave it."""


@dataclass(frozen=True, slots=True)
class SourceTrust:
    """Trust of the sources that fit a pattern."""

    source_system: str
    trust_points: float


@dataclass(frozen=True, slots=True)
class Verification:
    """Whose verifications count, which ways (none: all), and for how long (0: for ever)."""

    source_systems: tuple[str, ...] = ()
    methods: tuple[VerificationMethod, ...] = ()
    valid_days: int = 0


@dataclass(frozen=True, slots=True)
class AttributeStandard:
    """What is different for one attribute; None, and no rules, mean as in the policy."""

    attribute: Attribute
    rules: tuple[SurvivorshipRule, ...] = ()
    half_life_days: float | None = None
    failed_check_kept_percent: float | None = None
    verification: Verification | None = None
    source_trusts: tuple[SourceTrust, ...] = ()


@dataclass(frozen=True, slots=True)
class Standard:
    """What a policy says, as in the file `survivorship_policy.yaml`."""

    title: str
    rules: tuple[SurvivorshipRule, ...]
    trust_points_max: float
    half_rank: int
    reason: str = ""
    reserve_trust_points: float = 0.0
    failed_check_kept_percent: float = 0.0
    failed_checks: Mapping[str, float] = field(default_factory=dict)
    half_life_days: float = 0.0
    verification: Verification = Verification()
    source_trusts: tuple[SourceTrust, ...] = ()
    attributes: tuple[AttributeStandard, ...] = ()


class Policy:
    """A version of the policy, ready to be asked. Immutable but for what it remembers of sources it has met."""

    def __init__(self, version: int, standard: Standard) -> None:
        self.version = version
        self.standard = standard
        different = {one.attribute: one for one in standard.attributes}
        self._rules = {attribute: AttributeRules(standard, different.get(attribute), attribute) for attribute in Attribute}

    def of(self, attribute: Attribute) -> "AttributeRules":
        """The rules of an attribute."""
        return self._rules[attribute]


class AttributeRules:
    """What a policy says of one attribute."""

    def __init__(self, standard: Standard, different: AttributeStandard | None, attribute: Attribute) -> None:
        own = different or AttributeStandard(attribute)
        half_life_days = standard.half_life_days if own.half_life_days is None else own.half_life_days
        kept = standard.failed_check_kept_percent if own.failed_check_kept_percent is None else own.failed_check_kept_percent
        self.order = own.rules or standard.rules
        self._half_life_seconds = half_life_days * SECONDS_A_DAY
        self._kept = kept / 100
        self._kept_of = {reason: percent / 100 for reason, percent in standard.failed_checks.items()}
        self._verification = own.verification or standard.verification
        self._trusts = (own.source_trusts, standard.source_trusts)
        self._standard = standard
        self._named: dict[str, float | None] = {}
        self._verifies: dict[str, bool] = {}

    def trust(self, source_system: str, rank: int, valid: bool, failed: Sequence[str], age_seconds: float) -> Trust:
        """Trust in a value.

        Args:
            source_system: its resource name.
            rank: of the source for the attribute, 1 the best.
            valid: whether the value passes its checks.
            failed: reasons of the checks that it fails; of a value that is not valid at least one failed.
            age_seconds: since its source saw it.
        """
        named = self._named[source_system] if source_system in self._named else self._remember(source_system)
        base = self._from_rank(rank) if named is None else named
        decay = 0.5 ** (age_seconds / self._half_life_seconds) if self._half_life_seconds and age_seconds > 0 else 1.0
        validation = 1.0
        if failed:
            for reason in failed:
                validation *= self._kept_of.get(reason, self._kept)
        elif not valid:
            validation = self._kept
        points = max(base * decay * validation, self._standard.reserve_trust_points)
        return Trust(points, base, decay, validation, named is None)

    def _from_rank(self, rank: int) -> float:
        half = self._standard.half_rank
        return self._standard.trust_points_max * (half - 1) / (half - 2 + max(rank, 1))

    def _remember(self, source_system: str) -> float | None:
        for trusts in self._trusts:
            fitting = [one for one in trusts if _fits(one.source_system, source_system)]
            if fitting:
                named = min(fitting, key=lambda one: _stars(one.source_system)).trust_points
                break
        else:
            named = None
        self._named[source_system] = named
        return named

    def verified(self, source_system: str, verifications: Sequence[Verified], key: Hashable, today: date) -> Verified | None:
        """The latest verification of a record's value (its `key`) that counts on a day; None for none.

        The policy says which sources may verify. A KYC case, which two people decide, may whatever the source.
        """
        if not verifications:
            return None
        rules = self._verification
        if source_system not in self._verifies:
            self._verifies[source_system] = any(_fits(pattern, source_system) for pattern in rules.source_systems)
        by_source = self._verifies[source_system]
        since = today - timedelta(days=rules.valid_days) if rules.valid_days else date.min
        counting = [
            one
            for one in verifications
            if (by_source if one.key is None else one.key == key)
            and since <= one.on <= today + VERIFIED_AHEAD_MAX
            and (not rules.methods or one.method in rules.methods)
        ]
        return max(counting, key=lambda one: (one.on, one.method), default=None)


def age_seconds(observed_at: datetime, instant: datetime) -> float:
    """How old a value is at an instant."""
    return (instant - observed_at).total_seconds()


def _fits(pattern: str, source_system: str) -> bool:
    parts, given = pattern.split("/"), source_system.split("/")
    return len(parts) == len(given) and all(part in ("*", one) for part, one in zip(parts, given, strict=True))


def _stars(pattern: str) -> tuple[int, bool]:
    # Fewer stars first; of one star, the pattern that names the institution.
    return pattern.count("*"), pattern.startswith("institutions/*")


# ---- the file, and what is wrong with it


def standard_from(data: Mapping[str, Any]) -> Standard:
    """A standard as the file, or the database, has it. Enumerations are words without prefix."""
    return Standard(
        title=data.get("title", ""),
        reason=data.get("reason", ""),
        rules=_rules(data),
        trust_points_max=float(data.get("rank_trust", {}).get("trust_points_max", 0)),
        half_rank=int(data.get("rank_trust", {}).get("half_rank", 0)),
        reserve_trust_points=float(data.get("reserve_trust_points", 0)),
        failed_check_kept_percent=float(data.get("failed_check_kept_percent", 0)),
        failed_checks={one.get("reason", ""): float(one.get("kept_percent", 0)) for one in data.get("failed_checks", ())},
        half_life_days=float(data.get("half_life_days", 0)),
        verification=_verification(data.get("verification", {})),
        source_trusts=_source_trusts(data),
        attributes=tuple(_attribute(one) for one in data.get("attributes", ())),
    )


def _rules(data: Mapping[str, Any]) -> tuple[SurvivorshipRule, ...]:
    return tuple(SurvivorshipRule[word] for word in data.get("rules", ()))


def _source_trusts(data: Mapping[str, Any]) -> tuple[SourceTrust, ...]:
    return tuple(SourceTrust(one["source_system"], float(one.get("trust_points", 0))) for one in data.get("source_trusts", ()))


def _verification(data: Mapping[str, Any]) -> Verification:
    methods = tuple(VerificationMethod[word] for word in data.get("methods", ()))
    return Verification(tuple(data.get("source_systems", ())), methods, int(data.get("valid_days", 0)))


def _attribute(data: Mapping[str, Any]) -> AttributeStandard:
    half_life, kept, verification = (data.get(key) for key in ("half_life_days", "failed_check_kept_percent", "verification"))
    return AttributeStandard(
        Attribute[data["attribute"]],
        _rules(data),
        None if half_life is None else float(half_life),
        None if kept is None else float(kept),
        None if verification is None else _verification(verification),
        _source_trusts(data),
    )


def to_data(standard: Standard) -> dict[str, Any]:
    """A standard as the file has it, everything written out: the same content always gives the same data."""
    data = asdict(standard)
    data["rank_trust"] = {"trust_points_max": data.pop("trust_points_max"), "half_rank": data.pop("half_rank")}
    data["failed_checks"] = [{"reason": reason, "kept_percent": kept} for reason, kept in sorted(standard.failed_checks.items())]
    data["rules"] = [rule.name for rule in standard.rules]
    _write_methods(data["verification"])
    for mine, one in zip(standard.attributes, data["attributes"], strict=True):
        one["attribute"] = mine.attribute.name
        one["rules"] = [rule.name for rule in mine.rules]
        if mine.verification is not None:
            _write_methods(one["verification"])
        for absent in [key for key, value in one.items() if value is None]:
            del one[absent]
    return data


def _write_methods(verification: dict[str, Any]) -> None:
    verification["methods"] = [method.name for method in verification["methods"]]


def violations(standard: Standard) -> list[tuple[str, str]]:
    """What is wrong with a standard: pairs of the field and what would be right; none when it may be used."""
    return [*_whole_violations(standard), *_attribute_violations(standard)]


def _whole_violations(standard: Standard) -> Iterator[tuple[str, str]]:
    if not standard.title.strip():
        yield "title", "must say in a few words what this policy does"
    if not standard.rules:
        yield "rules", f"must name at least PIN; usual is {', '.join(rule.name for rule in DECIDING_RULES)}"
    yield from _rule_violations("rules", standard.rules)
    yield from _number("rank_trust.trust_points_max", standard.trust_points_max, 1, TRUST_POINTS_MAX)
    if not HALF_RANK_MIN <= standard.half_rank <= 1000:
        yield "rank_trust.half_rank", f"must be {HALF_RANK_MIN} to 1000: the rank with half of the trust"
    yield from _number("reserve_trust_points", standard.reserve_trust_points, 0, TRUST_POINTS_MAX)
    yield from _number("failed_check_kept_percent", standard.failed_check_kept_percent, 0, 100)
    for place, kept in enumerate(standard.failed_checks.values()):
        yield from _number(f"failed_checks[{place}].kept_percent", kept, 0, 100)
    yield from _number("half_life_days", standard.half_life_days, 0, 36_500)
    yield from _verification_violations("verification", standard.verification)
    yield from _trust_violations("source_trusts", standard.source_trusts)


def _attribute_violations(standard: Standard) -> Iterator[tuple[str, str]]:
    seen: set[Attribute] = set()
    for place, one in enumerate(standard.attributes):
        where = f"attributes[{place}]"
        if one.attribute is Attribute.PARTY_KIND:
            yield f"{where}.attribute", "must be an attribute, such as NAME"
        if one.attribute in seen:
            yield f"{where}.attribute", f"must be named once; {one.attribute.name} stands above"
        seen.add(one.attribute)
        yield from _rule_violations(f"{where}.rules", one.rules)
        if one.half_life_days is not None:
            yield from _number(f"{where}.half_life_days", one.half_life_days, 0, 36_500)
        if one.failed_check_kept_percent is not None:
            yield from _number(f"{where}.failed_check_kept_percent", one.failed_check_kept_percent, 0, 100)
        if one.verification is not None:
            yield from _verification_violations(f"{where}.verification", one.verification)
        yield from _trust_violations(f"{where}.source_trusts", one.source_trusts)


def _rule_violations(where: str, rules: Sequence[SurvivorshipRule]) -> Iterator[tuple[str, str]]:
    for place, rule in enumerate(rules):
        if rule not in DECIDING_RULES:
            words = ", ".join(one.name for one in DECIDING_RULES)
            yield f"{where}[{place}]", f"must be one of {words}; {rule.name} is never asked by itself"
        if rule in rules[:place]:
            yield f"{where}[{place}]", f"must be named once; {rule.name} stands before"
    if rules and rules[0] is not SurvivorshipRule.PIN:
        yield f"{where}[0]", "must be PIN: a steward's decision outranks every rule"


def _verification_violations(where: str, verification: Verification) -> Iterator[tuple[str, str]]:
    for place, pattern in enumerate(verification.source_systems):
        if not _SOURCE_SYSTEM.fullmatch(pattern):
            yield f"{where}.source_systems[{place}]", _SOURCE_SYSTEM_RULE
    if not 0 <= verification.valid_days <= 36_500:
        yield f"{where}.valid_days", "must be 0 (for ever) to 36500 days"


def _trust_violations(where: str, trusts: Sequence[SourceTrust]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for place, one in enumerate(trusts):
        if not _SOURCE_SYSTEM.fullmatch(one.source_system):
            yield f"{where}[{place}].source_system", _SOURCE_SYSTEM_RULE
        if one.source_system in seen:
            yield f"{where}[{place}].source_system", "must be named once; it stands above"
        seen.add(one.source_system)
        yield from _number(f"{where}[{place}].trust_points", one.trust_points, 0, TRUST_POINTS_MAX)


def _number(where: str, value: float, low: float, high: float) -> Iterator[tuple[str, str]]:
    if not (isfinite(value) and low <= value <= high):
        yield where, f"must be {low:g} to {high:g}"
