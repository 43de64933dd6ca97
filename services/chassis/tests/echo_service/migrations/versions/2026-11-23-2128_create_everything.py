"""Create everything."""

import sqlalchemy as sa
from alembic import op

revision = "202611232128"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "additions",
        sa.Column("addition_id", sa.Uuid(), nullable=False),
        sa.Column("counter", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("addition_id"),
    )
    op.create_table(
        "copies",
        sa.Column("counter", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("counter"),
    )
    op.create_table(
        "counters",
        sa.Column("counter", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("counter"),
    )
    op.create_table(
        "database_epoch",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False, comment="always 1"),
        sa.Column("epoch", sa.BigInteger(), nullable=False, comment="rises when the database is restored from a backup"),
        sa.PrimaryKeyConstraint("singleton"),
    )
    op.create_table(
        "dead_letters",
        sa.Column("dead_letter_id", sa.Uuid(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("aggregate_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", sa.Text(), nullable=False, comment="class and place of the failure; never its text"),
        sa.Column("deliveries_count", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("dead_letter_id"),
    )
    op.create_table(
        "idempotency",
        sa.Column("caller", sa.Text(), nullable=False, comment="institution/client"),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("input_hash", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True, comment="null only inside the transaction that writes the row"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True, comment="null: kept for ever"),
        sa.Column(
            "named_numbers",
            sa.ARRAY(sa.BigInteger()),
            nullable=True,
            comment="of each id that request and answer name the last 64 bits",
        ),
        sa.PrimaryKeyConstraint("caller", "method", "request_id"),
    )
    op.create_index("idempotency_expires_at", "idempotency", ["expires_at"], unique=False, postgresql_using="brin")
    op.create_index("idempotency_named_numbers", "idempotency", ["named_numbers"], unique=False, postgresql_using="gin")
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.Text(), nullable=False, comment="stream/durable"),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id"),
    )
    op.create_index("inbox_received_at", "inbox", ["received_at"], unique=False, postgresql_using="brin")
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False, comment="rises with every new holder"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "outbox",
        sa.Column("row_id", sa.Uuid(), nullable=False, comment="UUIDv7; also the Nats-Msg-Id"),
        sa.Column("event_id", sa.Uuid(), nullable=False, comment="of a fact its own id, of a state new"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True, comment="the one service a re-publication is for"),
        sa.Column("aggregate_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("row_id"),
    )
    op.create_index("outbox_unpublished", "outbox", ["row_id"], unique=False, postgresql_where=sa.text("published_at IS NULL"))
    op.create_table(
        "record_links",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("record_id"),
    )
    op.create_index("record_links_customer", "record_links", ["customer_id", "institution_id"], unique=False)
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
    op.create_table(
        "republish_runs",
        sa.Column("target", sa.Text(), nullable=False, comment="the service that asked"),
        sa.Column("source", sa.Text(), nullable=False, comment="the republisher's name"),
        sa.Column("cursor", sa.Text(), nullable=False, comment="where the next page begins"),
        sa.Column("events_count", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("target", "source"),
    )
    op.create_table(
        "sums",
        sa.Column("counter", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("counter"),
    )
