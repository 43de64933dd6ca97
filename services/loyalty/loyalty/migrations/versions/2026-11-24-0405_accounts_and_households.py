"""Accounts that are frozen, closed, unlinked or pooled; adjustments that wait for a second person."""

import sqlalchemy as sa
from alembic import op

revision = "202611240405"
down_revision = "202611240400"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Every account is open, every link in force, and nothing is frozen before."""
    _states()
    _memberships()
    _adjustments()
    _pools()
    _endings()


def _states() -> None:
    op.add_column("accounts", sa.Column("close_time", INSTANT, nullable=True))
    op.create_check_constraint("accounts_closed", "accounts", "(status = 'CLOSED') = (close_time IS NOT NULL)")
    op.create_table(
        "account_freezes",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="whose people froze it; - for the operator"),
        sa.Column("freeze_time", INSTANT, nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("frozen_by", sa.Text(), nullable=False),
        sa.Column("end_time", INSTANT, nullable=True),
        sa.Column("end_reason_code", sa.Text(), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.CheckConstraint("num_nonnulls(end_time, end_reason_code, ended_by) IN (0, 3)", name="account_freezes_ended"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"]),
        sa.PrimaryKeyConstraint("account_id", "institution_id", "freeze_time"),
        comment="an account is frozen while one of its freezes has no end",
    )
    op.create_index(
        "account_freezes_on",
        "account_freezes",
        ["account_id", "institution_id"],
        unique=True,
        postgresql_where=sa.text("end_time IS NULL"),
    )


def _memberships() -> None:
    consent = "where the institution keeps the consent"
    op.add_column(
        "memberships",
        sa.Column("consent_reference", sa.Text(), server_default=sa.text("''"), nullable=False, comment=consent),
    )
    op.add_column(
        "memberships", sa.Column("consent_time", INSTANT, nullable=True, comment="null of links from before it was asked for")
    )
    op.create_table_comment("memberships", "those in force")
    op.create_table(
        "ended_memberships",
        sa.Column("member_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("consent_reference", sa.Text(), nullable=False),
        sa.Column("consent_time", INSTANT, nullable=True),
        sa.Column("end_time", INSTANT, nullable=False),
        sa.CheckConstraint("end_time >= create_time", name="ended_memberships_times"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"]),
        sa.PrimaryKeyConstraint("member_id"),
        comment="a member id that ended is never used again",
    )
    op.create_index("ended_memberships_account", "ended_memberships", ["account_id"])


def _adjustments() -> None:
    op.create_table(
        "adjustments",
        sa.Column("adjustment_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="the issuer, whose people decide"),
        sa.Column("change_points", sa.BigInteger(), nullable=False, comment="above zero given, below zero taken"),
        sa.Column("expire_time", INSTANT, nullable=True, comment="of points given; null: as the programme says"),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("drafted_by", sa.Text(), nullable=False),
        sa.Column("draft_side", sa.Text(), nullable=False),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decide_side", sa.Text(), nullable=True),
        sa.Column("decide_time", INSTANT, nullable=True),
        sa.Column("operation_id", sa.Uuid(), nullable=True, comment="what it came to"),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('DRAFT', 'POSTED', 'REFUSED', 'REJECTED')", name="adjustments_state"),
        sa.CheckConstraint("change_points <> 0", name="adjustments_points"),
        sa.CheckConstraint(
            "num_nonnulls(decided_by, decide_side, decide_time) = CASE WHEN state = 'DRAFT' THEN 0 ELSE 3 END",
            name="adjustments_decided",
        ),
        sa.CheckConstraint(
            "state NOT IN ('POSTED', 'REFUSED') OR operation_id IS NOT NULL AND outcome IS NOT NULL"
            " AND (drafted_by, draft_side) <> (decided_by, decide_side)",
            name="adjustments_two_persons",
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"]),
        sa.ForeignKeyConstraint(["program_id"], ["programs.program_id"]),
        sa.PrimaryKeyConstraint("adjustment_id"),
        comment="points given or taken by decision of two persons of the issuer",
    )
    op.create_index("adjustments_institution", "adjustments", ["institution_id", "adjustment_id"])
    op.create_index("adjustments_account", "adjustments", ["account_id"])


def _pools() -> None:
    op.create_table(
        "pools",
        sa.Column("pool_id", sa.Uuid(), nullable=False),
        sa.Column("head_account_id", sa.Uuid(), nullable=False),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("close_time", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["head_account_id"], ["accounts.account_id"]),
        sa.PrimaryKeyConstraint("pool_id"),
        comment="households that spend their points together",
    )
    op.create_index("pools_head", "pools", ["head_account_id"])
    op.create_table(
        "pool_members",
        sa.Column("pool_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "draw_points_max", sa.BigInteger(), nullable=True, comment="of others' points, by programme and month; null: no limit"
        ),
        sa.Column("invite_time", INSTANT, nullable=False),
        sa.Column("join_time", INSTANT, nullable=True),
        sa.Column("leave_time", INSTANT, nullable=True),
        sa.CheckConstraint("state IN ('INVITED', 'MEMBER', 'LEFT')", name="pool_members_state"),
        sa.CheckConstraint("(state = 'MEMBER') = (join_time IS NOT NULL)", name="pool_members_joined"),
        sa.CheckConstraint("(state = 'LEFT') = (leave_time IS NOT NULL)", name="pool_members_left"),
        sa.CheckConstraint("draw_points_max >= 0", name="pool_members_limit"),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.pool_id"]),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"]),
        sa.PrimaryKeyConstraint("pool_id", "account_id"),
    )
    op.create_index("pool_members_one", "pool_members", ["account_id"], unique=True, postgresql_where=sa.text("state = 'MEMBER'"))


def _endings() -> None:
    op.create_table(
        "expiry_notices",
        sa.Column("lot_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("days_before", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("expire_time", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("lot_id", "days_before"),
        comment="which lots were said to be about to end, by mark; swept when they have ended",
    )
    op.create_index("expiry_notices_swept", "expiry_notices", ["expire_time"])
    op.create_table(
        "erasure_leftovers",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("erase_time", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"]),
        sa.ForeignKeyConstraint(["program_id"], ["programs.program_id"]),
        sa.PrimaryKeyConstraint("account_id", "program_id"),
        comment="programmes in which points of erased persons end, also what holds and refunds bring back later",
    )
