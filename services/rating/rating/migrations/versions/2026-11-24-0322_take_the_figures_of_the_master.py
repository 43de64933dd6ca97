"""Completeness and credibility are the figures of the customer master."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240322"
down_revision = "202611240060"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Marks everybody, so that the figures are asked for."""
    op.create_table(
        "customer_qualities",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("completeness_percent", sa.SmallInteger(), nullable=False),
        sa.Column("credibility_percent", sa.SmallInteger(), nullable=False),
        sa.Column(
            "attributes",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="list of [attribute, required weight, credibility percent, findings]",
        ),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False, comment="when the customer master was asked"),
        sa.PrimaryKeyConstraint("customer_id"),
        comment="what the customer master last said; no event can fill it, so a rebuild keeps it",
    )
    op.create_index("customer_qualities_asked", "customer_qualities", ["asked_at"], unique=False)
    op.alter_column(
        "customers",
        "attributes",
        existing_type=postgresql.JSONB(astext_type=sa.Text()),
        comment="list of {attribute, observed_seconds}",
        existing_comment="list of {attribute, valid, agreeing, conflicting, observed_seconds}",
        existing_nullable=False,
    )
    op.add_column(
        "rerate_queue",
        sa.Column(
            "asks_quality",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="whether the figures of the customer master may have changed",
        ),
    )
    op.execute(
        "INSERT INTO rerate_queue (customer_id, since, marks_count) SELECT DISTINCT customer_id, now(), 1 FROM record_links"
        " ON CONFLICT (customer_id) DO UPDATE SET marks_count = rerate_queue.marks_count + 1"
    )
