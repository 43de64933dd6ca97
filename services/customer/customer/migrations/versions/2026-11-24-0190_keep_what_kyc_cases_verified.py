"""Keep what decided KYC cases verified."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240190"
down_revision = "202611240180"
branch_labels = None
depends_on = None

VIEWER = "concord_customer_viewer"


def upgrade() -> None:
    """Keep what decided KYC cases verified, readable for who may see the record."""
    op.create_table(
        "kyc_verifications",
        sa.Column("verification_id", sa.Uuid(), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("attribute", sa.SmallInteger(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("method", sa.SmallInteger(), nullable=False),
        sa.Column("verify_date", sa.Date(), nullable=False, comment="when the evidence was recorded"),
        sa.Column(
            "value_digest",
            sa.LargeBinary(),
            nullable=False,
            comment="PERSONAL: sealed under the record's key; which value it was",
        ),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["kyc_cases.case_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("verification_id"),
        comment="what decided cases verified; rows are only ever ended",
    )
    op.create_index("kyc_verifications_record", "kyc_verifications", ["record_id"])
    op.create_index("kyc_verifications_case", "kyc_verifications", ["case_id"])
    op.create_index(
        "kyc_verifications_live",
        "kyc_verifications",
        ["record_id", "attribute"],
        unique=True,
        postgresql_where=sa.text("superseded_at IS NULL"),
    )
    op.add_column(
        "records",
        sa.Column(
            "verified",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="what live kyc_verifications say of it, by attribute number; null for none",
        ),
    )
    op.execute("ALTER TABLE kyc_verifications ENABLE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY viewer ON kyc_verifications FOR SELECT TO {VIEWER}"
        " USING (EXISTS (SELECT FROM records r WHERE r.record_id = kyc_verifications.record_id))"
    )
    op.execute(f"GRANT SELECT ON kyc_verifications TO {VIEWER}")
