"""The ledger. Triggers stand in the migrations: entries and operations are append-only, legs sum to zero."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from loyalty.store.tables.base import INSTANT, metadata

ledger_heads = Table(
    "ledger_heads",
    metadata,
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    comment="ends of the chains: a batch locks its shard's row first, so sequence order is commit order",
    postgresql_with={"fillfactor": 20},
)

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
    CheckConstraint("kind IN ('MEMBER', 'ISSUER', 'PARTNER')", name="ledger_accounts_kind"),
    CheckConstraint("kind <> 'MEMBER' OR balance_points >= 0", name="ledger_accounts_member_not_below_zero"),
    postgresql_with={"fillfactor": 70},
)

operations = Table(
    "operations",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("program_id", Text, nullable=False),
    Column("institution_id", Text, nullable=False),
    Column("amount_points", BigInteger, nullable=False),
    Column("balance_points", BigInteger, nullable=False, comment="the member's after it; where refused, the one found"),
    Column("others_points", BigInteger, nullable=False, server_default=text("0"), comment="of balance_points, on child accounts"),
    Column("shortfall_points", BigInteger, nullable=False, comment="what a reversal could not take back"),
    Column("caller", Text, comment="institution/client; null for what an activity caused"),
    Column("request_id", Text),
    Column("activity_id", Uuid, comment="what caused it; null for what a caller asked for"),
    Column("content_hash", LargeBinary, nullable=False),
    Column("reference", Text, nullable=False),
    Column("rule", Text, nullable=False, comment="{rule}/versions/{version} that earned; empty otherwise"),
    Column("effective_time", INSTANT, nullable=False),
    Column("post_time", INSTANT, nullable=False),
    Column("hash", LargeBinary, nullable=False, comment="of this operation, its legs and the hash before"),
    UniqueConstraint("sequence", name="operations_sequence"),
    UniqueConstraint("caller", "request_id", name="operations_request"),
    UniqueConstraint("activity_id", "program_id", "kind", name="operations_activity"),
    CheckConstraint("kind IN ('EARN', 'REDEEM', 'REVERSE_EARN', 'EXPIRE')", name="operations_kind"),
    CheckConstraint("outcome IN ('POSTED', 'INSUFFICIENT_POINTS')", name="operations_outcome"),
    CheckConstraint("amount_points > 0 AND balance_points >= 0 AND shortfall_points >= 0", name="operations_amounts"),
    CheckConstraint("shortfall_points = 0 OR kind = 'REVERSE_EARN'", name="operations_shortfall"),
    CheckConstraint("others_points = 0 OR kind = 'REDEEM' AND others_points > 0", name="operations_others"),
    CheckConstraint(
        "num_nonnulls(caller, request_id) = 2 AND activity_id IS NULL"
        " OR num_nonnulls(caller, request_id) = 0 AND activity_id IS NOT NULL",
        name="operations_key",
    ),
    comment="what was asked for and what became of it, refusals too; append-only; also the idempotency record of the ledger",
)

entries = Table(
    "entries",
    metadata,
    Column("ledger_account_id", BigInteger, ForeignKey("ledger_accounts.ledger_account_id"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False, comment="from 1, without gaps"),
    Column("sequence", BigInteger, ForeignKey("operations.sequence"), nullable=False, comment="of its operation"),
    Column("amount_points", BigInteger, nullable=False),
    Column("balance_points", BigInteger, nullable=False, comment="after it"),
    UniqueConstraint("ledger_account_id", "sequence", name="entries_sequence"),
    CheckConstraint("amount_points <> 0", name="entries_amount"),
    CheckConstraint("version > 1 OR balance_points = amount_points", name="entries_first"),
    comment="legs of operations; append-only",
)
