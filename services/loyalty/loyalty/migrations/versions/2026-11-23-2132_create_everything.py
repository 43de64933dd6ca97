"""Create everything."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611232132"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "accounts",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account_id"),
        sa.UniqueConstraint("customer_id", name="accounts_customer"),
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
        "decided_activities",
        sa.Column(
            "activity_id", sa.Uuid(), nullable=False, comment="earns nothing any more: it was decided, or reversed before it came"
        ),
        sa.PrimaryKeyConstraint("activity_id"),
        comment="each activity is decided once, for ever: a re-publication must not earn for what came before the account",
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
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("institution_id"),
        comment="projection of the customer service's institutions: which exist",
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
        "ledger_heads",
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("shard"),
        comment="ends of the chains: a batch locks its shard's row first, so sequence order is commit order",
        postgresql_with={"fillfactor": 20},
    )
    op.create_table(
        "operations",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("amount_points", sa.BigInteger(), nullable=False),
        sa.Column(
            "balance_points", sa.BigInteger(), nullable=False, comment="the member's after it; where refused, the one found"
        ),
        sa.Column("shortfall_points", sa.BigInteger(), nullable=False, comment="what a reversal could not take back"),
        sa.Column("caller", sa.Text(), nullable=True, comment="institution/client; null for what an activity caused"),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("activity_id", sa.Uuid(), nullable=True, comment="what caused it; null for what a caller asked for"),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False, comment="{rule}/versions/{version} that earned; empty otherwise"),
        sa.Column("effective_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("post_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="of this operation, its legs and the hash before"),
        sa.CheckConstraint("kind IN ('EARN', 'REDEEM', 'REVERSE_EARN')", name="operations_kind"),
        sa.CheckConstraint("outcome IN ('POSTED', 'INSUFFICIENT_POINTS')", name="operations_outcome"),
        sa.CheckConstraint("shortfall_points = 0 OR kind = 'REVERSE_EARN'", name="operations_shortfall"),
        sa.CheckConstraint("amount_points > 0 AND balance_points >= 0 AND shortfall_points >= 0", name="operations_amounts"),
        sa.CheckConstraint(
            "num_nonnulls(caller, request_id) = 2 AND activity_id IS NULL"
            " OR num_nonnulls(caller, request_id) = 0 AND activity_id IS NOT NULL",
            name="operations_key",
        ),
        sa.PrimaryKeyConstraint("operation_id"),
        sa.UniqueConstraint("activity_id", "program_id", "kind", name="operations_activity"),
        sa.UniqueConstraint("caller", "request_id", name="operations_request"),
        sa.UniqueConstraint("sequence", name="operations_sequence"),
        comment="what was asked for and what became of it, refusals too; append-only; also the idempotency record of the ledger",
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
        "programs",
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="the issuer, who stands for the points"),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("program_id"),
    )
    op.create_index("programs_institution", "programs", ["institution_id"], unique=False)
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
        "earn_rule_versions",
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("currency_code", sa.Text(), nullable=False),
        sa.Column("categories", postgresql.ARRAY(sa.Text()), nullable=False, comment="empty: all"),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("amount_minor_units_min", sa.BigInteger(), nullable=False),
        sa.Column("points_numerator", sa.BigInteger(), nullable=False),
        sa.Column("points_denominator", sa.BigInteger(), nullable=False),
        sa.Column("points_max", sa.BigInteger(), nullable=False),
        sa.Column("effective_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("direction IN ('SPENT', 'RECEIVED')", name="earn_rule_versions_direction"),
        sa.CheckConstraint(
            "points_numerator > 0 AND points_denominator > 0 AND points_max > 0", name="earn_rule_versions_positive"
        ),
        sa.ForeignKeyConstraint(
            ["program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("program_id", "rule_id", "version"),
    )
    op.create_table(
        "ledger_accounts",
        sa.Column("ledger_account_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False, comment="the member account's id, or the institution's"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("balance_points", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="number of its entries"),
        sa.CheckConstraint("kind <> 'MEMBER' OR balance_points >= 0", name="ledger_accounts_member_not_below_zero"),
        sa.CheckConstraint("kind IN ('MEMBER', 'ISSUER', 'PARTNER')", name="ledger_accounts_kind"),
        sa.ForeignKeyConstraint(
            ["program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("ledger_account_id"),
        sa.UniqueConstraint("owner", "kind", "program_id", name="ledger_accounts_key"),
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "memberships",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("member_id", sa.Text(), nullable=False, comment="random: pairwise pseudonymous"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.account_id"],
        ),
        sa.PrimaryKeyConstraint("account_id", "institution_id"),
        sa.UniqueConstraint("member_id", name="memberships_member"),
    )
    op.create_table(
        "entries",
        sa.Column("ledger_account_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False, comment="from 1, without gaps"),
        sa.Column("sequence", sa.BigInteger(), nullable=False, comment="of its operation"),
        sa.Column("amount_points", sa.BigInteger(), nullable=False),
        sa.Column("balance_points", sa.BigInteger(), nullable=False, comment="after it"),
        sa.CheckConstraint("amount_points <> 0", name="entries_amount"),
        sa.CheckConstraint("version > 1 OR balance_points = amount_points", name="entries_first"),
        sa.ForeignKeyConstraint(
            ["ledger_account_id"],
            ["ledger_accounts.ledger_account_id"],
        ),
        sa.ForeignKeyConstraint(
            ["sequence"],
            ["operations.sequence"],
        ),
        sa.PrimaryKeyConstraint("ledger_account_id", "version"),
        sa.UniqueConstraint("ledger_account_id", "sequence", name="entries_sequence"),
        comment="legs of operations; append-only",
    )
