"""Earn rules, and which activities were decided."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY

from loyalty.store.tables.base import INSTANT, metadata

earn_rule_versions = Table(
    "earn_rule_versions",
    metadata,
    Column("program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("rule_id", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("currency_code", Text, nullable=False),
    Column("categories", ARRAY(Text), nullable=False, comment="empty: all"),
    Column("direction", Text, nullable=False),
    Column("amount_minor_units_min", BigInteger, nullable=False),
    Column("points_numerator", BigInteger, nullable=False),
    Column("points_denominator", BigInteger, nullable=False),
    Column("points_max", BigInteger, nullable=False),
    Column("effective_time", INSTANT, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint("direction IN ('SPENT', 'RECEIVED')", name="earn_rule_versions_direction"),
    CheckConstraint("points_numerator > 0 AND points_denominator > 0 AND points_max > 0", name="earn_rule_versions_positive"),
)

decided_activities = Table(
    "decided_activities",
    metadata,
    Column("activity_id", Uuid, primary_key=True, comment="earns nothing any more: it was decided, or reversed before it came"),
    comment="each activity is decided once, for ever: a re-publication must not earn for what came before the account",
)
