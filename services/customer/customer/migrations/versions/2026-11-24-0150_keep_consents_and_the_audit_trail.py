"""Keep consents, restrictions, erasures and the audit trail; let institutions read as a role of their own."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240150"
down_revision = "202611240140"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
VIEWER = "concord_customer_viewer"
# Roles belong to the whole server: another database's migration may make it at the same moment.
MAKE_ROLE = f"""
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{VIEWER}') THEN
        BEGIN
            CREATE ROLE {VIEWER} NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role {VIEWER} is missing; run as a superuser: CREATE ROLE {VIEWER} NOLOGIN; GRANT {VIEWER} TO %', current_user;
        END;
    END IF;
    IF NOT pg_has_role(current_user, '{VIEWER}', 'SET') THEN
        BEGIN
            EXECUTE format('GRANT {VIEWER} TO %I', current_user);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'this role may not read as {VIEWER}; run as a superuser: GRANT {VIEWER} TO %', current_user;
        END;
    END IF;
END $$
"""  # noqa: E501
# Without the setting the comparison is with null: nothing is seen.
OWN = "institution_id = (SELECT current_setting('concord.viewer', true))"
# With the rights of their owner, because both look at rows that the viewer may not see; and as functions, because the planner
# would otherwise read all consents of the viewer instead of the customer's.
IS_LINKED = """
CREATE FUNCTION viewer_is_linked(wanted_customer_id uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM records
        WHERE customer_id = wanted_customer_id AND institution_id = current_setting('concord.viewer', true))
$$
"""
IS_SHOWN = """
CREATE FUNCTION viewer_is_shown(wanted_customer_id uuid, stating_institution_id text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM sharing_consents
        WHERE customer_id = wanted_customer_id AND superseded_at IS NULL AND from_institution_id = stating_institution_id
            AND to_institution_id IN ('', current_setting('concord.viewer', true))
            AND begin_time <= now() AND coalesce(end_time > now(), true) AND revoke_time IS NULL)
        AND viewer_is_linked(wanted_customer_id)
