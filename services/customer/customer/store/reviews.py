"""The stewards' queues: opening items, finding them, holding them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection
from chassis.ids import new_id
from customer.domain.reviews import OWN_RECORDS_ONLY, Claim, ReviewKind, StoredState, content_key, subject_key

LEFT, RIGHT = 1, 2
_OWN_KINDS = [int(kind) for kind in OWN_RECORDS_ONLY]

__all__ = ["Filter", "Item", "NewItem", "ReviewKind", "SideRecord", "open_items", "settle"]


@dataclass(frozen=True, slots=True)
class NewItem:
    """Something to be judged. No personal value anywhere in it; see `domain.reviews` for what the sides are.

    Args:
        content: what was judged. What was decided comes back only when this differs.
        explanation: levels and bits by attribute, as links keep it.
    """

    kind: ReviewKind
    record_ids: tuple[UUID, ...]
    rival_record_ids: tuple[UUID, ...] = ()
    content: bytes = b""
    weight_bits: float = 0.0
    explanation: bytes = b""
    model_version: str = ""
    attribute: int = 0
    codes: tuple[str, ...] = ()

    @property
    def subject_key(self) -> bytes:
        """What it is about."""
        return subject_key(self.kind, self.record_ids, self.rival_record_ids)

    @property
    def content_key(self) -> bytes:
        """What was judged."""
        return content_key(self.content, bytes([self.attribute]), *(code.encode() for code in self.codes))


async def open_items(connection: Connection, items: Iterable[NewItem], now: datetime) -> int:
    """Opens items, after the records and links they speak of are written.

    An item that is open already is brought up to date; one that was decided about the same content, or a pair that is rejected
    with it, stays away; of several record pairs between two customers one is enough.

    Returns:
        How many were opened or changed.
    """
    distinct = {item.subject_key: item for item in items}
    matches = [item for item in distinct.values() if item.kind is ReviewKind.POSSIBLE_MATCH]
    if matches:
        for item in await _superfluous(connection, matches):
            del distinct[item.subject_key]
    # In the order of their keys: two transactions that open the same items wait for each other instead of dying.
    wanted = [distinct[key] for key in sorted(distinct)]
    if not wanted:
        return 0
    rows = await connection.fetch(
        _OPEN,
        [new_id() for _ in wanted],
        [int(item.kind) for item in wanted],
        [item.subject_key for item in wanted],
        [item.content_key for item in wanted],
        [item.weight_bits for item in wanted],
        [item.model_version for item in wanted],
        [item.explanation for item in wanted],
        [item.attribute for item in wanted],
        [" ".join(item.codes) for item in wanted],
        now,
    )
    by_key = {item.subject_key: item for item in wanted}
    sides = [
        (row["review_item_id"], record_id, side)
        for row in rows
        for side, record_ids in (
            (LEFT, by_key[row["subject_key"]].record_ids),
            (RIGHT, by_key[row["subject_key"]].rival_record_ids),
        )
        for record_id in record_ids
    ]
    known = [row["review_item_id"] for row in rows if not row["inserted"]]
    if known:
        await connection.execute("DELETE FROM review_item_records WHERE review_item_id = ANY($1::uuid[])", known)
    if sides:
        await connection.execute(
            "INSERT INTO review_item_records (review_item_id, record_id, side)"
            " SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[]) ON CONFLICT DO NOTHING",
            *(list(column) for column in zip(*sides, strict=True)),
        )
    return len(rows)


async def _superfluous(connection: Connection, matches: Sequence[NewItem]) -> list[NewItem]:
    """Possible matches within one customer, rejected ones, and further ones between two customers."""
    rows = await connection.fetch(
        _MATCHES,
        [item.record_ids[0] for item in matches],
        [item.rival_record_ids[0] for item in matches],
        [item.subject_key for item in matches],
        [content_key(item.content) for item in matches],
    )
    seen: set[frozenset[UUID]] = set()
    superfluous = []
    known = {row["place"] - 1: row for row in rows}
    for place, item in enumerate(matches):
        row = known.get(place)
        pair = frozenset((row["left_customer_id"], row["right_customer_id"])) if row else frozenset()
        if row is None or len(pair) == 1 or row["open_already"] or row["rejected"] or pair in seen:
            superfluous.append(item)
        seen.add(pair)
    return superfluous


async def settle(connection: Connection, kind: ReviewKind, record_ids: Iterable[UUID], now: datetime) -> None:
    """Nothing is in question with these records any more: their open items of this kind are closed."""
    await close(connection, (subject_key(kind, (record_id,), ()) for record_id in record_ids), now)


async def close(connection: Connection, subject_keys: Iterable[bytes], now: datetime) -> None:
    """Closes the open items about these subjects."""
    await connection.execute(_SETTLE, sorted(subject_keys), now)


async def reopen(connection: Connection, subject_keys: Iterable[bytes], settled_at: datetime, now: datetime) -> None:
    """Opens the items about these subjects again that were closed at an instant, but where another one is open by now."""
    await connection.execute(_REOPEN, sorted(subject_keys), settled_at, now)


async def forget(connection: Connection, record_ids: Collection[UUID]) -> None:
    """Takes erased records out of items, merges and rejections. An item that has no record left on a side is settled."""
    await connection.execute(_FORGET, list(record_ids))


@dataclass(frozen=True, slots=True)
class SideRecord:
    """A record of one side of an item, with its live link."""

    record_id: UUID
    side: int
    customer_id: UUID
    institution_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Item:
    """An item; weight and explanation are 0 and empty for an institution that has not all of its records."""

    review_item_id: UUID
    kind: ReviewKind
    state: StoredState
    subject_key: bytes
    content_key: bytes
    weight_bits: float
    model_version: str
    explanation: bytes
    attribute: int
    codes: tuple[str, ...]
    create_time: datetime
    update_time: datetime
    defer_until: datetime
    claim: Claim
    decision_number: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items are wanted.

    Args:
        institution_id: whose eyes; None sees all.
        kind: of this queue; None for all.
        state: a key of `STATES`.
    """

    institution_id: str | None
    now: datetime
    state: str
    kind: ReviewKind | None = None
    customer_id: UUID | None = None
    steward: str | None = None
    heaviest: bool = False


