"""Webhook endpoints of partners and what was sent to them."""

revision = "202611240440"
down_revision = "202611240430"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
