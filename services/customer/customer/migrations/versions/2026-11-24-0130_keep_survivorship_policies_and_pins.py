"""Keep survivorship policies and pins, and the quality that was published."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240130"
down_revision = "202611240120"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Keep survivorship policies and pins, and the quality that was published."""
    op.create_table(
        "survivorship_policies",
        sa.Column(
            "version", sa.Integer(), sa.Identity(always=True, start=2), nullable=False, comment="version 1 lies in the package"
        ),
        sa.Column("row_version", sa.BigInteger(), nullable=False, comment="orders the states of this row, for its etag"),
        sa.Column("standard", postgresql.JSONB(), nullable=False, comment="as in the file survivorship_policy.yaml"),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="of the standard: a dry run is of exactly one"),
        sa.Column("authors", postgresql.ARRAY(sa.Text()), nullable=False, comment="opaque ids of those who wrote it"),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("update_time", INSTANT, nullable=False),
        sa.Column("activator", sa.Text(), nullable=True, comment="opaque id of who activated it"),
        sa.Column("activated_at", INSTANT, nullable=True),
        sa.Column("effective_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("version"),
        sa.CheckConstraint(
            "(activated_at IS NULL) = (effective_at IS NULL)", name="survivorship_policies_effective_when_activated"
        ),
    )
    op.create_index(
        "survivorship_policies_effective",
        "survivorship_policies",
        ["effective_at"],
        unique=True,
        postgresql_where=sa.text("effective_at IS NOT NULL"),
    )
    _create_jobs()
    op.create_table(
        "pins",
        sa.Column("pin_id", sa.Uuid(), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("attribute", sa.SmallInteger(), nullable=False),
        sa.Column("pinned_at", INSTANT, nullable=False),
        sa.Column("pinned_by", sa.Text(), nullable=False, comment="opaque id"),
        sa.Column("reason", sa.LargeBinary(), nullable=False, comment="PERSONAL, encrypted: a steward's words"),
        sa.Column("unpinned_at", INSTANT, nullable=True),
        sa.Column("unpinned_by", sa.Text(), nullable=True),
        sa.Column("unpin_reason", sa.LargeBinary(), nullable=True, comment="PERSONAL, encrypted: a steward's words"),
        sa.PrimaryKeyConstraint("pin_id"),
        comment="rows are only ever ended",
    )
    op.create_index("pins_record", "pins", ["record_id"])
    op.create_index("pins_live", "pins", ["record_id", "attribute"], unique=True, postgresql_where=sa.text("unpinned_at IS NULL"))
    op.create_table(
        "customer_qualities",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, comment="orders its published states"),
        sa.Column("completeness_percent", sa.SmallInteger(), nullable=False, comment="as last published"),
        sa.Column("credibility_percent", sa.SmallInteger(), nullable=False, comment="as last published"),
        sa.PrimaryKeyConstraint("customer_id"),
        comment="the quality last published, so that only the crossing of a band is published",
    )


def _create_jobs() -> None:
    op.create_table(
        "survivorship_jobs",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False, comment="1 dry run, 2 calibration, 3 sweep after an activation"),
        sa.Column(
            "policy_version",
            sa.Integer(),
            nullable=False,
            comment="tried or activated; of a calibration its draft, 0 before the end",
        ),
        sa.Column("base_version", sa.Integer(), nullable=False, comment="the policy it compares with"),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="of the standard that is tried"),
        sa.Column("standard", postgresql.JSONB(), nullable=True, comment="what a dry run tries; null for other kinds"),
        sa.Column("sample_percent", sa.Integer(), nullable=False),
        sa.Column("begin_time", INSTANT, nullable=False, comment="not worked on before; also the instant it asks about"),
        sa.Column("cursor", sa.Uuid(), nullable=False, comment="the last customer looked at"),
        sa.Column("customers_total_count", sa.BigInteger(), nullable=False),
        sa.Column("customers_done_count", sa.BigInteger(), nullable=False),
        sa.Column("result", postgresql.JSONB(), nullable=False, comment="counts; no values"),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("finish_time", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index(
        "survivorship_jobs_unfinished", "survivorship_jobs", ["create_time"], postgresql_where=sa.text("finish_time IS NULL")
    )
    op.create_index("survivorship_jobs_policy", "survivorship_jobs", ["policy_version"])
