import json
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concord.customer.v1.party_pb2 import Party
from customer.domain.blocking import blocking_keys
from customer.domain.comparisons import COMPARISONS, AddressLevel, DateLevel, NameLevel, NumberLevel, levels
from customer.domain.features import Features
from customer.domain.match_jobs import doubt
from customer.domain.match_model import BITS_MAX, BITS_MIN, Model, ModelInvalid, default_model, prior_bits
from customer.domain.matching import RECORDS_OF_ONE_SOURCE_MAX, Explanation, Zone, decide, explain
from customer.training.command import evidence

MODEL = default_model()
POPULATION = 50_000


def person(name="", born="", *, source="core", **fields) -> Features:
    party = Party(party_kind=fields.pop("kind", 1), birth_date=born, sex=fields.pop("sex", 0))
    if name:
        party.party_name.full_name = name
    for field in ("given_name", "family_name", "latin_name"):
        if value := fields.pop(field, None):
            setattr(party.party_name, field, value)
    for field, scheme in (("card", 1), ("passport", 2)):
        if value := fields.pop(field, None):
            party.identifiers.add(scheme=scheme, country_code="CN", value=value)
    if value := fields.pop("number", None):  # of a country whose numbers have no check digit
        party.identifiers.add(scheme=1, country_code="AU", value=value)
    if value := fields.pop("phone", None):
        party.phones.add(number=value)
    if value := fields.pop("email", None):
        party.emails.add(address=value)
    if value := fields.pop("street", None):
        party.postal_address.address_lines.append(value)
    party.postal_address.postal_code = fields.pop("postcode", "")
    party.postal_address.locality = fields.pop("city", "")
    assert not fields
    return evidence(party, "CN", source)


def judged(one: Features, *others: Features, never=()):
    known = {UUID(int=place): {UUID(int=100 + place): other} for place, other in enumerate(others, 1)}
    return decide(MODEL, one, known, population=POPULATION, never_link=never)


def level(attribute: str, one: Features, other: Features):
    return levels(one, other).get(attribute)


WANG = person(
    "王小明", "1985-03-12", card="110105198503120418", phone="13912340011", street="建国路88号3单元501室", city="北京市"
)


# ---- what is evidence


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("phone", "13800138000"), ("phone", "13888888888"), ("email", "test@qq.com"), ("email", "info@harbour.cn"),
        ("email", "ming@example.com"), ("born", "1900-01-01"), ("number", "000000"), ("number", "123456789"),
        ("name", "测试"), ("name", "Unknown"),
    ],
)  # fmt: skip
def test_a_placeholder_is_no_evidence_and_no_key(field, value):
    assert blocking_keys(person(**{field: value})) == []
    assert replace(person(**{field: value}), source="") == replace(person(), source="")


def test_only_a_check_digit_makes_a_document_checked():
    [card] = person(card="110105198503120418").documents
    [number] = person(number="4440480").documents
    [passport] = person(passport="E83412065").documents
    assert (card.valid, card.checked) == (True, True)
    assert (number.valid, number.checked) == (True, False)
    assert not passport.checked


