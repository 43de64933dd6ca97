"""Hang touches and permissions on records: after a merge the links move, and nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "202611240036"
down_revision = "202611232139"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Moves touches and permissions from customers to records; only where there are none yet."""
    if op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM touches) OR EXISTS (SELECT FROM permissions)")):
        raise RuntimeError("this database holds touches of a release before the first: begin with an empty database")
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
    op.alter_column(
        "loyalty_accounts",
        "customer_id",
        existing_type=sa.UUID(),
        comment="nobody's (zero) when the person was erased",
        existing_nullable=False,
    )
    op.add_column("permissions", sa.Column("record_id", sa.Uuid(), nullable=False))
    op.add_column(
        "permissions",
        sa.Column(
            "covered_record_ids", sa.Text(), nullable=False, comment="of all records that it was said for, commas between them"
        ),
    )
    op.add_column("permissions", sa.Column("state_time_microseconds", sa.BigInteger(), nullable=False))
    op.add_column("permissions", sa.Column("statement_id", sa.Text(), nullable=False))
    op.drop_column("permissions", "institution_id")
    op.drop_column("permissions", "customer_id")
    op.create_primary_key("permissions_pkey", "permissions", ["record_id", "channel", "purpose"])
    op.add_column(
        "touches",
        sa.Column(
            "record_id",
            sa.Uuid(),
            nullable=True,
            comment="the institution's record that it hangs on; null when the person was erased",
        ),
    )
    op.add_column(
        "touches",
        sa.Column(
            "last_contact_state",
            sa.Text(),
            nullable=True,
            comment="of an erased person: contact has forgotten it and will not say it again",
        ),
    )
    op.create_index("touches_record", "touches", ["record_id"], unique=False)
    op.drop_column("touches", "customer_id")
