"""Keep relationships, staff and portfolios."""

import sqlalchemy as sa
from alembic import op

revision = "202611240160"
down_revision = "202611240150"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep relationships, staff and portfolios."""

    op.create_table(
        "relationships",
        sa.Column("relationship_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("source_system_number", sa.Integer(), nullable=False, comment="0 for one that the platform inferred"),
        sa.Column(
            "source_key", sa.LargeBinary(), nullable=False, comment="keyed hash of the source's own key, or of what was inferred"
        ),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="keyed"),
        sa.Column("observe_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("from_record_id", sa.Uuid(), nullable=False),
        sa.Column("to_record_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False, comment="1 disclosed, 2 inferred, 3 confirmed, 4 rejected"),
        sa.Column("legal_basis_code", sa.Text(), nullable=False),
        sa.Column("share_basis_points", sa.Integer(), nullable=False, comment="0 for not known"),
        sa.Column("position_code", sa.Text(), nullable=False),
        sa.Column("begin_date", sa.Date(), nullable=True),
        sa.Column("end_date", sa.Date(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=False, comment="opaque id of a steward; empty for none"),
        sa.Column("decide_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("end_date >= begin_date", name="relationships_end_after_begin"),
        sa.CheckConstraint("from_record_id <> to_record_id", name="relationships_of_two"),
        sa.PrimaryKeyConstraint("relationship_id"),
        sa.UniqueConstraint("institution_id", "source_system_number", "source_key"),
    )
    op.create_index("relationships_from", "relationships", ["from_record_id"], unique=False)
    op.create_index("relationships_to", "relationships", ["to_record_id"], unique=False)
    op.create_table(
        "departments",
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("department_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["institution_id"],
            ["institutions.institution_id"],
        ),
        sa.PrimaryKeyConstraint("institution_id", "department_id"),
    )
    op.create_table(
        "staff_members",
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("staff_id", sa.Text(), nullable=False, comment="opaque, of the institution's directory"),
        sa.Column("department_id", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["institution_id", "department_id"],
            ["departments.institution_id", "departments.department_id"],
        ),
        sa.PrimaryKeyConstraint("institution_id", "staff_id"),
    )
    op.create_table(
        "portfolio_assignments",
        sa.Column("assignment_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("staff_id", sa.Text(), nullable=False),
        sa.Column("department_id", sa.Text(), nullable=False, comment="of the member of staff when it began"),
        sa.Column("record_id", sa.Uuid(), nullable=False, comment="the institution's record of the customer"),
        sa.Column("role", sa.SmallInteger(), nullable=False, comment="1 primary, 2 secondary"),
        sa.Column(
            "version", sa.BigInteger(), nullable=False, comment="orders the states of this member of staff with this record"
        ),
        sa.Column("begin_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("end_time >= begin_time", name="portfolio_assignments_end_after_begin"),
        sa.ForeignKeyConstraint(
            ["institution_id", "staff_id"],
            ["staff_members.institution_id", "staff_members.staff_id"],
        ),
        sa.PrimaryKeyConstraint("assignment_id"),
    )
    op.create_index(
        "portfolio_assignments_live",
        "portfolio_assignments",
        ["record_id", "staff_id"],
        unique=True,
        postgresql_where=sa.text("end_time IS NULL"),
    )
    op.create_index(
        "portfolio_assignments_one_primary",
        "portfolio_assignments",
        ["record_id", "department_id"],
        unique=True,
        postgresql_where=sa.text("end_time IS NULL AND role = 1"),
    )
    op.create_index("portfolio_assignments_record", "portfolio_assignments", ["record_id"], unique=False)
    op.create_index(
        "portfolio_assignments_staff", "portfolio_assignments", ["institution_id", "staff_id", "assignment_id"], unique=False
    )
