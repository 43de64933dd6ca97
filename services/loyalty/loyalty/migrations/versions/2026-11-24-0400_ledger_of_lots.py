"""The ledger of lots: lots and their uses, holds, what a spending was made of, clearing items."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240400"
down_revision = "202611240048"
branch_labels = None
depends_on = None

KINDS = """
    'EARN', 'CONFIRM', 'CANCEL', 'HOLD', 'CAPTURE', 'VOID', 'HOLD_EXPIRE', 'REDEEM', 'REFUND', 'CLAWBACK', 'REVERSE_EARN',
    'ADJUST', 'TRANSFER', 'EXCHANGE', 'EXPIRE', 'REVERSE', 'SETTLE'
"""
OUTCOMES = """
    'POSTED', 'INSUFFICIENT_POINTS', 'POINTS_EXPIRED', 'ACCOUNT_FROZEN', 'ACCOUNT_CLOSED', 'QUOTE_EXPIRED', 'QUOTE_USED',
    'HOLD_NOT_OPEN', 'HOLD_EXPIRED', 'OVER_CAPTURE', 'OVER_REFUND', 'NOT_REFUNDABLE', 'OVER_CLAWBACK', 'NOT_REVERSIBLE',
    'LOT_NOT_PENDING', 'CAP_EXCEEDED', 'LIMIT_EXCEEDED', 'NO_AGREEMENT', 'NO_RATE', 'TRANSFER_NOT_ALLOWED', 'AMOUNT_TOO_SMALL',
    'TOO_MANY_LOTS'
"""
ACCOUNT_KINDS = "'MEMBER', 'PENDING', 'HELD', 'DEBT', 'ISSUER', 'PARTNER', 'LIQUIDITY', 'REDEEMED', 'ROUNDING'"
# What members had before there were lots: a lot each, without an end. Its id lies in the range of the last operation on it.
LOTS_OF_BALANCES = """
INSERT INTO lots (lot_id, account_id, program_id, institution_id, state, issued_points, remaining_points, active_time)
SELECT last.sequence * 1024 + row_number() OVER (PARTITION BY last.sequence ORDER BY a.ledger_account_id) - 1,
       a.owner::uuid, a.program_id, p.institution_id, 'ACTIVE', a.balance_points, a.balance_points, o.post_time
FROM ledger_accounts a
JOIN programs p USING (program_id)
JOIN entries last ON last.ledger_account_id = a.ledger_account_id AND last.version = a.version
JOIN operations o ON o.sequence = last.sequence
WHERE a.kind = 'MEMBER' AND a.balance_points > 0
"""
# Beside the sums it looks for what foreign keys looked for, row by row and at a fifth of the price of an operation.
CHECK_LEGS = """
CREATE OR REPLACE FUNCTION check_legs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added LEFT JOIN ledger_accounts USING (ledger_account_id)
        GROUP BY added.sequence, ledger_accounts.program_id
        HAVING sum(added.amount_points) <> 0 OR ledger_accounts.program_id IS NULL
    ) THEN
        RAISE EXCEPTION 'the legs of an operation do not sum to zero' USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT sequence FROM added) legs LEFT JOIN operations o USING (sequence) WHERE o.sequence IS NULL
    ) THEN
        RAISE EXCEPTION 'a leg has no operation' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$
