"""Consents to share, restriction, erasure, and the audit trail. No readable personal value: free text is sealed."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
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

sharing_consents = Table(
    "sharing_consents",
    metadata,
    Column("consent_id", Uuid, primary_key=True),
    Column("version", BigInteger, primary_key=True, comment="of the consent; a change is a new row"),
    Column("record_id", Uuid, nullable=False, comment="it hangs on this record of the institution that shares"),
    Column("customer_id", Uuid, nullable=False, comment="of the record; moves with it"),
    Column("from_institution_id", Text, nullable=False),
    Column("to_institution_id", Text, nullable=False, comment="empty: every institution"),
    Column("purpose_code", Text, nullable=False),
    Column("attributes", ARRAY(SmallInteger), nullable=False),
    Column("evidence", LargeBinary, nullable=False, comment="PERSONAL, encrypted under the record's key"),
    Column("begin_time", INSTANT, nullable=False),
    Column("end_time", INSTANT),
    Column("revoke_time", INSTANT),
    Column("revoke_reason_code", Text, nullable=False),
    Column("recorded_at", INSTANT, nullable=False),
    Column("superseded_at", INSTANT),
    Column("recorded_by", Text, nullable=False, comment="opaque id of who recorded it"),
    CheckConstraint("end_time > begin_time", name="sharing_consents_end_after_begin"),
    comment="what customers let institutions share; rows end, but do not change",
)
_LIVE_CONSENT = text("superseded_at IS NULL")
Index("sharing_consents_customer", sharing_consents.c.customer_id, postgresql_where=_LIVE_CONSENT)
Index("sharing_consents_record", sharing_consents.c.record_id)
Index("sharing_consents_live", sharing_consents.c.consent_id, unique=True, postgresql_where=_LIVE_CONSENT)

restrictions = Table(
    "restrictions",
    metadata,
    Column("restriction_id", Uuid, primary_key=True),
    Column("record_id", Uuid, nullable=False, comment="it hangs on this record"),
    Column("customer_id", Uuid, nullable=False, comment="of the record; moves with it"),
    Column("institution_id", Text, nullable=False, comment="for whom; empty: for all"),
    Column("reason_code", Text, nullable=False),
    Column("until_date", Date),
    Column("erasure_id", Uuid, comment="that waits behind it"),
    Column("create_time", INSTANT, nullable=False),
    Column("lifted_at", INSTANT),
)
Index("restrictions_customer", restrictions.c.customer_id)
Index("restrictions_record", restrictions.c.record_id)

erasures = Table(
    "erasures",
    metadata,
    Column("erasure_id", Uuid, primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("institution_id", Text, nullable=False, comment="whose records; empty: all"),
    Column("state", SmallInteger, nullable=False),
    Column("legal_basis_code", Text, nullable=False),
    Column("due_date", Date, nullable=False),
    Column("retention_rules", ARRAY(Text), nullable=False, comment="codes of the rules that keep the data until then"),
    Column("record_ids", ARRAY(Uuid), nullable=False, comment="whose keys are destroyed; the present ones once it is due"),
    Column("requested_by", Text, nullable=False, comment="opaque id of who asked"),
    Column("create_time", INSTANT, nullable=False),
    Column("erased_at", INSTANT),
)
Index("erasures_due", erasures.c.state, erasures.c.due_date)
Index("erasures_customer", erasures.c.customer_id)

erased_records = Table(
    "erased_records",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("source_system_number", Integer, nullable=False),
    Column("source_key", LargeBinary, nullable=False, comment="keyed hash"),
    Column("erased_at", INSTANT, nullable=False),
    comment="what was erased, so that a late message does not bring it back",
)
Index("erased_records_source_key", erased_records.c.source_system_number, erased_records.c.source_key)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("entry_number", BigInteger, primary_key=True, autoincrement=False),
    Column("recorded_at", INSTANT, nullable=False),
    Column("institution_id", Text, nullable=False, comment="of who did it; empty: the operator or the platform"),
    Column("client", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="opaque id of who did it"),
    Column("action", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("customer_ids", ARRAY(Uuid), nullable=False),
    Column("record_ids", ARRAY(Uuid), nullable=False),
    Column("resource", Text, nullable=False),
    Column("sealed_text", LargeBinary, nullable=False, comment="PERSONAL, encrypted under the first record's key; may be empty"),
    Column("chain_hash", LargeBinary, nullable=False, comment="keyed, over this row and the hash before"),
    comment="who did what to whose data; rows are never changed",
)
Index("audit_entries_customers", audit_entries.c.customer_ids, postgresql_using="gin")
Index("audit_entries_institution", audit_entries.c.institution_id, audit_entries.c.entry_number)

audit_head = Table(
    "audit_head",
    metadata,
    Column("singleton", Integer, primary_key=True, autoincrement=False),
    Column("entry_number", BigInteger, nullable=False),
    Column("chain_hash", LargeBinary, nullable=False),
    CheckConstraint("singleton = 1", name="audit_head_one_row"),
    comment="the newest entry; locked by who writes the next one, so that commits and chain have one order",
)

vault_binding = Table(
    "vault_binding",
    metadata,
    Column("singleton", Integer, primary_key=True, autoincrement=False),
    Column("database_id", Uuid, nullable=False, comment="as in the key store's table owner"),
    CheckConstraint("singleton = 1", name="vault_binding_one_row"),
    comment="which key store is this database's: of another one it may not say which keys are in use",
)
