"""Settlement batches, reconciliation, disputes and liability."""

revision = "202611240420"
down_revision = "202611240410"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
