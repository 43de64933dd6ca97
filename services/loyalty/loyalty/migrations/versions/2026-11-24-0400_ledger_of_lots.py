"""The ledger of lots: lots and their uses, holds, what a spending was made of, clearing items."""

revision = "202611240400"
down_revision = "202611240048"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
