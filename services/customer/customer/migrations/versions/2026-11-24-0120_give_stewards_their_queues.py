"""Give stewards their queues."""

revision = "202611240120"
down_revision = "202611240110"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give stewards their queues."""
