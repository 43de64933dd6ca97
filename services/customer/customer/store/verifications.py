"""What decided KYC cases verified: of which record which value of an attribute, from when to when."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from uuid import UUID

from chassis.database import Connection
from chassis.ids import new_id
from customer.domain.vocabulary import Attribute
from customer.store.vault import DataKey, Vault, bound_to

VALUE_DIGEST = "kyc_verifications.value_digest"


@dataclass(frozen=True, slots=True)
class CaseVerified:
    """A case verified a value; `digest` says which one."""

    method: int
    on: date
    digest: bytes


Verifications = Mapping[Attribute, CaseVerified]
NOTHING: Verifications = MappingProxyType({})


def decoded(column: str, record_id: UUID, key: DataKey) -> Verifications:
    """The live ones of a record, as its row repeats them."""
    return {
        Attribute(int(number)): CaseVerified(
            method, date.fromisoformat(on), _open(key, bytes.fromhex(sealed), record_id, int(number))
        )
        for number, (method, on, sealed) in json.loads(column).items()
    }


async def at(connection: Connection, vault: Vault, record_ids: Collection[UUID], instant: datetime) -> dict[UUID, Verifications]:
    """Those that lived at an instant, by record; records without one are left out."""
    rows = await connection.fetch(_AT, list(record_ids), instant)
    keys = await vault.keys([row[0] for row in rows]) if rows else {}
    found: dict[UUID, dict[Attribute, CaseVerified]] = {}
    for record_id, attribute, method, on, sealed in rows:
        if record_id in keys:
            digest = _open(keys[record_id], sealed, record_id, attribute)
            found.setdefault(record_id, {})[Attribute(attribute)] = CaseVerified(method, on, digest)
    return dict(found)


async def add(
    connection: Connection, case_id: UUID, now: datetime, rows: Sequence[tuple[UUID, Attribute, CaseVerified, DataKey]]
) -> None:
    """Writes what a case verified, in place of what an earlier one did. The caller holds the customer's lock."""
    await end(connection, now, [(record_id, attribute) for record_id, attribute, _, _ in rows])
    written = [
        (
            new_id(), record_id, attribute, case_id, one.method, one.on,
            key.seal(one.digest, bound_to(VALUE_DIGEST, record_id, attribute)), now,
        )
        for record_id, attribute, one, key in rows
    ]  # fmt: skip
    await connection.executemany("INSERT INTO kyc_verifications VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", written)
    await connection.execute(_SET_LIVE, list({record_id for record_id, _, _, _ in rows}))


async def end(connection: Connection, now: datetime, attributes: Collection[tuple[UUID, Attribute]]) -> None:
    """Ends what was verified of attributes of records. The caller holds the customer's lock."""
    record_ids = [record_id for record_id, _ in attributes]
    await connection.execute(_END, record_ids, [attribute for _, attribute in attributes], now)
    await connection.execute(_SET_LIVE, list(set(record_ids)))


def _open(key: DataKey, sealed: bytes, record_id: UUID, attribute: int) -> bytes:
    return key.open(sealed, bound_to(VALUE_DIGEST, record_id, attribute))


_AT = """
SELECT v.record_id, v.attribute, v.method, v.verify_date, v.value_digest
FROM unnest($1::uuid[]) AS wanted (record_id)
    CROSS JOIN LATERAL (SELECT * FROM kyc_verifications WHERE record_id = wanted.record_id OFFSET 0) v
WHERE v.recorded_at <= $2 AND (v.superseded_at IS NULL OR v.superseded_at > $2)
"""
_END = """
UPDATE kyc_verifications v SET superseded_at = $3
FROM unnest($1::uuid[], $2::smallint[]) AS ended (record_id, attribute)
WHERE v.record_id = ended.record_id AND v.attribute = ended.attribute AND v.superseded_at IS NULL
"""
# The row of the record repeats its live verifications, so that a read of the golden customer need not look here.
_SET_LIVE = """
UPDATE records r SET verified = (
    SELECT jsonb_object_agg(v.attribute, jsonb_build_array(v.method, v.verify_date, encode(v.value_digest, 'hex')))
    FROM kyc_verifications v WHERE v.record_id = r.record_id AND v.superseded_at IS NULL)
WHERE r.record_id = ANY($1::uuid[])
"""
