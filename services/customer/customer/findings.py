"""What a steward should look at in a customer: believed values that fail checks, trusted sources that disagree. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from customer.domain.blind_index import BlindIndex
from customer.domain.golden import Believed
from customer.domain.reviews import ReviewKind
from customer.domain.vocabulary import Attribute, IdentifierScheme
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
    for attribute, values in believed.items():
        best = values[0]
        if best.candidate.pinned_at is not None:
            continue  # a steward has decided already
        if not best.valid:
            for reason in best.candidate.stated.failed or ("INVALID",):
                failed.setdefault(best.record.record_id, []).append((attribute, f"{attribute.name.lower()}:{reason}", best))
        elif attribute is Attribute.BIRTH_DATE:
            _add_conflict(index, conflicts, attribute, values)
        elif attribute is Attribute.IDENTIFIER:
            for group in _permanent(values).values():
                _add_conflict(index, conflicts, attribute, group)
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


def _permanent(values: Iterable[Believed]) -> dict[tuple[Any, str], list[Believed]]:
    groups: dict[tuple[Any, str], list[Believed]] = {}
    for one in values:
        if one.value.scheme in PERMANENT_SCHEMES:
            groups.setdefault((one.value.scheme, one.value.country_code), []).append(one)
    return groups
