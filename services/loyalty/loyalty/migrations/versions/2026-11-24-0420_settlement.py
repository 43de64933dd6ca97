"""Settlement batches, reconciliation, disputes and liability."""

import sqlalchemy as sa
from alembic import op

revision = "202611240420"
down_revision = "202611240410"
branch_labels = None
depends_on = None

# What was fixed when a batch was closed stays.
APPEND_ONLY = ("settlement_cut_offs", "settlement_lines", "settlement_files", "settlement_corrections")
KEPT = {
    "settlement_pairs": "batch_id, first_institution_id, second_institution_id, exact_numerator, exact_denominator,"
    " amount_minor_units",
    "settlement_instructions": "batch_id, payer_institution_id, payee_institution_id, amount_minor_units",
    "settlement_disputes": "dispute_id, batch_id, sequence, position, opener_institution_id, decider_institution_id,"
    " item_points, claimed_points, reason_code, opened_by, open_time",
}
WAYS_BACK = {
    "settlement_batches": "OLD.state = 'SETTLED' OR NEW.currency_code <> OLD.currency_code"
    " OR OLD.state <> 'OPEN' AND (NEW.state = 'OPEN' OR NEW.state = 'CLOSED' AND OLD.state <> 'CLOSED'"
    " OR (NEW.cut_off_sequence, NEW.cut_off_hash, NEW.close_time) IS DISTINCT FROM"
    " (OLD.cut_off_sequence, OLD.cut_off_hash, OLD.close_time))",
    "settlement_pairs": "OLD.first_confirm_time IS NOT NULL AND NEW.first_confirm_time IS DISTINCT FROM OLD.first_confirm_time"
    " OR OLD.second_confirm_time IS NOT NULL AND NEW.second_confirm_time IS DISTINCT FROM OLD.second_confirm_time",
    "settlement_instructions": "OLD.acknowledge_time IS NOT NULL",
    "settlement_disputes": "OLD.state IN ('ACCEPTED', 'REJECTED', 'WITHDRAWN')",
}


def upgrade() -> None:
    """Which items are in a batch is told by spans of sequences, so nothing is written to an item any more."""
    op.execute("DROP TRIGGER clearing_items_only_forward ON clearing_items")
    op.drop_index("clearing_items_batch", table_name="clearing_items")
    op.drop_index("clearing_items_unsettled", table_name="clearing_items")
    op.drop_column("clearing_items", "batch_id")
    op.create_table_comment("clearing_items", "what institutions owe each other for points; append-only")
    _create_tables()
    op.execute("INSERT INTO report_progress (shard, sequence) VALUES (0, 0)")
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE DELETE OR TRUNCATE OR UPDATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
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


