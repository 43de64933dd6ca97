"""The keys that a record is found by: numbers of documents, contact points, words of names, roles. No I/O."""

from concord.customer.v1.party_pb2 import Party, PartyName
from customer.domain import name_keys, names
from customer.domain.blind_index import BlindIndex
from customer.domain.identity_documents import plain
from customer.domain.name_keys import Name

IDENTIFIER, PHONE, EMAIL, ROLE, ADDRESS = "identifier", "phone", "email", "role", "address"


def name_of(party_name: PartyName) -> Name:
    """A name as the domain has it."""
    return Name(
        party_name.full_name,
        party_name.family_name,
        party_name.given_name,
        party_name.latin_name,
        tuple(party_name.aliases),
        party_name.han_simplified_name,
        party_name.pinyin_name,
    )


def address_of(party: Party) -> frozenset[str]:
    """The postal address in a form that is equal for equal ones; empty where it does not say a street and a place."""
    address = party.postal_address
    if not address.address_lines or not (address.postal_code or address.locality):
        return frozenset()
    place = address.postal_code or address.locality
    return frozenset({" ".join(names.words(" ".join((*address.address_lines, place, address.country_code))))})


def search_keys(index: BlindIndex, institution_id: str, stated: Party, standard: Party) -> list[int]:
    """The keys of a record under its institution's key, sorted; about fifteen for a usual person."""
    pairs = {(IDENTIFIER, plain(identifier.value)) for party in (stated, standard) for identifier in party.identifiers}
    pairs |= {(PHONE, phone.number) for phone in standard.phones}
    pairs |= {(EMAIL, email.address.casefold()) for email in standard.emails}
    pairs |= {(ROLE, str(role.kind)) for role in standard.roles}
    pairs |= {(ADDRESS, address) for address in address_of(standard)}
    if standard.HasField("party_name"):
        pairs.update(name_keys.of_record(name_of(standard.party_name)))
    return sorted(index.lookups(institution_id, pairs))
