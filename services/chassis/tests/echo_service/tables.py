from sqlalchemy import BigInteger, Column, MetaData, Table, Text, Uuid

from chassis import customer_states, record_links
from chassis.tables import add_tables

metadata = MetaData()
add_tables(metadata)
record_links.table(metadata)
customer_states.table(metadata)

Table(
    "counters",
    metadata,
    Column("counter", Text, primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
)
Table(
    "copies",
    metadata,
    Column("counter", Text, primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
)
Table(
    "additions",
    metadata,
    Column("addition_id", Uuid, primary_key=True),
    Column("counter", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
)
Table("sums", metadata, Column("counter", Text, primary_key=True), Column("total", BigInteger, nullable=False))
