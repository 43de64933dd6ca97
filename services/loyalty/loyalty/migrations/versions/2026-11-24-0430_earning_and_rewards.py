"""Earn rules as expressions, tiers, limits, rewards and vouchers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240430"
down_revision = "202611240420"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
LINEAR = (
    "currency_code", "categories", "direction", "amount_minor_units_min", "points_numerator", "points_denominator", "points_max",
)  # fmt: skip


def upgrade() -> None:
    """Linear rules stay as they are: active, of one person."""
    _earn_rule_versions()
    _earn_decisions()
    _earn_counters()
    _customer_levels()
    _tier_schemes()
    _tier_progress()
    _member_tiers()
    _limits()
    _limit_counters()
    _rewards()
    _vouchers()


def _earn_rule_versions() -> None:
    """Rules as expressions stand beside linear ones, in the same sequence of versions."""
    table = "earn_rule_versions"
    for name in LINEAR:
        op.alter_column(table, name, nullable=True)
    op.alter_column(
        table, "currency_code", existing_type=sa.Text(), existing_nullable=True, comment="this and the next: of linear rules"
    )
    op.add_column(table, sa.Column("state", sa.Text(), server_default=sa.text("'ACTIVE'"), nullable=False))
    op.add_column(
        table,
        sa.Column(
            "definition",
            postgresql.JSONB(),
            nullable=True,
            comment="of expression rules: condition, points, caps; null for linear rules",
        ),
    )
    op.add_column(
        table,
        sa.Column(
            "institution_ids",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="empty: at the issuer",
        ),
    )
    op.add_column(table, sa.Column("end_time", INSTANT, nullable=True))
    op.add_column(
        table,
        sa.Column("drafted_by", sa.Text(), nullable=True, comment="subject; null for linear rules, which one person writes"),
    )
    op.add_column(table, sa.Column("approved_by", sa.Text(), nullable=True))
    op.create_check_constraint("earn_rule_versions_state", table, "state IN ('DRAFT', 'ACTIVE', 'WITHDRAWN')")
    op.create_check_constraint(
        "earn_rule_versions_form",
        table,
        f"num_nonnulls({', '.join(LINEAR)}) = CASE WHEN definition IS NULL THEN 7 ELSE 0 END",
    )
    op.create_check_constraint(
        "earn_rule_versions_two_persons",
        table,
        "definition IS NULL AND state = 'ACTIVE' OR drafted_by IS NOT NULL"
        " AND (state = 'ACTIVE') = (approved_by IS NOT NULL) AND (approved_by IS NULL OR approved_by <> drafted_by)",
    )
    op.create_index(
        "earn_rule_versions_institutions",
        table,
        ["institution_ids"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("institution_ids <> '{}'"),
    )


def _earn_decisions() -> None:
    """What activities earned, for caps and tiers."""
    op.create_table(
        "earn_decisions",
        sa.Column("activity_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False, comment="of the programme's zone, in which it qualifies"),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor_units", sa.BigInteger(), nullable=False, comment="that qualifies; 0 where it was no transaction"),
        sa.Column("currency_code", sa.Text(), nullable=False),
        sa.Column(
            "counted",
            postgresql.JSONB(),
            nullable=False,
            comment="[rule, subject, period, start date, points]: what its caps count",
        ),
        sa.Column(
            "facts",
            postgresql.JSONB(),
            nullable=False,
            comment="the activity as rules saw it; {} when the person was erased",
        ),
        sa.Column(
            "reversed",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="then it counts and qualifies no more",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.account_id"],
        ),
        sa.ForeignKeyConstraint(
            ["program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("activity_id", "program_id"),
        comment="what an activity earned in a programme, as far as caps and tiers need it",
    )
    op.create_index("earn_decisions_account", "earn_decisions", ["account_id"], unique=False)


def _earn_counters() -> None:
    """What capped rules gave."""
    op.create_table(
        "earn_counters",
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="account, or empty for all members"),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("start_date", sa.Date(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("period IN ('DAY', 'MONTH', 'EVER')", name="earn_counters_period"),
        sa.CheckConstraint("points >= 0", name="earn_counters_points"),
        sa.PrimaryKeyConstraint("program_id", "rule_id", "subject", "period", "start_date"),
        comment="points that capped rules gave, under the ledger's head's lock",
    )


def _customer_levels() -> None:
    """Levels of customers, told by rating."""
    op.create_table(
        "customer_levels",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False, comment="alliance, or an institution"),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "scope"),
        comment="projection of rating: what earn rules see as level and alliance_level",
    )


def _tier_schemes() -> None:
    """Tiers of programmes, in versions."""
    op.create_table(
        "tier_schemes",
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("definition", postgresql.JSONB(), nullable=False),
        sa.Column("drafted_by", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.CheckConstraint(
            "(state = 'ACTIVE') = (approved_by IS NOT NULL) AND (approved_by IS NULL OR approved_by <> drafted_by)",
            name="tier_schemes_two_persons",
        ),
        sa.CheckConstraint("state IN ('DRAFT', 'ACTIVE')", name="tier_schemes_state"),
        sa.ForeignKeyConstraint(
            ["program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("program_id", "version"),
        comment="of a programme the newest active version holds",
    )


def _tier_progress() -> None:
    """What qualifies."""
    op.create_table(
        "tier_progress",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("currency_code", sa.Text(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor_units", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.account_id"],
        ),
        sa.ForeignKeyConstraint(
            ["program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("account_id", "program_id", "month", "currency_code"),
        comment="what qualifies for tiers, by month of the programme's zone",
    )


def _member_tiers() -> None:
    """Where members stand."""
    op.create_table(
        "member_tiers",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("tier_id", sa.Text(), nullable=False, comment="empty: none any more"),
        sa.Column("review_date", sa.Date(), nullable=True, comment="null where there is no tier to lose"),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("change_time", INSTANT, nullable=False),
        sa.CheckConstraint("(tier_id = '') = (review_date IS NULL)", name="member_tiers_review"),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.account_id"],
        ),
        sa.ForeignKeyConstraint(
            ["program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("account_id", "program_id"),
        comment="in which tier an account stands",
    )
    op.create_index(
        "member_tiers_review", "member_tiers", ["review_date"], unique=False, postgresql_where=sa.text("review_date IS NOT NULL")
    )


def _limits() -> None:
    """Limits."""
    op.create_table(
        "limits",
        sa.Column("limit_id", sa.Uuid(), nullable=False),
        sa.Column("owner_institution_id", sa.Text(), nullable=False, comment="whose people decide on it"),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("window_kind", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("kinds", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=True, comment="null: points of all programmes"),
        sa.Column("institution_id", sa.Text(), nullable=True, comment="null: anywhere"),
        sa.Column("count_max", sa.BigInteger(), nullable=True),
        sa.Column("points_max", sa.BigInteger(), nullable=True),
        sa.Column("first_days", sa.BigInteger(), nullable=True, comment="only for accounts linked there since fewer days"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("drafted_by", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("ending_by", sa.Text(), nullable=True, comment="who asked first to end it"),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.CheckConstraint(
            "(state IN ('DRAFT', 'ENDED') OR approved_by IS NOT NULL)"
            " AND (approved_by IS NULL OR approved_by <> drafted_by)"
            " AND (state = 'ENDING') <= (ending_by IS NOT NULL)",
            name="limits_two_persons",
        ),
        sa.CheckConstraint("scope IN ('MEMBER', 'MEMBER_AT_INSTITUTION', 'INSTITUTION', 'PROGRAM')", name="limits_scope"),
        sa.CheckConstraint("state IN ('DRAFT', 'ACTIVE', 'ENDING', 'ENDED')", name="limits_state"),
        sa.CheckConstraint("window_kind IN ('HOUR', 'DAY')", name="limits_window"),
        sa.CheckConstraint("count_max IS NOT NULL OR points_max IS NOT NULL", name="limits_most"),
        sa.CheckConstraint("program_id IS NOT NULL OR institution_id IS NOT NULL", name="limits_about"),
        sa.ForeignKeyConstraint(
            ["program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("limit_id"),
        comment="of how often and how much; read with the configuration's version",
    )
    op.create_index("limits_owner", "limits", ["owner_institution_id", "limit_id"], unique=False)


def _limit_counters() -> None:
    """What was posted in their windows."""
    op.create_table(
        "limit_counters",
        sa.Column("limit_id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("window_start", INSTANT, nullable=False),
        sa.Column("operations_count", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["limit_id"],
            ["limits.limit_id"],
        ),
        sa.PrimaryKeyConstraint("limit_id", "subject", "window_start"),
        comment="what was posted in windows of limits; written with the batch",
    )


def _rewards() -> None:
    """Rewards."""
    op.create_table(
        "rewards",
        sa.Column("reward_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="that gives it and accepts its vouchers"),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("price_program_id", sa.Text(), nullable=True),
        sa.Column("price_points", sa.BigInteger(), nullable=True),
        sa.Column("price_currency_code", sa.Text(), nullable=True),
        sa.Column("price_minor_units", sa.BigInteger(), nullable=True),
        sa.Column("stock_left", sa.BigInteger(), nullable=True, comment="null: without bound"),
        sa.Column("member_max", sa.BigInteger(), nullable=True),
        sa.Column("voucher_days", sa.BigInteger(), nullable=False),
        sa.Column("available_from", INSTANT, nullable=True),
        sa.Column("available_until", INSTANT, nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.CheckConstraint("state IN ('DRAFT', 'ACTIVE', 'PAUSED', 'ENDED')", name="rewards_state"),
        sa.CheckConstraint("member_max > 0", name="rewards_member_max"),
        sa.CheckConstraint(
            "num_nonnulls(price_program_id, price_points) IN (0, 2)"
            " AND num_nonnulls(price_currency_code, price_minor_units) IN (0, 2)"
            " AND num_nonnulls(price_points, price_minor_units) = 1"
            " AND coalesce(price_points, price_minor_units) > 0",
            name="rewards_price",
        ),
        sa.CheckConstraint("stock_left >= 0", name="rewards_stock"),
        sa.CheckConstraint("voucher_days > 0", name="rewards_voucher_days"),
        sa.ForeignKeyConstraint(
            ["price_program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("reward_id"),
    )
    op.create_index("rewards_institution", "rewards", ["institution_id", "reward_id"], unique=False)


def _vouchers() -> None:
    """Vouchers."""
    op.create_table(
        "vouchers",
        sa.Column("voucher_id", sa.Uuid(), nullable=False),
        sa.Column("reward_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False, comment="the redemption that paid it"),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False, comment="of a code of 100 random bits, which is kept nowhere"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("money_currency_code", sa.Text(), nullable=True, comment="what the buyer still pays in money"),
        sa.Column("money_minor_units", sa.BigInteger(), nullable=True),
        sa.Column("issue_time", INSTANT, nullable=False),
        sa.Column("expire_time", INSTANT, nullable=False),
        sa.Column("close_time", INSTANT, nullable=True),
        sa.Column("used_by", sa.Text(), nullable=True, comment="institution/client that used it"),
        sa.CheckConstraint("(state = 'ISSUED') = (close_time IS NULL)", name="vouchers_closed"),
        sa.CheckConstraint("(state = 'USED') = (used_by IS NOT NULL)", name="vouchers_used"),
        sa.CheckConstraint("state IN ('ISSUED', 'USED', 'CANCELLED', 'EXPIRED')", name="vouchers_state"),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.account_id"],
        ),
        sa.ForeignKeyConstraint(
            ["reward_id"],
            ["rewards.reward_id"],
        ),
        sa.PrimaryKeyConstraint("voucher_id"),
        sa.UniqueConstraint("code_hash", name="vouchers_code"),
        sa.UniqueConstraint("operation_id", name="vouchers_operation"),
    )
    op.create_index("vouchers_account", "vouchers", ["account_id", "voucher_id"], unique=False)
    op.create_index("vouchers_expiring", "vouchers", ["expire_time"], unique=False, postgresql_where=sa.text("state = 'ISSUED'"))
    op.create_index("vouchers_reward", "vouchers", ["reward_id", "account_id"], unique=False)