STATES = {
    "OPEN": "i.state = 1 AND i.defer_until <= $1 AND (i.lease_until IS NULL OR i.lease_until <= $1)",
    "CLAIMED": "i.state = 1 AND i.lease_until > $1",
    "DEFERRED": "i.state = 1 AND i.defer_until > $1 AND (i.lease_until IS NULL OR i.lease_until <= $1)",
    "DECIDED": "i.state = 2",
    "SETTLED": "i.state = 3",
}


async def page(connection: Connection, wanted: Filter, after: Sequence[str], limit: int) -> list[Item]:
    """A page of items. `after`: the sort keys of the last row before, as `page_keys` gives them."""
    arguments: list[object] = [wanted.now, limit]
    seen = ""
    conditions = ["i.create_time <= $1", STATES[wanted.state]]

    def condition(text: str, value: object) -> None:
        arguments.append(value)
        conditions.append(text.replace("$$", f"${len(arguments)}"))

    if wanted.kind is not None:
        condition("i.kind = $$", int(wanted.kind))
    if wanted.state in ("OPEN", "CLAIMED", "DEFERRED"):
        conditions.append(STILL_IN_QUESTION)
    if wanted.institution_id is not None:
        condition(visible("$$"), wanted.institution_id)
        seen = _both_own(f"${len(arguments)}")
    if wanted.customer_id is not None:
        condition(_OF_CUSTOMER, wanted.customer_id)
    if wanted.steward is not None:
        condition(_OF_STEWARD, wanted.steward)
    weight = _only("i.weight_bits", seen, "0")
    if after and wanted.heaviest:
        condition(f"({weight}, i.review_item_id) < ($$,", float(after[0]))
        arguments.append(UUID(after[1]))
        conditions[-1] += f" ${len(arguments)})"
    elif after:
        condition("i.review_item_id > $$", UUID(after[0]))
    order = f"{weight} DESC, i.review_item_id DESC" if wanted.heaviest else "i.review_item_id"
    rows = await connection.fetch(
        f"SELECT {_columns(seen)} FROM review_items i WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT $2", *arguments
    )
    return [_item(row) for row in rows]


def page_keys(item: Item, heaviest: bool) -> list[str]:
    """The sort keys of an item."""
    return [repr(item.weight_bits), str(item.review_item_id)] if heaviest else [str(item.review_item_id)]


async def get(connection: Connection, review_item_id: UUID, institution_id: str | None, *, lock: bool = False) -> Item | None:
    """An item that the institution may see (None: any), for a change locked; None when there is none."""
    seen = f"($2::text IS NULL OR {_both_own('$2')})"
    row = await connection.fetchrow(
        f"SELECT {_columns(seen)} FROM review_items i WHERE i.review_item_id = $1 AND ($2::text IS NULL OR ({visible('$2')}))"
        + (" FOR UPDATE OF i" if lock else ""),
        review_item_id,
        institution_id,
    )
    return _item(row) if row else None


async def sides(connection: Connection, review_item_ids: Collection[UUID]) -> dict[UUID, list[SideRecord]]:
    """The records of items, with their live links."""
    found: dict[UUID, list[SideRecord]] = {one: [] for one in review_item_ids}
    for row in await connection.fetch(_SIDES, list(review_item_ids)):
        found[row["review_item_id"]].append(
            SideRecord(
                row["record_id"], row["side"], row["customer_id"], row["institution_id"],
                f"institutions/{row['institution_id']}/sourceSystems/{row['source_system_id']}/records/{row['record_id']}",
            )
        )  # fmt: skip
    return found


