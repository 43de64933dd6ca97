"""Programmes, agreements between institutions, and rates between programmes."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Table,
    Text,
)

from loyalty.store.tables.base import INSTANT, metadata

programs = Table(
    "programs",
    metadata,
    Column("program_id", Text, primary_key=True),
    Column("institution_id", Text, nullable=False, comment="the issuer, who stands for the points"),
    Column("display_name", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("erasure_rule", Text, nullable=False, server_default="EXPIRE", comment="what becomes of an erased member's points"),
    CheckConstraint("erasure_rule IN ('EXPIRE', 'KEEP')", name="programs_erasure_rule"),
)
Index("programs_institution", programs.c.institution_id)
