"""What a steward should look at in a customer: believed values that fail checks, trusted sources that disagree."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from chassis.database import Connection
from customer.domain.blind_index import BlindIndex
from customer.domain.golden import Believed, Golden
from customer.domain.reviews import ReviewKind, subject_key
from customer.domain.vocabulary import Attribute, IdentifierScheme
from customer.store import reviews
from customer.store.reviews import NewItem

TRUST_POINTS_MIN = 25.0
"""A source trusted less does not bring a steward to a trusted one's value."""
PERMANENT_SCHEMES = frozenset(
    {
        IdentifierScheme.NATIONAL_ID,
        IdentifierScheme.ORGANISATION_REGISTRATION,
        IdentifierScheme.LEI,
        IdentifierScheme.TAX_NUMBER,
    }
)
"""Nobody has two of these at once; passports, permits and licences are renewed."""


def new_items(index: BlindIndex, believed: Mapping[Attribute, Sequence[Believed]]) -> list[NewItem]:
    """The findings in a customer's golden values over all its records: at most one of a kind for a record.

    Values go into an item only as a keyed hash, by which it is known again.
    """
    failed: dict[UUID, list[tuple[Attribute, str, Believed]]] = {}
    conflicts: dict[UUID, NewItem] = {}
    for attribute, values in _fields(believed):
        best = values[0]
        if best.candidate.pinned_at is not None:
            continue  # a steward has decided already
        if not best.valid:
            for reason in best.candidate.stated.failed or ("INVALID",):
                failed.setdefault(best.record.record_id, []).append((attribute, f"{attribute.name.lower()}:{reason}", best))
        elif attribute is Attribute.BIRTH_DATE or (attribute is Attribute.IDENTIFIER and best.value.scheme in PERMANENT_SCHEMES):
            _add_conflict(index, conflicts, attribute, values)
    items = list(conflicts.values())
    for record_id, found in failed.items():
        content = index.content(repr(sorted((int(attribute), repr(one.key)) for attribute, _, one in found)).encode())
        codes = tuple(sorted({code for _, code, _ in found}))
        items.append(
            NewItem(
                ReviewKind.FAILED_VALIDATION,
                (record_id,),
                content=content,
                attribute=min(found, key=lambda one: one[0])[0],
                codes=codes,
            )
        )
    return items


async def ask(
    connection: Connection,
    index: BlindIndex,
    believed: Iterable[Golden],
    known_records: Iterable[UUID],
    now: datetime,
) -> None:
    """Opens what is found in customers that changed, and closes what was found before and is found no more.

    Args:
        believed: their golden values, over all their records.
        known_records: their records without the new ones, about which nothing can be open.
    """
    items = [item for values in believed for item in new_items(index, values)]
    kinds = (ReviewKind.CONFLICT, ReviewKind.FAILED_VALIDATION)
    fine = {subject_key(kind, (record_id,), ()) for record_id in known_records for kind in kinds}
    fine -= {item.subject_key for item in items}
    if fine:
        await reviews.close(connection, fine, now)
    if items:
        await reviews.open_items(connection, items, now)


def _add_conflict(index: BlindIndex, conflicts: dict[UUID, NewItem], attribute: Attribute, values: Sequence[Believed]) -> None:
    trusted = [one for one in values if one.valid and one.trust.points >= TRUST_POINTS_MIN]
    for rival in trusted[1:]:
        best = trusted[0]
        if rival.record.record_id != best.record.record_id:
            conflicts.setdefault(
                rival.record.record_id,
                NewItem(
                    ReviewKind.CONFLICT,
                    (best.record.record_id,),
                    (rival.record.record_id,),
                    content=index.content(repr((repr(best.key), repr(rival.key))).encode()),
                    attribute=attribute,
                    codes=(f"{attribute.name.lower()}:DIFFERS",),
                ),
            )


def _fields(believed: Mapping[Attribute, Sequence[Believed]]) -> Iterator[tuple[Attribute, Sequence[Believed]]]:
    """The rivals for each value that a party has once; documents of one scheme and country are such a value."""
    for attribute, values in believed.items():
        if attribute is not Attribute.IDENTIFIER:
            yield attribute, values
            continue
        groups: dict[tuple[Any, str], list[Believed]] = {}
        for one in values:
            groups.setdefault((one.value.scheme, one.value.country_code), []).append(one)
        for group in groups.values():
            yield attribute, group
