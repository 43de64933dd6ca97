"""The tables of the customer master.

Personal values stand in three columns only: `source_records.payload` (what a source said), `records.party` (the same,
standardised) and `name_tokens.token`. Everything else is codes, opaque ids and keyed hashes.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from chassis.tables import INSTANT, add_tables

metadata = MetaData()
add_tables(metadata)

institutions = Table(
    "institutions",
    metadata,
    Column("institution_id", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("country_code", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
)

source_systems = Table(
    "source_systems",
    metadata,
    Column("source_system_number", Integer, Identity(always=True), primary_key=True, comment="short, for large tables"),
    Column("institution_id", Text, ForeignKey("institutions.institution_id"), nullable=False),
    Column("source_system_id", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("default_rank", Integer, nullable=False),
    Column("attribute_ranks", JSONB, nullable=False, comment="rank by attribute number"),
    Column("version", BigInteger, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
    UniqueConstraint("institution_id", "source_system_id"),
)

customers = Table(
    "customers",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False, comment="orders its published states"),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
    Column("merged_into", Uuid, ForeignKey("customers.customer_id")),
)

records = Table(
    "records",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("source_system_number", Integer, ForeignKey("source_systems.source_system_number"), nullable=False),
    Column("source_key", LargeBinary, nullable=False, comment="keyed hash of the source's own key"),
    Column("institution_id", Text, nullable=False, comment="of the source system; here for the indexes"),
    Column("customer_id", Uuid, ForeignKey("customers.customer_id"), nullable=False, comment="the one live link"),
    Column("link_version", BigInteger, nullable=False, comment="orders the links of this record"),
    Column("resolution_reason", SmallInteger, nullable=False),
    Column("state_number", Integer, nullable=False, comment="the present state in source_records"),
    Column("content_hash", LargeBinary, nullable=False, comment="keyed"),
    Column("observe_time", INSTANT, nullable=False, comment="when this was last seen"),
    Column("party", LargeBinary, nullable=False, comment="PERSONAL: standardised Party"),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
    UniqueConstraint("source_system_number", "source_key"),
)
Index("records_customer", records.c.customer_id)
Index("records_institution_customer", records.c.institution_id, records.c.customer_id)

source_records = Table(
    "source_records",
    metadata,
    Column("record_id", Uuid, ForeignKey("records.record_id"), primary_key=True),
    Column("state_number", Integer, primary_key=True),
    Column("content_hash", LargeBinary, nullable=False, comment="keyed"),
    Column("observe_time", INSTANT, nullable=False),
    Column("recorded_at", INSTANT, nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="PERSONAL: SourceRecord as sent"),
    comment="every content a source ever stated; rows are never changed",
)

documents = Table(
    "documents",
    metadata,
    Column("document_key", LargeBinary, primary_key=True, comment="keyed hash of a valid document"),
    comment="one row to lock for each document, so that two ingests of one new person meet",
)

record_keys = Table(
    "record_keys",
    metadata,
    Column("key", LargeBinary, primary_key=True, comment="keyed hash of a document, number, phone or e-mail"),
    Column("record_id", Uuid, ForeignKey("records.record_id"), primary_key=True),
)
Index("record_keys_record", record_keys.c.record_id)

name_tokens = Table(
    "name_tokens",
    metadata,
    Column("record_id", Uuid, ForeignKey("records.record_id"), primary_key=True),
    Column("token", Text, primary_key=True, comment="PERSONAL: a folded word of a name"),
)
Index("name_tokens_prefix", name_tokens.c.token, postgresql_ops={"token": "text_pattern_ops"})

holdings = Table(
    "holdings",
    metadata,
    Column("holding_id", Uuid, primary_key=True),
    Column("source_system_number", Integer, ForeignKey("source_systems.source_system_number"), nullable=False),
    Column("source_key", LargeBinary, nullable=False, comment="keyed hash of the source's own key"),
    Column("content_hash", LargeBinary, nullable=False, comment="keyed"),
    Column("observe_time", INSTANT, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("product_code", Text, nullable=False),
    Column("open_date", Date, nullable=False),
    Column("close_date", Date),
    Column("currency_code", Text),
    Column("amount_minor_units", BigInteger),
    Column("standing", SmallInteger, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
    UniqueConstraint("source_system_number", "source_key"),
    CheckConstraint("close_date >= open_date", name="holdings_close_after_open"),
    CheckConstraint("(currency_code IS NULL) = (amount_minor_units IS NULL)", name="holdings_amount_has_currency"),
)

holders = Table(
    "holders",
    metadata,
    Column("record_id", Uuid, ForeignKey("records.record_id"), primary_key=True),
    Column("holding_id", Uuid, ForeignKey("holdings.holding_id"), primary_key=True),
    Column("role", SmallInteger, nullable=False),
)
Index("holders_holding", holders.c.holding_id)

# No foreign keys here: record and holding were found in the same transaction and are never deleted, and checking half a
# thousand of them in each batch would write a lock into each of their rows.
activities = Table(
    "activities",
    metadata,
    Column("activity_id", Uuid, primary_key=True, comment="uuid5 of source system and source key"),
    Column("record_id", Uuid, nullable=False),
    Column("holding_id", Uuid),
    Column("source_system_number", Integer, nullable=False),
    Column("occurred_at", INSTANT, nullable=False),
    Column("recorded_at", INSTANT, nullable=False),
    Column("content_hash", LargeBinary, nullable=False, comment="keyed"),
    Column("payload", LargeBinary, nullable=False, comment="ActivityDetail"),
)
