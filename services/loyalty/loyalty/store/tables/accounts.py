"""Member accounts, whose they are and where they are linked."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from loyalty.store.tables.base import INSTANT, metadata

institutions = Table(
    "institutions",
    metadata,
    Column("institution_id", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    comment="projection of the customer service's institutions: which exist",
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
    Column("status", Text, nullable=False, server_default=text("'OPEN'"), comment="a frozen one earns, but does not spend"),
    UniqueConstraint("customer_id", name="accounts_customer"),
    CheckConstraint("(erase_time IS NULL) = (customer_id IS NOT NULL)", name="accounts_erased"),
    CheckConstraint("(erase_time IS NULL) = (holder_customer_id IS NOT NULL)", name="accounts_holder"),
    CheckConstraint("status IN ('OPEN', 'FROZEN', 'CLOSED')", name="accounts_status"),
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
