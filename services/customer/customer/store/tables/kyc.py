"""KYC: cases, checklists, evidence, screening."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from chassis.tables import INSTANT
from customer.store.tables.core import metadata

kyc_standards = Table(
    "kyc_standards",
    metadata,
    Column("version", Text, primary_key=True),
    Column("content", Text, nullable=False, comment="the YAML, so that an open case keeps the standard it was opened under"),
)

# No foreign key to records: an erased record leaves, and its cases with it, in one transaction.
kyc_cases = Table(
    "kyc_cases",
    metadata,
    Column("case_id", Uuid, primary_key=True),
    Column("institution_id", Text, ForeignKey("institutions.institution_id"), nullable=False),
    Column("record_id", Uuid, nullable=False, comment="the institution's record it hangs on"),
    Column("trigger", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("party_kind", Text, nullable=False),
    Column("product_codes", ARRAY(Text), nullable=False),
    Column("standard_version", Text, ForeignKey("kyc_standards.version"), nullable=False),
    Column("risk_level", SmallInteger, nullable=False),
    Column("factor_codes", ARRAY(Text), nullable=False),
    Column("screen_time", INSTANT),
    Column("open_time", INSTANT, nullable=False),
    Column("due_time", INSTANT, nullable=False),
    Column("decide_time", INSTANT),
    Column("decision_reason", LargeBinary, comment="PERSONAL: sealed under the record's key"),
    Column("next_review_date", Date),
    Column("opened_by", Text, comment="null for the platform itself"),
    Column("submitted_by", Text),
    Column("decided_by", Text),
    Column("version", BigInteger, nullable=False),
    CheckConstraint("(state IN (3, 4)) = (decided_by IS NOT NULL)", name="kyc_cases_decided_by_somebody"),
    CheckConstraint("decided_by IS NULL OR decided_by <> submitted_by", name="kyc_cases_four_eyes"),
)
Index("kyc_cases_record", kyc_cases.c.record_id, kyc_cases.c.case_id)
Index("kyc_cases_institution", kyc_cases.c.institution_id, kyc_cases.c.case_id)
Index("kyc_cases_one_open", kyc_cases.c.record_id, unique=True, postgresql_where=kyc_cases.c.state.in_((1, 2)))
Index("kyc_cases_review", kyc_cases.c.next_review_date, postgresql_where=kyc_cases.c.state == 3)

kyc_evidence = Table(
    "kyc_evidence",
    metadata,
    Column("evidence_id", Uuid, primary_key=True),
    Column("case_id", Uuid, ForeignKey("kyc_cases.case_id", ondelete="CASCADE"), nullable=False),
    Column("step_id", Text, nullable=False),
    Column("result", SmallInteger, nullable=False),
    Column("content", LargeBinary, nullable=False, comment="PERSONAL: sealed under the record's key"),
    Column("expire_date", Date),
    Column("recorded_by", Text, nullable=False),
    Column("record_time", INSTANT, nullable=False),
    comment="rows are never changed; the last one of a step counts",
)
Index("kyc_evidence_case", kyc_evidence.c.case_id)
Index("kyc_evidence_expire", kyc_evidence.c.expire_date)

kyc_verifications = Table(
    "kyc_verifications",
    metadata,
    Column("verification_id", Uuid, primary_key=True),
    Column("record_id", Uuid, nullable=False),
    Column("attribute", SmallInteger, nullable=False),
    Column("case_id", Uuid, ForeignKey("kyc_cases.case_id", ondelete="CASCADE"), nullable=False),
    Column("method", SmallInteger, nullable=False),
    Column("verify_date", Date, nullable=False, comment="when the evidence was recorded"),
    Column("value_digest", LargeBinary, nullable=False, comment="PERSONAL: sealed under the record's key; which value it was"),
    Column("recorded_at", INSTANT, nullable=False),
    Column("superseded_at", INSTANT),
    comment="what decided cases verified; rows are only ever ended",
)
Index("kyc_verifications_record", kyc_verifications.c.record_id)
Index("kyc_verifications_case", kyc_verifications.c.case_id)
Index(
    "kyc_verifications_live",
    kyc_verifications.c.record_id,
    kyc_verifications.c.attribute,
    unique=True,
    postgresql_where=kyc_verifications.c.superseded_at.is_(None),
)

kyc_hits = Table(
    "kyc_hits",
    metadata,
    Column("hit_id", Uuid, primary_key=True),
    Column("case_id", Uuid, ForeignKey("kyc_cases.case_id", ondelete="CASCADE"), nullable=False),
    Column("list_id", Text, nullable=False),
    Column("list_version", Text, nullable=False),
    Column("entry_id", Text, nullable=False),
    Column("topic", SmallInteger, nullable=False),
    Column("content_hash", LargeBinary, nullable=False, comment="keyed hash of what was compared"),
    Column("listed_name", Text, nullable=False, comment="from the list, which is public"),
    Column("score_percent", SmallInteger, nullable=False),
    Column("name_form", Text, nullable=False),
    Column("birth_year_check", Text, nullable=False),
    Column("country_check", Text, nullable=False),
    Column("disposition", SmallInteger, nullable=False),
    Column("remembered", Boolean, nullable=False),
    Column("reason", LargeBinary, comment="PERSONAL: sealed under the record's key"),
    Column("disposed_by", Text),
)
Index("kyc_hits_entry", kyc_hits.c.case_id, kyc_hits.c.list_id, kyc_hits.c.entry_id, unique=True)

kyc_dispositions = Table(
    "kyc_dispositions",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("list_id", Text, primary_key=True),
    Column("entry_id", Text, primary_key=True),
    Column("content_hash", LargeBinary, primary_key=True),
    Column("disposition", SmallInteger, nullable=False),
    comment="remembered by content: what was cleared comes back when the entry or the customer changes",
)

screening_list_versions = Table(
    "screening_list_versions",
    metadata,
    Column("list_id", Text, primary_key=True),
    Column("list_version", Text, primary_key=True),
    Column("topic", SmallInteger, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("activate_time", INSTANT),
    Column("rescreened_until", Uuid, comment="the last record screened again after the activation"),
    Column("rescreened", Boolean, nullable=False),
)
Index(
    "screening_list_versions_one_active",
    screening_list_versions.c.list_id,
    unique=True,
    postgresql_where=screening_list_versions.c.active,
)

screening_entries = Table(
    "screening_entries",
    metadata,
    Column("list_id", Text, primary_key=True),
    Column("list_version", Text, primary_key=True),
    Column("entry_id", Text, primary_key=True),
    Column("names", ARRAY(Text), nullable=False),
    Column("forms", JSONB, nullable=False, comment="comparable names by form"),
    Column("birth_years", ARRAY(Integer), nullable=False),
    Column("country_codes", ARRAY(Text), nullable=False),
    Column("organisation", Boolean, nullable=False),
    ForeignKeyConstraint(
        ["list_id", "list_version"],
        ["screening_list_versions.list_id", "screening_list_versions.list_version"],
        ondelete="CASCADE",
    ),
)
