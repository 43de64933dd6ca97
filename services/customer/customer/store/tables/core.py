"""The tables of the customer master.

Personal values stand in three columns only, encrypted under a data key of their record: `source_records.payload` (what a source
said), `source_records.party` and `records.party` (the same, standardised). Everything else is codes, opaque ids and keyed hashes.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Double,
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
    false,
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
    Column(
        "restricted", Boolean, nullable=False, server_default=false(), comment="kept for retention only; nothing else is done"
    ),
)

# No foreign keys on the large tables: what they name was found or made in the same transaction, and checking each row would
# double the cost of a bulk load.
records = Table(
    "records",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("source_system_number", Integer, nullable=False),
    Column("source_key", LargeBinary, nullable=False, comment="keyed hash of the source's own key"),
    Column("institution_id", Text, nullable=False, comment="of the source system; here for the indexes"),
    Column("customer_id", Uuid, nullable=False, comment="the one live link"),
    Column("link_version", BigInteger, nullable=False, comment="orders the links of this record"),
    Column("link_origin", SmallInteger, nullable=False, comment="1 automatic, 2 manual"),
    Column("resolution_reason", SmallInteger, nullable=False),
    Column("state_number", Integer, nullable=False, comment="the present state in source_records"),
    Column("statements_count", Integer, nullable=False, comment="the last number given to a state or sighting"),
    Column("content_hash", LargeBinary, nullable=False, comment="keyed"),
    Column("observe_time", INSTANT, nullable=False, comment="when this was last seen"),
    Column("party", LargeBinary, nullable=False, comment="PERSONAL, encrypted: standardised Party"),
    Column("pins", JSONB, comment="when each attribute was pinned to this record, by attribute number; null for none"),
    Column("verified", JSONB, comment="what live kyc_verifications say of it, by attribute number; null for none"),
    Column("blocking_keys", ARRAY(BigInteger), nullable=False, comment="the keys of its rows in blocking_keys"),
    Column(
        "lookup_keys", ARRAY(BigInteger), nullable=False, comment="what it is searched by, hashed under the institution's key"
    ),
    Column("create_time", INSTANT, nullable=False),
    Column("update_time", INSTANT, nullable=False),
    UniqueConstraint("source_system_number", "source_key"),
)
Index("records_customer", records.c.customer_id)
Index("records_institution_customer", records.c.institution_id, records.c.customer_id)
# Block ranges: they cost a bulk load nothing, and let a row change in its place.
Index(
    "records_update_time",
    records.c.update_time,
    postgresql_using="brin",
    postgresql_with={"pages_per_range": "16", "autosummarize": "on"},
)
Index("records_lookup_keys", records.c.lookup_keys, postgresql_using="gin", postgresql_with={"gin_pending_list_limit": "1024"})

source_records = Table(
    "source_records",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("state_number", Integer, primary_key=True, comment="the order of arrival among states and sightings"),
    Column("institution_id", Text, nullable=False),
    Column("content_hash", LargeBinary, nullable=False, comment="keyed"),
    Column("observe_time", INSTANT, nullable=False),
    Column("recorded_at", INSTANT, nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="PERSONAL, encrypted: SourceRecord as sent"),
    Column("party", LargeBinary, nullable=False, comment="PERSONAL, encrypted: standardised Party"),
    comment="every state a source ever stated, late ones too; rows are never changed",
)

record_sightings = Table(
    "record_sightings",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("sighting_number", Integer, primary_key=True, comment="the order of arrival among states and sightings"),
    Column("state_number", Integer, nullable=False, comment="the state seen again"),
    Column("observe_time", INSTANT, nullable=False),
    Column("recorded_at", INSTANT, nullable=False),
)

links = Table(
    "links",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("link_version", BigInteger, primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("origin", SmallInteger, nullable=False, comment="1 automatic, 2 manual"),
    Column("reason", SmallInteger, nullable=False),
    Column("model_version", Text, nullable=False, comment="of the match model that decided; empty for none"),
    Column("weight_bits", Double, comment="how strongly the model was convinced"),
    Column("explanation", LargeBinary, nullable=False, comment="attributes, levels and bits; no values"),
    Column("recorded_at", INSTANT, nullable=False),
    Column("superseded_at", INSTANT),
    Column("decided_by", Text, nullable=False, comment="opaque id of who decided by hand; empty for the platform"),
    comment="to which customer a record belonged from when to when",
)
Index("links_live", links.c.record_id, unique=True, postgresql_where=links.c.superseded_at.is_(None))
Index("links_customer", links.c.customer_id)

blocking_keys = Table(
    "blocking_keys",
    metadata,
    Column(
        "key", BigInteger, primary_key=True, autoincrement=False, comment="hashed under the alliance's key, for matching only"
    ),
    Column("record_id", Uuid, primary_key=True),
)

match_stripes = Table(
    "match_stripes",
    metadata,
    Column("stripe", Integer, primary_key=True, autoincrement=False, comment="a blocking key modulo their number"),
    comment="rows to lock, so that two ingests of one new person meet",
)

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

# No foreign keys here: record and holding were found in the same transaction and leave with an erasure only, and checking half a
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
Index("activities_record", activities.c.record_id)
