"""Find what changed lately, and relationships by their kind."""

from alembic import op

revision = "202611240200"
down_revision = "202611240190"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Find what changed lately, and relationships by their kind."""
    op.create_index(
        "records_update_time",
        "records",
        ["update_time"],
        postgresql_using="brin",
        postgresql_with={"pages_per_range": "16", "autosummarize": "on"},
    )
    op.create_index("relationships_kind", "relationships", ["kind", "institution_id"])
