"""Keep KYC cases."""

revision = "202611240140"
down_revision = "202611240130"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep KYC cases."""