def in_question(kind: ReviewKind, records: Sequence[SideRecord]) -> bool:
    """Whether anything is left to decide, as far as its sides tell; the same as `STILL_IN_QUESTION`."""
    customers_count = len({record.customer_id for record in records})
    if kind is ReviewKind.POSSIBLE_MATCH:
        return customers_count == 2
    return kind is not ReviewKind.DOUBTFUL_CLUSTER or customers_count == 1


async def write_claim(connection: Connection, review_item_id: UUID, claim: Claim, now: datetime) -> None:
    """Who holds a locked item from now on."""
    await connection.execute(
        "UPDATE review_items SET claim_number = $2, claimed_by = $3, lease_until = $4, update_time = $5"
        " WHERE review_item_id = $1",
        review_item_id, claim.number, claim.claimed_by, claim.lease_until, now,
    )  # fmt: skip


def _item(row: asyncpg.Record) -> Item:
    return Item(
        row["review_item_id"], ReviewKind(row["kind"]), StoredState(row["state"]), row["subject_key"], row["content_key"],
        row["weight_bits"], row["model_version"], row["explanation"], row["attribute"], tuple(row["codes"]), row["create_time"],
        row["update_time"], row["defer_until"], Claim(row["claim_number"], row["claimed_by"], row["lease_until"]),
        row["decision_number"],
    )  # fmt: skip


def visible(institution: str) -> str:
    """Whether an institution may see item `i`: linked with the customers of all its records; for some kinds, all its own."""
    return f"""EXISTS (
        SELECT FROM review_item_records s JOIN records r USING (record_id) WHERE s.review_item_id = i.review_item_id
    ) AND NOT EXISTS (
        SELECT FROM review_item_records s JOIN records r USING (record_id)
        WHERE s.review_item_id = i.review_item_id AND CASE
            WHEN i.kind = ANY('{{{",".join(map(str, _OWN_KINDS))}}}'::smallint[]) THEN r.institution_id <> {institution}
            ELSE NOT EXISTS (
                SELECT FROM records mine WHERE mine.customer_id = r.customer_id AND mine.institution_id = {institution})
            END)"""


def _both_own(institution: str) -> str:
    """Whether all records of item `i` are an institution's. What others' were compared with tells what they say."""
    return f"""NOT EXISTS (
        SELECT FROM review_item_records s JOIN records r USING (record_id)
        WHERE s.review_item_id = i.review_item_id AND r.institution_id <> {institution})"""


def _only(column: str, seen: str, otherwise: str) -> str:
    """A column for those who may see it; an empty condition stands for everybody."""
    return f"CASE WHEN {seen} THEN {column} ELSE {otherwise} END" if seen else column


def _columns(seen: str) -> str:
    return f"""
    i.review_item_id, i.kind, i.state, i.subject_key, i.content_key, {_only("i.weight_bits", seen, "0")} AS weight_bits,
    i.model_version, {_only("i.explanation", seen, "''::bytea")} AS explanation, i.attribute, i.codes, i.create_time,
    i.update_time, i.defer_until, i.claim_number, i.claimed_by, i.lease_until, i.decision_number"""


# A possible match whose sides are one customer by now, or a doubtful cluster that is no more one, asks nothing.
STILL_IN_QUESTION = """(i.kind NOT IN (1, 3) OR (
    SELECT count(DISTINCT r.customer_id) FROM review_item_records s JOIN records r USING (record_id)
    WHERE s.review_item_id = i.review_item_id) = CASE i.kind WHEN 1 THEN 2 ELSE 1 END)"""
_OF_CUSTOMER = """i.review_item_id IN (
    SELECT s.review_item_id FROM records r JOIN review_item_records s USING (record_id) WHERE r.customer_id = $$)"""
_OF_STEWARD = """(i.claimed_by = $$ AND i.lease_until > $1 OR EXISTS (
    SELECT FROM review_decisions d WHERE d.review_item_id = i.review_item_id AND d.decided_by = $$ AND d.undone_at IS NULL))"""
