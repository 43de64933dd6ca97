"""Keep history, encrypt parties, key the records for matching."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611240100"
down_revision = "202611232144"
branch_labels = None
depends_on = None

MATCH_STRIPES = 4096
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Keep history, encrypt parties, key the records for matching.

    Raises:
        RuntimeError: when there are records already. They are readable, and every source can feed them again.
    """
    if op.get_bind().execute(sa.text("SELECT EXISTS (SELECT FROM records)")).scalar():
        raise RuntimeError("this database holds unencrypted records: begin with an empty one and let the sources feed it again")
    for table in ("name_tokens", "record_keys", "documents", "holders", "source_records", "records"):
        op.drop_table(table)
    op.add_column(
        "customers",
        sa.Column(
            "restricted",
            sa.Boolean(),
            server_default=sa.false(),
            nullable=False,
            comment="kept for retention only; nothing else is done",
        ),
    )
    _create_records()
    _create_history()
    _create_matching()


def _create_records() -> None:
    op.create_table(
        "records",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("source_system_number", sa.Integer(), nullable=False),
        sa.Column("source_key", sa.LargeBinary(), nullable=False, comment="keyed hash of the source's own key"),
        sa.Column("institution_id", sa.Text(), nullable=False, comment="of the source system; here for the indexes"),
        sa.Column("customer_id", sa.Uuid(), nullable=False, comment="the one live link"),
        sa.Column("link_version", sa.BigInteger(), nullable=False, comment="orders the links of this record"),
        sa.Column("link_origin", sa.SmallInteger(), nullable=False, comment="1 automatic, 2 manual"),
        sa.Column("resolution_reason", sa.SmallInteger(), nullable=False),
        sa.Column("state_number", sa.Integer(), nullable=False, comment="the present state in source_records"),
        sa.Column("statements_count", sa.Integer(), nullable=False, comment="the last number given to a state or sighting"),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="keyed"),
        sa.Column("observe_time", INSTANT, nullable=False, comment="when this was last seen"),
        sa.Column("party", sa.LargeBinary(), nullable=False, comment="PERSONAL, encrypted: standardised Party"),
        sa.Column(
            "pins",
            postgresql.JSONB(),
            nullable=True,
            comment="when each attribute was pinned to this record, by attribute number; null for none",
        ),
        sa.Column("blocking_keys", sa.ARRAY(sa.BigInteger()), nullable=False, comment="the keys of its rows in blocking_keys"),
        sa.Column(
            "lookup_keys",
            sa.ARRAY(sa.BigInteger()),
            nullable=False,
            comment="what it is searched by, hashed under the institution's key",
        ),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("update_time", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("record_id"),
        sa.UniqueConstraint("source_system_number", "source_key"),
    )
    op.create_index("records_customer", "records", ["customer_id"])
    op.create_index("records_institution_customer", "records", ["institution_id", "customer_id"])
    op.create_index(
        "records_lookup_keys",
        "records",
        ["lookup_keys"],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": "1024"},
    )
    op.create_table(
        "holders",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("holding_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["holding_id"], ["holdings.holding_id"]),
        sa.ForeignKeyConstraint(["record_id"], ["records.record_id"]),
        sa.PrimaryKeyConstraint("record_id", "holding_id"),
    )
    op.create_index("holders_holding", "holders", ["holding_id"])


def _create_history() -> None:
    number = "the order of arrival among states and sightings"
    op.create_table(
        "source_records",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("state_number", sa.Integer(), nullable=False, comment=number),
        sa.Column("institution_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="keyed"),
        sa.Column("observe_time", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="PERSONAL, encrypted: SourceRecord as sent"),
        sa.Column("party", sa.LargeBinary(), nullable=False, comment="PERSONAL, encrypted: standardised Party"),
        sa.PrimaryKeyConstraint("record_id", "state_number"),
        comment="every state a source ever stated, late ones too; rows are never changed",
    )
    op.create_table(
        "record_sightings",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("sighting_number", sa.Integer(), nullable=False, comment=number),
        sa.Column("state_number", sa.Integer(), nullable=False, comment="the state seen again"),
        sa.Column("observe_time", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("record_id", "sighting_number"),
    )
    op.create_table(
        "links",
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("link_version", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("origin", sa.SmallInteger(), nullable=False, comment="1 automatic, 2 manual"),
        sa.Column("reason", sa.SmallInteger(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False, comment="of the match model that decided; empty for none"),
        sa.Column("weight_bits", sa.Double(), nullable=True, comment="how strongly the model was convinced"),
        sa.Column("explanation", sa.LargeBinary(), nullable=False, comment="attributes, levels and bits; no values"),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("superseded_at", INSTANT, nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=False, comment="opaque id of who decided by hand; empty for the platform"),
        sa.PrimaryKeyConstraint("record_id", "link_version"),
        comment="to which customer a record belonged from when to when",
    )
    op.create_index("links_live", "links", ["record_id"], unique=True, postgresql_where=sa.text("superseded_at IS NULL"))
    op.create_index("links_customer", "links", ["customer_id"])


def _create_matching() -> None:
    op.create_table(
        "blocking_keys",
        sa.Column(
            "key",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="hashed under the alliance's key, for matching only",
        ),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("key", "record_id"),
    )
    op.create_table(
        "match_stripes",
        sa.Column("stripe", sa.Integer(), autoincrement=False, nullable=False, comment="a blocking key modulo their number"),
        sa.PrimaryKeyConstraint("stripe"),
        comment="rows to lock, so that two ingests of one new person meet",
    )
    op.execute(f"INSERT INTO match_stripes SELECT generate_series(0, {MATCH_STRIPES - 1})")