$$
"""
OF_A_VISIBLE_RECORD = "EXISTS (SELECT FROM records r WHERE r.record_id = {table}.record_id)"
POLICIES = {
    "records": f"{OWN} OR viewer_is_shown(customer_id, institution_id)",
    "source_records": f"{OWN} OR {OF_A_VISIBLE_RECORD.format(table='source_records')}",
    "record_sightings": OF_A_VISIBLE_RECORD.format(table="record_sightings"),
    "links": OF_A_VISIBLE_RECORD.format(table="links"),
    "pins": OF_A_VISIBLE_RECORD.format(table="pins"),
    "sharing_consents": (
        "from_institution_id = (SELECT current_setting('concord.viewer', true))"
        " OR to_institution_id IN ('', (SELECT current_setting('concord.viewer', true)))"
    ),
    "restrictions": f"institution_id = '' OR {OWN}",
}
READABLE = ("institutions", "source_systems", "customers", "database_epoch")


def upgrade() -> None:
    """Keep consents, restrictions, erasures and the audit trail; let institutions read as a role of their own."""
    _consents_and_restrictions()
    _erasures()
    _audit()
    _row_level_security()


def _consents_and_restrictions() -> None:
    op.create_table(
        "sharing_consents",
        sa.Column("consent_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, comment="of the consent; a change is a new row"),
        sa.Column("record_id", sa.Uuid(), nullable=False, comment="it hangs on this record of the institution that shares"),
        sa.Column("customer_id", sa.Uuid(), nullable=False, comment="of the record; moves with it"),
        sa.Column("from_institution_id", sa.Text(), nullable=False),
        sa.Column("to_institution_id", sa.Text(), nullable=False, comment="empty: every institution"),
        sa.Column("purpose_code", sa.Text(), nullable=False),
        sa.Column("attributes", postgresql.ARRAY(sa.SmallInteger()), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False, comment="PERSONAL, encrypted under the record's key"),
        sa.Column("begin_time", INSTANT, nullable=False),
        sa.Column("end_time", INSTANT),
        sa.Column("revoke_time", INSTANT),
        sa.Column("revoke_reason_code", sa.Text(), nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("superseded_at", INSTANT),
        sa.Column("recorded_by", sa.Text(), nullable=False, comment="opaque id of who recorded it"),
        sa.CheckConstraint("end_time > begin_time", name="sharing_consents_end_after_begin"),
        sa.PrimaryKeyConstraint("consent_id", "version"),
        comment="what customers let institutions share; rows end, but do not change",
    )
    live = sa.text("superseded_at IS NULL")
    op.create_index("sharing_consents_customer", "sharing_consents", ["customer_id"], postgresql_where=live)
    op.create_index("sharing_consents_record", "sharing_consents", ["record_id"])
    op.create_index("sharing_consents_live", "sharing_consents", ["consent_id"], unique=True, postgresql_where=live)
    op.create_table(
        "restrictions",
        sa.Column("restriction_id", sa.Uuid(), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False, comment="it hangs on this record"),
        sa.Column("customer_id", sa.Uuid(), nullable=False, comment="of the record; moves with it"),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="for whom; empty: for all"),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("until_date", sa.Date()),
        sa.Column("erasure_id", sa.Uuid(), comment="that waits behind it"),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("lifted_at", INSTANT),
        sa.PrimaryKeyConstraint("restriction_id"),
    )
    op.create_index("restrictions_customer", "restrictions", ["customer_id"])
    op.create_index("restrictions_record", "restrictions", ["record_id"])


def _erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("erasure_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="whose records; empty: all"),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("legal_basis_code", sa.Text(), nullable=False),
        sa.Column("due_date", sa.Date(), nullable=False),
        sa.Column(
            "retention_rules",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="codes of the rules that keep the data until then",
        ),
        sa.Column(
            "record_ids",
            postgresql.ARRAY(sa.Uuid()),
            nullable=False,
            comment="whose keys are destroyed; the present ones once it is due",
        ),
        sa.Column("requested_by", sa.Text(), nullable=False, comment="opaque id of who asked"),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("erased_at", INSTANT),
        sa.PrimaryKeyConstraint("erasure_id"),
    )
    op.create_index("erasures_due", "erasures", ["state", "due_date"])
    op.create_index("erasures_customer", "erasures", ["customer_id"])
    op.create_table(
        "erased_records",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("source_system_number", sa.Integer(), nullable=False),
        sa.Column("source_key", sa.LargeBinary(), nullable=False, comment="keyed hash"),
        sa.Column("erased_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("record_id"),
        comment="what was erased, so that a late message does not bring it back",
    )
    op.create_table(
        "vault_binding",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("database_id", sa.Uuid(), nullable=False, comment="as in the key store's table owner"),
        sa.CheckConstraint("singleton = 1", name="vault_binding_one_row"),
        sa.PrimaryKeyConstraint("singleton"),
        comment="which key store is this database's: of another one it may not say which keys are in use",
    )
    op.create_index("activities_record", "activities", ["record_id"])
    op.create_index("erased_records_source_key", "erased_records", ["source_system_number", "source_key"])


def _audit() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("entry_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="of who did it; empty: the operator or the platform"),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="opaque id of who did it"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("customer_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("record_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column(
            "sealed_text",
            sa.LargeBinary(),
            nullable=False,
            comment="PERSONAL, encrypted under the first record's key; may be empty",
        ),
        sa.Column("chain_hash", sa.LargeBinary(), nullable=False, comment="keyed, over this row and the hash before"),
        sa.PrimaryKeyConstraint("entry_number"),
        comment="who did what to whose data; rows are never changed",
    )
    op.create_index("audit_entries_customers", "audit_entries", ["customer_ids"], postgresql_using="gin")
    op.create_index("audit_entries_institution", "audit_entries", ["institution_id", "entry_number"])
    op.create_table(
        "audit_head",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("entry_number", sa.BigInteger(), nullable=False),
        sa.Column("chain_hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("singleton = 1", name="audit_head_one_row"),
        sa.PrimaryKeyConstraint("singleton"),
        comment="the newest entry; locked by who writes the next one, so that commits and chain have one order",
    )
    op.execute("INSERT INTO audit_head VALUES (1, 0, '')")


def _row_level_security() -> None:
    op.execute(MAKE_ROLE)
    for function in (IS_LINKED, IS_SHOWN):
        op.execute(function)
    op.execute("REVOKE ALL ON FUNCTION viewer_is_linked, viewer_is_shown FROM public")
    op.execute(f"GRANT EXECUTE ON FUNCTION viewer_is_linked, viewer_is_shown TO {VIEWER}")
    for table, condition in POLICIES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY viewer ON {table} FOR SELECT TO {VIEWER} USING ({condition})")
    op.execute(f"GRANT SELECT ON {', '.join([*POLICIES, *READABLE])} TO {VIEWER}")