_SIDES = """
SELECT s.review_item_id, s.record_id, s.side, r.customer_id, y.institution_id, y.source_system_id
FROM review_item_records s JOIN records r USING (record_id) JOIN source_systems y USING (source_system_number)
WHERE s.review_item_id = ANY($1::uuid[])
ORDER BY s.review_item_id, s.side, s.record_id
"""
# Sub-queries that cannot be flattened (OFFSET 0) keep the plan to look-ups by index from the few new pairs on. Left free, a plan
# prepared while the queues were empty would read them whole for each batch of a first load.
_MATCHES = """
SELECT new.place, l.customer_id AS left_customer_id, r.customer_id AS right_customer_id,
    EXISTS (
        SELECT FROM (SELECT record_id FROM records WHERE customer_id = l.customer_id OFFSET 0) l2
            CROSS JOIN LATERAL (
                SELECT review_item_id, side FROM review_item_records WHERE record_id = l2.record_id OFFSET 0) s
            CROSS JOIN LATERAL (
                SELECT FROM review_items i WHERE i.review_item_id = s.review_item_id AND i.state = 1 AND i.kind = 1
                    AND i.subject_key <> new.subject_key OFFSET 0) i
            CROSS JOIN LATERAL (
                SELECT record_id FROM review_item_records o
                WHERE o.review_item_id = s.review_item_id AND o.side <> s.side OFFSET 0) t
            CROSS JOIN LATERAL (
                SELECT FROM records r2 WHERE r2.record_id = t.record_id AND r2.customer_id = r.customer_id OFFSET 0) r2
        OFFSET 0
    ) AS open_already,
    EXISTS (
        SELECT FROM rejected_pairs p WHERE p.live AND p.content_key = new.content_key
            AND p.low_record_id = least(new.left_id, new.right_id) AND p.high_record_id = greatest(new.left_id, new.right_id)
        OFFSET 0
    ) AS rejected
FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::bytea[])
        WITH ORDINALITY AS new (left_id, right_id, subject_key, content_key, place)
    CROSS JOIN LATERAL (SELECT customer_id FROM records WHERE record_id = new.left_id OFFSET 0) l
    CROSS JOIN LATERAL (SELECT customer_id FROM records WHERE record_id = new.right_id OFFSET 0) r
"""
# An item that changes while somebody works on it is taken from them: they would decide about what they have not seen.
_OPEN = """
INSERT INTO review_items AS known (
    review_item_id, kind, state, subject_key, content_key, weight_bits, model_version, explanation, attribute, codes,
    create_time, update_time, defer_until, claim_number, decision_number)
SELECT id, kind, 1, subject_key, content_key, weight_bits, model_version, explanation, attribute, string_to_array(codes, ' '),
    $10, $10, $10, 0, 0
FROM unnest(
        $1::uuid[], $2::smallint[], $3::bytea[], $4::bytea[], $5::float8[], $6::text[], $7::bytea[], $8::smallint[], $9::text[])
    AS new (id, kind, subject_key, content_key, weight_bits, model_version, explanation, attribute, codes)
WHERE NOT EXISTS (
    SELECT FROM review_items old
    WHERE old.state = 2 AND old.subject_key = new.subject_key AND old.content_key = new.content_key OFFSET 0)
ORDER BY subject_key
ON CONFLICT (subject_key) WHERE state = 1 DO UPDATE SET
    content_key = excluded.content_key, weight_bits = excluded.weight_bits, model_version = excluded.model_version,
    explanation = excluded.explanation, attribute = excluded.attribute, codes = excluded.codes,
    update_time = excluded.update_time, claim_number = known.claim_number + 1, claimed_by = NULL, lease_until = NULL
WHERE known.content_key <> excluded.content_key
RETURNING review_item_id, subject_key, (xmax = 0) AS inserted
"""
_SETTLE = "UPDATE review_items SET state = 3, update_time = $2 WHERE state = 1 AND subject_key = ANY($1::bytea[])"
_REOPEN = """
UPDATE review_items i SET state = 1, defer_until = $3, claim_number = claim_number + 1, claimed_by = NULL, lease_until = NULL,
    update_time = $3
WHERE state = 3 AND subject_key = ANY($1::bytea[]) AND update_time = $2
    AND NOT EXISTS (SELECT FROM review_items o WHERE o.state = 1 AND o.subject_key = i.subject_key)
"""
_FORGET = """
WITH merged AS (DELETE FROM merge_records WHERE record_id = ANY($1::uuid[])),
    relinked AS (DELETE FROM relinks WHERE record_id = ANY($1::uuid[])),
    rejected_low AS (DELETE FROM rejected_pairs WHERE low_record_id = ANY($1::uuid[])),
    rejected_high AS (DELETE FROM rejected_pairs WHERE high_record_id = ANY($1::uuid[]) AND low_record_id <> ALL($1::uuid[])),
    gone AS (DELETE FROM review_item_records WHERE record_id = ANY($1::uuid[]) RETURNING review_item_id)
UPDATE review_items SET state = 3, explanation = ''::bytea, codes = '{}', claimed_by = NULL, lease_until = NULL
WHERE review_item_id IN (SELECT review_item_id FROM gone) AND state <> 2
"""
