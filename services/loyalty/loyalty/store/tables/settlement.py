"""Settlement: batches, which items are in them, what is owed, files, reconciliations, disputes; and sums for reports.

An item is in the batch whose cut-off of its agreement and currency spans its sequence: nothing is written to the item.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from loyalty.domain.disputes import DisputeState
from loyalty.domain.settlement import BatchState, LineKind
from loyalty.store.tables import ledger
from loyalty.store.tables.base import INSTANT, metadata


def _among(column: str, values: object) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"  # type: ignore[attr-defined]


def _batch(*, primary_key: bool = True) -> Column[object]:
    return Column("batch_id", Uuid, ForeignKey("settlement_batches.batch_id"), primary_key=primary_key, nullable=False)


Index("clearing_items_agreement", ledger.clearing_items.c.agreement_id, ledger.clearing_items.c.sequence)
# Rows lie in the order of their sequence, so this costs next to nothing.
Index(
    "entries_in_order", ledger.entries.c.sequence,
    postgresql_using="brin", postgresql_with={"pages_per_range": 16, "autosummarize": "true"},
)  # fmt: skip

settlement_batches = Table(
    "settlement_batches",
    metadata,
    Column("batch_id", Uuid, primary_key=True),
    Column("currency_code", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("cut_off_sequence", BigInteger, comment="of the ledger's last operation when it was closed"),
    Column("cut_off_hash", LargeBinary, comment="of that operation"),
    Column("business_date", Date, comment="that ended at the cut-off; null when closed by hand"),
    Column("open_time", INSTANT, nullable=False),
    Column("close_time", INSTANT),
    Column("confirm_time", INSTANT),
    Column("settle_time", INSTANT),
    Column("version", BigInteger, nullable=False),
    CheckConstraint(_among("state", BatchState), name="settlement_batches_state"),
    CheckConstraint(
        "num_nonnulls(cut_off_sequence, cut_off_hash, close_time) = CASE WHEN state = 'OPEN' THEN 0 ELSE 3 END"
        " AND (confirm_time IS NULL) = (state IN ('OPEN', 'CLOSED')) AND (settle_time IS NULL) = (state <> 'SETTLED')",
        name="settlement_batches_times",
    ),
)
Index("settlement_batches_open", settlement_batches.c.currency_code, unique=True, postgresql_where=text("state = 'OPEN'"))
Index("settlement_batches_close_time", settlement_batches.c.close_time)

settlement_cut_offs = Table(
    "settlement_cut_offs",
    metadata,
    Column("agreement_id", Uuid, primary_key=True),
    Column("currency_code", Text, primary_key=True),
    Column("through_sequence", BigInteger, primary_key=True, autoincrement=False, comment="the last that may be in the batch"),
    Column("after_sequence", BigInteger, nullable=False, comment="the through_sequence before; 0 the first time"),
    _batch(primary_key=False),
    UniqueConstraint("agreement_id", "currency_code", "after_sequence", name="settlement_cut_offs_once"),
    UniqueConstraint("batch_id", "agreement_id", name="settlement_cut_offs_batch"),
    CheckConstraint("after_sequence < through_sequence", name="settlement_cut_offs_order"),
    comment="which items of an agreement are in which batch: its spans follow one another, so each item is in one",
)

settlement_lines = Table(
    "settlement_lines",
    metadata,
    _batch(),
    Column("line_number", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("payer_institution_id", Text, nullable=False),
    Column("payee_institution_id", Text, nullable=False),
    Column("agreement_id", Uuid, nullable=False),
    Column("agreement_version", BigInteger, nullable=False),
    Column("program_id", Text, nullable=False),
    Column("items_count", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("amount_numerator", Numeric, nullable=False, comment="exact minor units"),
    Column("amount_denominator", Numeric, nullable=False),
    CheckConstraint(_among("kind", LineKind), name="settlement_lines_kind"),
    CheckConstraint("payer_institution_id <> payee_institution_id AND amount_denominator > 0", name="settlement_lines_amount"),
)

settlement_pairs = Table(
    "settlement_pairs",
    metadata,
    _batch(),
    Column("first_institution_id", Text, primary_key=True),
    Column("second_institution_id", Text, primary_key=True),
    Column("exact_numerator", Numeric, nullable=False, comment="what the first owes the second, minor units"),
    Column("exact_denominator", Numeric, nullable=False),
    Column("amount_minor_units", BigInteger, nullable=False, comment="the same, rounded once"),
    Column("first_confirm_time", INSTANT),
    Column("first_confirmed_by", Text),
    Column("second_confirm_time", INSTANT),
    Column("second_confirmed_by", Text),
    # COLLATE "C": the order of Python, which made the pair.
    CheckConstraint('first_institution_id < second_institution_id COLLATE "C"', name="settlement_pairs_order"),
    CheckConstraint(
        "abs(amount_minor_units * exact_denominator - exact_numerator) * 2 <= exact_denominator", name="settlement_pairs_rounded"
    ),
)

settlement_instructions = Table(
    "settlement_instructions",
    metadata,
    _batch(),
    Column("payer_institution_id", Text, primary_key=True),
    Column("payee_institution_id", Text, primary_key=True),
    Column("amount_minor_units", BigInteger, nullable=False),
    Column("acknowledge_time", INSTANT),
    Column("acknowledged_by", Text),
    CheckConstraint(
        "amount_minor_units > 0 AND payer_institution_id <> payee_institution_id", name="settlement_instructions_amount"
    ),
)

settlement_files = Table(
    "settlement_files",
    metadata,
    _batch(),
    Column("institution_id", Text, primary_key=True),
    Column("sha256", LargeBinary, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("rows_count", BigInteger, nullable=False),
    Column("items_count", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("amount_numerator", Numeric, nullable=False),
    Column("amount_denominator", Numeric, nullable=False),
    comment="of the file when it was first made; made again it must be the same",
)

settlement_disputes = Table(
    "settlement_disputes",
    metadata,
    Column("dispute_id", Uuid, primary_key=True),
    _batch(primary_key=False),
    Column("sequence", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("opener_institution_id", Text, nullable=False),
    Column("decider_institution_id", Text, nullable=False),
    Column("item_points", BigInteger, nullable=False),
    Column("claimed_points", BigInteger, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("resolution_code", Text, nullable=False, server_default=""),
    Column("opened_by", Text, nullable=False, comment="subject of the person"),
    Column("proposed_by", Text),
    Column("resolved_by", Text),
    Column("open_time", INSTANT, nullable=False),
    Column("resolve_time", INSTANT),
    Column("version", BigInteger, nullable=False),
    CheckConstraint(_among("state", DisputeState), name="settlement_disputes_state"),
    CheckConstraint("resolved_by <> proposed_by", name="settlement_disputes_four_eyes"),
    CheckConstraint("claimed_points <> item_points", name="settlement_disputes_points"),
)
Index(
    "settlement_disputes_item", settlement_disputes.c.sequence, settlement_disputes.c.position, unique=True,
    postgresql_where=text("state NOT IN ('REJECTED', 'WITHDRAWN')"),
)  # fmt: skip
Index("settlement_disputes_opener", settlement_disputes.c.opener_institution_id, settlement_disputes.c.dispute_id)
Index("settlement_disputes_decider", settlement_disputes.c.decider_institution_id, settlement_disputes.c.dispute_id)

settlement_corrections = Table(
    "settlement_corrections",
    metadata,
    Column("dispute_id", Uuid, ForeignKey("settlement_disputes.dispute_id"), primary_key=True),
    Column("sequence", BigInteger, nullable=False, comment="the ledger's last when it was accepted: decides its batch"),
    Column("payer_institution_id", Text, nullable=False),
    Column("payee_institution_id", Text, nullable=False),
    Column("agreement_id", Uuid, nullable=False),
    Column("agreement_version", BigInteger, nullable=False),
    Column("program_id", Text, nullable=False),
    Column("points", BigInteger, nullable=False, comment="claimed less the item's"),
    Column("price_numerator", BigInteger, nullable=False),
    Column("price_denominator", BigInteger, nullable=False),
    Column("fee_basis_points", BigInteger, nullable=False),
    Column("currency_code", Text, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint("points <> 0", name="settlement_corrections_points"),
    comment="items that accepted disputes made: they move money, no points",
)
Index("settlement_corrections_agreement", settlement_corrections.c.agreement_id, settlement_corrections.c.sequence)

reconciliations = Table(
    "reconciliations",
    metadata,
    Column("reconciliation_id", Uuid, primary_key=True),
    _batch(primary_key=False),
    Column("institution_id", Text, nullable=False),
    Column("their_points", Numeric),
    Column("our_points", Numeric),
    Column("their_numerator", Numeric),
    Column("their_denominator", Numeric),
    Column("our_numerator", Numeric),
    Column("our_denominator", Numeric),
    Column("create_time", INSTANT, nullable=False),
    Column("compare_time", INSTANT),
    CheckConstraint(
        "num_nonnulls(their_points, our_points, their_numerator, their_denominator, our_numerator, our_denominator)"
        " = CASE WHEN compare_time IS NULL THEN 0 ELSE 6 END",
        name="reconciliations_compared",
    ),
)
Index("reconciliations_create_time", reconciliations.c.create_time)

reconciliation_parts = Table(
    "reconciliation_parts",
    metadata,
    Column("reconciliation_id", Uuid, ForeignKey("reconciliations.reconciliation_id"), primary_key=True),
    Column("part_number", SmallInteger, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
    comment="of an institution's file; deleted once it is compared",
)

reconciliation_rows = Table(
    "reconciliation_rows",
    metadata,
    Column("reconciliation_id", Uuid, ForeignKey("reconciliations.reconciliation_id"), primary_key=True),
    Column("row_number", Integer, primary_key=True, autoincrement=False),
    Column("result", SmallInteger, nullable=False, comment="number in the contract's ReconciliationResult"),
    Column("line_number", Integer, nullable=False, comment="of the file; 0 for what it misses"),
    Column("operation_id", Uuid),
    Column("reference", Text, nullable=False),
    Column("program_id", Text, nullable=False),
    Column("their_points", BigInteger, nullable=False),
    Column("our_points", BigInteger, nullable=False),
    Column("their_numerator", Numeric, nullable=False),
    Column("their_denominator", Numeric, nullable=False),
    Column("our_numerator", Numeric, nullable=False),
    Column("our_denominator", Numeric, nullable=False),
)

report_progress = Table(
    "report_progress",
    metadata,
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False, comment="operations up to it are in the sums of the reports"),
)

points_days = Table(
    "points_days",
    metadata,
    Column("program_id", Text, primary_key=True),
    Column("day", Date, primary_key=True, comment="in the programme's zone"),
    Column("kind", Text, primary_key=True, comment="of the operations"),
    Column("institution_id", Text, primary_key=True, comment="where they happened"),
    Column("up_points", BigInteger, nullable=False, comment="of operations that gave members points"),
    Column("down_points", BigInteger, nullable=False, comment="of those that took some: below zero"),
    Column("debt_points", BigInteger, nullable=False, comment="of both, on debts"),
    Column("partner_points", BigInteger, nullable=False, comment="legs of clearing accounts"),
    Column("issuer_points", BigInteger, nullable=False, comment="legs of the issuer"),
    comment="sums of legs, for reports",
)

cohort_days = Table(
    "cohort_days",
    metadata,
    Column("program_id", Text, primary_key=True),
    Column("month", Date, primary_key=True, comment="first day of the month in which the points were first issued"),
    Column("day", Date, primary_key=True, comment="on which it happened, in the programme's zone"),
    Column("perpetual", Boolean, primary_key=True, comment="points that never expire"),
    Column("issued_points", BigInteger, nullable=False),
    Column("redeemed_points", BigInteger, nullable=False),
    Column("expired_points", BigInteger, nullable=False),
    Column("withdrawn_points", BigInteger, nullable=False),
    Column("moved_points", BigInteger, nullable=False, comment="from lot to lot; the sum over all is zero"),
    comment="sums of lots and their uses, for estimates",
)

clearing_days = Table(
    "clearing_days",
    metadata,
    Column("agreement_id", Uuid, primary_key=True),
    Column("agreement_version", BigInteger, primary_key=True, autoincrement=False),
    Column("program_id", Text, primary_key=True),
    Column("payer_institution_id", Text, primary_key=True),
    Column("day", Date, primary_key=True, comment="in the programme's zone"),
    Column("payee_institution_id", Text, nullable=False),
    Column("currency_code", Text, nullable=False),
    Column("price_numerator", BigInteger, nullable=False),
    Column("price_denominator", BigInteger, nullable=False),
    Column("fee_basis_points", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    comment="sums of clearing items, for reports",
)
