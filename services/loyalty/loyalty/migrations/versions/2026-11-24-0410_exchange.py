"""Agreements between institutions, rates between programmes, quotes, and what a programme promises."""

revision = "202611240410"
down_revision = "202611240405"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
