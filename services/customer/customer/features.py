"""From a standardised party to what matching looks at. No I/O."""

from concord.customer.v1.party_pb2 import Party, PostalAddress
from customer.domain import features
from customer.domain import names as name_rules
from customer.domain.features import Features
from customer.domain.identity_documents import issuing_country


def features_of(party: Party, *, source: str = "") -> Features:
    """The evidence in a standardised party.

    Args:
        party: standardised.
        source: an opaque name of its source system, for the guard of clusters.
    """
    name = party.party_name
    if party.party_kind == features.ORGANISATION:
        names = features.organisation_names(
            name.full_name or name.family_name, name.latin_name, name.aliases, name.han_simplified_name
        )
    else:
        han, pinyin = name.han_simplified_name, name.pinyin_name
        if not han:
            standard = name_rules.standard(name.full_name, name.family_name, name.given_name)
            han, pinyin = standard.han_simplified_name, standard.pinyin_name
        names = features.person_names(
            name.full_name, name.given_name, name.family_name, name.latin_name, name.aliases, han, pinyin
        )
    documents = (
        features.document(stated.scheme, issuing_country(stated.scheme, stated.country_code), stated.value, valid=stated.valid)
        for stated in party.identifiers
    )
    addresses = (_address(stated) for stated in (party.postal_address, *party.additional_addresses))
    return Features(
        party_kind=party.party_kind,
        names=names,
        birth_date=features.birth_date(party.birth_date),
        documents=frozenset(document for document in documents if document is not None),
        phones=features.phones(phone.number for phone in party.phones),
        emails=features.emails(email.address for email in party.emails),
        addresses=tuple(dict.fromkeys(form for form in addresses if form)),
        sex=party.sex,
        source=source,
    )


def _address(stated: PostalAddress) -> features.AddressForm:
    return features.address(stated.address_lines, stated.locality, stated.postal_code)
