"""Consents to share, as facts in time: what a customer lets one institution show another."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection

EVIDENCE = "sharing_consents.evidence"
"""The place that sealed evidence is bound to; the key is the record's."""
EVERYBODY = ""


@dataclass(frozen=True, slots=True)
class Consent:
    """One version of a consent. `to_institution_id` is empty for everybody; `evidence` is sealed."""

    consent_id: UUID
    version: int
    record_id: UUID
    customer_id: UUID
    from_institution_id: str
    to_institution_id: str
    purpose_code: str
    attributes: tuple[int, ...]
    evidence: bytes
    begin_time: datetime
    end_time: datetime | None
    revoke_time: datetime | None
    revoke_reason_code: str
    recorded_at: datetime
    superseded_at: datetime | None
    recorded_by: str

    def revoked(self, now: datetime, reason_code: str, revoked_by: str) -> "Consent":
        """The version that follows when it is revoked."""
        return replace(
            self,
            version=self.version + 1,
            revoke_time=now,
            revoke_reason_code=reason_code,
            recorded_at=now,
            recorded_by=revoked_by,
        )


async def write(connection: Connection, consents: Sequence[Consent]) -> None:
    """Writes new versions; each ends the one before it."""
    for consent in consents:
        await connection.execute(
            "UPDATE sharing_consents SET superseded_at = $2 WHERE consent_id = $1 AND superseded_at IS NULL",
            consent.consent_id, consent.recorded_at,
        )  # fmt: skip
        values = [getattr(consent, column) for column in COLUMNS]
        places = ", ".join(f"${place}" for place in range(1, len(COLUMNS) + 1))
        await connection.execute(f"INSERT INTO sharing_consents ({', '.join(COLUMNS)}) VALUES ({places})", *values)


async def get(connection: Connection, consent_id: UUID, customer_id: UUID) -> Consent | None:
    """The version in force of a consent of a customer, locked."""
    row = await connection.fetchrow(
        f"{_SELECT} WHERE consent_id = $1 AND customer_id = $2 AND superseded_at IS NULL FOR UPDATE", consent_id, customer_id
    )
    return consent_of(row) if row else None


async def page(
    connection: Connection, customer_id: UUID, institution_id: str | None, ended: bool, after: UUID | None, limit: int
) -> list[Consent]:
    """Consents of a customer that the institution gave or profits from (None: all), the oldest first."""
    rows = await connection.fetch(_PAGE, customer_id, institution_id, ended, after, limit)
    return [consent_of(row) for row in rows]


async def of_records(connection: Connection, record_ids: Collection[UUID]) -> list[Consent]:
    """The versions in force that hang on these records, locked in order."""
    rows = await connection.fetch(
        f"{_SELECT} WHERE record_id = ANY($1::uuid[]) AND superseded_at IS NULL ORDER BY consent_id FOR UPDATE", list(record_ids)
    )
    return [consent_of(row) for row in rows]


async def forget(connection: Connection, record_ids: Collection[UUID]) -> None:
    """Deletes every version of the consents that hang on erased records."""
    await connection.execute("DELETE FROM sharing_consents WHERE record_id = ANY($1::uuid[])", list(record_ids))


def consent_of(row: asyncpg.Record) -> Consent:
    """A row as a consent."""
    values = dict(row)
    return Consent(**(values | {"attributes": tuple(values["attributes"])}))


COLUMNS = (
    "consent_id", "version", "record_id", "customer_id", "from_institution_id", "to_institution_id", "purpose_code", "attributes",
    "evidence", "begin_time", "end_time", "revoke_time", "revoke_reason_code", "recorded_at", "superseded_at", "recorded_by",
)  # fmt: skip
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM sharing_consents"
_PAGE = f"""
{_SELECT} WHERE customer_id = $1 AND superseded_at IS NULL
    AND ($2::text IS NULL OR from_institution_id = $2 OR to_institution_id IN ('', $2))
    AND ($3 OR (revoke_time IS NULL AND coalesce(end_time > now(), true)))
    AND ($4::uuid IS NULL OR consent_id > $4)
ORDER BY consent_id LIMIT $5
"""


def shared_attributes(record: str, viewer: str, as_of: str = "now()", known_at: str = "now()") -> str:
    """SQL for which attributes of a record a viewer may see: null for all (its own, or no viewer), an empty array for none.

    A consent that is alive now is needed; a look into the past shows of it no more than it covered, and was known to cover, then.

    Args:
        record: alias of the record, with `customer_id` and `institution_id`.
        viewer: SQL of the viewing institution; null for one that sees all.
        as_of: SQL of the instant that is looked at.
        known_at: SQL of the instant as known at.
    """
    return f"""
    CASE WHEN {viewer} IS NULL OR {record}.institution_id = {viewer} THEN NULL ELSE coalesce((
        SELECT array_agg(DISTINCT attribute) FROM sharing_consents c, unnest(c.attributes) AS attribute
        WHERE c.customer_id = {record}.customer_id AND c.superseded_at IS NULL AND c.revoke_time IS NULL
            AND c.from_institution_id = {record}.institution_id AND c.to_institution_id IN ('', {viewer})
            AND c.begin_time <= least(now(), {as_of}) AND coalesce(c.end_time > now(), true)
            AND (SELECT min(first.recorded_at) FROM sharing_consents first WHERE first.consent_id = c.consent_id) <= {known_at}
    ), '{{}}') END"""


SHOWN = """(
    wanted.institution_id IS NULL OR institution_id = wanted.institution_id OR viewer_is_shown(customer_id, institution_id))"""
"""SQL: whether `wanted.institution_id` may see a row of `records`: its own, or one that a consent of today shares with it.
On another connection than the viewer's own nothing is shared."""
