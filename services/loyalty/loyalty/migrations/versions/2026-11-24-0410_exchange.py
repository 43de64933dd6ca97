"""Agreements between institutions, rates between programmes, quotes, and what a programme promises."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240410"
down_revision = "202611240405"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
# What was approved by two, and what members were promised, never changes; a change is a new row.
FIXED = {
    "expiry_policies": "true",
    "agreement_versions": "OLD.state = 'APPROVED'",
    "agreement_packs": "true",
    "rates": "OLD.state = 'PUBLISHED'",
}


def upgrade() -> None:
    """Programmes that are there promise what they did: points that never expire, shown without decimals."""
    op.execute("CREATE SEQUENCE configuration_versions START WITH 2")
    _programs()
    _expiry_policies()
    _agreements()
    _agreement_versions()
    _agreement_packs()
    _rates()
    _quotes()
    for table, condition in FIXED.items():
        op.execute(
            f"CREATE TRIGGER {table}_fixed BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW WHEN ({condition})"
            " EXECUTE FUNCTION refuse_change()"
        )


def _programs() -> None:
    """What a programme promises beside its points."""
    op.add_column(
        "programs",
        sa.Column(
            "decimals", sa.SmallInteger(), server_default=sa.text("0"), nullable=False, comment="places shown after the point"
        ),
    )
    op.add_column("programs", sa.Column("unit_display_name", sa.Text(), server_default=sa.text("'points'"), nullable=False))
    op.add_column(
        "programs",
        sa.Column(
            "time_zone", sa.Text(), server_default=sa.text("'UTC'"), nullable=False, comment="in which its days and months end"
        ),
    )
    op.add_column("programs", sa.Column("pending_days", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column(
        "programs",
        sa.Column(
            "liability_numerator",
            sa.BigInteger(),
            nullable=True,
            comment="minor units for liability_denominator points; null: not stated",
        ),
    )
    op.add_column("programs", sa.Column("liability_denominator", sa.BigInteger(), nullable=True))
    op.add_column("programs", sa.Column("liability_currency_code", sa.Text(), nullable=True))
    op.add_column("programs", sa.Column("transfers_allowed", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("programs", sa.Column("refund_grace_days", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column(
        "programs",
        sa.Column(
            "sandbox", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="its points are worth nothing"
        ),
    )
    op.create_check_constraint(
        "programs_numbers", "programs", "decimals BETWEEN 0 AND 6 AND pending_days >= 0 AND refund_grace_days >= 0"
    )
    op.create_check_constraint(
        "programs_liability",
        "programs",
        "num_nonnulls(liability_numerator, liability_denominator, liability_currency_code) = 0"
        " OR num_nonnulls(liability_numerator, liability_denominator, liability_currency_code) = 3"
        " AND liability_numerator > 0 AND liability_denominator > 0",
    )


def _expiry_policies() -> None:
    """When its points expire, in versions."""
    op.create_table(
        "expiry_policies",
        sa.Column("program_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("effective_time", INSTANT, nullable=False, comment="never before create_time: what was issued keeps its end"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("months", sa.BigInteger(), nullable=True),
        sa.Column("days", sa.BigInteger(), nullable=True),
        sa.Column("fixed_date", sa.Date(), nullable=True),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.CheckConstraint(
            "(months IS NOT NULL) = (kind = 'MONTHS') AND (days IS NOT NULL) = (kind = 'DAYS')"
            " AND (fixed_date IS NOT NULL) = (kind = 'FIXED_DATE')",
            name="expiry_policies_terms",
        ),
        sa.CheckConstraint("kind IN ('NEVER', 'MONTHS', 'DAYS', 'FIXED_DATE')", name="expiry_policies_kind"),
        sa.CheckConstraint("effective_time >= create_time", name="expiry_policies_new_lots"),
        sa.ForeignKeyConstraint(
            ["program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("program_id", "version"),
        comment="of lots issued from effective_time on the newest version counts; rows are only added",
    )


def _agreements() -> None:
    """Agreements."""
    op.create_table(
        "agreements",
        sa.Column("agreement_id", sa.Uuid(), nullable=False),
        sa.Column("issuer_institution_id", sa.Text(), nullable=False),
        sa.Column("partner_institution_id", sa.Text(), nullable=False, comment="where the issuer's points are earned or spent"),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("currency_code", sa.Text(), nullable=False),
        sa.Column("funding", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "version",
            sa.BigInteger(),
            nullable=False,
            comment="rises with every change of the agreement; the terms have their own",
        ),
        sa.Column("suspended_by", sa.Text(), nullable=True, comment="subject; null where it is not suspended"),
        sa.Column("suspended_side", sa.Text(), nullable=True, comment="institution, or - for the operator"),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("end_time", INSTANT, nullable=True),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.CheckConstraint("basis IN ('AT_ISSUANCE', 'AT_REDEMPTION')", name="agreements_basis"),
        sa.CheckConstraint("funding IN ('CREDIT', 'PREPAID')", name="agreements_funding"),
        sa.CheckConstraint(
            "num_nonnulls(ended_by, end_time) = CASE WHEN state = 'ENDED' THEN 2 ELSE 0 END", name="agreements_ended"
        ),
        sa.CheckConstraint(
            "num_nonnulls(suspended_by, suspended_side) = CASE WHEN state = 'SUSPENDED' THEN 2 ELSE 0 END",
            name="agreements_suspended",
        ),
        sa.CheckConstraint("state IN ('DRAFT', 'ACTIVE', 'SUSPENDED', 'ENDED')", name="agreements_state"),
        sa.CheckConstraint("issuer_institution_id <> partner_institution_id", name="agreements_pair"),
        sa.PrimaryKeyConstraint("agreement_id"),
        comment="what an issuer and a partner agreed on; one of each basis between two institutions at a time",
    )
    op.create_index(
        "agreements_one",
        "agreements",
        ["issuer_institution_id", "partner_institution_id", "basis"],
        unique=True,
        postgresql_where=sa.text("state <> 'ENDED'"),
    )
    op.create_index("agreements_partner", "agreements", ["partner_institution_id", "agreement_id"], unique=False)


def _agreement_versions() -> None:
    """The versions of their terms."""
    op.create_table(
        "agreement_versions",
        sa.Column("agreement_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("price_numerator", sa.BigInteger(), nullable=False, comment="minor units for price_denominator points"),
        sa.Column("price_denominator", sa.BigInteger(), nullable=False),
        sa.Column("fee_basis_points", sa.BigInteger(), nullable=False),
        sa.Column("net_debit_cap_minor_units", sa.BigInteger(), nullable=True, comment="null where packs bound the exposure"),
        sa.Column("low_water_minor_units", sa.BigInteger(), nullable=False),
        sa.Column("cut_off_time", sa.Text(), nullable=False, comment="HH:MM"),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("drafters", postgresql.ARRAY(sa.Text()), nullable=False, comment="subjects of all who wrote on it"),
        sa.Column("drafting_sides", postgresql.ARRAY(sa.Text()), nullable=False, comment="for whom each of them wrote"),
        sa.Column("wanted_time", INSTANT, nullable=True, comment="from when it shall hold; null: as soon as it is approved"),
        sa.Column("issuer_approver", sa.Text(), nullable=True),
        sa.Column("issuer_approver_side", sa.Text(), nullable=True, comment="the issuer, or - where the operator stood in"),
        sa.Column("issuer_approve_time", INSTANT, nullable=True),
        sa.Column("partner_approver", sa.Text(), nullable=True),
        sa.Column("partner_approver_side", sa.Text(), nullable=True),
        sa.Column("partner_approve_time", INSTANT, nullable=True),
        sa.Column("effective_time", INSTANT, nullable=True, comment="from when it holds"),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.CheckConstraint(
            "(state = 'APPROVED') = (num_nonnulls(issuer_approver, partner_approver, effective_time) = 3)",
            name="agreement_versions_approved",
        ),
        sa.CheckConstraint(
            "issuer_approver_side <> '-' OR partner_approver_side <> '-'", name="agreement_versions_operator_for_one_side"
        ),
        sa.CheckConstraint(
            "state <> 'DRAFT' OR num_nonnulls(issuer_approver, partner_approver) = 0", name="agreement_versions_draft"
        ),
        sa.CheckConstraint("state IN ('DRAFT', 'SUBMITTED', 'APPROVED')", name="agreement_versions_state"),
        sa.CheckConstraint(
            "issuer_approver <> partner_approver AND issuer_approver <> ALL (drafters) AND partner_approver <> ALL (drafters)",
            name="agreement_versions_four_eyes",
        ),
        sa.CheckConstraint(
            "price_numerator > 0 AND price_denominator > 0 AND fee_basis_points BETWEEN 0 AND 10000"
            " AND net_debit_cap_minor_units >= 0 AND low_water_minor_units >= 0",
            name="agreement_versions_terms",
        ),
        sa.ForeignKeyConstraint(
            ["agreement_id"],
            ["agreements.agreement_id"],
        ),
        sa.PrimaryKeyConstraint("agreement_id", "version"),
        comment="terms of agreements; an approved version never changes",
    )


def _agreement_packs() -> None:
    """What was paid in advance."""
    op.create_table(
        "agreement_packs",
        sa.Column("agreement_id", sa.Uuid(), nullable=False),
        sa.Column("pack_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "minor_units", sa.BigInteger(), nullable=False, comment="below zero: used up by a settlement, or stated by mistake"
        ),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("added_by", sa.Text(), nullable=False, comment="subject, or what of the service itself"),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.CheckConstraint("minor_units <> 0", name="agreement_packs_minor_units"),
        sa.ForeignKeyConstraint(
            ["agreement_id"],
            ["agreements.agreement_id"],
        ),
        sa.PrimaryKeyConstraint("agreement_id", "pack_number"),
        comment="what was paid in advance; rows are only added, and their sum is never below zero",
    )


def _rates() -> None:
    """Rates between programmes."""
    op.create_table(
        "rates",
        sa.Column("from_program_id", sa.Text(), nullable=False),
        sa.Column("to_program_id", sa.Text(), nullable=False),
        sa.Column("valid_from", INSTANT, nullable=False, comment="until the pair's next published rate begins"),
        sa.Column("rate_id", sa.Uuid(), nullable=False),
        sa.Column(
            "numerator",
            sa.BigInteger(),
            nullable=False,
            comment="s points are worth floor(s × numerator / denominator); 0: closed",
        ),
        sa.Column("denominator", sa.BigInteger(), nullable=False),
        sa.Column("rounding", sa.Text(), server_default=sa.text("'DOWN'"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("drafted_by", sa.Text(), nullable=False),
        sa.Column("drafted_side", sa.Text(), nullable=False),
        sa.Column("published_by", sa.Text(), nullable=True),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("publish_time", INSTANT, nullable=True),
        sa.CheckConstraint(
            "num_nonnulls(published_by, publish_time) = CASE WHEN state = 'PUBLISHED' THEN 2 ELSE 0 END", name="rates_published"
        ),
        sa.CheckConstraint("rounding = 'DOWN'", name="rates_rounding"),
        sa.CheckConstraint("state IN ('DRAFT', 'PUBLISHED')", name="rates_state"),
        sa.CheckConstraint("from_program_id <> to_program_id", name="rates_pair"),
        sa.CheckConstraint("numerator BETWEEN 0 AND 1000000000 AND denominator BETWEEN 1 AND 1000000000", name="rates_terms"),
        sa.CheckConstraint("published_by <> drafted_by", name="rates_four_eyes"),
        sa.CheckConstraint("valid_from >= publish_time", name="rates_not_in_the_past"),
        sa.ForeignKeyConstraint(
            ["from_program_id"],
            ["programs.program_id"],
        ),
        sa.ForeignKeyConstraint(
            ["to_program_id"],
            ["programs.program_id"],
        ),
        sa.PrimaryKeyConstraint("from_program_id", "to_program_id", "valid_from"),
        sa.UniqueConstraint("rate_id", name="rates_id"),
        comment="rates between programmes; a published one never changes",
    )


def _quotes() -> None:
    """Quotes."""
    op.create_table(
        "quotes",
        sa.Column("quote_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="where the points are to be spent"),
        sa.Column("target_program_id", sa.Text(), nullable=True, comment="the points in which the price is stated"),
        sa.Column("currency_code", sa.Text(), nullable=True, comment="or the currency; also of the money part"),
        sa.Column(
            "amount_units", sa.BigInteger(), nullable=False, comment="the price: what the lines are worth, and what money pays"
        ),
        sa.Column(
            "money_minor_units",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="what is paid in money beside",
        ),
        sa.Column(
            "lines",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="{program_id, points, value_units, numerator, denominator, agreement_id, agreement_version, rate_valid_from}",
        ),
        sa.Column(
            "reference", sa.Text(), nullable=False, comment="free text of the institution; emptied when the person is erased"
        ),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("expire_time", INSTANT, nullable=False),
        sa.Column("used_by_operation_id", sa.Uuid(), nullable=True, comment="the hold or redemption; null while it is not used"),
        sa.CheckConstraint("money_minor_units = 0 OR money_minor_units > 0 AND currency_code IS NOT NULL", name="quotes_money"),
        sa.CheckConstraint("num_nonnulls(target_program_id, currency_code) >= 1", name="quotes_target"),
        sa.PrimaryKeyConstraint("quote_id"),
        comment="promises of rates; each is used once, under the ledger's head's lock",
        postgresql_with={"fillfactor": 80},
    )
    op.create_index("quotes_account", "quotes", ["account_id"], unique=False)
    op.create_index("quotes_expire_time", "quotes", ["expire_time"], unique=False)
