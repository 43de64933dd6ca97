"""Keep relationships, staff and portfolios."""

revision = "202611240160"
down_revision = "202611240150"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep relationships, staff and portfolios."""
