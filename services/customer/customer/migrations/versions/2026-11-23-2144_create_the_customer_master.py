"""Create the customer master."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611232144"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the customer master."""
    op.create_table(
        "activities",
        sa.Column("activity_id", sa.Uuid(), nullable=False, comment="uuid5 of source system and source key"),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("holding_id", sa.Uuid(), nullable=True),
        sa.Column("source_system_number", sa.Integer(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="keyed"),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="ActivityDetail"),
        sa.PrimaryKeyConstraint("activity_id"),
    )
    op.create_table(
        "customers",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, comment="orders its published states"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("merged_into", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["merged_into"],
            ["customers.customer_id"],
        ),
        sa.PrimaryKeyConstraint("customer_id"),
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
        "documents",
        sa.Column("document_key", sa.LargeBinary(), nullable=False, comment="keyed hash of a valid document"),
        sa.PrimaryKeyConstraint("document_key"),
        comment="one row to lock for each document, so that two ingests of one new person meet",
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
        "institutions",
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("country_code", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("institution_id"),
    )
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
        "source_systems",
        sa.Column(
            "source_system_number", sa.Integer(), sa.Identity(always=True), nullable=False, comment="short, for large tables"
        ),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("source_system_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("default_rank", sa.Integer(), nullable=False),
        sa.Column("attribute_ranks", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="rank by attribute number"),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["institution_id"],
            ["institutions.institution_id"],
        ),
        sa.PrimaryKeyConstraint("source_system_number"),
        sa.UniqueConstraint("institution_id", "source_system_id"),
    )
    op.create_table(
        "holdings",
        sa.Column("holding_id", sa.Uuid(), nullable=False),
        sa.Column("source_system_number", sa.Integer(), nullable=False),
        sa.Column("source_key", sa.LargeBinary(), nullable=False, comment="keyed hash of the source's own key"),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="keyed"),
        sa.Column("observe_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("product_code", sa.Text(), nullable=False),
        sa.Column("open_date", sa.Date(), nullable=False),
        sa.Column("close_date", sa.Date(), nullable=True),
        sa.Column("currency_code", sa.Text(), nullable=True),
        sa.Column("amount_minor_units", sa.BigInteger(), nullable=True),
        sa.Column("standing", sa.SmallInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(currency_code IS NULL) = (amount_minor_units IS NULL)", name="holdings_amount_has_currency"),
        sa.CheckConstraint("close_date >= open_date", name="holdings_close_after_open"),
        sa.ForeignKeyConstraint(
            ["source_system_number"],
            ["source_systems.source_system_number"],
        ),
        sa.PrimaryKeyConstraint("holding_id"),
        sa.UniqueConstraint("source_system_number", "source_key"),
    )
    op.create_table(
        "records",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("source_system_number", sa.Integer(), nullable=False),
        sa.Column("source_key", sa.LargeBinary(), nullable=False, comment="keyed hash of the source's own key"),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="of the source system; here for the indexes"),
        sa.Column("customer_id", sa.Uuid(), nullable=False, comment="the one live link"),
        sa.Column("link_version", sa.BigInteger(), nullable=False, comment="orders the links of this record"),
        sa.Column("resolution_reason", sa.SmallInteger(), nullable=False),
        sa.Column("state_number", sa.Integer(), nullable=False, comment="the present state in source_records"),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="keyed"),
        sa.Column("observe_time", sa.DateTime(timezone=True), nullable=False, comment="when this was last seen"),
        sa.Column("party", sa.LargeBinary(), nullable=False, comment="PERSONAL: standardised Party"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"],
            ["customers.customer_id"],
        ),
        sa.ForeignKeyConstraint(
            ["source_system_number"],
            ["source_systems.source_system_number"],
        ),
        sa.PrimaryKeyConstraint("record_id"),
        sa.UniqueConstraint("source_system_number", "source_key"),
    )
    op.create_index("records_customer", "records", ["customer_id"], unique=False)
    op.create_index("records_institution_customer", "records", ["institution_id", "customer_id"], unique=False)
    op.create_table(
        "holders",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("holding_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["holding_id"],
            ["holdings.holding_id"],
        ),
        sa.ForeignKeyConstraint(
            ["record_id"],
            ["records.record_id"],
        ),
        sa.PrimaryKeyConstraint("record_id", "holding_id"),
    )
    op.create_index("holders_holding", "holders", ["holding_id"], unique=False)
    op.create_table(
        "name_tokens",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False, comment="PERSONAL: a folded word of a name"),
        sa.ForeignKeyConstraint(
            ["record_id"],
            ["records.record_id"],
        ),
        sa.PrimaryKeyConstraint("record_id", "token"),
    )
    op.create_index("name_tokens_prefix", "name_tokens", ["token"], unique=False, postgresql_ops={"token": "text_pattern_ops"})
    op.create_table(
        "record_keys",
        sa.Column("key", sa.LargeBinary(), nullable=False, comment="keyed hash of a document, number, phone or e-mail"),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["record_id"],
            ["records.record_id"],
        ),
        sa.PrimaryKeyConstraint("key", "record_id"),
    )
    op.create_index("record_keys_record", "record_keys", ["record_id"], unique=False)
    op.create_table(
        "source_records",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("state_number", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="keyed"),
        sa.Column("observe_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="PERSONAL: SourceRecord as sent"),
        sa.ForeignKeyConstraint(
            ["record_id"],
            ["records.record_id"],
        ),
        sa.PrimaryKeyConstraint("record_id", "state_number"),
        comment="every content a source ever stated; rows are never changed",
    )
