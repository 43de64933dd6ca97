"""Blocking keys: two records that share one are compared.

Chosen by the recall measured on Febrl and on a Chinese and Western population.
"""

from customer.domain.features import AddressForm, Features, NameForm

BLOCKING_KEYS_MAX = 48
"""A record with many names, phones and addresses has no more keys than that; the strongest kinds come first."""
PHONE_TAIL_DIGITS = 4
PREFIX_LETTERS = 4
_Keys = dict[tuple[str, str], None]
"""A set that remembers the order."""


def blocking_keys(features: Features) -> list[tuple[str, str]]:
    """The keys of a record as (kind, value), strongest kinds first, each once, always the same for the same evidence.

    Values are personal: only their keyed hashes may be stored.
    """
    keys: _Keys = {}
    for document in sorted(features.documents, key=lambda document: document.number):
        keys["document", document.number] = None
    phones = sorted(features.phones)
    for phone in phones:
        keys["phone", phone] = None
    for email in sorted(features.emails):
        keys["email", email] = None
    _add_names(keys, features)
    if born := features.birth_date:
        for phone in phones:
            keys["birth date, phone", f"{born} {phone[-PHONE_TAIL_DIGITS:]}"] = None
        for place in features.addresses:
            if place.postcode:
                keys["birth date, postcode", f"{born} {place.postcode}"] = None
        for place in features.addresses:
            if place.locality:
                keys["birth date, locality", f"{born} {place.locality}"] = None
    for place in features.addresses:
        _add_place(keys, place)
    kind = f"{features.party_kind:d}"
    return [(f"{kind} {name}", value) for name, value in list(keys)[:BLOCKING_KEYS_MAX]]


def _add_names(keys: _Keys, features: Features) -> None:
    born = features.birth_date
    postcodes = [place.postcode for place in features.addresses if place.postcode]
    readings = sorted(features.names.forms, key=lambda form: (form.family, form.given))
    for form in readings:
        whole = _in_any_order(form)
        if born:
            # Each of the two survives a slip in the other half of the date.
            keys["name, year", f"{whole} {born[:4]}"] = None
            keys["name, day", f"{whole} {born[4:]}"] = None
            for part in _parts(form):
                keys["part, birth date", f"{part[:PREFIX_LETTERS]} {born}"] = None
        for postcode in postcodes:
            keys["name, postcode", f"{whole} {postcode}"] = None
        if not born and not postcodes:
            keys["name", whole] = None
    if features.names.han and born:
        keys["han, birth date", f"{features.names.han} {born}"] = None


def _in_any_order(form: NameForm) -> str:
    """The letters of a name sorted: the same for `wang xiaoming`, `Xiao Ming Wang` and swapped fields."""
    return "".join(sorted(form.given + form.family))


def _parts(form: NameForm) -> list[str]:
    return sorted({part for part in (form.family, form.given) if len(part) > 1})


def _add_place(keys: _Keys, place: AddressForm) -> None:
    if place.streets and place.numbers:
        numbers = " ".join(place.numbers)
        # Two: a slip in the postcode or the town does not hide the other.
        for where in (place.postcode, place.locality):
            if where:
                keys["address", f"{place.streets[0]} {numbers} {where}"] = None
