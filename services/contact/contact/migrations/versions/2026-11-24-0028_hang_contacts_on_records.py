"""Hang contacts on records: after a merge the links move, and nothing else."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240028"
down_revision = "202611232140"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Moves contacts, messages and permissions from customers to records; only where there are none yet."""
    if op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM contacts) OR EXISTS (SELECT FROM permission_events)")):
        raise RuntimeError("this database holds contacts of a release before the first: begin with an empty database")
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
    op.add_column(
        "contacts",
        sa.Column(
            "record_id", sa.Uuid(), nullable=False, comment="the oldest record that the institution had of the customer then"
        ),
    )
    op.add_column(
        "contacts",
        sa.Column(
            "wave",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="resource name of the touch's wave: a person is reached once in it",
        ),
    )
    op.drop_index(
        op.f("contacts_counted"),
        table_name="contacts",
        postgresql_where="((direction = 2) AND (purpose = ANY (ARRAY[1, 2])) AND (state = ANY (ARRAY[1, 2, 3, 4, 6])))",
    )
    op.create_index(
        "contacts_counted",
        "contacts",
        ["record_id", "contact_time"],
        unique=False,
        postgresql_where=sa.text("direction = 2 AND purpose IN (1, 2) AND state IN (1, 2, 3, 4, 6)"),
    )
    op.drop_index(op.f("contacts_timeline"), table_name="contacts")
    op.create_index("contacts_timeline", "contacts", ["record_id", "contact_time", "contact_id"], unique=False)
    op.create_index(
        "contacts_content", "contacts", ["content_hash"], unique=False, postgresql_where=sa.text("content_hash IS NOT NULL")
    )
    op.create_index("contacts_wave", "contacts", ["record_id", "wave"], unique=False, postgresql_where=sa.text("wave <> ''"))
    op.drop_column("contacts", "customer_id")
    op.add_column("inbox_messages", sa.Column("record_id", sa.Uuid(), nullable=False, comment="that of the contact"))
    op.drop_index(op.f("inbox_messages_customer"), table_name="inbox_messages")
    op.create_index("inbox_messages_content", "inbox_messages", ["content_hash"], unique=False)
    op.create_index("inbox_messages_record", "inbox_messages", ["record_id", "delivered_at", "touch_id"], unique=False)
    op.drop_column("inbox_messages", "customer_id")
    op.add_column(
        "permission_events",
        sa.Column(
            "record_id", sa.Uuid(), nullable=False, comment="the oldest record that the institution had of the customer then"
        ),
    )
    op.add_column(
        "permission_events",
        sa.Column(
            "covered_record_ids",
            postgresql.ARRAY(sa.Uuid()),
            nullable=False,
            comment="all of them: while they are together, it speaks for all",
        ),
    )
    op.drop_index(op.f("permission_events_customer"), table_name="permission_events")
    op.create_index("permission_events_record", "permission_events", ["record_id"], unique=False)
    op.drop_column("permission_events", "customer_id")
    op.add_column("permissions", sa.Column("record_id", sa.Uuid(), nullable=False))
    op.add_column("permissions", sa.Column("covered_record_ids", postgresql.ARRAY(sa.Uuid()), nullable=False))
    op.create_table_comment(
        "permissions",
        "of each record the latest statement; no row means no permission",
        existing_comment="the statement that holds; no row means no permission",
        schema=None,
    )
    op.drop_column("permissions", "customer_id")
    op.create_primary_key("permissions_pkey", "permissions", ["record_id", "purpose", "channel"])
