"""The ledger. Triggers stand in the migrations: what is posted is append-only, legs sum to zero."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from loyalty.domain.ledger.types import AccountKind, HoldState, LotState, OperationKind, Outcome
from loyalty.store.tables.base import INSTANT, metadata

ledger_heads = Table(
    "ledger_heads",
    metadata,
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column(
        "configuration_version", BigInteger, nullable=False, server_default=text("1"),
        comment="rises with every change of programmes, agreements, rates and limits, in its transaction",
    ),
    Column(
        "ledger_id", Uuid, nullable=False, server_default=text("gen_random_uuid()"),
        comment="which ledger this is: what a process remembers of one must not be taken for another's",
    ),
    comment="ends of the chains: a batch locks its shard's row first, so sequence order is commit order",
    postgresql_with={"fillfactor": 20},
)  # fmt: skip


def _among(column: str, values: object) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"  # type: ignore[attr-defined]


ledger_accounts = Table(
    "ledger_accounts",
    metadata,
    Column("ledger_account_id", BigInteger, Identity(always=True), primary_key=True),
    Column("owner", Text, nullable=False, comment="the member account's id, or the institution's"),
    Column("kind", Text, nullable=False),
    Column("program_id", Text, ForeignKey("programs.program_id"), nullable=False),
    Column("balance_points", BigInteger, nullable=False, server_default=text("0")),
    Column("version", BigInteger, nullable=False, server_default=text("0"), comment="number of its entries"),
    UniqueConstraint("owner", "kind", "program_id", name="ledger_accounts_key"),
    CheckConstraint(_among("kind", AccountKind), name="ledger_accounts_kind"),
    CheckConstraint(
        "kind NOT IN ('MEMBER', 'PENDING', 'HELD') OR balance_points >= 0", name="ledger_accounts_member_not_below_zero"
    ),
    CheckConstraint("kind <> 'DEBT' OR balance_points <= 0", name="ledger_accounts_debt_not_above_zero"),
    postgresql_with={"fillfactor": 70},
)

operations = Table(
    "operations",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("account_id", Uuid, comment="null where it is about many accounts, or none"),
    Column("program_id", Text, comment="null where it is about many programmes"),
    Column("institution_id", Text, nullable=False),
    Column(
        "amount_points", BigInteger, nullable=False,
        comment="in the unit of what was asked for: points, or minor units of the currency that result names",
    ),
    Column("balance_points", BigInteger, nullable=False, comment="the member's after it; where refused, the one found"),
    Column("others_points", BigInteger, nullable=False, server_default=text("0"), comment="of balance_points, on child accounts"),
    Column("shortfall_points", BigInteger, nullable=False, comment="what could not be taken back: a debt since there are lots"),
    Column("caller", Text, comment="institution/client; null for what no caller asked for"),
    Column("request_id", Text),
    Column("activity_id", Uuid, comment="what caused it; null for what no activity caused"),
    Column("system_key", Text, comment="what the service does by itself, such as expire/{lot}"),
    Column("target_id", Uuid, comment="the operation or hold that it is about"),
    Column("content_hash", LargeBinary, nullable=False),
    Column("command", JSONB, comment="the canonical input; null of operations from before there were lots"),
    Column("result", JSONB, comment="what was decided: lines, lots, residues, clearing"),
    Column("configuration_version", BigInteger, comment="under which it was decided"),
    Column("reference", Text, nullable=False),
    Column("rule", Text, nullable=False, comment="{rule}/versions/{version} that earned; empty otherwise"),
    Column("effective_time", INSTANT, nullable=False),
    Column("post_time", INSTANT, nullable=False),
    Column("hash", LargeBinary, nullable=False, comment="of this operation, its legs and the hash before"),
    UniqueConstraint("sequence", name="operations_sequence"),
    CheckConstraint(_among("kind", OperationKind), name="operations_kind"),
    CheckConstraint(_among("outcome", Outcome), name="operations_outcome"),
    CheckConstraint("amount_points >= 0 AND balance_points >= 0 AND shortfall_points >= 0", name="operations_amounts"),
    CheckConstraint("shortfall_points = 0 OR kind IN ('REVERSE_EARN', 'CLAWBACK')", name="operations_shortfall"),
    CheckConstraint("others_points >= 0", name="operations_others"),
    CheckConstraint(
        "num_nonnulls(caller, request_id) IN (0, 2) AND num_nonnulls(caller, activity_id, system_key) = 1", name="operations_key"
    ),
    comment="what was asked for and what became of it, refusals too; append-only; also the idempotency record of the ledger",
)  # fmt: skip
# Partial, because each operation has one kind of key: the others' indexes do not grow with it.
Index(
    "operations_request", operations.c.caller, operations.c.request_id, unique=True, postgresql_where=text("caller IS NOT NULL")
)
Index(
    "operations_activity", operations.c.activity_id, operations.c.program_id, operations.c.kind, unique=True,
    postgresql_where=text("activity_id IS NOT NULL"),
)  # fmt: skip
Index("operations_system", operations.c.system_key, unique=True, postgresql_where=text("system_key IS NOT NULL"))
Index("operations_target", operations.c.target_id, operations.c.sequence, postgresql_where=text("target_id IS NOT NULL"))
Index("operations_account", operations.c.account_id, operations.c.sequence)

entries = Table(
    "entries",
    metadata,
    # No foreign keys: the trigger that sums the legs of a statement looks for accounts and operations, too, all at once.
    Column("ledger_account_id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, primary_key=True, autoincrement=False, comment="from 1, without gaps"),
    Column("sequence", BigInteger, nullable=False, comment="of its operation"),
    Column("amount_points", BigInteger, nullable=False),
    Column("balance_points", BigInteger, nullable=False, comment="after it"),
    UniqueConstraint("ledger_account_id", "sequence", name="entries_sequence"),
    CheckConstraint("amount_points <> 0", name="entries_amount"),
    CheckConstraint("version > 1 OR balance_points = amount_points", name="entries_first"),
    comment="legs of operations; append-only",
)

lots = Table(
    "lots",
    metadata,
    Column("lot_id", BigInteger, primary_key=True, autoincrement=False, comment="sequence that issued it × 1024 + ordinal"),
    Column("account_id", Uuid, nullable=False),
    Column("program_id", Text, nullable=False),
    Column("institution_id", Text, nullable=False, comment="where the points were earned"),
    Column("state", Text, nullable=False),
    Column("issued_points", BigInteger, nullable=False),
    Column("remaining_points", BigInteger, nullable=False, comment="issued, less uses, plus returns"),
    Column("reserved_points", BigInteger, nullable=False, server_default=text("0"), comment="of remaining, by open holds"),
    Column("active_time", INSTANT, comment="when they became, or will become, the member's; null: when confirmed"),
    Column("expire_time", INSTANT, comment="from when on they cannot be used; null: never"),
    Column("origin_lot_id", BigInteger, comment="after a transfer, or as grace after a refund"),
    # Of its own, because an index over it does not stand in the way of updates that leave it as it is (HOT).
    Column("open", Boolean, Computed("remaining_points > 0", persisted=True), nullable=False),
    CheckConstraint(_among("state", LotState), name="lots_state"),
    CheckConstraint(
        "reserved_points BETWEEN 0 AND remaining_points AND remaining_points <= issued_points AND issued_points > 0",
        name="lots_points",
    ),
    CheckConstraint("state = 'ACTIVE' AND active_time IS NOT NULL OR reserved_points = 0", name="lots_pending_not_reserved"),
    comment="points that were issued together and end together",
    postgresql_with={"fillfactor": 80},
)
Index(
    "lots_available", lots.c.account_id, lots.c.program_id, lots.c.expire_time, lots.c.lot_id,
    postgresql_where=text("open AND state = 'ACTIVE'"),
)  # fmt: skip
Index("lots_pending", lots.c.account_id, lots.c.program_id, postgresql_where=text("open AND state = 'PENDING'"))
Index("lots_to_activate", lots.c.active_time, lots.c.lot_id, postgresql_where=text("open AND state = 'PENDING'"))
Index("lots_to_expire", lots.c.expire_time, lots.c.lot_id, postgresql_where=text("open AND expire_time IS NOT NULL"))

lot_uses = Table(
    "lot_uses",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", BigInteger, primary_key=True, autoincrement=False, comment="from 0, in the order of use"),
    Column("lot_id", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("returned_points", BigInteger, nullable=False, server_default=text("0"), comment="brought back by refunds"),
    CheckConstraint("points > 0 AND returned_points >= 0 AND returned_points <= points", name="lot_uses_points"),
    comment="what an operation used of lots; only returned_points changes, and only rises",
    postgresql_with={"fillfactor": 90},
)

lot_returns = Table(
    "lot_returns",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", BigInteger, primary_key=True, autoincrement=False),
    Column("use_sequence", BigInteger, nullable=False),
    Column("use_ordinal", BigInteger, nullable=False),
    Column("lot_id", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    CheckConstraint("points > 0", name="lot_returns_points"),
    comment="what a refund brought back of which use; append-only",
)

holds = Table(
    "holds",
    metadata,
    Column("hold_id", Uuid, primary_key=True, comment="the operation that made it"),
    Column("account_id", Uuid, nullable=False),
    Column("institution_id", Text, nullable=False, comment="where the points are to be spent"),
    Column("quote_id", Uuid),
    Column("target_program_id", Text, comment="the points in which the price is stated"),
    Column("currency_code", Text, comment="or the currency"),
    Column("state", Text, nullable=False),
    Column("amount_units", BigInteger, nullable=False, comment="points of the target programme, or minor units of the currency"),
    Column("captured_units", BigInteger, nullable=False, server_default=text("0")),
    Column("create_time", INSTANT, nullable=False),
    Column("expire_time", INSTANT, nullable=False),
    Column("close_time", INSTANT),
    CheckConstraint(_among("state", HoldState), name="holds_state"),
    CheckConstraint("num_nonnulls(target_program_id, currency_code) = 1", name="holds_target"),
    CheckConstraint("captured_units >= 0 AND captured_units <= amount_units AND amount_units > 0", name="holds_units"),
    CheckConstraint("(state = 'OPEN') = (close_time IS NULL)", name="holds_closed"),
    CheckConstraint("state <> 'CAPTURED' OR captured_units = amount_units", name="holds_captured"),
    CheckConstraint("state <> 'VOIDED' OR captured_units < amount_units", name="holds_voided"),
    comment="points that are reserved for a spending",
    postgresql_with={"fillfactor": 80},
)
Index("holds_to_expire", holds.c.expire_time, holds.c.hold_id, postgresql_where=text("state = 'OPEN'"))
Index("holds_account", holds.c.account_id, holds.c.create_time)

hold_lines = Table(
    "hold_lines",
    metadata,
    Column("hold_id", Uuid, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("program_id", Text, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("value_units", BigInteger, nullable=False),
    Column("numerator", BigInteger, nullable=False, comment="units of the target for `denominator` points"),
    Column("denominator", BigInteger, nullable=False),
    Column("agreement_id", Uuid),
    Column("agreement_version", BigInteger),
    Column("captured_points", BigInteger, nullable=False, server_default=text("0")),
    Column("captured_value_units", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("points > 0 AND value_units > 0 AND numerator > 0 AND denominator > 0", name="hold_lines_positive"),
    CheckConstraint(
        "captured_points BETWEEN 0 AND points AND captured_value_units BETWEEN 0 AND value_units", name="hold_lines_captured"
    ),
    UniqueConstraint("hold_id", "program_id", name="hold_lines_program"),
)

hold_lots = Table(
    "hold_lots",
    metadata,
    Column("hold_id", Uuid, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", BigInteger, primary_key=True, autoincrement=False),
    Column("lot_id", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False, comment="reserved by it, captured or not"),
    Column("captured_points", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("points > 0 AND captured_points BETWEEN 0 AND points", name="hold_lots_points"),
)
Index("hold_lots_lot", hold_lots.c.lot_id)

spend_lines = Table(
    "spend_lines",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False, comment="of the CAPTURE or REDEEM"),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("program_id", Text, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("value_units", BigInteger, nullable=False),
    Column("numerator", BigInteger, nullable=False),
    Column("denominator", BigInteger, nullable=False),
    Column("target_program_id", Text),
    Column("currency_code", Text),
    Column("agreement_id", Uuid),
    Column("agreement_version", BigInteger),
    Column("refunded_points", BigInteger, nullable=False, server_default=text("0")),
    Column("refunded_value_units", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("points >= 0 AND value_units > 0 AND numerator > 0 AND denominator > 0", name="spend_lines_positive"),
    CheckConstraint(
        "refunded_points BETWEEN 0 AND points AND refunded_value_units BETWEEN 0 AND value_units", name="spend_lines_refunded"
    ),
    CheckConstraint("num_nonnulls(target_program_id, currency_code) = 1", name="spend_lines_target"),
    comment="what a spending consists of, a line for each programme; only what was refunded changes, and only rises",
)

clearing_items = Table(
    "clearing_items",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("payer_institution_id", Text, nullable=False),
    Column("payee_institution_id", Text, nullable=False),
    Column("agreement_id", Uuid, comment="null: redeemed without one, there is no price yet"),
    Column("agreement_version", BigInteger),
    Column("program_id", Text, nullable=False),
    Column("points", BigInteger, nullable=False, comment="below zero: owed the other way, by a refund"),
    Column("price_numerator", BigInteger, comment="minor units for price_denominator points"),
    Column("price_denominator", BigInteger),
    Column("fee_basis_points", BigInteger),
    Column("currency_code", Text),
    CheckConstraint("points <> 0 AND payer_institution_id <> payee_institution_id", name="clearing_items_points"),
    CheckConstraint(
        "num_nonnulls(agreement_id, agreement_version, price_numerator, price_denominator, fee_basis_points, currency_code)"
        " IN (0, 6)",
        name="clearing_items_price",
    ),
    comment="what institutions owe each other for points; append-only",
)

exposures = Table(
    "exposures",
    metadata,
    Column("agreement_id", Uuid, primary_key=True),
    Column("exposure_numerator", Numeric, nullable=False, comment="minor units × exposure_denominator"),
    Column("exposure_denominator", Numeric, nullable=False),
    CheckConstraint("exposure_denominator > 0", name="exposures_denominator"),
    comment="of each agreement, exactly: what is held or owed and not settled",
    postgresql_with={"fillfactor": 50},
)
