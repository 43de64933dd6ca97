"""Whether what agrees is enough to link two records without asking anybody, however many bits it is worth.

Bits are added up as if attributes were independent. In a household they are not: its members share the family name, the
telephone, the address, and twins the birth date. And numbers are given out in rows: a neighbouring one is no slip of a finger.
"""

from collections.abc import Mapping
from enum import IntEnum

from customer.domain.comparisons import AddressLevel, DateLevel, EmailLevel, NameLevel, NumberLevel, PhoneLevel, one_slip
from customer.domain.features import Features

AGREEING_MIN = 2
AGREEING_INEXACTLY_MIN = 3
"""So many attributes agree when none of them is an exact identifier."""
_EXACT = (("identifier", NumberLevel.SAME), ("phone", PhoneLevel.SAME), ("email", EmailLevel.SAME))
_INDIVIDUAL = frozenset({"name", "identifier", "email"})
"""What members of a household, and twins, do not have in common."""


def too_little(one: Features, other: Features, levels: Mapping[str, IntEnum], *, is_given_alike: bool) -> str:
    """What is missing to link two records; empty when nothing is.

    - `HOUSEHOLD_ONLY`: nothing agrees that tells two people of one household apart: given name, document, e-mail.
    - `ONE_ATTRIBUTE_ONLY`: a rare name, a telephone number or a birth date alone.
    - `NOTHING_EXACT`: no document, telephone number or e-mail, nor birth date with the full name, and fewer than three others.

    Args:
        one: a record.
        other: another one.
        levels: of every attribute that both state.
        is_given_alike: both state a given name, and it agrees, perhaps but for a slip.
    """
    born, name = levels.get("birth_date", -1), levels.get("name", -1)
    is_born, is_slip = born == DateLevel.SAME, one_slip(one.documents, other.documents)
    agreeing = {attribute for attribute, same in _EXACT if levels.get(attribute) == same}
    is_exact = bool(agreeing)
    # A close name is a sibling's, too: it counts beside what siblings do not share.
    is_full = name >= NameLevel.SWAPPED or (name == NameLevel.CLOSE and (is_born or is_slip or "identifier" in agreeing))
    if is_full or (is_given_alike and (is_born or is_slip)):
        agreeing.add("name")
    if born >= DateLevel.ONE_EDIT:
        agreeing.add("birth_date")
    if is_slip and agreeing & {"name", "birth_date"}:
        agreeing.add("identifier")
    if agreeing >= {"name", "birth_date"}:
        agreeing |= _neighbours(levels)
    if levels.get("address", -1) >= AddressLevel.STREET_AND_AREA:
        agreeing.add("address")
    if not agreeing & _INDIVIDUAL:
        return "HOUSEHOLD_ONLY"
    if len(agreeing) < AGREEING_MIN:
        return "ONE_ATTRIBUTE_ONLY"
    is_organisation = one.names.undivided and agreeing >= {"name", "address"}
    if is_exact or is_organisation or (is_full and is_born) or len(agreeing) >= AGREEING_INEXACTLY_MIN:
        return ""
    return "NOTHING_EXACT"


def _neighbours(levels: Mapping[str, IntEnum]) -> set[str]:
    """Contact points one slip apart. They count beside a name and a birth date: who has the next number is chance, and offices
    and villages have whole rows of them."""
    near = {"phone"} if levels.get("phone") == PhoneLevel.ONE_EDIT else set()
    return near | ({"email"} if levels.get("email") in (EmailLevel.CLOSE, EmailLevel.SAME_LOCAL_PART) else set())
