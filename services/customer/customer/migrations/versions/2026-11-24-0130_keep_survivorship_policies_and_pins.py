"""Keep survivorship policies and pins."""

revision = "202611240130"
down_revision = "202611240120"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep survivorship policies and pins."""
