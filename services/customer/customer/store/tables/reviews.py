"""Decisions of stewards: their queues, merges and rejections. Opaque ids, codes and scores only; no personal value."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from chassis.tables import INSTANT
from customer.store.tables.core import metadata

review_items = Table(
    "review_items",
    metadata,
    Column("review_item_id", Uuid, primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False, comment="1 open, 2 decided, 3 settled by itself"),
    Column("subject_key", LargeBinary, nullable=False, comment="hash of what it is about: open once"),
    Column("content_key", LargeBinary, nullable=False, comment="hash of what was judged: decided once"),
    Column("weight_bits", Float, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("explanation", LargeBinary, nullable=False, comment="levels and bits by attribute"),
    Column("attribute", SmallInteger, nullable=False),
    Column("codes", ARRAY(Text), nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
    Column("defer_until", INSTANT, nullable=False, comment="not offered before"),
    Column("claim_number", BigInteger, nullable=False, comment="rises with every claim and change; fences late decisions"),
    Column("claimed_by", Text),
    Column("lease_until", INSTANT),
    Column("decision_number", Integer, nullable=False),
)
_OPEN = text("state = 1")
Index("review_items_open_subject", review_items.c.subject_key, unique=True, postgresql_where=_OPEN)
Index("review_items_decided", review_items.c.subject_key, review_items.c.content_key, postgresql_where=text("state = 2"))
Index("review_items_oldest", review_items.c.review_item_id, postgresql_where=_OPEN)
Index("review_items_oldest_of_kind", review_items.c.kind, review_items.c.review_item_id, postgresql_where=_OPEN)
Index("review_items_heaviest", review_items.c.weight_bits, review_items.c.review_item_id, postgresql_where=_OPEN)
Index(
    "review_items_heaviest_of_kind",
    review_items.c.kind,
    review_items.c.weight_bits,
    review_items.c.review_item_id,
    postgresql_where=_OPEN,
)

review_item_records = Table(
    "review_item_records",
    metadata,
    Column("review_item_id", Uuid, ForeignKey("review_items.review_item_id"), primary_key=True),
    Column("record_id", Uuid, primary_key=True),
    Column("side", SmallInteger, nullable=False, comment="1 left, 2 right"),
)
Index("review_item_records_record", review_item_records.c.record_id)

review_decisions = Table(
    "review_decisions",
    metadata,
    Column("review_item_id", Uuid, ForeignKey("review_items.review_item_id"), primary_key=True),
    Column("decision_number", Integer, primary_key=True),
    Column("decision", SmallInteger, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_at", INSTANT, nullable=False),
    Column("undone_by", Text),
    Column("undone_at", INSTANT),
    Column("undo_reason_code", Text),
    Column("merge_ids", ARRAY(Uuid), nullable=False, comment="what MERGE did"),
    Column("rejection_id", Uuid, comment="what NOT_SAME and SPLIT did"),
    Column("split_customer_id", Uuid, comment="where SPLIT moved the right side"),
    Column("chosen_record_id", Uuid, comment="whose value CHOOSE pinned"),
    Column("pinned_before", INSTANT, comment="when the chosen record's value had been pinned before"),
)
Index("review_decisions_time", review_decisions.c.decided_at)

merges = Table(
    "merges",
    metadata,
    Column("merge_id", Uuid, primary_key=True),
    Column("loser_id", Uuid, ForeignKey("customers.customer_id"), nullable=False),
    Column("winner_id", Uuid, ForeignKey("customers.customer_id"), nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("override_reason", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_at", INSTANT, nullable=False),
    Column("undone_by", Text),
    Column("undone_at", INSTANT),
    Column("undo_reason_code", Text),
)
Index("merges_loser_live", merges.c.loser_id, unique=True, postgresql_where=text("undone_at IS NULL"))
Index("merges_loser", merges.c.loser_id, merges.c.merge_id)
Index("merges_winner", merges.c.winner_id)

merge_records = Table(
    "merge_records",
    metadata,
    Column("merge_id", Uuid, ForeignKey("merges.merge_id"), primary_key=True),
    Column("record_id", Uuid, primary_key=True),
    comment="what a loser had at the merge: exactly this goes back",
)
Index("merge_records_record", merge_records.c.record_id)

relinks = Table(
    "relinks",
    metadata,
    Column("relink_id", Uuid, primary_key=True),
    Column("record_id", Uuid, nullable=False),
    Column("from_customer_id", Uuid, nullable=False),
    Column("to_customer_id", Uuid, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("override_reason", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_at", INSTANT, nullable=False),
    comment="single records moved by hand, and why",
)
Index("relinks_record", relinks.c.record_id)

rejections = Table(
    "rejections",
    metadata,
    Column("rejection_id", Uuid, primary_key=True),
    Column("reason_code", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_at", INSTANT, nullable=False),
    Column("withdrawn_by", Text),
    Column("withdrawn_at", INSTANT),
)

rejected_pairs = Table(
    "rejected_pairs",
    metadata,
    Column("low_record_id", Uuid, primary_key=True),
    Column("high_record_id", Uuid, primary_key=True),
    Column("rejection_id", Uuid, ForeignKey("rejections.rejection_id"), primary_key=True),
    Column("low_side", SmallInteger, nullable=False, comment="which side of the rejection the low record stood on"),
    Column("content_key", LargeBinary, nullable=False, comment="hash of both records' content when they were rejected"),
    Column("live", Boolean, nullable=False),
    comment="records that are never linked by a rule; they may be merged only after the rejection is withdrawn",
)
Index("rejected_pairs_high", rejected_pairs.c.high_record_id)
Index("rejected_pairs_rejection", rejected_pairs.c.rejection_id)
