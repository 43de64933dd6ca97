"""Survivorship policies, pins, and the quality of customers."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Integer, LargeBinary, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from chassis.tables import INSTANT
from customer.store.tables.core import metadata

survivorship_policies = Table(
    "survivorship_policies",
    metadata,
    Column("version", Integer, Identity(always=True, start=2), primary_key=True, comment="version 1 lies in the package"),
    Column("row_version", BigInteger, nullable=False, comment="orders the states of this row, for its etag"),
    Column("standard", JSONB, nullable=False, comment="as in the file survivorship_policy.yaml"),
    Column("content_hash", LargeBinary, nullable=False, comment="of the standard: a dry run is of exactly one"),
    Column("authors", ARRAY(Text), nullable=False, comment="opaque ids of those who wrote it"),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
    Column("activator", Text, comment="opaque id of who activated it"),
    Column("activated_at", INSTANT),
    Column("effective_at", INSTANT),
    CheckConstraint("(activated_at IS NULL) = (effective_at IS NULL)", name="survivorship_policies_effective_when_activated"),
)
Index(
    "survivorship_policies_effective",
    survivorship_policies.c.effective_at,
    unique=True,
    postgresql_where=survivorship_policies.c.effective_at.is_not(None),
)

survivorship_jobs = Table(
    "survivorship_jobs",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("kind", SmallInteger, nullable=False, comment="1 dry run, 2 calibration, 3 sweep after an activation"),
    Column("policy_version", Integer, nullable=False, comment="tried or activated; of a calibration its draft, 0 before the end"),
    Column("base_version", Integer, nullable=False, comment="the policy it compares with"),
    Column("content_hash", LargeBinary, nullable=False, comment="of the standard that is tried"),
    Column("standard", JSONB, comment="what a dry run tries; null for other kinds"),
    Column("sample_percent", Integer, nullable=False),
    Column("begin_time", INSTANT, nullable=False, comment="not worked on before; also the instant it asks about"),
    Column("cursor", Uuid, nullable=False, comment="the last customer looked at"),
    Column("customers_total_count", BigInteger, nullable=False),
    Column("customers_done_count", BigInteger, nullable=False),
    Column("result", JSONB, nullable=False, comment="counts; no values"),
    Column("skipped", JSONB, nullable=False, server_default="{}", comment="customers that failed: id, and how often"),
    Column("retry_at", INSTANT, comment="when the skipped are tried again; null before the last page"),
    Column("created_by", Text, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("finish_time", INSTANT),
)
Index(
    "survivorship_jobs_unfinished",
    survivorship_jobs.c.create_time,
    postgresql_where=survivorship_jobs.c.finish_time.is_(None),
)
Index("survivorship_jobs_policy", survivorship_jobs.c.policy_version)

pins = Table(
    "pins",
    metadata,
    Column("pin_id", Uuid, primary_key=True),
    Column("record_id", Uuid, nullable=False),
    Column("attribute", SmallInteger, nullable=False),
    Column("pinned_at", INSTANT, nullable=False),
    Column("pinned_by", Text, nullable=False, comment="opaque id"),
    Column("reason", LargeBinary, nullable=False, comment="PERSONAL, encrypted: a steward's words"),
    Column("unpinned_at", INSTANT),
    Column("unpinned_by", Text),
    Column("unpin_reason", LargeBinary, comment="PERSONAL, encrypted: a steward's words"),
    comment="rows are only ever ended",
)
Index("pins_record", pins.c.record_id)
Index("pins_live", pins.c.record_id, pins.c.attribute, unique=True, postgresql_where=pins.c.unpinned_at.is_(None))

customer_qualities = Table(
    "customer_qualities",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False, comment="orders its published states"),
    Column("completeness_percent", SmallInteger, nullable=False, comment="as last published"),
    Column("credibility_percent", SmallInteger, nullable=False, comment="as last published"),
    comment="the quality last published, so that only the crossing of a band is published",
)