# ---- levels


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"name": "王小明"}, {"name": "王小明"}, NameLevel.SAME_HAN),
        ({"name": "陳大文"}, {"name": "陈大文"}, NameLevel.SAME_HAN),
        ({"name": "王小明"}, {"latin_name": "Wang Xiaoming"}, NameLevel.SAME),
        ({"name": "王小明"}, {"latin_name": "Xiao Ming Wang"}, NameLevel.SAME),
        ({"name": "单伟"}, {"latin_name": "Shan Wei"}, NameLevel.SAME),
        ({"name": "吕芳"}, {"latin_name": "Lyu Fang"}, NameLevel.SAME),
        ({"name": "吴静芳"}, {"name": "吴靖芳"}, NameLevel.CLOSE),
        ({"name": "王伟民"}, {"name": "王伟国"}, NameLevel.FAMILY_SAME),
        ({"given_name": "Jan", "family_name": "Novák"}, {"name": "NOVAK Jan"}, NameLevel.SAME),
        ({"given_name": "Jan", "family_name": "Novák"}, {"given_name": "Novak", "family_name": "Jan"}, NameLevel.SWAPPED),
        (
            {"given_name": "Katherine", "family_name": "Foster"},
            {"given_name": "Kathrine", "family_name": "Foster"},
            NameLevel.CLOSE,
        ),
        ({"given_name": "K", "family_name": "Foster"}, {"given_name": "Kathrine", "family_name": "Foster"}, NameLevel.CLOSE),
        ({"given_name": "Emma", "family_name": "Foster"}, {"given_name": "Emma", "family_name": "Brown"}, NameLevel.GIVEN_SAME),
        ({"given_name": "Emma", "family_name": "Foster"}, {"given_name": "Paul", "family_name": "Foster"}, NameLevel.FAMILY_SAME),
        ({"given_name": "Emma", "family_name": "Foster"}, {"family_name": "Foster"}, NameLevel.ONE_PART_ONLY),
        ({"name": "Emma Foster"}, {"name": "王小明"}, NameLevel.DIFFERENT),
    ],
)
def test_levels_of_names(one, other, expected):
    assert level("name", person(**one), person(**other)) is expected


def test_levels_of_dates_numbers_and_addresses():
    assert level("birth_date", person(born="1985-03-12"), person(born="1985-12-03")) is DateLevel.ONE_EDIT
    assert level("birth_date", person(born="1985-03-12"), person(born="1985-03-21")) is DateLevel.ONE_EDIT
    assert level("birth_date", person(born="1985-03-12"), person(born="1958-07-01")) is DateLevel.DIFFERENT
    assert level("birth_date", person(born="1985-03-12"), person()) is None
    assert level("identifier", person(number="4086030"), person(number="4086300")) is NumberLevel.ONE_EDIT
    assert level("identifier", person(passport="E83412065"), person(passport="E51122334")) is None  # the next passport
    home = {"street": "12 Pinkerton Circuit", "postcode": "4560", "city": "Richlands"}
    assert level("address", person(**home), person(**home | {"postcode": "4650"})) is AddressLevel.WHOLE
    assert level("address", person(**home), person(postcode="4560", city="Richlands")) is AddressLevel.AREA
    assert level("address", person(**home), person(street="8 Stanley Street", postcode="4560")) is AddressLevel.AREA_ONLY


# ---- hard rules and guards


def test_the_same_valid_document_links_when_name_or_birth_date_fit():
    assert judged(person("王小明", card="110105198503120418"), WANG).reason == "IDENTITY_DOCUMENT"
    assert judged(person("李梅", "1985-03-12", card="110105198503120418"), WANG).zone is Zone.LINK  # a changed name
    other = judged(person("李梅", "1960-07-01", card="110105198503120418"), WANG)
    assert (other.zone, other.reason) == (Zone.STEWARD, "DOCUMENT_OF_ANOTHER")


def test_two_valid_documents_of_one_scheme_never_link():
    twin_card = replace(WANG, documents=person(card="110105198503120434").documents)
    assert all(document.checked for document in twin_card.documents)
    found = judged(twin_card, WANG)
    assert (found.zone, found.reason) == (Zone.STEWARD, "DIFFERENT_DOCUMENT")


def test_different_kinds_are_never_one():
    assert judged(replace(WANG, party_kind=2), WANG).zone is Zone.NEW


