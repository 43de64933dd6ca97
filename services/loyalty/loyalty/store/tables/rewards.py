"""Rewards and vouchers."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from loyalty.store.tables.base import INSTANT, metadata

rewards = Table(
    "rewards",
    metadata,
    Column("reward_id", Uuid, primary_key=True),
    Column("institution_id", Text, nullable=False, comment="that gives it and accepts its vouchers"),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("price_program_id", Text, ForeignKey("programs.program_id")),
    Column("price_points", BigInteger),
    Column("price_currency_code", Text),
    Column("price_minor_units", BigInteger),
    Column("stock_left", BigInteger, comment="null: without bound"),
    Column("member_max", BigInteger),
    Column("voucher_days", BigInteger, nullable=False),
    Column("available_from", INSTANT),
    Column("available_until", INSTANT),
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint(
        "num_nonnulls(price_program_id, price_points) IN (0, 2)"
        " AND num_nonnulls(price_currency_code, price_minor_units) IN (0, 2)"
        " AND num_nonnulls(price_points, price_minor_units) = 1 AND coalesce(price_points, price_minor_units) > 0",
        name="rewards_price",
    ),
    CheckConstraint("stock_left >= 0", name="rewards_stock"),
    CheckConstraint("member_max > 0", name="rewards_member_max"),
    CheckConstraint("voucher_days > 0", name="rewards_voucher_days"),
    CheckConstraint("state IN ('DRAFT', 'ACTIVE', 'PAUSED', 'ENDED')", name="rewards_state"),
)
Index("rewards_institution", rewards.c.institution_id, rewards.c.reward_id)

vouchers = Table(
    "vouchers",
    metadata,
    Column("voucher_id", Uuid, primary_key=True),
    Column("reward_id", Uuid, ForeignKey("rewards.reward_id"), nullable=False),
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), nullable=False),
    Column("operation_id", Uuid, nullable=False, comment="the redemption that paid it"),
    Column("code_hash", LargeBinary, nullable=False, comment="of a code of 100 random bits, which is kept nowhere"),
    Column("state", Text, nullable=False),
    Column("money_currency_code", Text, comment="what the buyer still pays in money"),
    Column("money_minor_units", BigInteger),
    Column("issue_time", INSTANT, nullable=False),
    Column("expire_time", INSTANT, nullable=False),
    Column("close_time", INSTANT),
    Column("used_by", Text, comment="institution/client that used it"),
    UniqueConstraint("code_hash", name="vouchers_code"),
    UniqueConstraint("operation_id", name="vouchers_operation"),
    CheckConstraint("state IN ('ISSUED', 'USED', 'CANCELLED', 'EXPIRED')", name="vouchers_state"),
    CheckConstraint("(state = 'ISSUED') = (close_time IS NULL)", name="vouchers_closed"),
    CheckConstraint("(state = 'USED') = (used_by IS NOT NULL)", name="vouchers_used"),
)
Index("vouchers_account", vouchers.c.account_id, vouchers.c.voucher_id)
Index("vouchers_reward", vouchers.c.reward_id, vouchers.c.account_id)
Index("vouchers_expiring", vouchers.c.expire_time, postgresql_where=text("state = 'ISSUED'"))
