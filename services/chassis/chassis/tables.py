"""The tables every service has beside its own."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)

INSTANT = DateTime(timezone=True)


def add_tables(metadata: MetaData) -> None:
    """Adds the chassis's tables to a service's metadata; its migrations then make them."""
    _add_write_path(metadata)
    _add_event_tables(metadata)
    Table(
        "leases",
        metadata,
        Column("name", Text, primary_key=True),
        Column("holder", Text, nullable=False),
        Column("fence", BigInteger, nullable=False, comment="rises with every new holder"),
        Column("expires_at", INSTANT, nullable=False),
    )
    Table(
        "database_epoch",
        metadata,
        Column("singleton", Integer, primary_key=True, autoincrement=False, comment="always 1"),
        Column("epoch", BigInteger, nullable=False, comment="rises when the database is restored from a backup"),
    )
    Table(
        "republish_runs",
        metadata,
        Column("target", Text, primary_key=True, comment="the service that asked"),
        Column("source", Text, primary_key=True, comment="the republisher's name"),
        Column("cursor", Text, nullable=False, comment="where the next page begins"),
        Column("events_count", BigInteger, nullable=False),
        Column("started_at", INSTANT, nullable=False),
        Column("finished_at", INSTANT),
    )


def _add_write_path(metadata: MetaData) -> None:
    idempotency = Table(
        "idempotency",
        metadata,
        Column("caller", Text, primary_key=True, comment="institution/client"),
        Column("method", Text, primary_key=True),
        Column("request_id", Text, primary_key=True),
        Column("input_hash", LargeBinary, nullable=False),
        Column("response", LargeBinary, comment="null only inside the transaction that writes the row"),
        Column("expires_at", INSTANT, comment="null: kept for ever"),
        Column("named_numbers", ARRAY(BigInteger), comment="of each id that request and answer name the last 64 bits"),
    )
    Index("idempotency_expires_at", idempotency.c.expires_at, postgresql_using="brin")
    Index("idempotency_named_numbers", idempotency.c.named_numbers, postgresql_using="gin")
    outbox = Table(
        "outbox",
        metadata,
        Column("row_id", Uuid, primary_key=True, comment="UUIDv7; also the Nats-Msg-Id"),
        Column("event_id", Uuid, nullable=False, comment="of a fact its own id, of a state new"),
        Column("type", Text, nullable=False),
        Column("target", Text, comment="the one service a re-publication is for"),
        Column("aggregate_id", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("occurred_at", INSTANT, nullable=False),
        Column("traceparent", Text),
        Column("published_at", INSTANT),
    )
    Index("outbox_unpublished", outbox.c.row_id, postgresql_where=text("published_at IS NULL"))


def _add_event_tables(metadata: MetaData) -> None:
    inbox = Table(
        "inbox",
        metadata,
        Column("consumer", Text, primary_key=True, comment="stream/durable"),
        Column("event_id", Uuid, primary_key=True),
        Column("received_at", INSTANT, nullable=False, server_default=text("now()")),
    )
    Index("inbox_received_at", inbox.c.received_at, postgresql_using="brin")
    Table(
        "dead_letters",
        metadata,
        Column("dead_letter_id", Uuid, primary_key=True),
        Column("consumer", Text, nullable=False),
        Column("event_id", Uuid, nullable=False),
        Column("type", Text, nullable=False),
        Column("aggregate_id", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("occurred_at", INSTANT, nullable=False),
        Column("error", Text, nullable=False, comment="class and place of the failure; never its text"),
        Column("deliveries_count", Integer, nullable=False),
        Column("created_at", INSTANT, nullable=False),
        Column("replayed_at", INSTANT),
    )
