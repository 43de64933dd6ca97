"""Guards of the ledger: append-only, legs that sum to zero, and the head of its chain."""

from alembic import op

revision = "202611232133"
down_revision = "202611232132"
branch_labels = None
depends_on = None

REFUSE_CHANGE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: correct it by a new operation', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
"""
# For each statement, not for each row: all legs of an operation are written by one statement.
CHECK_LEGS = """
CREATE FUNCTION check_legs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added JOIN ledger_accounts USING (ledger_account_id)
        GROUP BY added.sequence, ledger_accounts.program_id HAVING sum(added.amount_points) <> 0
    ) THEN
        RAISE EXCEPTION 'the legs of an operation do not sum to zero' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    """Makes the triggers and the head of the one shard."""
    op.execute(REFUSE_CHANGE)
    for table in ("operations", "entries"):
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(CHECK_LEGS)
    op.execute(
        "CREATE TRIGGER entries_legs AFTER INSERT ON entries REFERENCING NEW TABLE AS added"
        " FOR EACH STATEMENT EXECUTE FUNCTION check_legs()"
    )
    op.execute("INSERT INTO ledger_heads (shard, sequence, hash) VALUES (0, 0, decode(repeat('00', 32), 'hex'))")
