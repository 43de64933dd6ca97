"""Relationships, staff and portfolios. They hang on records, so that they follow the records through merges and relinks.

No name of anybody: staff are known by opaque ids of the institution's own directory.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from chassis.tables import INSTANT
from customer.store.tables.core import metadata

relationships = Table(
    "relationships",
    metadata,
    Column("relationship_id", Uuid, primary_key=True),
    Column("institution_id", Text, nullable=False),
    Column("source_system_number", Integer, nullable=False, comment="0 for one that the platform inferred"),
    Column("source_key", LargeBinary, nullable=False, comment="keyed hash of the source's own key, or of what was inferred"),
    Column("content_hash", LargeBinary, nullable=False, comment="keyed"),
    Column("observe_time", INSTANT, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("from_record_id", Uuid, nullable=False),
    Column("to_record_id", Uuid, nullable=False),
    Column("status", SmallInteger, nullable=False, comment="1 disclosed, 2 inferred, 3 confirmed, 4 rejected"),
    Column("legal_basis_code", Text, nullable=False),
    Column("share_basis_points", Integer, nullable=False, comment="0 for not known"),
    Column("position_code", Text, nullable=False),
    Column("begin_date", Date),
    Column("end_date", Date),
    Column("decided_by", Text, nullable=False, comment="opaque id of a steward; empty for none"),
    Column("decide_time", INSTANT),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
    UniqueConstraint("institution_id", "source_system_number", "source_key"),
    CheckConstraint("from_record_id <> to_record_id", name="relationships_of_two"),
    CheckConstraint("end_date >= begin_date", name="relationships_end_after_begin"),
)
Index("relationships_from", relationships.c.from_record_id)
Index("relationships_to", relationships.c.to_record_id)
Index("relationships_kind", relationships.c.kind, relationships.c.institution_id)

departments = Table(
    "departments",
    metadata,
    Column("institution_id", Text, primary_key=True),
    Column("department_id", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    ForeignKeyConstraint(["institution_id"], ["institutions.institution_id"]),
)

staff_members = Table(
    "staff_members",
    metadata,
    Column("institution_id", Text, primary_key=True),
    Column("staff_id", Text, primary_key=True, comment="opaque, of the institution's directory"),
    Column("department_id", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
    ForeignKeyConstraint(["institution_id", "department_id"], ["departments.institution_id", "departments.department_id"]),
)

portfolio_assignments = Table(
    "portfolio_assignments",
    metadata,
    Column("assignment_id", Uuid, primary_key=True),
    Column("institution_id", Text, nullable=False),
    Column("staff_id", Text, nullable=False),
    Column("department_id", Text, nullable=False, comment="of the member of staff when it began"),
    Column("record_id", Uuid, nullable=False, comment="the institution's record of the customer"),
    Column("role", SmallInteger, nullable=False, comment="1 primary, 2 secondary"),
    Column("version", BigInteger, nullable=False, comment="orders the states of this member of staff with this record"),
    Column("begin_time", INSTANT, nullable=False),
    Column("end_time", INSTANT),
    ForeignKeyConstraint(["institution_id", "staff_id"], ["staff_members.institution_id", "staff_members.staff_id"]),
    CheckConstraint("end_time >= begin_time", name="portfolio_assignments_end_after_begin"),
)
_LIVE = text("end_time IS NULL")
Index("portfolio_assignments_record", portfolio_assignments.c.record_id)
Index(
    "portfolio_assignments_staff",
    portfolio_assignments.c.institution_id,
    portfolio_assignments.c.staff_id,
    portfolio_assignments.c.assignment_id,
)
Index(
    "portfolio_assignments_live",
    portfolio_assignments.c.record_id,
    portfolio_assignments.c.staff_id,
    unique=True,
    postgresql_where=_LIVE,
)
Index(
    "portfolio_assignments_one_primary",
    portfolio_assignments.c.record_id,
    portfolio_assignments.c.department_id,
    unique=True,
    postgresql_where=text("end_time IS NULL AND role = 1"),
)
