"""Find kept answers by whom they name: an erasure deletes them. Those kept before end by themselves, after 7 days."""

import sqlalchemy as sa
from alembic import op

revision = "202611240450"
down_revision = "202611240430"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Find kept answers by whom they name."""
    op.add_column(
        "idempotency",
        sa.Column(
            "named_numbers",
            sa.ARRAY(sa.BigInteger()),
            nullable=True,
            comment="of each id that request and answer name the last 64 bits",
        ),
    )
    op.create_index("idempotency_named_numbers", "idempotency", ["named_numbers"], unique=False, postgresql_using="gin")