def test_twins_and_household_members_and_father_and_son_are_not_linked():
    home = {"phone": "13912340011", "street": "建国路88号3单元501室", "city": "北京市", "postcode": "100022"}
    twin = judged(person("王小红", "1985-03-12", **home), person("王小明", "1985-03-12", **home))
    assert (twin.zone, twin.reason) == (Zone.STEWARD, "GIVEN_NAME_DIFFERS")
    assert judged(person("王小红", "1987-10-02", **home), person("王小明", "1985-03-12", **home)).zone is not Zone.LINK
    son = judged(person("Jan Novák", "1985-03-12", **home), person("Jan Novák", "1957-11-30", **home))
    assert (son.zone, son.reason) == (Zone.STEWARD, "BIRTH_DATE_DIFFERS")
    rhyming = judged(person("Daniel Weber", "1985-03-12", **home), person("Daniele Weber", "1985-03-12", **home))
    assert rhyming.zone is Zone.STEWARD or not MODEL.is_known("given", "daniele")
    # Of whole names the part they share tells: a common family name is a sibling's, a common given name is a bride's.
    assert judged(person("Paul Egan", "1985-03-12", **home), person("Emma Egan", "1985-03-12", **home)).zone is Zone.STEWARD
    assert judged(person("Wang Fang", "1985-03-12", **home), person("Wang Wei", "1985-03-12", **home)).zone is Zone.STEWARD
    assert judged(person("Emma Foster", "1985-03-12", **home), person("Emma Brown", "1985-03-12", **home)).zone is Zone.LINK
    # Numbers that follow one another are given to twins; a slip elsewhere in the number is a slip.
    emma, paul = person("Emma Egan", "1985-03-12", number="6564365", **home), person("Paul Egan", "1985-03-12", **home)
    assert judged(emma, replace(paul, documents=person(number="6564366").documents)).zone is Zone.STEWARD
    assert judged(emma, replace(paul, documents=person(number="6594365").documents)).zone is Zone.LINK


def test_a_record_that_is_silent_does_not_bring_father_and_son_together():
    home = {"phone": "13912340011", "street": "建国路88号3单元501室", "city": "北京市"}
    father, silent = person("Jan Novák", "1957-11-30", **home), person("Jan Novák", **home)
    members = {UUID(int=11): father, UUID(int=12): silent}
    son = person("Jan Novák", "1985-03-12", **home)
    found = decide(MODEL, son, {UUID(int=1): members}, population=POPULATION)
    assert (found.zone, found.reason, found.record_id) == (Zone.STEWARD, "BIRTH_DATE_DIFFERS", UUID(int=12))


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({"name": "Person 0", "phone": "+420601000001"}, {"name": "Person 1", "phone": "+420601000002"}, "HOUSEHOLD_ONLY"),
        ({"name": "谌碧霄", "city": "北京市"}, {"name": "谌碧霄", "city": "北京市"}, "ONE_ATTRIBUTE_ONLY"),
        ({"name": "谌碧霄", "street": "建国路88号"}, {"name": "谌碧霄", "street": "建国路88号"}, "NOTHING_EXACT"),
        ({"name": "谌碧霄", "phone": "13912340011"}, {"name": "谌碧霄", "phone": "13912340012"}, "ONE_ATTRIBUTE_ONLY"),
        ({"name": "谌碧霄", "number": "6564365"}, {"name": "谌碧霄", "number": "6564366"}, "ONE_ATTRIBUTE_ONLY"),
        (
            {"family_name": "Gigney", "phone": "13912340011", "born": "1985-03-12"},
            {"given_name": "Aurora", "family_name": "Gigney", "phone": "13912340011", "born": "1985-03-12"},
            "HOUSEHOLD_ONLY",
        ),
        (
            {"given_name": "Jan", "family_name": "Gigney", "phone": "13912340011"},
            {"given_name": "Jana", "family_name": "Gigney", "phone": "13912340011"},
            "GIVEN_NAME_DIFFERS",
        ),
        ({"name": "谌碧霄", "phone": "13912340011"}, {"name": "谌碧霄", "phone": "13912340011"}, ""),
        ({"name": "谌碧霄", "born": "1985-03-12"}, {"name": "谌碧霄", "born": "1985-03-12"}, ""),
        (
            {"name": "谌碧霄", "born": "1985-03-12", "phone": "13912340011"},
            {"name": "谌碧霄", "born": "1985-03-21", "phone": "13912340012"},
            "",
        ),
    ],
)
def test_what_weighs_enough_is_linked_only_if_it_is_of_one_person(one, other, reason):
    found = judged(person(**one), person(**other))
    assert found.weight_bits >= MODEL.link_bits or reason, found
    assert (found.zone, found.reason) == ((Zone.STEWARD, reason) if reason else (Zone.LINK, "WEIGHT"))


