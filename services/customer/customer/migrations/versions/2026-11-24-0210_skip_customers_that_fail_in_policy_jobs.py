"""Skip customers that fail in policy jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240210"
down_revision = "202611240200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Skip customers that fail in policy jobs."""
    op.add_column(
        "survivorship_jobs",
        sa.Column(
            "skipped",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="customers that failed: id, and how often",
        ),
    )
    op.add_column(
        "survivorship_jobs",
        sa.Column(
            "retry_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the skipped are tried again; null before the last page",
        ),
    )
