"""The key store: a database of its own, so that no backup of the customer master holds the keys of what it keeps.

Not part of the service's own metadata.
"""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text, Uuid

from chassis.tables import INSTANT

metadata = MetaData()

institution_keys = Table(
    "institution_keys",
    metadata,
    Column("institution_id", Text, primary_key=True),
    Column("wrapped_key", LargeBinary, nullable=False, comment="under the root key"),
    Column("create_time", INSTANT, nullable=False),
)

data_keys = Table(
    "data_keys",
    metadata,
    Column("key_id", Uuid, primary_key=True, comment="of the record, or whatever else it encrypts"),
    Column("institution_id", Text, ForeignKey("institution_keys.institution_id"), nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False, comment="under the institution's key; erasure deletes the row"),
    Column("create_time", INSTANT, nullable=False),
)
Index("data_keys_create_time", data_keys.c.create_time)

owner = Table(
    "owner",
    metadata,
    Column("singleton", Integer, primary_key=True, autoincrement=False),
    Column("database_id", Uuid, nullable=False, comment="as in the customer master's table vault_binding"),
    CheckConstraint("singleton = 1", name="owner_one_row"),
    comment="whose keys these are: nobody else may say which of them are in use",
)
