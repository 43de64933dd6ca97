"""Keep match models, and runs that look for what matching missed."""

import sqlalchemy as sa
from alembic import op

revision = "202611240110"
down_revision = "202611240100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep match models, and runs that look for what matching missed."""
    op.create_table(
        "match_models",
        sa.Column(
            "version", sa.Integer(), sa.Identity(always=True), nullable=False, comment="0 stands for the shipped model elsewhere"
        ),
        sa.Column("state", sa.SmallInteger(), nullable=False, comment="1 training, 2 trained, 3 failed"),
        sa.Column(
            "content", sa.Text(), nullable=True, comment="the model as JSON, names as keyed hashes only; null until it is trained"
        ),
        sa.Column("false_links_share_max", sa.Double(), nullable=False),
        sa.Column("records_count_max", sa.Integer(), nullable=False),
        sa.Column("progress_percent", sa.Integer(), nullable=False),
        sa.Column("attempts_count", sa.Integer(), nullable=False),
        sa.Column("error_reason", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "effective_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="from when it is, or was, in force; the latest one holds",
        ),
        sa.CheckConstraint("(approved_by IS NULL) = (effective_time IS NULL)", name="match_models_approved"),
        sa.CheckConstraint("approved_by <> created_by", name="match_models_four_eyes"),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_index("match_models_training", "match_models", ["version"], unique=False, postgresql_where=sa.text("state = 1"))
    op.create_table(
        "rematches",
        sa.Column("rematch_id", sa.Uuid(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("apply_links", sa.Boolean(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False, comment="1 running, 2 succeeded, 3 failed"),
        sa.Column("progress", sa.Text(), nullable=False, comment="what is done: keys up to one, then customers up to one"),
        sa.Column("progress_percent", sa.Integer(), nullable=False),
        sa.Column("pairs_compared_count", sa.BigInteger(), nullable=False),
        sa.Column("attempts_count", sa.Integer(), nullable=False),
        sa.Column("error_reason", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finish_time", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("rematch_id"),
    )
    op.create_index("rematches_running", "rematches", ["rematch_id"], unique=False, postgresql_where=sa.text("state = 1"))
    op.create_table(
        "rematch_findings",
        sa.Column("finding_number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rematch_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False, comment="1 missed pair, 2 doubtful cluster"),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("other_customer_id", sa.Uuid(), nullable=False, comment="the same again for a cluster"),
        sa.Column("records_apart_count", sa.Integer(), nullable=False),
        sa.Column("zone", sa.SmallInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("explanation", sa.LargeBinary(), nullable=False, comment="attributes, levels and bits; no values"),
        sa.Column("applied", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rematch_id"],
            ["rematches.rematch_id"],
        ),
        sa.PrimaryKeyConstraint("finding_number"),
        sa.UniqueConstraint("rematch_id", "customer_id", "other_customer_id"),
    )
