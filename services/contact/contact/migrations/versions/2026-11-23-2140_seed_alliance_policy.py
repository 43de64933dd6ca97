"""The alliance's first contact policy: at most 4 marketing and sales contacts of all institutions together within 7 days."""

from alembic import op

revision = "202611232140"
down_revision = "202611232136"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Writes version 1 of the policy `alliance`. It is data: the operator writes the next version."""
    op.execute("INSERT INTO contact_policies (policy_id, version) VALUES ('alliance', 1)")
    op.execute(
        """
        INSERT INTO contact_policy_versions (policy_id, version, contact_caps, created_at, created_by) VALUES (
            'alliance', 1, '[{"channel": 0, "purpose": 0, "contacts_max": 4, "window_hours": 168}]', now(), '-/migration'
        )
        """
    )
