"""Tables of rating. Facts hang on records; a merge only moves `record_links`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from chassis import customer_states, record_links
from chassis.tables import add_tables

INSTANT = DateTime(timezone=True)

metadata = MetaData()
add_tables(metadata)
record_links.table(metadata)
customer_states.table(metadata)

customers = Table(
    "customers",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", INSTANT, nullable=False, comment="when the customer was first seen"),
    Column("attributes", JSONB, nullable=False, comment="list of {attribute, observed_seconds}"),
)

customer_qualities = Table(
    "customer_qualities",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("completeness_percent", SmallInteger, nullable=False),
    Column("credibility_percent", SmallInteger, nullable=False),
    Column("attributes", JSONB, nullable=False, comment="list of [attribute, required weight, credibility percent, findings]"),
    Column("asked_at", INSTANT, nullable=False, comment="when the customer master was asked"),
    comment="what the customer master last said; no event can fill it, so a rebuild keeps it",
)
Index("customer_qualities_asked", customer_qualities.c.asked_at)

holdings = Table(
    "holdings",
    metadata,
    Column("holding_id", Uuid, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("open_date", Date),
    Column("close_date", Date),
)

holding_owners = Table(
    "holding_owners",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("holding_id", Uuid, primary_key=True),
)
Index("holding_owners_holding", holding_owners.c.holding_id)

activities = Table(
    "activities",
    metadata,
    Column("activity_id", Uuid, primary_key=True),
    Column("reversed", Boolean, nullable=False),
    Column("record_id", Uuid, comment="null while only the reversal has arrived, as all that follows"),
    Column("kind", SmallInteger, comment="1 transaction, 2 margin, 3 risk score, 4 journey step, 5 complaint"),
    Column("occurred_at", INSTANT),
    Column("month", Integer, comment="year * 12 + month - 1; of a margin the month that it is of"),
    Column("amount", BigInteger, comment="signed minor units; of a risk score parts per million; of a step its event"),
    Column("currency_code", Text),
    Column("fee_minor_units", BigInteger),
    Column("fee_currency_code", Text),
    Column("partial", Boolean, comment="a margin with parts in another currency, which are not in the amount"),
)
Index("activities_record", activities.c.record_id, activities.c.occurred_at, postgresql_where=text("NOT reversed"))
Index(
    "activities_of_finance",
    activities.c.record_id, activities.c.kind, activities.c.month, activities.c.occurred_at,
    postgresql_where=text("NOT reversed AND kind IN (2, 3)"),
)  # fmt: skip

scorecard_versions = Table(
    "scorecard_versions",
    metadata,
    Column("scorecard_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("content", JSONB, nullable=False),
    Column("created_at", INSTANT, nullable=False),
)

active_scorecard = Table(
    "active_scorecard",
    metadata,
    Column("singleton", Integer, primary_key=True, autoincrement=False, comment="always 1"),
    Column("scorecard_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("activated_at", INSTANT, nullable=False),
    Column("marked_up_to", Uuid, comment="customers up to here are marked for it; null when all are"),
    CheckConstraint("singleton = 1", name="active_scorecard_is_one"),
)

rerate_queue = Table(
    "rerate_queue",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("since", INSTANT, nullable=False),
    Column("marks_count", BigInteger, nullable=False, comment="rises with every mark, so that one made while rating is not lost"),
    Column("claim_id", Uuid, comment="of the worker that rates this customer now"),
    Column("claimed_until", INSTANT),
    Column(
        "asks_quality",
        Boolean,
        nullable=False,
        server_default=text("true"),
        comment="whether the figures of the customer master may have changed",
    ),
)
Index("rerate_queue_since", rerate_queue.c.since)

rerate_pauses = Table(
    "rerate_pauses",
    metadata,
    Column("owner", Text, primary_key=True, comment="whose facts the last rebuild waits for"),
    Column("run_id", Uuid, nullable=False, comment="of that rebuild; what is read under another is not written"),
    Column("since", INSTANT, nullable=False),
    Column("stream_sequence", BigInteger, comment="where the owner's stream said that this was all; null until then"),
    Column("ended_at", INSTANT),
)

ratings = Table(
    "ratings",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("version", BigInteger, nullable=False, comment="the current one"),
)

rating_versions = Table(
    "rating_versions",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("degrees", JSONB, nullable=False, comment="list of {kind, value, confidence, reasons}"),
    Column("customer_level", SmallInteger, nullable=False),
    Column("lifecycle_stage", SmallInteger, nullable=False),
    Column("scorecard_id", Text, nullable=False),
    Column("scorecard_version", Integer, nullable=False),
    Column("as_of", INSTANT, nullable=False),
    Column("created_at", INSTANT, nullable=False),
)
