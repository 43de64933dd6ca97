"""Accounts that are frozen, closed, unlinked or pooled; adjustments that wait for a second person."""

revision = "202611240405"
down_revision = "202611240400"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
