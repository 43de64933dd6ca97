"""Member accounts: whose they are, where they are linked, who froze them, what waits to be decided of them."""

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
    Column("close_time", INSTANT),
    UniqueConstraint("customer_id", name="accounts_customer"),
    CheckConstraint("(erase_time IS NULL) = (customer_id IS NOT NULL)", name="accounts_erased"),
    CheckConstraint("(erase_time IS NULL) = (holder_customer_id IS NOT NULL)", name="accounts_holder"),
    CheckConstraint("status IN ('OPEN', 'FROZEN', 'CLOSED')", name="accounts_status"),
    CheckConstraint("(status = 'CLOSED') = (close_time IS NOT NULL)", name="accounts_closed"),
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
    Column(
        "consent_reference", Text, nullable=False, server_default=text("''"), comment="where the institution keeps the consent"
    ),
    Column("consent_time", INSTANT, comment="null of links from before it was asked for"),
    UniqueConstraint("member_id", name="memberships_member"),
    comment="those in force",
)

ended_memberships = Table(
    "ended_memberships",
    metadata,
    Column("member_id", Text, primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), nullable=False),
    Column("institution_id", Text, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("consent_reference", Text, nullable=False),
    Column("consent_time", INSTANT),
    Column("end_time", INSTANT, nullable=False),
    CheckConstraint("end_time >= create_time", name="ended_memberships_times"),
    comment="a member id that ended is never used again",
)
Index("ended_memberships_account", ended_memberships.c.account_id)

account_freezes = Table(
    "account_freezes",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), primary_key=True),
    Column("institution_id", Text, primary_key=True, comment="whose people froze it; - for the operator"),
    Column("freeze_time", INSTANT, primary_key=True),
    Column("reason_code", Text, nullable=False),
    Column("frozen_by", Text, nullable=False),
    Column("end_time", INSTANT),
    Column("end_reason_code", Text),
    Column("ended_by", Text),
    CheckConstraint("num_nonnulls(end_time, end_reason_code, ended_by) IN (0, 3)", name="account_freezes_ended"),
    comment="an account is frozen while one of its freezes has no end",
)
Index(
    "account_freezes_on", account_freezes.c.account_id, account_freezes.c.institution_id, unique=True,
    postgresql_where=text("end_time IS NULL"),
)  # fmt: skip

adjustments = Table(
    "adjustments",
    metadata,
    Column("adjustment_id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), nullable=False),
    Column("program_id", Text, ForeignKey("programs.program_id"), nullable=False),
    Column("institution_id", Text, nullable=False, comment="the issuer, whose people decide"),
    Column("change_points", BigInteger, nullable=False, comment="above zero given, below zero taken"),
    Column("expire_time", INSTANT, comment="of points given; null: as the programme says"),
    Column("reason_code", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("drafted_by", Text, nullable=False),
    Column("draft_side", Text, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("decided_by", Text),
    Column("decide_side", Text),
    Column("decide_time", INSTANT),
    Column("operation_id", Uuid, comment="what it came to"),
    Column("outcome", Text),
    CheckConstraint("state IN ('DRAFT', 'POSTED', 'REFUSED', 'REJECTED')", name="adjustments_state"),
    CheckConstraint("change_points <> 0", name="adjustments_points"),
    CheckConstraint(
        "num_nonnulls(decided_by, decide_side, decide_time) = CASE WHEN state = 'DRAFT' THEN 0 ELSE 3 END",
        name="adjustments_decided",
    ),
    CheckConstraint(
        "state NOT IN ('POSTED', 'REFUSED') OR operation_id IS NOT NULL AND outcome IS NOT NULL"
        " AND (drafted_by, draft_side) <> (decided_by, decide_side)",
        name="adjustments_two_persons",
    ),
    comment="points given or taken by decision of two persons of the issuer",
)
Index("adjustments_institution", adjustments.c.institution_id, adjustments.c.adjustment_id)
Index("adjustments_account", adjustments.c.account_id)

pools = Table(
    "pools",
    metadata,
    Column("pool_id", Uuid, primary_key=True),
    Column("head_account_id", Uuid, ForeignKey("accounts.account_id"), nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("close_time", INSTANT),
    comment="households that spend their points together",
)
Index("pools_head", pools.c.head_account_id)

pool_members = Table(
    "pool_members",
    metadata,
    Column("pool_id", Uuid, ForeignKey("pools.pool_id"), primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), primary_key=True),
    Column("state", Text, nullable=False),
    Column("draw_points_max", BigInteger, comment="of others' points, by programme and month; null: no limit"),
    Column("invite_time", INSTANT, nullable=False),
    Column("join_time", INSTANT),
    Column("leave_time", INSTANT),
    CheckConstraint("state IN ('INVITED', 'MEMBER', 'LEFT')", name="pool_members_state"),
    CheckConstraint("(state = 'MEMBER') = (join_time IS NOT NULL)", name="pool_members_joined"),
    CheckConstraint("(state = 'LEFT') = (leave_time IS NOT NULL)", name="pool_members_left"),
    CheckConstraint("draw_points_max >= 0", name="pool_members_limit"),
)
Index("pool_members_one", pool_members.c.account_id, unique=True, postgresql_where=text("state = 'MEMBER'"))

expiry_notices = Table(
    "expiry_notices",
    metadata,
    Column("lot_id", BigInteger, primary_key=True, autoincrement=False),
    Column("days_before", BigInteger, primary_key=True, autoincrement=False),
    Column("expire_time", INSTANT, nullable=False),
    comment="which lots were said to be about to end, by mark; swept when they have ended",
)
Index("expiry_notices_swept", expiry_notices.c.expire_time)

erasure_leftovers = Table(
    "erasure_leftovers",
    metadata,
    Column("account_id", Uuid, ForeignKey("accounts.account_id"), primary_key=True),
    Column("program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("erase_time", INSTANT, nullable=False),
    comment="programmes in which points of erased persons end, also what holds and refunds bring back later",
)
