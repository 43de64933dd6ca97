"""Parties in standard form: known hard cases as tables, and what holds for every party."""

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum.cn import ric

from concord.customer.v1.party_pb2 import Party
from customer.domain import code_tables, contact_points, han_names, names
from customer.standards import canonical, reasons_by_value, standardised

TODAY = date(2026, 11, 24)


def card(body):
    return body + ric.calc_check_digit(body + "0")


def flags(party, country="CN"):
    standard = standardised(canonical(Party(**({"party_kind": 1} | party))), country, TODAY)
    return [(flag.field, flag.reason) for flag in standard.value_flags]


@pytest.mark.parametrize(
    ("name", "family", "han", "pinyin"),
    [
        ("单伟", "", "单伟", "shan wei"),
        ("單偉", "", "单伟", "shan wei"),
        ("仇小明", "", "仇小明", "qiu xiaoming"),
        ("解珍", "", "解珍", "xie zhen"),
        ("曾国藩", "", "曾国藩", "zeng guofan"),
        ("歐陽修", "", "欧阳修", "ouyang xiu"),
        ("欧阳", "", "欧阳", "ou yang"),
        ("司马相如", "", "司马相如", "sima xiangru"),
        ("尉迟恭", "", "尉迟恭", "yuchi gong"),
        ("万俟卨", "", "万俟卨", "moqi xie"),
        ("吕布", "", "吕布", "lv bu"),
        ("区小红", "", "区小红", "ou xiaohong"),
        ("任盈盈", "", "任盈盈", "ren yingying"),
        ("王 小明", "", "王小明", "wang xiaoming"),
        ("王小明 Wang Xiaoming", "", "王小明", "wang xiaoming"),
        ("迪丽热巴·迪力木拉提", "", "迪丽热巴迪力木拉提", " dilireba dilimulati".replace(" ", "")),
        ("Jan Novák", "", "", ""),
        ("山田はなこ", "", "山田", "shan tian"),
        ("", "单", "单伟", "shan wei"),
        ("伟单", "单", "单伟", "shan wei"),  # given name first, told by the parts
    ],
)
def test_han_names(name, family, han, pinyin):
    found = names.standard(name, family, "伟" if family else "")
    assert (found.han_simplified_name, found.pinyin_name) == (han, pinyin)


def test_an_organisation_has_no_surname():
    assert names.standard("单县银行", "", "", organisation=True).pinyin_name == "dan xian yin hang"


def test_spellings_of_the_umlaut():
    assert han_names.spellings("lv bu") == ("lv bu", "lyu bu", "lu bu")
    assert han_names.spellings("wang lve")[1] == "wang lue"
    assert han_names.spellings("wang wei") == ("wang wei",)


