"""The tables of contact. Kinds are numbered as in `domain/kinds.py`, which are the numbers of the contract.

Contacts, messages and permissions hang on records of the institution: whose they are, `record_links` says.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from chassis import customer_states, record_links
from chassis.tables import add_tables
from contact.domain.kinds import CAPPED_PURPOSES, COUNTED_STATES, Direction, State


def _numbers(values: frozenset[int]) -> str:
    return ", ".join(str(int(value)) for value in sorted(values))


COUNTED = (
    f"direction = {int(Direction.OUTBOUND)} AND purpose IN ({_numbers(frozenset(CAPPED_PURPOSES))})"
    f" AND state IN ({_numbers(frozenset(COUNTED_STATES))})"
)
"""Which contacts count against caps, but for reservations that are over: the index below serves queries that say exactly this."""

INSTANT = DateTime(timezone=True)
metadata = MetaData()
add_tables(metadata)
record_links.table(metadata)
customer_states.table(metadata)

contact_subjects = Table(
    "contact_subjects",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    comment="one row for each customer: whoever decides about a customer's contacts locks it first",
)

contact_messages = Table(
    "contact_messages",
    metadata,
    Column("content_hash", LargeBinary, primary_key=True),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    comment="what was said, once however many heard it",
)

contacts = Table(
    "contacts",
    metadata,
    Column("contact_id", Uuid, primary_key=True, comment="of a touch the touch's id: a touch is carried out once"),
    Column("record_id", Uuid, nullable=False, comment="the oldest record that the institution had of the customer then"),
    Column("institution_id", Text, nullable=False),
    Column("direction", SmallInteger, nullable=False),
    Column("channel", SmallInteger, nullable=False),
    Column("purpose", SmallInteger, nullable=False, comment="0 where a touch was planned without a reservation"),
    Column("state", SmallInteger, nullable=False),
    Column("state_reason", Text, nullable=False, server_default="", comment="why it was released or failed"),
    Column("contact_time", INSTANT, nullable=False, comment="when it took place; of a reservation when it was reserved"),
    Column("expires_at", INSTANT, comment="of a reservation: when the slot is given back"),
    Column("touch", Text, nullable=False, server_default="", comment="resource name of the touch it carries out"),
    Column(
        "wave",
        Text,
        nullable=False,
        server_default="",
        comment="resource name of the touch's wave: a person is reached once in it",
    ),
    Column("content_hash", LargeBinary, ForeignKey("contact_messages.content_hash")),
    Column("staff_id", Text, nullable=False, server_default=""),
    Column("topic", Text, nullable=False, server_default=""),
    Column("version", BigInteger, nullable=False),
    CheckConstraint(
        f"state <> {int(State.RESERVED)} OR (expires_at IS NOT NULL AND content_hash IS NOT NULL)",
        name="contacts_reserved_can_expire",
    ),
)
Index("contacts_timeline", contacts.c.record_id, contacts.c.contact_time, contacts.c.contact_id)
Index("contacts_counted", contacts.c.record_id, contacts.c.contact_time, postgresql_where=text(COUNTED))
Index("contacts_wave", contacts.c.record_id, contacts.c.wave, postgresql_where=text("wave <> ''"))
Index("contacts_expiring", contacts.c.expires_at, postgresql_where=text(f"state = {int(State.RESERVED)}"))

inbox_messages = Table(
    "inbox_messages",
    metadata,
    Column("touch_id", Uuid, ForeignKey("contacts.contact_id"), primary_key=True, comment="one message for each touch"),
    Column("record_id", Uuid, nullable=False, comment="that of the contact"),
    Column("institution_id", Text, nullable=False),
    Column("content_hash", LargeBinary, ForeignKey("contact_messages.content_hash"), nullable=False),
    Column("delivered_at", INSTANT, nullable=False),
    Column("read_at", INSTANT),
)
Index("inbox_messages_record", inbox_messages.c.record_id, inbox_messages.c.delivered_at, inbox_messages.c.touch_id)
Index("inbox_messages_content", inbox_messages.c.content_hash)

Index("contacts_content", contacts.c.content_hash, postgresql_where=text("content_hash IS NOT NULL"))

permission_events = Table(
    "permission_events",
    metadata,
    Column("statement_id", Uuid, primary_key=True, comment="UUIDv7"),
    Column("record_id", Uuid, nullable=False, comment="the oldest record that the institution had of the customer then"),
    Column("covered_record_ids", ARRAY(Uuid), nullable=False, comment="all of them: while they are together, it speaks for all"),
    Column("institution_id", Text, nullable=False),
    Column("purpose", SmallInteger, nullable=False),
    Column("channel", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("state_time", INSTANT, nullable=False, comment="when the customer said so"),
    Column("evidence_reference", Text, nullable=False),
    Column("recorded_at", INSTANT, nullable=False),
    Column("recorded_by", Text, nullable=False, comment="institution/client"),
    comment="every statement ever made; rows are only added",
)
Index("permission_events_record", permission_events.c.record_id)

permissions = Table(
    "permissions",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("purpose", SmallInteger, primary_key=True, autoincrement=False),
    Column("channel", SmallInteger, primary_key=True, autoincrement=False),
    Column("institution_id", Text, nullable=False),
    Column("covered_record_ids", ARRAY(Uuid), nullable=False),
    Column("statement_id", Uuid, ForeignKey("permission_events.statement_id"), nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("state_time", INSTANT, nullable=False),
    Column("evidence_reference", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    comment="of each record the latest statement; no row means no permission",
)

contact_policies = Table(
    "contact_policies",
    metadata,
    Column("policy_id", Text, primary_key=True, comment="alliance, or an institution's id"),
    Column("version", Integer, nullable=False, comment="the one in force"),
)

contact_policy_versions = Table(
    "contact_policy_versions",
    metadata,
    Column("policy_id", Text, ForeignKey("contact_policies.policy_id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column(
        "contact_caps",
        JSONB,
        nullable=False,
        comment="[{channel, purpose, contacts_max, window_hours}]; channel or purpose 0 counts all of them together",
    ),
    Column("created_at", INSTANT, nullable=False),
    Column("created_by", Text, nullable=False, comment="institution/client"),
    comment="what was decided; rows are only added",
)
