"""Earn rules, which activities were decided and what they earned, tiers, and limits."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from loyalty.store.tables.base import INSTANT, metadata

DECIDED_BY_TWO = "(state = 'ACTIVE') = (approved_by IS NOT NULL) AND (approved_by IS NULL OR approved_by <> drafted_by)"

earn_rule_versions = Table(
    "earn_rule_versions",
    metadata,
    Column("program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("rule_id", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("currency_code", Text, comment="this and the next: of linear rules"),
    Column("categories", ARRAY(Text), comment="empty: all"),
    Column("direction", Text),
    Column("amount_minor_units_min", BigInteger),
    Column("points_numerator", BigInteger),
    Column("points_denominator", BigInteger),
    Column("points_max", BigInteger),
    Column("effective_time", INSTANT, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'ACTIVE'")),
    Column("definition", JSONB, comment="of expression rules: condition, points, caps; null for linear rules"),
    Column("institution_ids", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="empty: at the issuer"),
    Column("end_time", INSTANT),
    Column("drafted_by", Text, comment="subject; null for linear rules, which one person writes"),
    Column("approved_by", Text),
    CheckConstraint("direction IN ('SPENT', 'RECEIVED')", name="earn_rule_versions_direction"),
    CheckConstraint("points_numerator > 0 AND points_denominator > 0 AND points_max > 0", name="earn_rule_versions_positive"),
    CheckConstraint("state IN ('DRAFT', 'ACTIVE', 'WITHDRAWN')", name="earn_rule_versions_state"),
    CheckConstraint(
        "num_nonnulls(currency_code, categories, direction, amount_minor_units_min, points_numerator, points_denominator,"
        " points_max) = CASE WHEN definition IS NULL THEN 7 ELSE 0 END",
        name="earn_rule_versions_form",
    ),
    CheckConstraint(
        f"definition IS NULL AND state = 'ACTIVE' OR drafted_by IS NOT NULL AND {DECIDED_BY_TWO}",
        name="earn_rule_versions_two_persons",
    ),
)
Index(
    "earn_rule_versions_institutions", earn_rule_versions.c.institution_ids,
    postgresql_using="gin", postgresql_where=text("institution_ids <> '{}'"),
)  # fmt: skip

decided_activities = Table(
    "decided_activities",
    metadata,
    Column("activity_id", Uuid, primary_key=True, comment="earns nothing any more: it was decided, or reversed before it came"),
    comment="each activity is decided once, for ever: a re-publication must not earn for what came before the account",
)

earn_decisions = Table(
    "earn_decisions",
    metadata,
    Column("activity_id", Uuid, primary_key=True),
    Column("program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), nullable=False),
    Column("month", Date, nullable=False, comment="of the programme's zone, in which it qualifies"),
    Column("points", BigInteger, nullable=False),
    Column("amount_minor_units", BigInteger, nullable=False, comment="that qualifies; 0 where it was no transaction"),
    Column("currency_code", Text, nullable=False),
    Column("counted", JSONB, nullable=False, comment="[rule, subject, period, start date, points]: what its caps count"),
    Column("facts", JSONB, nullable=False, comment="the activity as rules saw it; {} when the person was erased"),
    Column("reversed", Boolean, nullable=False, server_default=text("false"), comment="then it counts and qualifies no more"),
    comment="what an activity earned in a programme, as far as caps and tiers need it",
)
Index("earn_decisions_account", earn_decisions.c.account_id)

earn_counters = Table(
    "earn_counters",
    metadata,
    Column("program_id", Text, primary_key=True),
    Column("rule_id", Text, primary_key=True),
    Column("subject", Text, primary_key=True, comment="account, or empty for all members"),
    Column("period", Text, primary_key=True),
    Column("start_date", Date, primary_key=True),
    Column("points", BigInteger, nullable=False),
    CheckConstraint("period IN ('DAY', 'MONTH', 'EVER')", name="earn_counters_period"),
    CheckConstraint("points >= 0", name="earn_counters_points"),
    comment="points that capped rules gave, under the ledger's head's lock",
)

customer_levels = Table(
    "customer_levels",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("scope", Text, primary_key=True, comment="alliance, or an institution"),
    Column("level", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    comment="projection of rating: what earn rules see as level and alliance_level",
)

tier_schemes = Table(
    "tier_schemes",
    metadata,
    Column("program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("drafted_by", Text, nullable=False),
    Column("approved_by", Text),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint("state IN ('DRAFT', 'ACTIVE')", name="tier_schemes_state"),
    CheckConstraint(DECIDED_BY_TWO, name="tier_schemes_two_persons"),
    comment="of a programme the newest active version holds",
)

tier_progress = Table(
    "tier_progress",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), primary_key=True),
    Column("program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("month", Date, primary_key=True),
    Column("currency_code", Text, primary_key=True),
    Column("points", BigInteger, nullable=False),
    Column("amount_minor_units", BigInteger, nullable=False),
    comment="what qualifies for tiers, by month of the programme's zone",
)

member_tiers = Table(
    "member_tiers",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), primary_key=True),
    Column("program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("tier_id", Text, nullable=False, comment="empty: none any more"),
    Column("review_date", Date, comment="null where there is no tier to lose"),
    Column("version", BigInteger, nullable=False),
    Column("change_time", INSTANT, nullable=False),
    CheckConstraint("(tier_id = '') = (review_date IS NULL)", name="member_tiers_review"),
    comment="in which tier an account stands",
)
Index("member_tiers_review", member_tiers.c.review_date, postgresql_where=text("review_date IS NOT NULL"))

limits = Table(
    "limits",
    metadata,
    Column("limit_id", Uuid, primary_key=True),
    Column("owner_institution_id", Text, nullable=False, comment="whose people decide on it"),
    Column("scope", Text, nullable=False),
    Column("window_kind", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("kinds", ARRAY(Text), nullable=False),
    Column("program_id", Text, ForeignKey("programs.program_id"), comment="null: points of all programmes"),
    Column("institution_id", Text, comment="null: anywhere"),
    Column("count_max", BigInteger),
    Column("points_max", BigInteger),
    Column("first_days", BigInteger, comment="only for accounts linked there since fewer days"),
    Column("state", Text, nullable=False),
    Column("drafted_by", Text, nullable=False),
    Column("approved_by", Text),
    Column("ending_by", Text, comment="who asked first to end it"),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint("scope IN ('MEMBER', 'MEMBER_AT_INSTITUTION', 'INSTITUTION', 'PROGRAM')", name="limits_scope"),
    CheckConstraint("window_kind IN ('HOUR', 'DAY')", name="limits_window"),
    CheckConstraint("state IN ('DRAFT', 'ACTIVE', 'ENDING', 'ENDED')", name="limits_state"),
    CheckConstraint("program_id IS NOT NULL OR institution_id IS NOT NULL", name="limits_about"),
    CheckConstraint("count_max IS NOT NULL OR points_max IS NOT NULL", name="limits_most"),
    CheckConstraint(
        "(state IN ('DRAFT', 'ENDED') OR approved_by IS NOT NULL) AND (approved_by IS NULL OR approved_by <> drafted_by)"
        " AND (state = 'ENDING') <= (ending_by IS NOT NULL)",
        name="limits_two_persons",
    ),
    comment="of how often and how much; read with the configuration's version",
)
Index("limits_owner", limits.c.owner_institution_id, limits.c.limit_id)

limit_counters = Table(
    "limit_counters",
    metadata,
    Column("limit_id", Uuid, ForeignKey("limits.limit_id"), primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("window_start", INSTANT, primary_key=True),
    Column("operations_count", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    comment="what was posted in windows of limits; written with the batch",
)
