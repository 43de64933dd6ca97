"""Blocking keys: two records that share one are compared.

Chosen by the recall measured on Febrl and on a Chinese and Western population.
"""

from customer.domain.features import AddressForm, Features, NameForm

BLOCKING_KEYS_MAX = 48
"""A record with many names, phones and addresses has no more keys than that; the strongest kinds come first."""
PHONE_TAIL_DIGITS = 4
PREFIX_LETTERS = 4


def blocking_keys(features: Features) -> list[tuple[str, str]]:
    """The keys of a record as (kind, value), strongest kinds first, each once, always the same for the same evidence.

    Values are personal: only their keyed hashes may be stored.
    """
    keys: dict[tuple[str, str], None] = {}
    for document in sorted(features.documents, key=lambda document: document.number):
        keys["document", document.number] = None
    keys |= dict.fromkeys(("phone", phone) for phone in sorted(features.phones))
    keys |= dict.fromkeys(("email", email) for email in sorted(features.emails))
    keys |= dict.fromkeys(_keys_of_names(features))
    if born := features.birth_date:
        keys |= dict.fromkeys(("birth date, phone", f"{born} {phone[-PHONE_TAIL_DIGITS:]}") for phone in sorted(features.phones))
        keys |= dict.fromkeys(
            ("birth date, postcode", f"{born} {place.postcode}") for place in features.addresses if place.postcode
        )
        keys |= dict.fromkeys(
            ("birth date, locality", f"{born} {place.locality}") for place in features.addresses if place.locality
        )
    for place in features.addresses:
        keys |= dict.fromkeys(_keys_of_place(place))
    kind = f"{features.party_kind:d}"
    return [(f"{kind} {name}", value) for name, value in list(keys)[:BLOCKING_KEYS_MAX]]


def _keys_of_names(features: Features) -> list[tuple[str, str]]:
    keys: dict[tuple[str, str], None] = {}
    born = features.birth_date
    postcodes = [place.postcode for place in features.addresses if place.postcode]
    readings = sorted(features.names.forms, key=lambda form: (form.family, form.given))
    for form in readings:
        whole = _in_any_order(form)
        if born:
            # Each of the two survives a slip in the other half of the date.
            keys["name, year", f"{whole} {born[:4]}"] = None
            keys["name, day", f"{whole} {born[4:]}"] = None
            keys |= dict.fromkeys(("part, birth date", f"{part[:PREFIX_LETTERS]} {born}") for part in _parts(form))
        keys |= dict.fromkeys(("name, postcode", f"{whole} {postcode}") for postcode in postcodes)
        if not born and not postcodes:
            keys["name", whole] = None
    if features.names.han and born:
        keys["han, birth date", f"{features.names.han} {born}"] = None
    return list(keys)


def _in_any_order(form: NameForm) -> str:
    """The letters of a name sorted: the same for `wang xiaoming`, `Xiao Ming Wang` and swapped fields."""
    return "".join(sorted(form.given + form.family))


def _parts(form: NameForm) -> list[str]:
    return sorted({part for part in (form.family, form.given) if len(part) > 1})


def _keys_of_place(place: AddressForm) -> list[tuple[str, str]]:
    if not (place.streets and place.numbers):
        return []
    numbers = " ".join(place.numbers)
    # Two: a slip in the postcode or the town does not hide the other.
    return [("address", f"{place.streets[0]} {numbers} {where}") for where in (place.postcode, place.locality) if where]
