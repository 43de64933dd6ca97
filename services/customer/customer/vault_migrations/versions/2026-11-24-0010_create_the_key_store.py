"""Create the key store."""

import sqlalchemy as sa
from alembic import op

revision = "202611240010"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the key store."""
    op.create_table(
        "institution_keys",
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False, comment="under the root key"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("institution_id"),
    )
    op.create_table(
        "data_keys",
        sa.Column("key_id", sa.Uuid(), nullable=False, comment="of the record, or whatever else it encrypts"),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column(
            "wrapped_key", sa.LargeBinary(), nullable=False, comment="under the institution's key; erasure deletes the row"
        ),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["institution_id"], ["institution_keys.institution_id"]),
        sa.PrimaryKeyConstraint("key_id"),
    )
    op.create_index("data_keys_create_time", "data_keys", ["create_time"])
    op.create_table(
        "owner",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("database_id", sa.Uuid(), nullable=False, comment="as in the customer master's table vault_binding"),
        sa.CheckConstraint("singleton = 1", name="owner_one_row"),
        sa.PrimaryKeyConstraint("singleton"),
        comment="whose keys these are: nobody else may say which of them are in use",
    )
