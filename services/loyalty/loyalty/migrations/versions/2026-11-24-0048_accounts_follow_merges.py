"""Accounts follow merges: whose they are now, under which they stand, and what is left of those that are erased."""

import sqlalchemy as sa
from alembic import op

revision = "202611240048"
down_revision = "202611232133"
branch_labels = None
depends_on = None

# The reference is a caller's free text, and the only thing of an operation that the chain of hashes does not cover.
REFUSE_ALL_BUT_ERASURE = """
CREATE FUNCTION refuse_all_but_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.reference <> '' OR OLD.reference = '' OR to_jsonb(NEW) - 'reference' <> to_jsonb(OLD) - 'reference' THEN
        RAISE EXCEPTION 'operations is append-only: correct it by a new operation' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$
"""


def upgrade() -> None:
    """Every account there is stands alone: nobody was merged before."""
    op.create_table(
        "customer_states",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("merged_into_customer_id", sa.Uuid(), nullable=True),
        sa.Column("restricted", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("customer_id"),
    )
    op.create_index(
        "customer_states_merged",
        "customer_states",
        ["merged_into_customer_id"],
        unique=False,
        postgresql_where=sa.text("merged_into_customer_id IS NOT NULL"),
    )
    op.create_table(
        "account_families",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False, comment="of the account, after the change"),
        sa.Column("holder_customer_id", sa.Uuid(), nullable=False),
        sa.Column("parent_account_id", sa.Uuid(), nullable=True),
        sa.Column(
            "customer_epoch", sa.BigInteger(), nullable=False, comment="of the state of the account's customer that it follows"
        ),
        sa.Column("customer_version", sa.BigInteger(), nullable=False),
        sa.Column("change_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.account_id"],
        ),
        sa.PrimaryKeyConstraint("account_id", "version"),
        comment="under whom accounts stood, from when: rows are only added, and deleted when the person is erased",
    )
    op.create_table(
        "record_accounts",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.account_id"],
        ),
        sa.PrimaryKeyConstraint("record_id"),
        comment="of records that moved the account they left: they earn for it, as long as it stands with the new customer's",
    )
    op.create_index("record_accounts_account", "record_accounts", ["account_id"], unique=False)
    op.add_column(
        "accounts",
        sa.Column(
            "holder_customer_id",
            sa.Uuid(),
            nullable=True,
            comment="whose it is now: who took over that customer, or itself; null when erased",
        ),
    )
    op.add_column(
        "accounts",
        sa.Column(
            "parent_account_id",
            sa.Uuid(),
            nullable=True,
            comment="of a holder's accounts the one under which the others stand; null on that one",
        ),
    )
    op.add_column("accounts", sa.Column("erase_time", sa.DateTime(timezone=True), nullable=True))
    op.alter_column(
        "accounts",
        "customer_id",
        existing_type=sa.UUID(),
        nullable=True,
        comment="for whom it was opened, for ever; null when the person was erased",
    )
    op.execute("UPDATE accounts SET holder_customer_id = customer_id")
    op.create_index("accounts_holders", "accounts", ["holder_customer_id"], unique=False)
    op.create_index(
        "accounts_parents",
        "accounts",
        ["parent_account_id"],
        unique=False,
        postgresql_where=sa.text("parent_account_id IS NOT NULL"),
    )
    op.create_check_constraint("accounts_erased", "accounts", "(erase_time IS NULL) = (customer_id IS NOT NULL)")
    op.create_check_constraint("accounts_holder", "accounts", "(erase_time IS NULL) = (holder_customer_id IS NOT NULL)")
    op.add_column(
        "operations",
        sa.Column(
            "others_points",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="of balance_points, on child accounts",
        ),
    )
    op.add_column(
        "programs",
        sa.Column(
            "erasure_rule",
            sa.Text(),
            server_default="EXPIRE",
            nullable=False,
            comment="what becomes of an erased member's points",
        ),
    )
    op.create_check_constraint("programs_erasure_rule", "programs", "erasure_rule IN ('EXPIRE', 'KEEP')")
    op.drop_constraint("operations_kind", "operations", type_="check")
    op.create_check_constraint("operations_kind", "operations", "kind IN ('EARN', 'REDEEM', 'REVERSE_EARN', 'EXPIRE')")
    op.create_check_constraint("operations_others", "operations", "others_points = 0 OR kind = 'REDEEM' AND others_points > 0")
    op.execute("DROP TRIGGER operations_append_only ON operations")
    op.execute(
        "CREATE TRIGGER operations_append_only BEFORE DELETE OR TRUNCATE ON operations"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(REFUSE_ALL_BUT_ERASURE)
    op.execute(
        "CREATE TRIGGER operations_unchanged BEFORE UPDATE ON operations FOR EACH ROW EXECUTE FUNCTION refuse_all_but_erasure()"
    )
