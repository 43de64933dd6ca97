"""Standard forms, as tables."""

import importlib

import pytest
from stdnum.cn import ric

from customer.domain import contact_points, identity_documents, names
from customer.domain.identity_documents import standardised
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
    ],
)
def test_identity_documents(scheme, country, number, standard, valid):
    assert standardised(scheme, country, number) == (standard, valid)


def test_every_module_of_the_table_exists_and_refuses_nonsense():
    for scheme, countries in identity_documents._MODULES.items():
        for country, modules in countries.items():
            for module in modules.split():
                assert importlib.import_module(f"stdnum.{module}").validate
            assert standardised(scheme, country, "§nonsense§") == ("NONSENSE", False)


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
    assert contact_points.phone(number, country) == (standard, valid)


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


@pytest.mark.parametrize(
    ("stated", "tokens"),
    [
        (["Jan Novák"], {"jan", "novak"}),
        (["ＪＡＮ  O'Brien-Smith"], {"jan", "o", "brien", "smith"}),
        (["王小明"], {"王小明", "小明", "明"}),
        (["王小明 Wang Xiaoming"], {"王小明", "小明", "明", "wang", "xiaoming"}),
        (["", "..."], set()),
        (["Straße", "İpek"], {"strasse", "ipek"}),
    ],
)
def test_search_tokens(stated, tokens):
    assert names.search_tokens(stated) == tokens


def test_a_long_name_has_a_bounded_number_of_tokens_of_bounded_length():
    tokens = names.search_tokens(["王" * 300, " ".join(f"word{i}" for i in range(300))])
    assert len(tokens) == names.TOKENS_OF_A_RECORD_MAX
    assert max(map(len, tokens)) == names.TOKEN_CHARACTERS_MAX


def test_query_prefixes_put_the_narrowest_first():
    assert names.query_prefixes("Jan Novák jan") == ["novak", "jan"]
    assert names.query_prefixes(" - ") == []
