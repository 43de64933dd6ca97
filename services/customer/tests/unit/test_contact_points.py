"""Mobile numbers told at sight are told as the library tells them."""

import random

import phonenumbers
from phonenumbers import PhoneNumberType

from customer.domain import contact_points
from customer.domain.contact_points import Phone


def in_full(text: str) -> Phone:
    try:
        parsed = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return Phone(text, False)
    kind = phonenumbers.number_type(parsed)
    if kind == PhoneNumberType.UNKNOWN:
        return Phone(text, False)
    mobile = kind in (PhoneNumberType.MOBILE, PhoneNumberType.PAGER, PhoneNumberType.PERSONAL_NUMBER)
    return Phone(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164), True, mobile)


def test_a_number_told_at_sight_is_what_the_library_says_of_it() -> None:
    chance, at_sight = random.Random(4), 0
    regions = sorted({regions[0] for regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.values()})
    for _ in range(8_000):
        region = chance.choice(regions)
        example = phonenumbers.example_number_for_type(region, chance.choice([0, 1, 1, 1, 2, 3, 4, 6, 7, 10]))
        if example is None:
            continue
        digits = list(phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164))
        for _ in range(chance.randrange(5)):
            digits[chance.randrange(max(1, len(digits) - 6), len(digits))] = chance.choice("0123456789")
        text = "".join(digits)
        found = contact_points.phone(text, "")
        assert found == in_full(text), text
        at_sight += found.mobile and contact_points._is_mobile(text)
    assert at_sight > 500
