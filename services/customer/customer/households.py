"""Proposals of households: customers of one institution with one address, and a telephone or surname in common."""

from collections.abc import Iterable
from uuid import UUID

from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1.attribute_pb2 import PartyKind
from concord.customer.v1.party_pb2 import Party
from customer.core import Core
from customer.domain.names import folded
from customer.domain.relationships import HOUSEHOLD_MEMBERS_MAX, Kind, Status
from customer.search_keys import ADDRESS, address_of
from customer.store import records as record_store
from customer.store import relationships as relationship_store
from customer.store import search
from customer.store.records import Member
from customer.store.relationships import BY_PLATFORM, RelationshipRow
from customer.store.search import NO_CUSTOMER, KeyCondition, Viewer


async def propose(unit: UnitOfWork, core: Core, customer_id: UUID, institution_id: str) -> list[UUID] | None:
    """Keeps proposals as inferred relationships; their ids and those of earlier ones, without rejected ones.

    None when the institution has no record of the customer. An address that too many share is a house, not a household.
    """
    [mine] = await record_store.visible(unit.connection, core.vault, [(customer_id, institution_id)])
    persons = [member for member in mine if _is_own_person(member, institution_id)]
    if not mine:
        return None
    addresses = {address for member in persons for address in address_of(member.party)}
    if not addresses:
        return []
    condition = KeyCondition((), sorted(core.index.lookup(institution_id, ADDRESS, address) for address in addresses))
    viewer = Viewer(institution_id)
    ids = await search.by_keys(unit.connection, viewer, [condition], NO_CUSTOMER, HOUSEHOLD_MEMBERS_MAX + 1)
    if len(ids) > HOUSEHOLD_MEMBERS_MAX:
        return []
    others = [one for one in ids if one != customer_id]
    found = await record_store.visible(unit.connection, core.vault, [(one, institution_id) for one in others])
    pairs = [pair for members in found if (pair := _pair(persons, members, institution_id))]
    return await _keep(unit, core, institution_id, pairs)


def _is_own_person(member: Member, institution_id: str) -> bool:
    return member.institution_id == institution_id and member.party.party_kind == PartyKind.PARTY_KIND_PERSON


def _pair(persons: Iterable[Member], members: Iterable[Member], institution_id: str) -> tuple[UUID, UUID] | None:
    """The first two records that speak for a household."""
    for mine in persons:
        for theirs in members:
            if _is_own_person(theirs, institution_id) and live_together(mine.party, theirs.party):
                return min(mine.record_id, theirs.record_id), max(mine.record_id, theirs.record_id)
    return None


def live_together(one: Party, other: Party) -> bool:
    """Whether two persons have an address in common, and a telephone or surname besides."""
    if address_of(one).isdisjoint(address_of(other)):
        return False
    phones = {phone.number for phone in one.phones if phone.valid}
    return not phones.isdisjoint(phone.number for phone in other.phones) or bool(_surnames(one) & _surnames(other))


def _surnames(party: Party) -> set[str]:
    """Family names, as far as it is known which part of the name that is."""
    name = party.party_name
    return {part for part in (folded(name.family_name), name.pinyin_name.partition(" ")[0]) if part}


async def _keep(unit: UnitOfWork, core: Core, institution_id: str, pairs: Iterable[tuple[UUID, UUID]]) -> list[UUID]:
    keys = {
        core.index.source_key(f"institutions/{institution_id}/households", f"{one} {other}"): (one, other) for one, other in pairs
    }
    known = await relationship_store.lock_by_source_key(unit.connection, institution_id, BY_PLATFORM, keys)
    new = [
        RelationshipRow(
            relationship_id=new_id(),
            institution_id=institution_id,
            source_system_number=BY_PLATFORM,
            source_key=key,
            content_hash=key,
            observe_time=unit.now,
            version=1,
            kind=Kind.HOUSEHOLD_MEMBER,
            from_record_id=one,
            to_record_id=other,
            status=Status.INFERRED,
            legal_basis_code="",
            share_basis_points=0,
            position_code="",
            begin_date=None,
            end_date=None,
            decided_by="",
            decide_time=None,
            create_time=unit.now,
            update_time=unit.now,
        )
        for key, (one, other) in keys.items()
        if key not in known
    ]
    if new:
        await relationship_store.write(unit.connection, new)
    return [row.relationship_id for row in (*known.values(), *new) if row.status != Status.REJECTED]
