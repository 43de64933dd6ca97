"""Keep match models and rejected pairs."""

revision = "202611240110"
down_revision = "202611240100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep match models and rejected pairs."""
