"""What every module of tables stands on: the metadata with the tables that the chassis brings."""

from sqlalchemy import DateTime, MetaData

from chassis import customer_states, record_links
from chassis.tables import add_tables

INSTANT = DateTime(timezone=True)
metadata = MetaData()
add_tables(metadata)
record_links.table(metadata)
customer_states.table(metadata)