@pytest.mark.parametrize(
    ("party", "expected"),
    [
        ({"birth_date": "1991-02-30"}, [("birth_date", "DATE_IMPOSSIBLE")]),
        ({"birth_date": "2027-01-01"}, [("birth_date", "DATE_IN_FUTURE")]),
        ({"birth_date": "1890-01-02"}, [("birth_date", "AGE_IMPLAUSIBLE")]),
        ({"birth_date": "1890-01-02", "party_kind": 2}, []),
        ({"time_zone": "Mars/Base"}, [("time_zone", "TIME_ZONE_UNKNOWN")]),
        ({"language_code": "xq-CN"}, [("language_code", "LANGUAGE_UNKNOWN")]),
        ({"party_name": {"full_name": "12 34"}}, [("party_name.full_name", "NOT_A_NAME")]),
        ({"phones": [{"number": "12"}]}, [("phones[0].number", "FORM_WRONG")]),
        ({"phones": [{"number": "13800138000"}]}, [("phones[0].number", "PLACEHOLDER")]),
        ({"emails": [{"address": "none"}]}, [("emails[0].address", "FORM_WRONG")]),
        ({"postal_address": {"postal_code": "1008", "country_code": "CN"}}, [("postal_address.postal_code", "FORM_WRONG")]),
        ({"postal_address": {"country_code": "XX"}}, [("postal_address.country_code", "COUNTRY_UNKNOWN")]),
        (
            {"additional_addresses": [{"administrative_area": "Atlantis", "country_code": "CN"}]},
            [("additional_addresses[0].administrative_area", "ADMINISTRATIVE_AREA_UNKNOWN")],
        ),
        ({"employment": {"occupation_code": "2411", "industry_code": "k"}}, []),
        ({"employment": {"occupation_code": "2499", "industry_code": "04"}}, [
            ("employment.occupation_code", "CODE_UNKNOWN"), ("employment.industry_code", "CODE_UNKNOWN")]),
        ({"demographics": {"marital_status_code": "married", "education_level_code": "6", "nationality_country_code": "cn"}}, []),
        ({"demographics": {"nationality_country_code": "XX"}}, [("demographics.nationality_country_code", "COUNTRY_UNKNOWN")]),
        ({"roles": [{"kind": 2, "begin_date": "2020-01-02", "end_date": "2020-01-01"}]}, [
            ("roles[0].end_date", "END_BEFORE_BEGIN")]),
        ({"identifiers": [{"scheme": 2, "country_code": "CN", "value": "E12348765", "valid_until_date": "2026-11-23"}]}, [
            ("identifiers[0].valid_until_date", "EXPIRED")]),
        ({"identifiers": [{"scheme": 2, "country_code": "QQ", "value": "E12348765"}]}, [
            ("identifiers[0].country_code", "COUNTRY_UNKNOWN")]),
        (
            {"birth_date": "1991-01-02", "sex": 1, "identifiers": [
                {"scheme": 1, "country_code": "CN", "value": card("36042619910101007")}]},
            [("birth_date", "BIRTH_DATE_DIFFERS"), ("sex", "SEX_DIFFERS")],
        ),
        ({"birth_date": "1971-03-19", "sex": 2, "identifiers": [
            {"scheme": 1, "country_code": "CZ", "value": "710319/2745"}]}, []),
        ({"birth_date": "1971-03-18", "identifiers": [{"scheme": 1, "country_code": "CZ", "value": "710319/2745"}]}, [
            ("birth_date", "BIRTH_DATE_DIFFERS")]),
        # What an invalid number says of its holder counts for nothing.
        ({"birth_date": "1991-01-02", "identifiers": [{"scheme": 1, "country_code": "CN", "value": "360426199101010072"}]}, [
            ("identifiers[0].value", "CHECK_DIGIT_WRONG")]),
        ({"verifications": [{"attribute": 1, "method": 1, "verify_date": "2027-01-01"}]}, [
            ("verifications[0].verify_date", "DATE_IN_FUTURE")]),
    ],
)  # fmt: skip
def test_flags(party, expected):
    assert flags(party) == expected


def test_what_is_brought_into_one_form():
    standard = standardised(
        canonical(
            Party(
                party_kind=1,  # type: ignore[arg-type]
                language_code="ZH-hans-cn",
                phones=[{"number": "139 1234 5670"}, {"number": "021-62345678"}],  # type: ignore[list-item]
                postal_address={"administrative_area": "Guangdong Province", "postal_code": "510 000", "country_code": "CN"},  # type: ignore[arg-type]
                additional_addresses=[{"postal_code": "sw1a1aa", "country_code": "UK"}],  # type: ignore[list-item]
                # Only the platform sets these.
                party_name={"full_name": "Jan", "pinyin_name": "x", "han_simplified_name": "x"},  # type: ignore[arg-type]
                value_flags=[{"field": "x", "reason": "X"}],  # type: ignore[list-item]
            )
        ),
        "CN",
        TODAY,
    )
    assert (standard.language_code, standard.postal_address.administrative_area) == ("zh-Hans-CN", "广东省")
    assert [(phone.number, phone.kind) for phone in standard.phones] == [("+8613912345670", 1), ("+862162345678", 0)]
    assert standard.postal_address.postal_code == "510000"
    assert (standard.additional_addresses[0].postal_code, standard.additional_addresses[0].country_code) == ("SW1A 1AA", "GB")
    assert not standard.value_flags
    assert not standard.party_name.pinyin_name
    assert not standard.party_name.han_simplified_name


