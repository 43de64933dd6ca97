"""Give stewards their queues."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240120"
down_revision = "202611240110"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give stewards their queues."""
    op.create_table(
        "rejections",
        sa.Column("rejection_id", sa.Uuid(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_by", sa.Text(), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("rejection_id"),
    )
    op.create_table(
        "relinks",
        sa.Column("relink_id", sa.Uuid(), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("from_customer_id", sa.Uuid(), nullable=False),
        sa.Column("to_customer_id", sa.Uuid(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("override_reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("relink_id"),
        comment="single records moved by hand, and why",
    )
    op.create_index("relinks_record", "relinks", ["record_id"], unique=False)
    op.create_table(
        "review_items",
        sa.Column("review_item_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False, comment="1 open, 2 decided, 3 settled by itself"),
        sa.Column("subject_key", sa.LargeBinary(), nullable=False, comment="hash of what it is about: open once"),
        sa.Column("content_key", sa.LargeBinary(), nullable=False, comment="hash of what was judged: decided once"),
        sa.Column("weight_bits", sa.Float(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("explanation", sa.LargeBinary(), nullable=False, comment="levels and bits by attribute"),
        sa.Column("attribute", sa.SmallInteger(), nullable=False),
        sa.Column("codes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("defer_until", sa.DateTime(timezone=True), nullable=False, comment="not offered before"),
        sa.Column(
            "claim_number", sa.BigInteger(), nullable=False, comment="rises with every claim and change; fences late decisions"
        ),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decision_number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("review_item_id"),
    )
    op.create_index(
        "review_items_decided",
        "review_items",
        ["subject_key", "content_key"],
        unique=False,
        postgresql_where=sa.text("state = 2"),
    )
    op.create_index(
        "review_items_heaviest",
        "review_items",
        ["weight_bits", "review_item_id"],
        unique=False,
        postgresql_where=sa.text("state = 1"),
    )
    op.create_index(
        "review_items_heaviest_of_kind",
        "review_items",
        ["kind", "weight_bits", "review_item_id"],
        unique=False,
        postgresql_where=sa.text("state = 1"),
    )
    op.create_index(
        "review_items_oldest", "review_items", ["review_item_id"], unique=False, postgresql_where=sa.text("state = 1")
    )
    op.create_index(
        "review_items_oldest_of_kind",
        "review_items",
        ["kind", "review_item_id"],
        unique=False,
        postgresql_where=sa.text("state = 1"),
    )
    op.create_index(
        "review_items_open_subject", "review_items", ["subject_key"], unique=True, postgresql_where=sa.text("state = 1")
    )
    op.create_table(
        "merges",
        sa.Column("merge_id", sa.Uuid(), nullable=False),
        sa.Column("loser_id", sa.Uuid(), nullable=False),
        sa.Column("winner_id", sa.Uuid(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("override_reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undone_by", sa.Text(), nullable=True),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undo_reason_code", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["loser_id"],
            ["customers.customer_id"],
        ),
        sa.ForeignKeyConstraint(
            ["winner_id"],
            ["customers.customer_id"],
        ),
        sa.PrimaryKeyConstraint("merge_id"),
    )
    op.create_index("merges_loser", "merges", ["loser_id", "merge_id"], unique=False)
    op.create_index("merges_loser_live", "merges", ["loser_id"], unique=True, postgresql_where=sa.text("undone_at IS NULL"))
    op.create_index("merges_winner", "merges", ["winner_id"], unique=False)
    op.create_table(
        "rejected_pairs",
        sa.Column("low_record_id", sa.Uuid(), nullable=False),
        sa.Column("high_record_id", sa.Uuid(), nullable=False),
        sa.Column("rejection_id", sa.Uuid(), nullable=False),
        sa.Column("low_side", sa.SmallInteger(), nullable=False, comment="which side of the rejection the low record stood on"),
        sa.Column(
            "content_key", sa.LargeBinary(), nullable=False, comment="hash of both records' content when they were rejected"
        ),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rejection_id"],
            ["rejections.rejection_id"],
        ),
        sa.PrimaryKeyConstraint("low_record_id", "high_record_id", "rejection_id"),
        comment="records that are never linked by a rule; they may be merged only after the rejection is withdrawn",
    )
    op.create_index("rejected_pairs_high", "rejected_pairs", ["high_record_id"], unique=False)
    op.create_index("rejected_pairs_rejection", "rejected_pairs", ["rejection_id"], unique=False)
    op.create_table(
        "review_decisions",
        sa.Column("review_item_id", sa.Uuid(), nullable=False),
        sa.Column("decision_number", sa.Integer(), nullable=False),
        sa.Column("decision", sa.SmallInteger(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undone_by", sa.Text(), nullable=True),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undo_reason_code", sa.Text(), nullable=True),
        sa.Column("merge_ids", postgresql.ARRAY(sa.Uuid()), nullable=False, comment="what MERGE did"),
        sa.Column("rejection_id", sa.Uuid(), nullable=True, comment="what NOT_SAME and SPLIT did"),
        sa.Column("split_customer_id", sa.Uuid(), nullable=True, comment="where SPLIT moved the right side"),
        sa.Column("chosen_record_id", sa.Uuid(), nullable=True, comment="whose value CHOOSE pinned"),
        sa.Column(
            "pinned_before",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the chosen record's value had been pinned before",
        ),
        sa.ForeignKeyConstraint(
            ["review_item_id"],
            ["review_items.review_item_id"],
        ),
        sa.PrimaryKeyConstraint("review_item_id", "decision_number"),
    )
    op.create_index("review_decisions_time", "review_decisions", ["decided_at"], unique=False)
    op.create_table(
        "review_item_records",
        sa.Column("review_item_id", sa.Uuid(), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("side", sa.SmallInteger(), nullable=False, comment="1 left, 2 right"),
        sa.ForeignKeyConstraint(
            ["review_item_id"],
            ["review_items.review_item_id"],
        ),
        sa.PrimaryKeyConstraint("review_item_id", "record_id"),
    )
    op.create_index("review_item_records_record", "review_item_records", ["record_id"], unique=False)
    op.create_table(
        "merge_records",
        sa.Column("merge_id", sa.Uuid(), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["merge_id"],
            ["merges.merge_id"],
        ),
        sa.PrimaryKeyConstraint("merge_id", "record_id"),
        comment="what a loser had at the merge: exactly this goes back",
    )
    op.create_index("merge_records_record", "merge_records", ["record_id"], unique=False)
