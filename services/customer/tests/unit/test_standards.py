"""Standard forms, as tables."""

import importlib

import pytest
from stdnum.cn import ric

from customer.domain import contact_points, identity_documents
from customer.domain.identity_documents import checked
from customer.domain.vocabulary import IdentifierScheme

NATIONAL, PASSPORT, PERMIT, ORGANISATION, LEI = (
    IdentifierScheme.NATIONAL_ID, IdentifierScheme.PASSPORT, IdentifierScheme.PERMIT,
    IdentifierScheme.ORGANISATION_REGISTRATION, IdentifierScheme.LEI,
)  # fmt: skip


def card(body):
    return body + ric.calc_check_digit(body + "0")


@pytest.mark.parametrize(
    ("scheme", "country", "number", "standard", "valid"),
    [
        (NATIONAL, "CN", "360426199101010071", "360426199101010071", True),
        (NATIONAL, "CN", " 360426 19910101 0071", "360426199101010071", True),
        (NATIONAL, "CN", "３６０４２６１９９１０１０１００７１", "360426199101010071", True),
        (NATIONAL, "CN", "360426199101010072", "360426199101010072", False),
        (NATIONAL, "CN", "360426910101007", card("36042619910101007"), True),
        (NATIONAL, "CN", card("81000019900307123"), card("81000019900307123"), True),
        (NATIONAL, "CN", card("44030419750905199"), card("44030419750905199"), True),  # a district younger than its people
        (NATIONAL, "CN", card("99999919750905199"), card("99999919750905199"), False),  # no district ever
        (NATIONAL, "CN", card("82000019900307123"), card("82000019900307123"), True),
        (PERMIT, "CN", card("83000019900307123"), card("83000019900307123"), True),
        (NATIONAL, "CN", card("81000019901307123"), card("81000019901307123"), False),
        (NATIONAL, "CN", card("84000019900307123"), card("84000019900307123"), False),
        (PERMIT, "CN", "H1234567801", "H1234567801", True),
        (NATIONAL, "CZ", "710319/2745", "7103192745", True),
        (NATIONAL, "CZ", "710319/2746", "7103192746", False),
        (NATIONAL, "SE", "880320-0016", "8803200016", True),
        (NATIONAL, "AQ", "AB-1234", "AB1234", True),
        (NATIONAL, "AQ", "AB", "AB", False),
        (PASSPORT, "CN", "e 12345679", "E12345679", True),
        (PASSPORT, "CN", "000000000", "000000000", False),
        (PASSPORT, "CN", "!!!", "!!!", False),  # kept, and believed less
        (PASSPORT, "CN", "123456789", "123456789", False),
        (PASSPORT, "CN", "ABCDEFGH", "ABCDEFGH", False),
        (ORGANISATION, "CN", "91110000600037341L", "91110000600037341L", True),
        (ORGANISATION, "CN", "91110000600037342L", "91110000600037342L", False),
        (LEI, "US", "213800KUD8LAJWSQ9D15", "213800KUD8LAJWSQ9D15", True),
        (LEI, "US", "213800KUD8LXJWSQ9D15", "213800KUD8LXJWSQ9D15", False),
        (NATIONAL, "CN", "110105491231002", "11010519491231002X", True),  # 15 digits
        (NATIONAL, "CN", "110105491331002", "110105491331002", False),  # no 13th month: stays as stated
        (NATIONAL, "CN", card("41272319900307123"), card("41272319900307123"), True),  # a region retired long ago
        (PERMIT, "CN", "H12345687", "H12345687", True),
        (PERMIT, "CN", "M1234", "M1234", False),
        (PERMIT, "CN", "0123987601", "0123987601", True),  # Taiwan compatriot
        (PERMIT, "CN", card("81000019900307123")[:17] + "Z", card("81000019900307123")[:17] + "Z", False),
        (PERMIT, "CN", "CA1234587", "CA1234587", True),  # to Hong Kong and Macau
        (PERMIT, "CN", card("91115619810301003"), card("91115619810301003"), True),  # foreign permanent resident
        (PASSPORT, "CN", "EA1234587", "EA1234587", True),
        (PASSPORT, "CN", "Q12345687", "Q12345687", False),
        (PASSPORT, "HK", "K02345678", "K02345678", True),
        (PASSPORT, "TW", "312345678", "312345678", True),
        (NATIONAL, "HK", "A123456(3)", "A1234563", True),
        (NATIONAL, "HK", "A123456(4)", "A1234564", False),
        (NATIONAL, "MO", "1234567(8)", "12345678", False),  # counting
        (NATIONAL, "MO", "5215789(2)", "52157892", True),
        (NATIONAL, "TW", "A123456789", "A123456789", True),
        (NATIONAL, "TW", "A123456788", "A123456788", False),
        (NATIONAL, "SG", "S1234567D", "S1234567D", True),
        (NATIONAL, "SG", "S1234567E", "S1234567E", False),
        (NATIONAL, "SG", "M1234567K", "M1234567K", True),
        (NATIONAL, "GB", "QQ 12 34 56 C", "QQ123456C", False),
        (NATIONAL, "GB", "AB 12 34 57 C", "AB123457C", True),
    ],
)
def test_identity_documents(scheme, country, number, standard, valid):
    found = checked(scheme, country, number)
    assert (found.number, found.valid) == (standard, valid)


def test_every_module_of_the_table_exists_and_refuses_nonsense():
    for scheme, countries in identity_documents._MODULES.items():
        for country, modules in countries.items():
            for module in modules.split():
                assert importlib.import_module(f"stdnum.{module}").validate
            found = checked(scheme, country, "§nonsense§")
            assert (found.number, found.valid) == ("NONSENSE", False)


@pytest.mark.parametrize(
    ("number", "country", "standard", "valid"),
    [
        ("138 0013 8000", "CN", "+8613800138000", True),
        ("+86 138-0013-8000", "CZ", "+8613800138000", True),
        ("601 123 456", "CZ", "+420601123456", True),
        ("601123456", "", "601123456", False),
        ("12", "CZ", "12", False),
        ("call me", "CZ", "call me", False),
    ],
)
def test_phones(number, country, standard, valid):
    assert contact_points.phone(number, country)[:2] == (standard, valid)


@pytest.mark.parametrize(
    ("address", "standard", "valid"),
    [
        ("Jan.Novak@Example.COM", "Jan.Novak@example.com", True),
        (" jan@example.com ", "jan@example.com", True),
        ("王@例子.中国", "王@例子.中国", True),
        ("jan@", "jan@", False),
        ("none", "none", False),
    ],
)
def test_emails(address, standard, valid):
    assert contact_points.email(address) == (standard, valid)