def test_one_of_several_records_may_say_enough():
    rare = person("谌碧霄", "1985-03-12")
    members = {UUID(int=11): person("谌碧霄", phone="13912340012"), UUID(int=12): rare}
    found = decide(MODEL, replace(rare, phones=frozenset({"13912340011"})), {UUID(int=1): members}, population=POPULATION)
    assert (found.zone, found.reason) == (Zone.LINK, "WEIGHT")


def test_a_customer_does_not_grow_without_end():
    members = {UUID(int=100 + place): WANG for place in range(RECORDS_OF_ONE_SOURCE_MAX)}
    found = decide(MODEL, WANG, {UUID(int=1): members}, population=POPULATION)
    assert (found.zone, found.reason) == (Zone.STEWARD, "CLUSTER_TOO_LARGE")
    assert decide(MODEL, replace(WANG, source="other"), {UUID(int=1): members}, population=POPULATION).zone is Zone.LINK


def test_what_a_steward_rejected_is_not_decided_again():
    assert judged(WANG, WANG).zone is Zone.LINK
    assert judged(WANG, WANG, never=[UUID(int=1)]).zone is Zone.NEW
    assert judged(WANG, WANG, never=[UUID(int=101)]).zone is Zone.NEW


def test_a_record_that_is_two_customers_bridges_them():
    without_card = person("王小明", "1985-03-12", phone="13912340011", street="建国路88号3单元501室", city="北京市")
    found = judged(WANG, person("王小明", card="110105198503120418"), without_card)
    assert (found.customer_id, found.bridges) == (UUID(int=1), (UUID(int=2),))
    apart = judged(WANG, person("王小明", card="110105198503120418"), replace(without_card, birth_date="19571130"))
    assert (apart.zone, apart.bridges) == (Zone.LINK, ())


def test_a_customer_of_strangers_is_doubted_unless_a_steward_linked_them():
    stranger = person("Emma Foster", "1990-01-20", phone="+447911123456")
    members = {UUID(int=1): WANG, UUID(int=2): WANG, UUID(int=3): stranger}
    found = doubt(MODEL, members, (), POPULATION)
    assert found is not None
    assert (found.stay, found.apart) == ((UUID(int=1), UUID(int=2)), (UUID(int=3),))
    assert doubt(MODEL, members, {UUID(int=3)}, POPULATION) is None
    assert doubt(MODEL, {UUID(int=1): WANG, UUID(int=2): WANG}, (), POPULATION) is None


# ---- properties


