"""What an activity earns by rules that are data: a base, promotions upon it, and caps. Pure and exact: integers only.

In each programme the base rule that gives most is the base (the first by id among equals). A promotion adds points of its own, or
multiplies the base. All promotions that stack as SUM add; of those that stack as MAX only the one that adds most does. Each rule
is cut to its caps before it is added, and rounded down by itself.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from loyalty.domain import expressions
from loyalty.domain.earning import RuleVersion, Transaction, points_earned
from loyalty.domain.expressions import ExpressionInvalid, Failed, Value

TRANSACTION = "TRANSACTION"
ACTIVITY_KINDS = (
    TRANSACTION, "BALANCE", "MARGIN", "RISK_SCORE", "JOURNEY_STEP", "LIFE_EVENT", "COMPLAINT",
)  # fmt: skip
CATEGORIES_OF_POINTS = frozenset({"points", "points-redemption", "points-transfer", "points-exchange", "points-refund"})
"""Categories of transactions that were paid with points: points never earn points."""
POINTS_MAX = 10**12
"""The most that one rule gives for one activity."""
FRACTION_MAX = 10**9


class RuleKind(StrEnum):
    """Whether a rule gives the base, or adds to it."""

    BASE = "BASE"
    PROMOTION = "PROMOTION"


class Stacking(StrEnum):
    """How promotions add up."""

    SUM = "SUM"
    MAX = "MAX"


class Why(StrEnum):
    """What became of a rule."""

    GAVE = "GAVE"
    CAPPED = "CAPPED"
    """It would have given more; the points left by its caps may be none."""
    OTHER_KIND = "OTHER_KIND"
    OTHER_INSTITUTION = "OTHER_INSTITUTION"
    CONDITION_NOT_MET = "CONDITION_NOT_MET"
    FAILED = "FAILED"
    """Its expression came to no value: it gives nothing."""
    NO_POINTS = "NO_POINTS"
    ANOTHER_GIVES_MORE = "ANOTHER_GIVES_MORE"
    NO_BASE = "NO_BASE"
    """It multiplies, and there is nothing to multiply."""
    PAID_WITH_POINTS = "PAID_WITH_POINTS"


@dataclass(frozen=True, slots=True)
class Caps:
    """The most points that a rule gives; None: no bound. Days and months are those of the programme's zone."""

    activity_points_max: int
    member_day_points_max: int | None = None
    member_month_points_max: int | None = None
    member_points_max: int | None = None
    total_points_max: int | None = None
    """Of all members together: a campaign's budget."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What an expression rule says. Points are an expression, or a fraction: of the amount in minor units (a base), or the
    multiplier of the base (a promotion: 3/2 adds half as much again)."""

    kind: RuleKind
    caps: Caps
    condition: str = "true"
    points: str = ""
    numerator: int = 0
    denominator: int = 0
    stacking: Stacking = Stacking.SUM
    activity_kinds: frozenset[str] = frozenset({TRANSACTION})
    institution_ids: frozenset[str] = frozenset()
    """Where it applies; empty: at the issuer."""


@dataclass(frozen=True, slots=True)
class ExpressionRule:
    """One version of an expression rule that two persons decided on."""

    program_id: str
    rule_id: str
    version: int
    definition: Definition
    effective_time: datetime
    end_time: datetime | None = None

    @property
    def name(self) -> str:
        """As it stands in an operation: `{rule}/versions/{version}`."""
        return f"{self.rule_id}/versions/{self.version}"


AnyRule: TypeAlias = RuleVersion | ExpressionRule


