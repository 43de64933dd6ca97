"""Match models, and runs that look for what matching missed."""

from sqlalchemy import (  # fmt: skip
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from chassis.tables import INSTANT
from customer.store.tables.core import metadata

match_models = Table(
    "match_models",
    metadata,
    Column("version", Integer, Identity(always=True), primary_key=True, comment="0 stands for the shipped model elsewhere"),
    Column("state", SmallInteger, nullable=False, comment="1 training, 2 trained, 3 failed"),
    Column("content", Text, comment="the model as JSON, names as keyed hashes only; null until it is trained"),
    Column("false_links_share_max", Double, nullable=False),
    Column("records_count_max", Integer, nullable=False),
    Column("progress_percent", Integer, nullable=False),
    Column("attempts_count", Integer, nullable=False),
    Column("error_reason", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("approved_by", Text),
    Column("create_time", INSTANT, nullable=False),
    Column("effective_time", INSTANT, comment="from when it is, or was, in force; the latest one holds"),
    CheckConstraint("approved_by <> created_by", name="match_models_four_eyes"),
    CheckConstraint("(approved_by IS NULL) = (effective_time IS NULL)", name="match_models_approved"),
)
Index("match_models_training", match_models.c.version, postgresql_where=text("state = 1"))

rematches = Table(
    "rematches",
    metadata,
    Column("rematch_id", Uuid, primary_key=True),
    Column("model_version", Integer, nullable=False),
    Column("apply_links", Boolean, nullable=False),
    Column("state", SmallInteger, nullable=False, comment="1 running, 2 succeeded, 3 failed"),
    Column("progress", Text, nullable=False, comment="what is done: keys up to one, then customers up to one"),
    Column("progress_percent", Integer, nullable=False),
    Column("pairs_compared_count", BigInteger, nullable=False),
    Column("attempts_count", Integer, nullable=False),
    Column("error_reason", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("finish_time", INSTANT),
)
Index("rematches_running", rematches.c.rematch_id, postgresql_where=text("state = 1"))

rematch_findings = Table(
    "rematch_findings",
    metadata,
    Column("finding_number", BigInteger, Identity(always=True), primary_key=True),
    Column("rematch_id", Uuid, ForeignKey("rematches.rematch_id"), nullable=False),
    Column("kind", SmallInteger, nullable=False, comment="1 missed pair, 2 doubtful cluster"),
    Column("customer_id", Uuid, nullable=False),
    Column("other_customer_id", Uuid, nullable=False, comment="the same again for a cluster"),
    Column("records_apart_count", Integer, nullable=False),
    Column("zone", SmallInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("explanation", LargeBinary, nullable=False, comment="attributes, levels and bits; no values"),
    Column("applied", Boolean, nullable=False),
    # A run that goes on after it was killed looks at its last page again.
    UniqueConstraint("rematch_id", "customer_id", "other_customer_id"),
)
