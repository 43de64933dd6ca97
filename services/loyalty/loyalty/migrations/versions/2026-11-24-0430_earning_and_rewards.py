"""Earn rules as expressions, tiers, limits, rewards and vouchers."""

revision = "202611240430"
down_revision = "202611240420"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
