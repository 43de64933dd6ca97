"""Keep bulk imports."""

revision = "202611240170"
down_revision = "202611240160"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep bulk imports."""