def text(values: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(["", *values])


people = st.builds(
    lambda name, born, number, phone, email, street, postcode, sex: person(
        name, born, number=number, phone=phone, email=email, street=street, postcode=postcode, sex=sex
    ),
    text(
        [
            "王小明",
            "王晓明",
            "王小红",
            "陈大文",
            "Wang Xiaoming",
            "Emma Foster",
            "Foster Emma",
            "Ema Foster",
            "Emma",
            "Paul Foster",
        ]
    ),
    text(["1985-03-12", "1985-12-03", "1985-03-13", "1957-11-30"]),
    text(["4086030", "4086300", "9876015"]),
    text(["13912340011", "13912340012", "13705550099"]),
    text(["ming.wang@qq.com", "ming.wang@163.com", "emma@foster.org"]),
    text(["建国路88号", "12 Pinkerton Circuit", "12 Pinkertn Circuit", "7 High Street"]),
    text(["100022", "4560"]),
    st.sampled_from([0, 1, 2]),
)


@settings(max_examples=150, deadline=None)
@given(people, people)
def test_an_explanation_is_symmetric_clamped_and_adds_up(one, other):
    forth, back = explain(MODEL, one, other, population=POPULATION), explain(MODEL, other, one, population=POPULATION)
    assert {(c.attribute, c.level, c.bits) for c in forth.contributions} == {
        (c.attribute, c.level, c.bits) for c in back.contributions
    }
    assert (forth.weight_bits, forth.rule) == (back.weight_bits, back.rule)
    assert forth.weight_bits == pytest.approx(sum(c.bits for c in forth.contributions), abs=0.01)
    assert all(BITS_MIN <= c.bits <= BITS_MAX for c in forth.contributions if c.attribute != "prior")
    assert Explanation.from_bytes(forth.to_bytes()) == forth


@settings(max_examples=200, deadline=None)
@given(people, people, st.sampled_from(["names", "birth_date", "documents", "phones", "emails", "addresses", "sex"]))
def test_agreeing_in_one_more_attribute_never_weighs_less(one, other, attribute):
    agreeing = replace(other, **{attribute: getattr(one, attribute)})
    before, after = levels(one, other), levels(one, agreeing)
    if not set(before) <= set(after):
        return  # it no longer states what contradicted
    assert explain(MODEL, one, agreeing).weight_bits >= explain(MODEL, one, other).weight_bits - 0.01


@settings(max_examples=60, deadline=None)
@given(people)
def test_keys_are_always_the_same_and_equal_records_share_all(one):
    keys = blocking_keys(one)
    assert keys == blocking_keys(replace(one, source="other"))
    assert len(keys) == len(set(keys))


@settings(max_examples=60, deadline=None)
@given(people, st.lists(people, min_size=1, max_size=4), st.permutations(range(4)))
def test_a_decision_does_not_depend_on_the_order_of_candidates(one, others, order):
    known = {UUID(int=place): {UUID(int=100 + place): other} for place, other in enumerate(others, 1)}
    shuffled = {key: known[key] for key in sorted(known, key=lambda key: order[(key.int - 1) % 4])}
    first = decide(MODEL, one, known, population=POPULATION)
    assert decide(MODEL, one, shuffled, population=POPULATION) == first


# ---- the model


def test_a_rare_name_says_more_and_a_large_population_less():
    def weight(name: str, population: int = POPULATION) -> float:
        return explain(MODEL, person(name, "1985-03-12"), person(name, "1985-03-12"), population=population).weight_bits

    assert weight("张伟") < weight("谌碧霄")
    assert weight("张伟", 10_000_000) < weight("张伟") < weight("张伟", 10_000)
    assert prior_bits(3) == prior_bits(10_000)


def test_a_model_survives_json_and_holds_no_readable_name():
    text = MODEL.to_json()
    assert Model.from_json(text).to_json() == text
    assert not any(name in text for name in ("wang", "smith", "novak", "王", "zhang"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda model: model.update(format=9), "format must be 1"),
        (lambda model: model.pop("terms"), "lacks a field"),
        (lambda model: model["comparisons"]["phone"].update(SAME=-3.0), "better level"),
        (lambda model: model["comparisons"]["sex"].update(DIFFERENT=0.5, SAME=0.9), "must not speak"),
        (lambda model: model.update(steward_bits=99), "steward_bits"),
        (lambda model: model["terms"].update(salt="5c"), "salt"),
        (lambda model: model["terms"].update(salt="not hexadecimal" * 4), "numbers and texts"),
        (lambda model: model["terms"].update(keyed=True), "key"),
        (lambda model: model["terms"].update(bits=[]), "numbers and texts"),
        (lambda model: model.update(link_bits=float("inf")), "finite"),
    ],
)
def test_a_model_that_is_wrong_says_what_is_wrong(change, problem):
    content = json.loads(MODEL.to_json())
    change(content)
    with pytest.raises(ModelInvalid, match=problem):
        Model.from_json(json.dumps(content))


def test_bits_beyond_the_limits_are_clamped():
    content = json.loads(MODEL.to_json())
    content["comparisons"]["phone"] = {"DIFFERENT": -99, "ONE_EDIT": 1, "SAME": 99}
    assert Model.from_json(json.dumps(content)).weights["phone"] == (BITS_MIN, 1.0, BITS_MAX)


def test_every_attribute_has_its_levels_in_the_model():
    assert {attribute: len(bits) for attribute, bits in MODEL.weights.items()} == {
        attribute: len(levels) for attribute, (levels, _, _) in COMPARISONS.items()
    }
