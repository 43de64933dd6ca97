"""Keep consents and the audit trail."""

revision = "202611240150"
down_revision = "202611240140"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep consents and the audit trail."""
