"""Bulk imports: files, staging, rejected rows."""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, SmallInteger, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from chassis.tables import INSTANT
from customer.store.tables.core import metadata

imports = Table(
    "imports",
    metadata,
    Column("import_id", Uuid, primary_key=True, comment="also of the data key that seals its parts"),
    Column("source_system_number", Integer, ForeignKey("source_systems.source_system_number"), nullable=False),
    Column("institution_id", Text, nullable=False),
    Column("format", SmallInteger, nullable=False),
    Column("encoding", SmallInteger, nullable=False),
    Column("delimiter", Text, nullable=False),
    Column("columns", JSONB, nullable=False, comment="[[column, field], …] as the caller maps them"),
    Column("default_country_code", Text, nullable=False),
    Column("default_observe_time", INSTANT, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("parts_count", Integer, nullable=False, comment="0 until it is started"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("offset_bytes", BigInteger, nullable=False, comment="where the next row begins"),
    Column("line_number", BigInteger, nullable=False, comment="of the next row"),
    Column("rows_read_count", BigInteger, nullable=False),
    Column("created_count", BigInteger, nullable=False),
    Column("updated_count", BigInteger, nullable=False),
    Column("unchanged_count", BigInteger, nullable=False),
    Column("stale_count", BigInteger, nullable=False),
    Column("rejected_count", BigInteger, nullable=False),
    Column("rows_count", BigInteger, comment="of a Parquet file, which knows"),
    Column("error_field", Text),
    Column("error_reason", Text),
    Column("error_description", Text),
    Column("rejections_key_id", Uuid, nullable=False, comment="of the data key that seals source keys of rejected rows"),
    Column("parts_kept", Boolean, nullable=False, comment="whether parts and their key are still there"),
    Column("rejections_kept", Boolean, nullable=False, comment="whether rejected rows and their key are still there"),
    Column("create_time", INSTANT, nullable=False),
    Column("start_time", INSTANT),
    Column("finish_time", INSTANT),
)
Index("imports_source_system", imports.c.source_system_number, imports.c.import_id)
Index("imports_waiting", imports.c.import_id, postgresql_where=text("parts_kept OR rejections_kept"))

import_parts = Table(
    "import_parts",
    metadata,
    Column("import_id", Uuid, ForeignKey("imports.import_id"), primary_key=True),
    Column("part_number", Integer, primary_key=True),
    Column("size_bytes", Integer, nullable=False, comment="before it was sealed"),
    Column("content_hash", LargeBinary, nullable=False, comment="keyed"),
    Column("content", LargeBinary, nullable=False, comment="SEALED under the key import_id"),
)

import_rejections = Table(
    "import_rejections",
    metadata,
    Column("import_id", Uuid, ForeignKey("imports.import_id"), primary_key=True),
    Column("row_number", BigInteger, primary_key=True),
    Column("line_number", BigInteger, nullable=False),
    Column("source_system_number", Integer, nullable=False),
    Column("source_key", LargeBinary, comment="keyed hash of the source's own key, if the row has one"),
    Column("sealed_key", LargeBinary, comment="SEALED under the key rejections_key_id: the source's own key"),
    Column("field", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("description", Text, nullable=False),
)
Index(
    "import_rejections_source_key",
    import_rejections.c.source_system_number,
    import_rejections.c.source_key,
    postgresql_where=text("source_key IS NOT NULL"),
)
