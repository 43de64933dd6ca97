"""Customers are merged in a projection of their own."""

import sqlalchemy as sa
from alembic import op

revision = "202611240056"
down_revision = "202611232251"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run `concord rebuild rating` after it where there are merged customers: who was merged is folded again."""
    op.create_table(
        "customer_states",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("merged_into_customer_id", sa.Uuid(), nullable=True),
        sa.Column("restricted", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("customer_id"),
    )
    op.create_index(
        "customer_states_merged",
        "customer_states",
        ["merged_into_customer_id"],
        unique=False,
        postgresql_where=sa.text("merged_into_customer_id IS NOT NULL"),
    )
    op.drop_column("customers", "merged_into_customer_id")
