"""Programmes, agreements between institutions, and rates between programmes."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from loyalty.store.tables.base import INSTANT, metadata

configuration_versions = Sequence("configuration_versions", start=2, metadata=metadata)

programs = Table(
    "programs",
    metadata,
    Column("program_id", Text, primary_key=True),
    Column("institution_id", Text, nullable=False, comment="the issuer, who stands for the points"),
    Column("display_name", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("erasure_rule", Text, nullable=False, server_default="EXPIRE", comment="what becomes of an erased member's points"),
    Column("decimals", SmallInteger, nullable=False, server_default=text("0"), comment="places shown after the point"),
    Column("unit_display_name", Text, nullable=False, server_default=text("'points'")),
    Column("time_zone", Text, nullable=False, server_default=text("'UTC'"), comment="in which its days and months end"),
    Column("pending_days", BigInteger, nullable=False, server_default=text("0")),
    Column("liability_numerator", BigInteger, comment="minor units for liability_denominator points; null: not stated"),
    Column("liability_denominator", BigInteger),
    Column("liability_currency_code", Text),
    Column("transfers_allowed", Boolean, nullable=False, server_default=text("false")),
    Column("refund_grace_days", BigInteger, nullable=False, server_default=text("0")),
    Column("sandbox", Boolean, nullable=False, server_default=text("false"), comment="its points are worth nothing"),
    CheckConstraint("erasure_rule IN ('EXPIRE', 'KEEP')", name="programs_erasure_rule"),
    CheckConstraint("decimals BETWEEN 0 AND 6 AND pending_days >= 0 AND refund_grace_days >= 0", name="programs_numbers"),
    CheckConstraint(
        "num_nonnulls(liability_numerator, liability_denominator, liability_currency_code) = 0"
        " OR num_nonnulls(liability_numerator, liability_denominator, liability_currency_code) = 3"
        " AND liability_numerator > 0 AND liability_denominator > 0",
        name="programs_liability",
    ),
)
Index("programs_institution", programs.c.institution_id)

expiry_policies = Table(
    "expiry_policies",
    metadata,
    Column("program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("effective_time", INSTANT, nullable=False, comment="never before create_time: what was issued keeps its end"),
    Column("kind", Text, nullable=False),
    Column("months", BigInteger),
    Column("days", BigInteger),
    Column("fixed_date", Date),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint("kind IN ('NEVER', 'MONTHS', 'DAYS', 'FIXED_DATE')", name="expiry_policies_kind"),
    CheckConstraint(
        "(months IS NOT NULL) = (kind = 'MONTHS') AND (days IS NOT NULL) = (kind = 'DAYS')"
        " AND (fixed_date IS NOT NULL) = (kind = 'FIXED_DATE')",
        name="expiry_policies_terms",
    ),
    CheckConstraint("effective_time >= create_time", name="expiry_policies_new_lots"),
    comment="of lots issued from effective_time on the newest version counts; rows are only added",
)

agreements = Table(
    "agreements",
    metadata,
    Column("agreement_id", Uuid, primary_key=True),
    Column("issuer_institution_id", Text, nullable=False),
    Column("partner_institution_id", Text, nullable=False, comment="where the issuer's points are earned or spent"),
    Column("basis", Text, nullable=False),
    Column("currency_code", Text, nullable=False),
    Column("funding", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False, comment="rises with every change of the agreement; the terms have their own"),
    Column("suspended_by", Text, comment="subject; null where it is not suspended"),
    Column("suspended_side", Text, comment="institution, or - for the operator"),
    Column("ended_by", Text),
    Column("end_time", INSTANT),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint("issuer_institution_id <> partner_institution_id", name="agreements_pair"),
    CheckConstraint("basis IN ('AT_ISSUANCE', 'AT_REDEMPTION')", name="agreements_basis"),
    CheckConstraint("funding IN ('CREDIT', 'PREPAID')", name="agreements_funding"),
    CheckConstraint("state IN ('DRAFT', 'ACTIVE', 'SUSPENDED', 'ENDED')", name="agreements_state"),
    CheckConstraint(
        "num_nonnulls(suspended_by, suspended_side) = CASE WHEN state = 'SUSPENDED' THEN 2 ELSE 0 END",
        name="agreements_suspended",
    ),
    CheckConstraint("num_nonnulls(ended_by, end_time) = CASE WHEN state = 'ENDED' THEN 2 ELSE 0 END", name="agreements_ended"),
    comment="what an issuer and a partner agreed on; one of each basis between two institutions at a time",
)
Index(
    "agreements_one", agreements.c.issuer_institution_id, agreements.c.partner_institution_id, agreements.c.basis,
    unique=True, postgresql_where=text("state <> 'ENDED'"),
)  # fmt: skip
Index("agreements_partner", agreements.c.partner_institution_id, agreements.c.agreement_id)

agreement_versions = Table(
    "agreement_versions",
    metadata,
    Column("agreement_id", Uuid, ForeignKey("agreements.agreement_id"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("price_numerator", BigInteger, nullable=False, comment="minor units for price_denominator points"),
    Column("price_denominator", BigInteger, nullable=False),
    Column("fee_basis_points", BigInteger, nullable=False),
    Column("net_debit_cap_minor_units", BigInteger, comment="null where packs bound the exposure"),
    Column("low_water_minor_units", BigInteger, nullable=False),
    Column("cut_off_time", Text, nullable=False, comment="HH:MM"),
    Column("time_zone", Text, nullable=False),
    Column("drafters", ARRAY(Text), nullable=False, comment="subjects of all who wrote on it"),
    Column("drafting_sides", ARRAY(Text), nullable=False, comment="for whom each of them wrote"),
    Column("wanted_time", INSTANT, comment="from when it shall hold; null: as soon as it is approved"),
    Column("issuer_approver", Text),
    Column("issuer_approver_side", Text, comment="the issuer, or - where the operator stood in"),
    Column("issuer_approve_time", INSTANT),
    Column("partner_approver", Text),
    Column("partner_approver_side", Text),
    Column("partner_approve_time", INSTANT),
    Column("effective_time", INSTANT, comment="from when it holds"),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint("state IN ('DRAFT', 'SUBMITTED', 'APPROVED')", name="agreement_versions_state"),
    CheckConstraint(
        "price_numerator > 0 AND price_denominator > 0 AND fee_basis_points BETWEEN 0 AND 10000"
        " AND net_debit_cap_minor_units >= 0 AND low_water_minor_units >= 0",
        name="agreement_versions_terms",
    ),
    CheckConstraint("state <> 'DRAFT' OR num_nonnulls(issuer_approver, partner_approver) = 0", name="agreement_versions_draft"),
    CheckConstraint(
        "(state = 'APPROVED') = (num_nonnulls(issuer_approver, partner_approver, effective_time) = 3)",
        name="agreement_versions_approved",
    ),
    CheckConstraint(
        "issuer_approver <> partner_approver AND issuer_approver <> ALL (drafters) AND partner_approver <> ALL (drafters)",
        name="agreement_versions_four_eyes",
    ),
    CheckConstraint(
        "issuer_approver_side <> '-' OR partner_approver_side <> '-'", name="agreement_versions_operator_for_one_side"
    ),
    comment="terms of agreements; an approved version never changes",
)

agreement_packs = Table(
    "agreement_packs",
    metadata,
    Column("agreement_id", Uuid, ForeignKey("agreements.agreement_id"), primary_key=True),
    Column("pack_number", BigInteger, primary_key=True, autoincrement=False),
    Column("minor_units", BigInteger, nullable=False, comment="below zero: used up by a settlement, or stated by mistake"),
    Column("reference", Text, nullable=False),
    Column("added_by", Text, nullable=False, comment="subject, or what of the service itself"),
    Column("create_time", INSTANT, nullable=False),
    CheckConstraint("minor_units <> 0", name="agreement_packs_minor_units"),
    comment="what was paid in advance; rows are only added, and their sum is never below zero",
)

rates = Table(
    "rates",
    metadata,
    Column("from_program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("to_program_id", Text, ForeignKey("programs.program_id"), primary_key=True),
    Column("valid_from", INSTANT, primary_key=True, comment="until the pair's next published rate begins"),
    Column("rate_id", Uuid, nullable=False),
    Column("numerator", BigInteger, nullable=False, comment="s points are worth floor(s × numerator / denominator); 0: closed"),
    Column("denominator", BigInteger, nullable=False),
    Column("rounding", Text, nullable=False, server_default=text("'DOWN'")),
    Column("state", Text, nullable=False),
    Column("drafted_by", Text, nullable=False),
    Column("drafted_side", Text, nullable=False),
    Column("published_by", Text),
    Column("create_time", INSTANT, nullable=False),
    Column("publish_time", INSTANT),
    UniqueConstraint("rate_id", name="rates_id"),
    CheckConstraint("from_program_id <> to_program_id", name="rates_pair"),
    CheckConstraint("numerator BETWEEN 0 AND 1000000000 AND denominator BETWEEN 1 AND 1000000000", name="rates_terms"),
    CheckConstraint("rounding = 'DOWN'", name="rates_rounding"),
    CheckConstraint("state IN ('DRAFT', 'PUBLISHED')", name="rates_state"),
    CheckConstraint(
        "num_nonnulls(published_by, publish_time) = CASE WHEN state = 'PUBLISHED' THEN 2 ELSE 0 END", name="rates_published"
    ),
    CheckConstraint("published_by <> drafted_by", name="rates_four_eyes"),
    CheckConstraint("valid_from >= publish_time", name="rates_not_in_the_past"),
    comment="rates between programmes; a published one never changes",
)

quotes = Table(
    "quotes",
    metadata,
    Column("quote_id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("institution_id", Text, nullable=False, comment="where the points are to be spent"),
    Column("target_program_id", Text, comment="the points in which the price is stated"),
    Column("currency_code", Text, comment="or the currency; also of the money part"),
    Column("amount_units", BigInteger, nullable=False, comment="the price: what the lines are worth, and what money pays"),
    Column("money_minor_units", BigInteger, nullable=False, server_default=text("0"), comment="what is paid in money beside"),
    Column(
        "lines", JSONB, nullable=False,
        comment="{program_id, points, value_units, numerator, denominator, agreement_id, agreement_version, rate_valid_from}",
    ),
    Column("reference", Text, nullable=False, comment="free text of the institution; emptied when the person is erased"),
    Column("create_time", INSTANT, nullable=False),
    Column("expire_time", INSTANT, nullable=False),
    Column("used_by_operation_id", Uuid, comment="the hold or redemption; null while it is not used"),
    CheckConstraint("num_nonnulls(target_program_id, currency_code) >= 1", name="quotes_target"),
    CheckConstraint("money_minor_units = 0 OR money_minor_units > 0 AND currency_code IS NOT NULL", name="quotes_money"),
    comment="promises of rates; each is used once, under the ledger's head's lock",
    postgresql_with={"fillfactor": 80},
)  # fmt: skip
Index("quotes_expire_time", quotes.c.expire_time)
Index("quotes_account", quotes.c.account_id)