def test_provinces_by_any_of_their_names():
    from customer.domain.addresses import administrative_area

    for written in ("广东省", "广东", "廣東省", "Guangdong", "44", "guang dong sheng"):
        assert administrative_area(written, "CN") == ("广东省", "")
    assert administrative_area("陕西", "CN") != administrative_area("山西", "CN")
    assert administrative_area("Bayern", "DE") == ("Bayern", "")


def test_code_tables_are_whole():
    sizes = {"countries": 249, "education_levels": 10, "industries": 21 + 88, "occupations": 10 + 43 + 130 + 436}
    assert {name: len(code_tables.table(name)) for name in sizes} == sizes
    assert code_tables.is_currency("CNY")
    assert not code_tables.is_currency("XXY")
    assert code_tables.is_industry("6419")
    assert not code_tables.is_industry("0419")


@given(st.emails())
def test_the_short_way_of_an_email_answers_as_the_long_one(address):
    from email_validator import EmailNotValidError, validate_email

    try:
        expected = (validate_email(address, check_deliverability=False).normalized, True)
    except EmailNotValidError:
        expected = (address.strip(), False)
    assert contact_points.email(address) == expected


_texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20) | st.sampled_from(  # type: ignore[arg-type]
    [
        "王小明",
        "歐陽娜娜",
        "Jan Novák",
        "张三·李四",
        "2026-02-30",
        "110101199003072316",
        "13912345678",
        "CN",
        "a@b.cz",
        "広東",
        "𠀀𠀁",
    ]
)
_parties = st.builds(
    lambda **fields: Party(party_kind=1, **fields),  # type: ignore[arg-type]
    party_name=st.fixed_dictionaries(dict.fromkeys(("full_name", "given_name", "family_name", "latin_name"), _texts)),
    birth_date=_texts,
    sex=st.integers(0, 3),
    identifiers=st.lists(
        st.fixed_dictionaries(
            {
                "scheme": st.integers(1, 7),
                "country_code": st.sampled_from(["CN", "CZ", "HK", "TW", "SG", "US", "UK", "QQ"]),
                "value": _texts,
                "valid_until_date": _texts,
            }
        ),
        max_size=3,
    ),
    phones=st.lists(st.fixed_dictionaries({"number": _texts}), max_size=2),
    emails=st.lists(st.fixed_dictionaries({"address": _texts}), max_size=2),
    postal_address=st.fixed_dictionaries({"administrative_area": _texts, "postal_code": _texts, "country_code": _texts}),
    employment=st.fixed_dictionaries({"occupation_code": _texts, "industry_code": _texts}),
    roles=st.lists(st.fixed_dictionaries({"kind": st.integers(1, 8), "begin_date": _texts, "end_date": _texts}), max_size=2),
    language_code=st.sampled_from(["zh-CN", "EN", "xx", "de-1996", ""]),
    time_zone=_texts,
)


@settings(max_examples=300, deadline=None)
@given(_parties)
def test_standardising_never_raises_never_drops_and_changes_nothing_twice(party):
    once = standardised(canonical(party), "CN", TODAY)
    assert standardised(once, "CN", TODAY) == once
    assert canonical(canonical(party)) == canonical(party)
    assert [len(once.identifiers), len(once.phones), len(once.emails), len(once.roles)] == [
        len(party.identifiers), len(party.phones), len(party.emails), len(party.roles)]  # fmt: skip
    for stated, standard in zip(canonical(party).identifiers, once.identifiers, strict=True):
        assert bool(stated.value) == bool(standard.value)
    assert set(reasons_by_value(once)) == {flag.field.partition(".")[0] for flag in once.value_flags}
    for flag in once.value_flags:
        assert flag.description
        assert flag.reason.isupper()