@dataclass(frozen=True, slots=True)
class Doing:
    """An activity as rules see it: `transaction` is its money, of a balance the closing one; `detail` is `{journey}:{event}` of a
    step, the life event, or the topic of a complaint."""

    kind: str
    institution_id: str
    occurred_at: datetime
    transaction: Transaction | None = None
    channel: str = ""
    department: str = ""
    counterparty: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What rules of a programme may know of its member: levels at the issuer and in the alliance, and the tier."""

    level: str = ""
    alliance_level: str = ""
    tier: str = ""
    tier_rank: int = 0
    tier_percent: int = 100


class Cap(NamedTuple):
    """A counter: of a rule, for a member (or "" for all), in a period that began on a day (or ever)."""

    program_id: str
    rule_id: str
    subject: str
    period: str
    start: date


EVER = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Line:
    """What one rule came to. `wanted_points` is what it would give without caps."""

    rule: AnyRule
    why: Why
    points: int = 0
    wanted_points: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Earned:
    """What an activity earns in one programme, and why."""

    program_id: str
    lines: Sequence[Line] = field(default_factory=tuple)

    @property
    def points(self) -> int:
        """All of it."""
        return sum(line.points for line in self.lines)

    @property
    def rule(self) -> str:
        """The rules that gave, as they stand in an operation."""
        return " ".join(line.rule.name for line in self.lines if line.points)


def violations(definition: Definition) -> list[tuple[str, str]]:
    """What is wrong with a rule: field and rule, with the position in an expression."""
    found = []
    for name, text, of_type in (("condition", definition.condition, bool), ("points", definition.points, int)):
        if text:
            try:
                expressions.check(text, of_type)
            except ExpressionInvalid as invalid:
                found.append((name, str(invalid.wrong)))
    if not definition.condition:
        found.append(("condition", "must be a condition; true applies always"))
    fraction = bool(definition.numerator or definition.denominator)
    if fraction is bool(definition.points):
        found.append(("points", "or fraction must say how many, and not both"))
    elif fraction and not (0 < definition.numerator <= FRACTION_MAX and 0 < definition.denominator <= FRACTION_MAX):
        found.append(("fraction", f"must be of whole numbers from 1 to {FRACTION_MAX}"))
    elif fraction and definition.kind is RuleKind.PROMOTION and definition.numerator <= definition.denominator:
        found.append(("fraction", "of a promotion multiplies the base and must be more than 1"))
    unknown = sorted(definition.activity_kinds - set(ACTIVITY_KINDS))
    if unknown or not definition.activity_kinds:
        found.append(("activity_kinds", f"must be some of {', '.join(ACTIVITY_KINDS)}"))
    caps = definition.caps
    if not 0 < caps.activity_points_max <= POINTS_MAX:
        found.append(("caps.activity_points_max", f"must be 1 to {POINTS_MAX}"))
    for name in ("member_day_points_max", "member_month_points_max", "member_points_max", "total_points_max"):
        most = getattr(caps, name)
        if most is not None and most <= 0:
            found.append((f"caps.{name}", "must be above 0, or be left out"))
    return found


def in_force(rules: Iterable[AnyRule], at: datetime) -> list[AnyRule]:
    """Of each rule the newest version that began before an instant, unless that one has ended."""
    newest: dict[tuple[str, str], AnyRule] = {}
    for rule in rules:
        key = rule.program_id, rule.rule_id
        if rule.effective_time <= at and (key not in newest or newest[key].version < rule.version):
            newest[key] = rule
    return [
        newest[key] for key in sorted(newest)
        if not (isinstance(rule := newest[key], ExpressionRule) and rule.end_time is not None and rule.end_time <= at)
    ]  # fmt: skip


def caps_of(rule: AnyRule, member: str, day: date) -> list[tuple[Cap, int]]:
    """The counters that bound a rule for a member on a day of the programme's zone, and their most."""
    if isinstance(rule, RuleVersion):
        return []
    caps, key = rule.definition.caps, (rule.program_id, rule.rule_id)
    bounds = [
        (Cap(*key, member, "DAY", day), caps.member_day_points_max),
        (Cap(*key, member, "MONTH", day.replace(day=1)), caps.member_month_points_max),
        (Cap(*key, member, "EVER", EVER), caps.member_points_max),
        (Cap(*key, "", "EVER", EVER), caps.total_points_max),
    ]
    return [(cap, most) for cap, most in bounds if most is not None]


def variables(doing: Doing, standing: Standing, zone: ZoneInfo) -> dict[str, Value]:
    """What expressions see. Amounts are minor units, above zero; times are those of the programme's zone."""
    local = doing.occurred_at.astimezone(zone)
    money = doing.transaction
    signed = money.amount_minor_units if money else 0
    return {
        "kind": doing.kind,
        "amount": abs(signed),
        "direction": "" if signed == 0 else "SPENT" if signed < 0 else "RECEIVED",
        "currency": money.currency_code if money else "",
        "category": money.category if money else "",
        "channel": doing.channel,
        "department": doing.department,
        "institution": doing.institution_id,
        "counterparty": doing.counterparty,
        "detail": doing.detail,
        "date": local.date().isoformat(),
        "local": {
            "year": local.year, "month": local.month, "day": local.day, "weekday": local.isoweekday(), "hour": local.hour,
            "minute": local.minute,
        },
        "level": standing.level,
        "alliance_level": standing.alliance_level,
        "tier": standing.tier,
        "tier_rank": standing.tier_rank,
        "tier_percent": standing.tier_percent,
    }  # fmt: skip