def _create_tables() -> None:
    op.create_table(
        "clearing_days",
        sa.Column("agreement_id", sa.Uuid(), nullable=False),
        sa.Column("agreement_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("payer_institution_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="in the programme's zone"),
        sa.Column("payee_institution_id", sa.Text(), nullable=False),
        sa.Column("currency_code", sa.Text(), nullable=False),
        sa.Column("price_numerator", sa.BigInteger(), nullable=False),
        sa.Column("price_denominator", sa.BigInteger(), nullable=False),
        sa.Column("fee_basis_points", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agreement_id", "agreement_version", "program_id", "payer_institution_id", "day"),
        comment="sums of clearing items, for reports",
    )
    op.create_table(
        "cohort_days",
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False, comment="first day of the month in which the points were first issued"),
        sa.Column("day", sa.Date(), nullable=False, comment="on which it happened, in the programme's zone"),
        sa.Column("perpetual", sa.Boolean(), nullable=False, comment="points that never expire"),
        sa.Column("issued_points", sa.BigInteger(), nullable=False),
        sa.Column("redeemed_points", sa.BigInteger(), nullable=False),
        sa.Column("expired_points", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn_points", sa.BigInteger(), nullable=False),
        sa.Column("moved_points", sa.BigInteger(), nullable=False, comment="from lot to lot; the sum over all is zero"),
        sa.PrimaryKeyConstraint("program_id", "month", "day", "perpetual"),
        comment="sums of lots and their uses, for estimates",
    )
    op.create_table(
        "points_days",
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="in the programme's zone"),
        sa.Column("kind", sa.Text(), nullable=False, comment="of the operations"),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="where they happened"),
        sa.Column("up_points", sa.BigInteger(), nullable=False, comment="of operations that gave members points"),
        sa.Column("down_points", sa.BigInteger(), nullable=False, comment="of those that took some: below zero"),
        sa.Column("debt_points", sa.BigInteger(), nullable=False, comment="of both, on debts"),
        sa.Column("partner_points", sa.BigInteger(), nullable=False, comment="legs of clearing accounts"),
        sa.Column("issuer_points", sa.BigInteger(), nullable=False, comment="legs of the issuer"),
        sa.PrimaryKeyConstraint("program_id", "day", "kind", "institution_id"),
        comment="sums of legs, for reports",
    )
    op.create_table(
        "report_progress",
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, comment="operations up to it are in the sums of the reports"),
        sa.PrimaryKeyConstraint("shard"),
    )
    op.create_table(
        "settlement_batches",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("currency_code", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "cut_off_sequence", sa.BigInteger(), nullable=True, comment="of the ledger's last operation when it was closed"
        ),
        sa.Column("cut_off_hash", sa.LargeBinary(), nullable=True, comment="of that operation"),
        sa.Column("business_date", sa.Date(), nullable=True, comment="that ended at the cut-off; null when closed by hand"),
        sa.Column("open_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("close_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirm_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settle_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "num_nonnulls(cut_off_sequence, cut_off_hash, close_time) = CASE WHEN state = 'OPEN' THEN 0 ELSE 3 END"
            " AND (confirm_time IS NULL) = (state IN ('OPEN', 'CLOSED')) AND (settle_time IS NULL) = (state <> 'SETTLED')",
            name="settlement_batches_times",
        ),
        sa.CheckConstraint("state IN ('OPEN', 'CLOSED', 'CONFIRMED', 'SETTLED')", name="settlement_batches_state"),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    op.create_index("settlement_batches_close_time", "settlement_batches", ["close_time"], unique=False)
    op.create_index(
        "settlement_batches_open",
        "settlement_batches",
        ["currency_code"],
        unique=True,
        postgresql_where=sa.text("state = 'OPEN'"),
    )
    op.create_table(
        "reconciliations",
        sa.Column("reconciliation_id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("their_points", sa.Numeric(), nullable=True),
        sa.Column("our_points", sa.Numeric(), nullable=True),
        sa.Column("their_numerator", sa.Numeric(), nullable=True),
        sa.Column("their_denominator", sa.Numeric(), nullable=True),
        sa.Column("our_numerator", sa.Numeric(), nullable=True),
        sa.Column("our_denominator", sa.Numeric(), nullable=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("compare_time", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "num_nonnulls(their_points, our_points, their_numerator, their_denominator, our_numerator, our_denominator)"
            " = CASE WHEN compare_time IS NULL THEN 0 ELSE 6 END",
            name="reconciliations_compared",
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["settlement_batches.batch_id"],
        ),
        sa.PrimaryKeyConstraint("reconciliation_id"),
    )
    op.create_index("reconciliations_create_time", "reconciliations", ["create_time"], unique=False)
    op.create_table(
        "settlement_cut_offs",
        sa.Column("agreement_id", sa.Uuid(), nullable=False),
        sa.Column("currency_code", sa.Text(), nullable=False),
        sa.Column(
            "through_sequence", sa.BigInteger(), autoincrement=False, nullable=False, comment="the last that may be in the batch"
        ),
        sa.Column("after_sequence", sa.BigInteger(), nullable=False, comment="the through_sequence before; 0 the first time"),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("after_sequence < through_sequence", name="settlement_cut_offs_order"),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["settlement_batches.batch_id"],
        ),
        sa.PrimaryKeyConstraint("agreement_id", "currency_code", "through_sequence"),
        sa.UniqueConstraint("agreement_id", "currency_code", "after_sequence", name="settlement_cut_offs_once"),
        sa.UniqueConstraint("batch_id", "agreement_id", name="settlement_cut_offs_batch"),
        comment="which items of an agreement are in which batch: its spans follow one another, so each item is in one",
    )
    op.create_table(
        "settlement_disputes",
        sa.Column("dispute_id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("opener_institution_id", sa.Text(), nullable=False),
        sa.Column("decider_institution_id", sa.Text(), nullable=False),
        sa.Column("item_points", sa.BigInteger(), nullable=False),
        sa.Column("claimed_points", sa.BigInteger(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("resolution_code", sa.Text(), server_default="", nullable=False),
        sa.Column("opened_by", sa.Text(), nullable=False, comment="subject of the person"),
        sa.Column("proposed_by", sa.Text(), nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.Column("open_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolve_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('OPEN', 'PROPOSED_TO_ACCEPT', 'PROPOSED_TO_REJECT', 'ACCEPTED', 'REJECTED', 'WITHDRAWN')",
            name="settlement_disputes_state",
        ),
        sa.CheckConstraint("claimed_points <> item_points", name="settlement_disputes_points"),
        sa.CheckConstraint("resolved_by <> proposed_by", name="settlement_disputes_four_eyes"),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["settlement_batches.batch_id"],
        ),
        sa.PrimaryKeyConstraint("dispute_id"),
    )
    op.create_index("settlement_disputes_decider", "settlement_disputes", ["decider_institution_id", "dispute_id"], unique=False)
    op.create_index(
        "settlement_disputes_item",
        "settlement_disputes",
        ["sequence", "position"],
        unique=True,
        postgresql_where=sa.text("state NOT IN ('REJECTED', 'WITHDRAWN')"),
    )
    op.create_index("settlement_disputes_opener", "settlement_disputes", ["opener_institution_id", "dispute_id"], unique=False)
    op.create_table(
        "settlement_files",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("rows_count", sa.BigInteger(), nullable=False),
        sa.Column("items_count", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("amount_numerator", sa.Numeric(), nullable=False),
        sa.Column("amount_denominator", sa.Numeric(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["settlement_batches.batch_id"],
        ),
        sa.PrimaryKeyConstraint("batch_id", "institution_id"),
        comment="of the file when it was first made; made again it must be the same",
    )
    op.create_table(
        "settlement_instructions",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("payer_institution_id", sa.Text(), nullable=False),
        sa.Column("payee_institution_id", sa.Text(), nullable=False),
        sa.Column("amount_minor_units", sa.BigInteger(), nullable=False),
        sa.Column("acknowledge_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "amount_minor_units > 0 AND payer_institution_id <> payee_institution_id", name="settlement_instructions_amount"
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["settlement_batches.batch_id"],
        ),
        sa.PrimaryKeyConstraint("batch_id", "payer_institution_id", "payee_institution_id"),
    )
    op.create_table(
        "settlement_lines",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("line_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payer_institution_id", sa.Text(), nullable=False),
        sa.Column("payee_institution_id", sa.Text(), nullable=False),
        sa.Column("agreement_id", sa.Uuid(), nullable=False),
        sa.Column("agreement_version", sa.BigInteger(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("items_count", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("amount_numerator", sa.Numeric(), nullable=False, comment="exact minor units"),
        sa.Column("amount_denominator", sa.Numeric(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('PRINCIPAL', 'FEE', 'PREFUNDED', 'CORRECTION', 'CORRECTION_FEE')", name="settlement_lines_kind"
        ),
        sa.CheckConstraint(
            "payer_institution_id <> payee_institution_id AND amount_denominator > 0", name="settlement_lines_amount"
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["settlement_batches.batch_id"],
        ),
        sa.PrimaryKeyConstraint("batch_id", "line_number"),
    )
    op.create_table(
        "settlement_pairs",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("first_institution_id", sa.Text(), nullable=False),
        sa.Column("second_institution_id", sa.Text(), nullable=False),
        sa.Column("exact_numerator", sa.Numeric(), nullable=False, comment="what the first owes the second, minor units"),
        sa.Column("exact_denominator", sa.Numeric(), nullable=False),
        sa.Column("amount_minor_units", sa.BigInteger(), nullable=False, comment="the same, rounded once"),
        sa.Column("first_confirm_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_confirmed_by", sa.Text(), nullable=True),
        sa.Column("second_confirm_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("second_confirmed_by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "abs(amount_minor_units * exact_denominator - exact_numerator) * 2 <= exact_denominator",
            name="settlement_pairs_rounded",
        ),
        sa.CheckConstraint('first_institution_id < second_institution_id COLLATE "C"', name="settlement_pairs_order"),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["settlement_batches.batch_id"],
        ),
        sa.PrimaryKeyConstraint("batch_id", "first_institution_id", "second_institution_id"),
    )
    op.create_table(
        "reconciliation_parts",
        sa.Column("reconciliation_id", sa.Uuid(), nullable=False),
        sa.Column("part_number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reconciliation_id"],
            ["reconciliations.reconciliation_id"],
        ),
        sa.PrimaryKeyConstraint("reconciliation_id", "part_number"),
        comment="of an institution's file; deleted once it is compared",
    )
    op.create_table(
        "reconciliation_rows",
        sa.Column("reconciliation_id", sa.Uuid(), nullable=False),
        sa.Column("row_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("result", sa.SmallInteger(), nullable=False, comment="number in the contract's ReconciliationResult"),
        sa.Column("line_number", sa.Integer(), nullable=False, comment="of the file; 0 for what it misses"),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("their_points", sa.BigInteger(), nullable=False),
        sa.Column("our_points", sa.BigInteger(), nullable=False),
        sa.Column("their_numerator", sa.Numeric(), nullable=False),
        sa.Column("their_denominator", sa.Numeric(), nullable=False),
        sa.Column("our_numerator", sa.Numeric(), nullable=False),
        sa.Column("our_denominator", sa.Numeric(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reconciliation_id"],
            ["reconciliations.reconciliation_id"],
        ),
        sa.PrimaryKeyConstraint("reconciliation_id", "row_number"),
    )
    op.create_table(
        "settlement_corrections",
        sa.Column("dispute_id", sa.Uuid(), nullable=False),
        sa.Column(
            "sequence", sa.BigInteger(), nullable=False, comment="the ledger's last when it was accepted: decides its batch"
        ),
        sa.Column("payer_institution_id", sa.Text(), nullable=False),
        sa.Column("payee_institution_id", sa.Text(), nullable=False),
        sa.Column("agreement_id", sa.Uuid(), nullable=False),
        sa.Column("agreement_version", sa.BigInteger(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False, comment="claimed less the item's"),
        sa.Column("price_numerator", sa.BigInteger(), nullable=False),
        sa.Column("price_denominator", sa.BigInteger(), nullable=False),
        sa.Column("fee_basis_points", sa.BigInteger(), nullable=False),
        sa.Column("currency_code", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("points <> 0", name="settlement_corrections_points"),
        sa.ForeignKeyConstraint(
            ["dispute_id"],
            ["settlement_disputes.dispute_id"],
        ),
        sa.PrimaryKeyConstraint("dispute_id"),
        comment="items that accepted disputes made: they move money, no points",
    )
    op.create_index("settlement_corrections_agreement", "settlement_corrections", ["agreement_id", "sequence"], unique=False)
    op.create_index("clearing_items_agreement", "clearing_items", ["agreement_id", "sequence"], unique=False)
    op.create_index(
        "entries_in_order",
        "entries",
        ["sequence"],
        unique=False,
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 16, "autosummarize": "true"},
    )
