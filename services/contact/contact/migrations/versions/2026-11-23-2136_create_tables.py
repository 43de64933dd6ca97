"""Create tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611232136"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create tables."""
    op.create_table(
        "contact_messages",
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("content_hash"),
        comment="what was said, once however many heard it",
    )
    op.create_table(
        "contact_policies",
        sa.Column("policy_id", sa.Text(), nullable=False, comment="alliance, or an institution's id"),
        sa.Column("version", sa.Integer(), nullable=False, comment="the one in force"),
        sa.PrimaryKeyConstraint("policy_id"),
    )
    op.create_table(
        "contact_subjects",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("customer_id"),
        comment="one row for each customer: whoever decides about a customer's contacts locks it first",
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
        sa.PrimaryKeyConstraint("caller", "method", "request_id"),
    )
    op.create_index("idempotency_expires_at", "idempotency", ["expires_at"], unique=False, postgresql_using="brin")
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
        "permission_events",
        sa.Column("statement_id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.SmallInteger(), nullable=False),
        sa.Column("channel", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("state_time", sa.DateTime(timezone=True), nullable=False, comment="when the customer said so"),
        sa.Column("evidence_reference", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_by", sa.Text(), nullable=False, comment="institution/client"),
        sa.PrimaryKeyConstraint("statement_id"),
        comment="every statement ever made; rows are only added",
    )
    op.create_index("permission_events_customer", "permission_events", ["customer_id", "institution_id"], unique=False)
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
        "contact_policy_versions",
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "contact_caps",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="[{channel, purpose, contacts_max, window_hours}]; channel or purpose 0 counts all of them together",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False, comment="institution/client"),
        sa.ForeignKeyConstraint(
            ["policy_id"],
            ["contact_policies.policy_id"],
        ),
        sa.PrimaryKeyConstraint("policy_id", "version"),
        comment="what was decided; rows are only added",
    )
    op.create_table(
        "contacts",
        sa.Column("contact_id", sa.Uuid(), nullable=False, comment="of a touch the touch's id: a touch is carried out once"),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("direction", sa.SmallInteger(), nullable=False),
        sa.Column("channel", sa.SmallInteger(), nullable=False),
        sa.Column("purpose", sa.SmallInteger(), nullable=False, comment="0 where a touch was planned without a reservation"),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("state_reason", sa.Text(), server_default="", nullable=False, comment="why it was released or failed"),
        sa.Column(
            "contact_time",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when it took place; of a reservation when it was reserved",
        ),
        sa.Column(
            "expires_at", sa.DateTime(timezone=True), nullable=True, comment="of a reservation: when the slot is given back"
        ),
        sa.Column("touch", sa.Text(), server_default="", nullable=False, comment="resource name of the touch it carries out"),
        sa.Column("content_hash", sa.LargeBinary(), nullable=True),
        sa.Column("staff_id", sa.Text(), server_default="", nullable=False),
        sa.Column("topic", sa.Text(), server_default="", nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state <> 1 OR (expires_at IS NOT NULL AND content_hash IS NOT NULL)", name="contacts_reserved_can_expire"
        ),
        sa.ForeignKeyConstraint(
            ["content_hash"],
            ["contact_messages.content_hash"],
        ),
        sa.PrimaryKeyConstraint("contact_id"),
    )
    op.create_index(
        "contacts_counted",
        "contacts",
        ["customer_id", "contact_time"],
        unique=False,
        postgresql_where=sa.text("direction = 2 AND purpose IN (1, 2) AND state IN (1, 2, 3, 4, 6)"),
    )
    op.create_index("contacts_expiring", "contacts", ["expires_at"], unique=False, postgresql_where=sa.text("state = 1"))
    op.create_index("contacts_timeline", "contacts", ["customer_id", "contact_time", "contact_id"], unique=False)
    op.create_table(
        "permissions",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("channel", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("statement_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("state_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("evidence_reference", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["statement_id"],
            ["permission_events.statement_id"],
        ),
        sa.PrimaryKeyConstraint("customer_id", "institution_id", "purpose", "channel"),
        comment="the statement that holds; no row means no permission",
    )
    op.create_table(
        "inbox_messages",
        sa.Column("touch_id", sa.Uuid(), nullable=False, comment="one message for each touch"),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["content_hash"],
            ["contact_messages.content_hash"],
        ),
        sa.ForeignKeyConstraint(
            ["touch_id"],
            ["contacts.contact_id"],
        ),
        sa.PrimaryKeyConstraint("touch_id"),
    )
    op.create_index("inbox_messages_customer", "inbox_messages", ["customer_id", "delivered_at", "touch_id"], unique=False)
