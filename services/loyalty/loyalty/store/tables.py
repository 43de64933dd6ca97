"""The tables of loyalty. Triggers stand in the migration: entries and operations are append-only, legs sum to zero."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from chassis import customer_states, record_links
from chassis.tables import add_tables

INSTANT = DateTime(timezone=True)
metadata = MetaData()
add_tables(metadata)
record_links.table(metadata)
customer_states.table(metadata)

institutions = Table(
    "institutions",
    metadata,
    Column("institution_id", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    comment="projection of the customer service's institutions: which exist",
)

programs = Table(
    "programs",
    metadata,
    Column("program_id", Text, primary_key=True),
    Column("institution_id", Text, nullable=False, comment="the issuer, who stands for the points"),
    Column("display_name", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("erasure_rule", Text, nullable=False, server_default="EXPIRE", comment="what becomes of an erased member's points"),
    CheckConstraint("erasure_rule IN ('EXPIRE', 'KEEP')", name="programs_erasure_rule"),
)
Index("programs_institution", programs.c.institution_id)

earn_rule_versions = Table(
    "earn_rule_versions",
    metadata,
    Column("program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("rule_id", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("currency_code", Text, nullable=False),
    Column("categories", ARRAY(Text), nullable=False, comment="empty: all"),
    Column("direction", Text, nullable=False),
    Column("amount_minor_units_min", BigInteger, nullable=False),
    Column("points_numerator", BigInteger, nullable=False),
    Column("points_denominator", BigInteger, nullable=False),
    Column("points_max", BigInteger, nullable=False),
    Column("effective_time", INSTANT, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint("direction IN ('SPENT', 'RECEIVED')", name="earn_rule_versions_direction"),
    CheckConstraint("points_numerator > 0 AND points_denominator > 0 AND points_max > 0", name="earn_rule_versions_positive"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("customer_id", Uuid, comment="for whom it was opened, for ever; null when the person was erased"),
    Column("holder_customer_id", Uuid, comment="whose it is now: who took over that customer, or itself; null when erased"),
    Column("parent_account_id", Uuid, comment="of a holder's accounts the one under which the others stand; null on that one"),
    Column("version", BigInteger, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("erase_time", INSTANT),
    UniqueConstraint("customer_id", name="accounts_customer"),
    CheckConstraint("(erase_time IS NULL) = (customer_id IS NOT NULL)", name="accounts_erased"),
    CheckConstraint("(erase_time IS NULL) = (holder_customer_id IS NOT NULL)", name="accounts_holder"),
)
Index("accounts_holders", accounts.c.holder_customer_id)
Index("accounts_parents", accounts.c.parent_account_id, postgresql_where=text("parent_account_id IS NOT NULL"))

account_families = Table(
    "account_families",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False, comment="of the account, after the change"),
    Column("holder_customer_id", Uuid, nullable=False),
    Column("parent_account_id", Uuid),
    Column("customer_epoch", BigInteger, nullable=False, comment="of the state of the account's customer that it follows"),
    Column("customer_version", BigInteger, nullable=False),
    Column("change_time", INSTANT, nullable=False),
    comment="under whom accounts stood, from when: rows are only added, and deleted when the person is erased",
)

record_accounts = Table(
    "record_accounts",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), nullable=False),
    comment="of records that moved the account they left: they earn for it, as long as it stands with the new customer's",
)
Index("record_accounts_account", record_accounts.c.account_id)

memberships = Table(
    "memberships",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), primary_key=True),
    Column("institution_id", Text, primary_key=True),
    Column("member_id", Text, nullable=False, comment="random: pairwise pseudonymous"),
    Column("create_time", INSTANT, nullable=False),
    UniqueConstraint("member_id", name="memberships_member"),
)

decided_activities = Table(
    "decided_activities",
    metadata,
    Column("activity_id", Uuid, primary_key=True, comment="earns nothing any more: it was decided, or reversed before it came"),
    comment="each activity is decided once, for ever: a re-publication must not earn for what came before the account",
)

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
