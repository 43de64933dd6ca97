"""Create tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611232139"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create tables."""
    op.create_table(
        "contact_states",
        sa.Column("touch_id", sa.Uuid(), nullable=False, comment="may come before the touch itself is committed"),
        sa.Column("state", sa.Text(), nullable=False, comment="DELIVERED, READ, FAILED…"),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("touch_id"),
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
        "loyalty_accounts",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id"),
    )
    op.create_index("loyalty_accounts_customer", "loyalty_accounts", ["customer_id"], unique=False)
    op.create_table(
        "offers",
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("offer_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("institution_id", "offer_id"),
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
        "permissions",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("granted", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "institution_id", "channel", "purpose"),
    )
    op.create_table(
        "profile_points",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("balance_points", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "program_id"),
    )
    op.create_table(
        "profile_ratings",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False, comment="alliance, or an institution"),
        sa.Column("customer_level", sa.Text(), nullable=True),
        sa.Column("lifecycle_stage", sa.Text(), nullable=True),
        sa.Column("loyalty", sa.Double(), nullable=True),
        sa.Column("satisfaction", sa.Double(), nullable=True),
        sa.Column("contribution", sa.Double(), nullable=True),
        sa.Column("credit", sa.Double(), nullable=True),
        sa.Column("completeness", sa.Double(), nullable=True),
        sa.Column("credibility", sa.Double(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "scope"),
    )
    op.create_table(
        "profiles",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("birth_year", sa.Integer(), nullable=True),
        sa.Column("sex", sa.Text(), nullable=True),
        sa.Column("country", sa.Text(), nullable=True),
        sa.Column("administrative_area", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("customer_id"),
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
    op.create_index("record_links_institution", "record_links", ["institution_id", "customer_id"], unique=False)
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
        "campaigns",
        sa.Column("campaign_id", sa.Uuid(), nullable=False, comment="UUIDv7: newer ones are greater"),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("offer_id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False, comment="INBOX"),
        sa.Column(
            "audience_rule", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="the truth; groups of conditions"
        ),
        sa.Column("audience_expression", sa.Text(), nullable=False, comment="CEL made from audience_rule"),
        sa.Column("state", sa.Text(), nullable=False, comment="DRAFT, RUNNING, FINISHED"),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("launch_time", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["institution_id", "offer_id"],
            ["offers.institution_id", "offers.offer_id"],
        ),
        sa.PrimaryKeyConstraint("campaign_id"),
    )
    op.create_index("campaigns_institution", "campaigns", ["institution_id", "campaign_id"], unique=False)
    op.create_index(
        "campaigns_running", "campaigns", ["campaign_id"], unique=False, postgresql_where=sa.text("state = 'RUNNING'")
    )
    op.create_table(
        "waves",
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="PLANNING, PLANNED"),
        sa.Column("cursor_customer_id", sa.Uuid(), nullable=False, comment="the last customer examined"),
        sa.Column("examined_count", sa.BigInteger(), nullable=False),
        sa.Column(
            "rule_failures_count", sa.BigInteger(), nullable=False, comment="profiles for which the rule failed: no members"
        ),
        sa.Column("finish_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False, comment="rises with every claim by a planner"),
        sa.Column(
            "claimable_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="end of the present claim, or of the pause after a failure",
        ),
        sa.Column("failures_count", sa.Integer(), nullable=False, comment="claims that failed since the last success"),
        sa.Column("settled_touch_id", sa.Uuid(), nullable=False, comment="every touch before it has arrived or failed"),
        sa.ForeignKeyConstraint(
            ["campaign_id"],
            ["campaigns.campaign_id"],
        ),
        sa.PrimaryKeyConstraint("campaign_id", "wave"),
    )
    op.create_index("waves_planning", "waves", ["claimable_at"], unique=False, postgresql_where=sa.text("state = 'PLANNING'"))
    op.create_table(
        "touches",
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("touch_id", sa.Uuid(), nullable=False, comment="made of campaign, wave and customer"),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("refused_reason", sa.Text(), nullable=True, comment="null: a slot was reserved"),
        sa.Column("next_free_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id", "wave"],
            ["waves.campaign_id", "waves.wave"],
        ),
        sa.PrimaryKeyConstraint("campaign_id", "wave", "touch_id"),
    )
