"""Pause rating while facts are rebuilt."""

import sqlalchemy as sa
from alembic import op

revision = "202611232251"
down_revision = "202611232135"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Pause rating while facts are rebuilt."""
    op.create_table(
        "rerate_pauses",
        sa.Column("owner", sa.Text(), nullable=False, comment="whose facts the last rebuild waits for"),
        sa.Column("run_id", sa.Uuid(), nullable=False, comment="of that rebuild; what is read under another is not written"),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "stream_sequence",
            sa.BigInteger(),
            nullable=True,
            comment="where the owner's stream said that this was all; null until then",
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("owner"),
    )