def earn(
    rules: Iterable[AnyRule],
    issuer_id: str,
    doing: Doing,
    standing: Standing,
    zone: ZoneInfo,
    member: str,
    used: MutableMapping[Cap, int],
) -> Earned:
    """What an activity earns by the rules of one programme.

    Args:
        rules: all versions of all rules of the programme.
        issuer_id: the programme's institution.
        doing: the activity.
        standing: what is known of the member.
        zone: the programme's.
        member: whose caps they are.
        used: points given before, by cap; raised by what is given now.
    """
    applying = in_force(rules, doing.occurred_at)
    program_id = applying[0].program_id if applying else ""
    if doing.transaction is not None and doing.transaction.category in CATEGORIES_OF_POINTS:
        return Earned(program_id, tuple(Line(rule, Why.PAID_WITH_POINTS) for rule in applying))
    facts = variables(doing, standing, zone)
    day = doing.occurred_at.astimezone(zone).date()
    bases = [rule for rule in applying if isinstance(rule, RuleVersion) or rule.definition.kind is RuleKind.BASE]
    tried = _best([_capped(_tried(rule, issuer_id, doing, facts, 0), member, day, used) for rule in bases])
    base = 0
    for line in tried:
        base += line.points
        _count(line, member, day, used)
    lines = list(tried)
    summed: list[Line] = []
    rivals: list[Line] = []
    for rule in applying:
        if isinstance(rule, ExpressionRule) and rule.definition.kind is RuleKind.PROMOTION:
            line = _capped(_tried(rule, issuer_id, doing, facts, base), member, day, used)
            (summed if rule.definition.stacking is Stacking.SUM else rivals).append(line)
    for line in (*summed, *_best(rivals)):
        _count(line, member, day, used)
        lines.append(line)
    return Earned(program_id, tuple(lines))


def _tried(rule: AnyRule, issuer_id: str, doing: Doing, facts: Mapping[str, Value], base: int) -> Line:
    """What a rule would give without its caps."""
    if isinstance(rule, RuleVersion):
        if doing.institution_id != issuer_id:
            return Line(rule, Why.OTHER_INSTITUTION)
        if doing.kind != TRANSACTION:
            return Line(rule, Why.OTHER_KIND)
        points = points_earned(rule, doing.transaction) if doing.transaction is not None else 0
        return Line(rule, Why.GAVE if points else Why.CONDITION_NOT_MET, points, points)
    definition = rule.definition
    if doing.kind not in definition.activity_kinds:
        return Line(rule, Why.OTHER_KIND)
    if doing.institution_id not in (definition.institution_ids or {issuer_id}):
        return Line(rule, Why.OTHER_INSTITUTION)
    met = expressions.evaluate(definition.condition, facts)
    if isinstance(met, Failed):
        return Line(rule, Why.FAILED, message=met.message)
    if met is not True:
        return Line(rule, Why.CONDITION_NOT_MET)
    if definition.points:
        given = expressions.evaluate(definition.points, facts)
        if isinstance(given, Failed):
            return Line(rule, Why.FAILED, message=given.message)
        points = int(given)
    elif definition.kind is RuleKind.BASE:
        points = int(facts["amount"]) * definition.numerator // definition.denominator  # type: ignore[arg-type]
    elif base == 0:
        return Line(rule, Why.NO_BASE)
    else:
        points = base * (definition.numerator - definition.denominator) // definition.denominator
    return Line(rule, Why.GAVE if points > 0 else Why.NO_POINTS, max(points, 0), max(points, 0))


def _capped(line: Line, member: str, day: date, used: Mapping[Cap, int]) -> Line:
    if isinstance(line.rule, RuleVersion) or not line.points:
        return line
    bounds = [most - used.get(cap, 0) for cap, most in caps_of(line.rule, member, day)]
    room = max(0, min([line.rule.definition.caps.activity_points_max, *bounds]))
    if line.points <= room:
        return line
    return Line(line.rule, Why.CAPPED, room, line.wanted_points)


def _best(lines: Sequence[Line]) -> list[Line]:
    """Only the line that gives most keeps its points; the first among equals."""
    best = max(range(len(lines)), key=lambda i: (lines[i].points, -i), default=None)
    return [
        line if i == best or not line.points else Line(line.rule, Why.ANOTHER_GIVES_MORE, 0, line.wanted_points)
        for i, line in enumerate(lines)
    ]


def _count(line: Line, member: str, day: date, used: MutableMapping[Cap, int]) -> None:
    for cap, _ in caps_of(line.rule, member, day) if line.points else ():
        used[cap] = used.get(cap, 0) + line.points
