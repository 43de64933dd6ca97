"""Keep bulk imports."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240170"
down_revision = "202611240160"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep bulk imports."""
    op.create_table(
        "imports",
        sa.Column("import_id", sa.Uuid(), nullable=False, comment="also of the data key that seals its parts"),
        sa.Column("source_system_number", sa.Integer(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("format", sa.SmallInteger(), nullable=False),
        sa.Column("encoding", sa.SmallInteger(), nullable=False),
        sa.Column("delimiter", sa.Text(), nullable=False),
        sa.Column(
            "columns",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="[[column, field], …] as the caller maps them",
        ),
        sa.Column("default_country_code", sa.Text(), nullable=False),
        sa.Column("default_observe_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("parts_count", sa.Integer(), nullable=False, comment="0 until it is started"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), nullable=False, comment="where the next row begins"),
        sa.Column("line_number", sa.BigInteger(), nullable=False, comment="of the next row"),
        sa.Column("rows_read_count", sa.BigInteger(), nullable=False),
        sa.Column("created_count", sa.BigInteger(), nullable=False),
        sa.Column("updated_count", sa.BigInteger(), nullable=False),
        sa.Column("unchanged_count", sa.BigInteger(), nullable=False),
        sa.Column("stale_count", sa.BigInteger(), nullable=False),
        sa.Column("rejected_count", sa.BigInteger(), nullable=False),
        sa.Column("rows_count", sa.BigInteger(), nullable=True, comment="of a Parquet file, which knows"),
        sa.Column("error_field", sa.Text(), nullable=True),
        sa.Column("error_reason", sa.Text(), nullable=True),
        sa.Column("error_description", sa.Text(), nullable=True),
        sa.Column(
            "rejections_key_id", sa.Uuid(), nullable=False, comment="of the data key that seals source keys of rejected rows"
        ),
        sa.Column("parts_kept", sa.Boolean(), nullable=False, comment="whether parts and their key are still there"),
        sa.Column("rejections_kept", sa.Boolean(), nullable=False, comment="whether rejected rows and their key are still there"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finish_time", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["source_system_number"],
            ["source_systems.source_system_number"],
        ),
        sa.PrimaryKeyConstraint("import_id"),
    )
    op.create_index("imports_source_system", "imports", ["source_system_number", "import_id"], unique=False)
    op.create_index(
        "imports_waiting", "imports", ["import_id"], unique=False, postgresql_where=sa.text("parts_kept OR rejections_kept")
    )
    op.create_table(
        "import_parts",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("part_number", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False, comment="before it was sealed"),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="keyed"),
        sa.Column("content", sa.LargeBinary(), nullable=False, comment="SEALED under the key import_id"),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["imports.import_id"],
        ),
        sa.PrimaryKeyConstraint("import_id", "part_number"),
    )
    op.create_table(
        "import_rejections",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("row_number", sa.BigInteger(), nullable=False),
        sa.Column("line_number", sa.BigInteger(), nullable=False),
        sa.Column("source_system_number", sa.Integer(), nullable=False),
        sa.Column(
            "source_key", sa.LargeBinary(), nullable=True, comment="keyed hash of the source's own key, if the row has one"
        ),
        sa.Column(
            "sealed_key", sa.LargeBinary(), nullable=True, comment="SEALED under the key rejections_key_id: the source's own key"
        ),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["imports.import_id"],
        ),
        sa.PrimaryKeyConstraint("import_id", "row_number"),
    )
    op.create_index(
        "import_rejections_source_key",
        "import_rejections",
        ["source_system_number", "source_key"],
        unique=False,
        postgresql_where=sa.text("source_key IS NOT NULL"),
    )