"""
# Columns that no update may name: what was posted stays. Reserved, remaining, captured, returned and refunded points change.
KEPT = {
    "lots": "lot_id, account_id, program_id, institution_id, issued_points, expire_time, origin_lot_id",
    "lot_uses": "sequence, ordinal, lot_id, points",
    "lot_returns": "sequence, ordinal, use_sequence, use_ordinal, lot_id, points",
    "holds": "hold_id, account_id, institution_id, quote_id, target_program_id, currency_code, amount_units, create_time,"
    " expire_time",
    "hold_lines": "hold_id, position, program_id, points, value_units, numerator, denominator, agreement_id, agreement_version",
    "hold_lots": "hold_id, position, ordinal, lot_id, points",
    "spend_lines": "sequence, position, program_id, points, value_units, numerator, denominator, target_program_id,"
    " currency_code, agreement_id, agreement_version",
    "clearing_items": "sequence, position, payer_institution_id, payee_institution_id, agreement_id, agreement_version,"
    " program_id, points, price_numerator, price_denominator, fee_basis_points, currency_code",
}
# What must not happen to a row, cheap enough to be looked at in each.
WAYS_BACK = {
    "lots": "OLD.state = 'ACTIVE' AND NEW.state <> 'ACTIVE'",
    "lot_uses": "NEW.returned_points < OLD.returned_points",
    "holds": "OLD.state <> 'OPEN' OR NEW.captured_units < OLD.captured_units",
    "hold_lines": "NEW.captured_points < OLD.captured_points OR NEW.captured_value_units < OLD.captured_value_units",
    "hold_lots": "NEW.captured_points < OLD.captured_points",
    "spend_lines": "NEW.refunded_points < OLD.refunded_points OR NEW.refunded_value_units < OLD.refunded_value_units",
    "clearing_items": "OLD.batch_id IS NOT NULL AND NEW.batch_id IS DISTINCT FROM OLD.batch_id",
}


def upgrade() -> None:
    """Makes the tables, and a lot of each balance there is."""
    op.create_table(
        "clearing_items",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payer_institution_id", sa.Text(), nullable=False),
        sa.Column("payee_institution_id", sa.Text(), nullable=False),
        sa.Column("agreement_id", sa.Uuid(), nullable=True, comment="null: redeemed without one, there is no price yet"),
        sa.Column("agreement_version", sa.BigInteger(), nullable=True),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False, comment="below zero: owed the other way, by a refund"),
        sa.Column("price_numerator", sa.BigInteger(), nullable=True, comment="minor units for price_denominator points"),
        sa.Column("price_denominator", sa.BigInteger(), nullable=True),
        sa.Column("fee_basis_points", sa.BigInteger(), nullable=True),
        sa.Column("currency_code", sa.Text(), nullable=True),
        sa.Column("batch_id", sa.Uuid(), nullable=True, comment="of the settlement that it was closed in; null until then"),
        sa.CheckConstraint(
            "num_nonnulls(agreement_id, agreement_version, price_numerator, price_denominator, fee_basis_points, currency_code)"
            " IN (0, 6)",
            name="clearing_items_price",
        ),
        sa.CheckConstraint("points <> 0 AND payer_institution_id <> payee_institution_id", name="clearing_items_points"),
        sa.PrimaryKeyConstraint("sequence", "position"),
        comment="what institutions owe each other for points; only batch_id changes, once",
    )
    op.create_index(
        "clearing_items_batch", "clearing_items", ["batch_id"], unique=False, postgresql_where=sa.text("batch_id IS NOT NULL")
    )
    op.create_index(
        "clearing_items_unsettled", "clearing_items", ["sequence"], unique=False, postgresql_where=sa.text("batch_id IS NULL")
    )
    op.create_table(
        "exposures",
        sa.Column("agreement_id", sa.Uuid(), nullable=False),
        sa.Column("exposure_numerator", sa.Numeric(), nullable=False, comment="minor units × exposure_denominator"),
        sa.Column("exposure_denominator", sa.Numeric(), nullable=False),
        sa.CheckConstraint("exposure_denominator > 0", name="exposures_denominator"),
        sa.PrimaryKeyConstraint("agreement_id"),
        comment="of each agreement, exactly: what is held or owed and not settled",
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "hold_lines",
        sa.Column("hold_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("value_units", sa.BigInteger(), nullable=False),
        sa.Column("numerator", sa.BigInteger(), nullable=False, comment="units of the target for `denominator` points"),
        sa.Column("denominator", sa.BigInteger(), nullable=False),
        sa.Column("agreement_id", sa.Uuid(), nullable=True),
        sa.Column("agreement_version", sa.BigInteger(), nullable=True),
        sa.Column("captured_points", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("captured_value_units", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "captured_points BETWEEN 0 AND points AND captured_value_units BETWEEN 0 AND value_units", name="hold_lines_captured"
        ),
        sa.CheckConstraint("points > 0 AND value_units > 0 AND numerator > 0 AND denominator > 0", name="hold_lines_positive"),
        sa.PrimaryKeyConstraint("hold_id", "position"),
        sa.UniqueConstraint("hold_id", "program_id", name="hold_lines_program"),
    )
    op.create_table(
        "hold_lots",
        sa.Column("hold_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("lot_id", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False, comment="reserved by it, captured or not"),
        sa.Column("captured_points", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("points > 0 AND captured_points BETWEEN 0 AND points", name="hold_lots_points"),
        sa.PrimaryKeyConstraint("hold_id", "position", "ordinal"),
    )
    op.create_index("hold_lots_lot", "hold_lots", ["lot_id"], unique=False)
    op.create_table(
        "holds",
        sa.Column("hold_id", sa.Uuid(), nullable=False, comment="the operation that made it"),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="where the points are to be spent"),
        sa.Column("quote_id", sa.Uuid(), nullable=True),
        sa.Column("target_program_id", sa.Text(), nullable=True, comment="the points in which the price is stated"),
        sa.Column("currency_code", sa.Text(), nullable=True, comment="or the currency"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "amount_units",
            sa.BigInteger(),
            nullable=False,
            comment="points of the target programme, or minor units of the currency",
        ),
        sa.Column("captured_units", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("close_time", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'OPEN') = (close_time IS NULL)", name="holds_closed"),
        sa.CheckConstraint("state <> 'CAPTURED' OR captured_units = amount_units", name="holds_captured"),
        sa.CheckConstraint("state <> 'VOIDED' OR captured_units < amount_units", name="holds_voided"),
        sa.CheckConstraint("state IN ('OPEN', 'CAPTURED', 'RELEASED', 'VOIDED', 'EXPIRED')", name="holds_state"),
        sa.CheckConstraint("captured_units >= 0 AND captured_units <= amount_units AND amount_units > 0", name="holds_units"),
        sa.CheckConstraint("num_nonnulls(target_program_id, currency_code) = 1", name="holds_target"),
        sa.PrimaryKeyConstraint("hold_id"),
        comment="points that are reserved for a spending",
        postgresql_with={"fillfactor": 80},
    )
    op.create_index("holds_account", "holds", ["account_id", "create_time"], unique=False)
    op.create_index(
        "holds_to_expire", "holds", ["expire_time", "hold_id"], unique=False, postgresql_where=sa.text("state = 'OPEN'")
    )
    op.create_table(
        "lot_returns",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("use_sequence", sa.BigInteger(), nullable=False),
        sa.Column("use_ordinal", sa.BigInteger(), nullable=False),
        sa.Column("lot_id", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("points > 0", name="lot_returns_points"),
        sa.PrimaryKeyConstraint("sequence", "ordinal"),
        comment="what a refund brought back of which use; append-only",
    )
    op.create_table(
        "lot_uses",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.BigInteger(), autoincrement=False, nullable=False, comment="from 0, in the order of use"),
        sa.Column("lot_id", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column(
            "returned_points", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="brought back by refunds"
        ),
        sa.CheckConstraint("points > 0 AND returned_points >= 0 AND returned_points <= points", name="lot_uses_points"),
        sa.PrimaryKeyConstraint("sequence", "ordinal"),
        comment="what an operation used of lots; only returned_points changes, and only rises",
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        "lots",
        sa.Column(
            "lot_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="sequence that issued it × 1024 + ordinal"
        ),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="where the points were earned"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("issued_points", sa.BigInteger(), nullable=False),
        sa.Column("remaining_points", sa.BigInteger(), nullable=False, comment="issued, less uses, plus returns"),
        sa.Column(
            "reserved_points", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="of remaining, by open holds"
        ),
        sa.Column(
            "active_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when they became, or will become, the member's; null: when confirmed",
        ),
        sa.Column(
            "expire_time", sa.DateTime(timezone=True), nullable=True, comment="from when on they cannot be used; null: never"
        ),
        sa.Column("origin_lot_id", sa.BigInteger(), nullable=True, comment="after a transfer, or as grace after a refund"),
        sa.Column("open", sa.Boolean(), sa.Computed("remaining_points > 0", persisted=True), nullable=False),
        sa.CheckConstraint(
            "state = 'ACTIVE' AND active_time IS NOT NULL OR reserved_points = 0", name="lots_pending_not_reserved"
        ),
        sa.CheckConstraint("state IN ('PENDING', 'ACTIVE')", name="lots_state"),
        sa.CheckConstraint(
            "reserved_points BETWEEN 0 AND remaining_points AND remaining_points <= issued_points AND issued_points > 0",
            name="lots_points",
        ),
        sa.PrimaryKeyConstraint("lot_id"),
        comment="points that were issued together and end together",
        postgresql_with={"fillfactor": 80},
    )
    op.create_index(
        "lots_available",
        "lots",
        ["account_id", "program_id", "expire_time", "lot_id"],
        unique=False,
        postgresql_where=sa.text("open AND state = 'ACTIVE'"),
    )
    op.create_index(
        "lots_pending", "lots", ["account_id", "program_id"], unique=False, postgresql_where=sa.text("open AND state = 'PENDING'")
    )
    op.create_index(
        "lots_to_activate",
        "lots",
        ["active_time", "lot_id"],
        unique=False,
        postgresql_where=sa.text("open AND state = 'PENDING'"),
    )
    op.create_index(
        "lots_to_expire",
        "lots",
        ["expire_time", "lot_id"],
        unique=False,
        postgresql_where=sa.text("open AND expire_time IS NOT NULL"),
    )
    op.create_table(
        "spend_lines",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False, comment="of the CAPTURE or REDEEM"),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("value_units", sa.BigInteger(), nullable=False),
        sa.Column("numerator", sa.BigInteger(), nullable=False),
        sa.Column("denominator", sa.BigInteger(), nullable=False),
        sa.Column("target_program_id", sa.Text(), nullable=True),
        sa.Column("currency_code", sa.Text(), nullable=True),
        sa.Column("agreement_id", sa.Uuid(), nullable=True),
        sa.Column("agreement_version", sa.BigInteger(), nullable=True),
        sa.Column("refunded_points", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("refunded_value_units", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("num_nonnulls(target_program_id, currency_code) = 1", name="spend_lines_target"),
        sa.CheckConstraint("points >= 0 AND value_units > 0 AND numerator > 0 AND denominator > 0", name="spend_lines_positive"),
        sa.CheckConstraint(
            "refunded_points BETWEEN 0 AND points AND refunded_value_units BETWEEN 0 AND value_units", name="spend_lines_refunded"
        ),
        sa.PrimaryKeyConstraint("sequence", "position"),
        comment="what a spending consists of, a line for each programme; only what was refunded changes, and only rises",
    )
    _widen()
    _guard()


def _widen() -> None:
    op.add_column(
        "accounts",
        sa.Column(
            "status",
            sa.Text(),
            server_default=sa.text("'OPEN'"),
            nullable=False,
            comment="a frozen one earns, but does not spend",
        ),
    )
    op.add_column(
        "ledger_heads",
        sa.Column(
            "ledger_id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="which ledger this is: what a process remembers of one must not be taken for another's",
        ),
    )
    op.add_column(
        "ledger_heads",
        sa.Column(
            "configuration_version",
            sa.BigInteger(),
            server_default=sa.text("1"),
            nullable=False,
            comment="rises with every change of programmes, agreements, rates and limits, in its transaction",
        ),
    )
    op.add_column(
        "operations",
        sa.Column("system_key", sa.Text(), nullable=True, comment="what the service does by itself, such as expire/{lot}"),
    )
    op.add_column(
        "operations", sa.Column("target_id", sa.Uuid(), nullable=True, comment="the operation or hold that it is about")
    )
    op.add_column(
        "operations",
        sa.Column(
            "command",
            postgresql.JSONB(),
            nullable=True,
            comment="the canonical input; null of operations from before there were lots",
        ),
    )
    op.add_column(
        "operations",
        sa.Column("result", postgresql.JSONB(), nullable=True, comment="what was decided: lines, lots, residues, clearing"),
    )
    op.add_column(
        "operations", sa.Column("configuration_version", sa.BigInteger(), nullable=True, comment="under which it was decided")
    )
    op.alter_column(
        "operations",
        "account_id",
        existing_type=sa.UUID(),
        nullable=True,
        comment="null where it is about many accounts, or none",
    )
    op.alter_column(
        "operations", "program_id", existing_type=sa.TEXT(), nullable=True, comment="null where it is about many programmes"
    )
    op.alter_column(
        "operations",
        "amount_points",
        existing_type=sa.BIGINT(),
        comment="in the unit of what was asked for: points, or minor units of the currency that result names",
        existing_nullable=False,
    )
    op.alter_column(
        "operations",
        "shortfall_points",
        existing_type=sa.BIGINT(),
        comment="what could not be taken back: a debt since there are lots",
        existing_comment="what a reversal could not take back",
        existing_nullable=False,
    )
    op.alter_column(
        "operations",
        "caller",
        existing_type=sa.TEXT(),
        comment="institution/client; null for what no caller asked for",
        existing_comment="institution/client; null for what an activity caused",
        existing_nullable=True,
    )
    op.alter_column(
        "operations",
        "activity_id",
        existing_type=sa.UUID(),
        comment="what caused it; null for what no activity caused",
        existing_comment="what caused it; null for what a caller asked for",
        existing_nullable=True,
    )
    op.drop_constraint(op.f("operations_activity"), "operations", type_="unique")
    op.create_index(
        "operations_activity",
        "operations",
        ["activity_id", "program_id", "kind"],
        unique=True,
        postgresql_where=sa.text("activity_id IS NOT NULL"),
    )
    op.drop_constraint(op.f("operations_request"), "operations", type_="unique")
    op.create_index(
        "operations_request", "operations", ["caller", "request_id"], unique=True, postgresql_where=sa.text("caller IS NOT NULL")
    )
    op.create_index("operations_account", "operations", ["account_id", "sequence"], unique=False)
    op.create_index(
        "operations_system", "operations", ["system_key"], unique=True, postgresql_where=sa.text("system_key IS NOT NULL")
    )
    op.create_index(
        "operations_target",
        "operations",
        ["target_id", "sequence"],
        unique=False,
        postgresql_where=sa.text("target_id IS NOT NULL"),
    )


def _guard() -> None:
    for name in ("kind", "outcome", "amounts", "shortfall", "others", "key"):
        op.drop_constraint(f"operations_{name}", "operations", type_="check")
    op.create_check_constraint("operations_kind", "operations", f"kind IN ({KINDS})")
    op.create_check_constraint("operations_outcome", "operations", f"outcome IN ({OUTCOMES})")
    op.create_check_constraint(
        "operations_amounts", "operations", "amount_points >= 0 AND balance_points >= 0 AND shortfall_points >= 0"
    )
    op.create_check_constraint(
        "operations_shortfall", "operations", "shortfall_points = 0 OR kind IN ('REVERSE_EARN', 'CLAWBACK')"
    )
    op.create_check_constraint("operations_others", "operations", "others_points >= 0")
    op.create_check_constraint(
        "operations_key",
        "operations",
        "num_nonnulls(caller, request_id) IN (0, 2) AND num_nonnulls(caller, activity_id, system_key) = 1",
    )
    for name in ("kind", "member_not_below_zero"):
        op.drop_constraint(f"ledger_accounts_{name}", "ledger_accounts", type_="check")
    op.create_check_constraint("ledger_accounts_kind", "ledger_accounts", f"kind IN ({ACCOUNT_KINDS})")
    op.create_check_constraint(
        "ledger_accounts_member_not_below_zero",
        "ledger_accounts",
        "kind NOT IN ('MEMBER', 'PENDING', 'HELD') OR balance_points >= 0",
    )
    op.create_check_constraint("ledger_accounts_debt_not_above_zero", "ledger_accounts", "kind <> 'DEBT' OR balance_points <= 0")
    op.create_check_constraint("accounts_status", "accounts", "status IN ('OPEN', 'FROZEN', 'CLOSED')")
    op.drop_constraint("entries_ledger_account_id_fkey", "entries", type_="foreignkey")
    op.drop_constraint("entries_sequence_fkey", "entries", type_="foreignkey")
    op.execute(CHECK_LEGS)
    op.execute(LOTS_OF_BALANCES)
    for table, kept in KEPT.items():
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE DELETE OR TRUNCATE OR UPDATE OF {kept} ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    for table, condition in WAYS_BACK.items():
        op.execute(
            f"CREATE TRIGGER {table}_only_forward BEFORE UPDATE ON {table}"
            f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse_change()"
        )
