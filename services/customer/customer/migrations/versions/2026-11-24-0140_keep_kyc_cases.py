"""Keep KYC cases."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240140"
down_revision = "202611240130"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep KYC cases."""
    op.create_table(
        "kyc_dispositions",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("list_id", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("disposition", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("record_id", "list_id", "entry_id", "content_hash"),
        comment="remembered by content: what was cleared comes back when the entry or the customer changes",
    )
    op.create_table(
        "kyc_standards",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column(
            "content", sa.Text(), nullable=False, comment="the YAML, so that an open case keeps the standard it was opened under"
        ),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "screening_list_versions",
        sa.Column("list_id", sa.Text(), nullable=False),
        sa.Column("list_version", sa.Text(), nullable=False),
        sa.Column("topic", sa.SmallInteger(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("activate_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rescreened_until", sa.Uuid(), nullable=True, comment="the last record screened again after the activation"),
        sa.Column("rescreened", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("list_id", "list_version"),
    )
    op.create_index(
        "screening_list_versions_one_active", "screening_list_versions", ["list_id"], unique=True, postgresql_where="active"
    )
    op.create_table(
        "kyc_cases",
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False, comment="the institution's record it hangs on"),
        sa.Column("trigger", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("party_kind", sa.Text(), nullable=False),
        sa.Column("product_codes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("standard_version", sa.Text(), nullable=False),
        sa.Column("risk_level", sa.SmallInteger(), nullable=False),
        sa.Column("factor_codes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("screen_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("open_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decide_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decision_reason", sa.LargeBinary(), nullable=True, comment="PERSONAL: sealed under the record's key"),
        sa.Column("next_review_date", sa.Date(), nullable=True),
        sa.Column("opened_by", sa.Text(), nullable=True, comment="null for the platform itself"),
        sa.Column("submitted_by", sa.Text(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(state IN (3, 4)) = (decided_by IS NOT NULL)", name="kyc_cases_decided_by_somebody"),
        sa.CheckConstraint("decided_by IS NULL OR decided_by <> submitted_by", name="kyc_cases_four_eyes"),
        sa.ForeignKeyConstraint(
            ["institution_id"],
            ["institutions.institution_id"],
        ),
        sa.ForeignKeyConstraint(
            ["standard_version"],
            ["kyc_standards.version"],
        ),
        sa.PrimaryKeyConstraint("case_id"),
    )
    op.create_index("kyc_cases_institution", "kyc_cases", ["institution_id", "case_id"], unique=False)
    op.create_index("kyc_cases_one_open", "kyc_cases", ["record_id"], unique=True, postgresql_where=sa.text("state IN (1, 2)"))
    op.create_index("kyc_cases_record", "kyc_cases", ["record_id", "case_id"], unique=False)
    op.create_index("kyc_cases_review", "kyc_cases", ["next_review_date"], unique=False, postgresql_where=sa.text("state = 3"))
    op.create_table(
        "screening_entries",
        sa.Column("list_id", sa.Text(), nullable=False),
        sa.Column("list_version", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("names", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("forms", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="comparable names by form"),
        sa.Column("birth_years", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("country_codes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("organisation", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["list_id", "list_version"],
            ["screening_list_versions.list_id", "screening_list_versions.list_version"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("list_id", "list_version", "entry_id"),
    )
    op.create_table(
        "kyc_evidence",
        sa.Column("evidence_id", sa.Uuid(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("result", sa.SmallInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False, comment="PERSONAL: sealed under the record's key"),
        sa.Column("expire_date", sa.Date(), nullable=True),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.Column("record_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["kyc_cases.case_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("evidence_id"),
        comment="rows are never changed; the last one of a step counts",
    )
    op.create_index("kyc_evidence_case", "kyc_evidence", ["case_id"], unique=False)
    op.create_index("kyc_evidence_expire", "kyc_evidence", ["expire_date"], unique=False)
    op.create_table(
        "kyc_hits",
        sa.Column("hit_id", sa.Uuid(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("list_id", sa.Text(), nullable=False),
        sa.Column("list_version", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("topic", sa.SmallInteger(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="keyed hash of what was compared"),
        sa.Column("listed_name", sa.Text(), nullable=False, comment="from the list, which is public"),
        sa.Column("score_percent", sa.SmallInteger(), nullable=False),
        sa.Column("name_form", sa.Text(), nullable=False),
        sa.Column("birth_year_check", sa.Text(), nullable=False),
        sa.Column("country_check", sa.Text(), nullable=False),
        sa.Column("disposition", sa.SmallInteger(), nullable=False),
        sa.Column("remembered", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.LargeBinary(), nullable=True, comment="PERSONAL: sealed under the record's key"),
        sa.Column("disposed_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["kyc_cases.case_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hit_id"),
    )
    op.create_index("kyc_hits_entry", "kyc_hits", ["case_id", "list_id", "entry_id"], unique=True)
