"""Create facts, scorecards and ratings."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611232134"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create facts, scorecards and ratings."""
    op.create_table(
        "active_scorecard",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False, comment="always 1"),
        sa.Column("scorecard_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("marked_up_to", sa.Uuid(), nullable=True, comment="customers up to here are marked for it; null when all are"),
        sa.CheckConstraint("singleton = 1", name="active_scorecard_is_one"),
        sa.PrimaryKeyConstraint("singleton"),
    )
    op.create_table(
        "activities",
        sa.Column("activity_id", sa.Uuid(), nullable=False),
        sa.Column("reversed", sa.Boolean(), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=True, comment="null while only the reversal has arrived, as all that follows"),
        sa.Column(
            "kind", sa.SmallInteger(), nullable=True, comment="1 transaction, 2 margin, 3 risk score, 4 journey step, 5 complaint"
        ),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("month", sa.Integer(), nullable=True, comment="year * 12 + month - 1; of a margin the month that it is of"),
        sa.Column(
            "amount",
            sa.BigInteger(),
            nullable=True,
            comment="signed minor units; of a risk score parts per million; of a step its event",
        ),
        sa.Column("currency_code", sa.Text(), nullable=True),
        sa.Column("fee_minor_units", sa.BigInteger(), nullable=True),
        sa.Column("fee_currency_code", sa.Text(), nullable=True),
        sa.Column(
            "partial", sa.Boolean(), nullable=True, comment="a margin with parts in another currency, which are not in the amount"
        ),
        sa.PrimaryKeyConstraint("activity_id"),
    )
    op.create_index(
        "activities_of_finance",
        "activities",
        ["record_id", "kind", "month", "occurred_at"],
        unique=False,
        postgresql_where=sa.text("NOT reversed AND kind IN (2, 3)"),
    )
    op.create_index(
        "activities_record", "activities", ["record_id", "occurred_at"], unique=False, postgresql_where=sa.text("NOT reversed")
    )
    op.create_table(
        "customers",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="when the customer was first seen"),
        sa.Column("merged_into_customer_id", sa.Uuid(), nullable=True),
        sa.Column(
            "attributes",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="list of {attribute, valid, agreeing, conflicting, observed_seconds}",
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
        "holding_owners",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("holding_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("record_id", "holding_id"),
    )
    op.create_index("holding_owners_holding", "holding_owners", ["holding_id"], unique=False)
    op.create_table(
        "holdings",
        sa.Column("holding_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("open_date", sa.Date(), nullable=True),
        sa.Column("close_date", sa.Date(), nullable=True),
        sa.PrimaryKeyConstraint("holding_id"),
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
        "rating_versions",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column(
            "degrees",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="list of {kind, value, confidence, reasons}",
        ),
        sa.Column("customer_level", sa.SmallInteger(), nullable=False),
        sa.Column("lifecycle_stage", sa.SmallInteger(), nullable=False),
        sa.Column("scorecard_id", sa.Text(), nullable=False),
        sa.Column("scorecard_version", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "scope", "version"),
    )
    op.create_table(
        "ratings",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, comment="the current one"),
        sa.PrimaryKeyConstraint("customer_id", "scope"),
    )
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
        "rerate_queue",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "marks_count",
            sa.BigInteger(),
            nullable=False,
            comment="rises with every mark, so that one made while rating is not lost",
        ),
        sa.Column("claim_id", sa.Uuid(), nullable=True, comment="of the worker that rates this customer now"),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("customer_id"),
    )
    op.create_index("rerate_queue_since", "rerate_queue", ["since"], unique=False)
    op.create_table(
        "scorecard_versions",
        sa.Column("scorecard_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scorecard_id", "version"),
    )
