import pytest

from campaign.domain import audience
from campaign.domain.audience import CODES, Condition, Field, Operator, expression, from_json, to_json, violations
from concord.campaign.v1.campaign_service_pb2 import AudienceField, AudienceOperator
from concord.customer.v1.attribute_pb2 import Sex
from concord.rating.v1.rating_service_pb2 import CustomerLevel, LifecycleStage


def wrong(field, operator, **values):
    return violations(((Condition(field, operator, **values),),), "northbank")


@pytest.mark.parametrize(("ours", "prefix", "theirs"), [
    (Field, "AUDIENCE_FIELD_", AudienceField),
    (Operator, "AUDIENCE_OPERATOR_", AudienceOperator),
])  # fmt: skip
def test_fields_and_operators_are_those_of_the_contract(ours, prefix, theirs):
    assert {f"{prefix}{member.name}": member.value for member in ours} == {k: v for k, v in theirs.items() if v}


@pytest.mark.parametrize(("field", "theirs"), [
    (Field.SEX, Sex), (Field.CUSTOMER_LEVEL, CustomerLevel), (Field.LIFECYCLE_STAGE, LifecycleStage),
])  # fmt: skip
def test_codes_are_those_of_the_contract(field, theirs):
    assert set(CODES[field]) == {name for name, number in theirs.items() if number}


@pytest.mark.parametrize(("condition", "paths"), [
    (Condition(Field.BIRTH_YEAR, Operator.ONE_OF, texts=("a",)), ["operator"]),
    (Condition(Field.SEX, Operator.AT_LEAST, number=1), ["operator"]),
    (Condition(Field.BIRTH_YEAR, Operator.AT_LEAST, number=1990, texts=("a",)), ["texts"]),
    (Condition(Field.SEX, Operator.ONE_OF), ["texts"]),
    (Condition(Field.SEX, Operator.ONE_OF, texts=("SEX_FEMALE", "F")), ["texts[1]"]),
    (Condition(Field.CUSTOMER_LEVEL, Operator.NONE_OF, texts=("CUSTOMER_LEVEL_UNSPECIFIED",)), ["texts[0]"]),
    (Condition(Field.LIFECYCLE_STAGE, Operator.ONE_OF, texts=("GROWTH",)), ["texts[0]"]),
    (Condition(Field.COUNTRY, Operator.ONE_OF, texts=("cz", "CZ", "CZE")), ["texts[0]", "texts[2]"]),
    (Condition(Field.LANGUAGE, Operator.ONE_OF, texts=("a\x00b",)), ["texts[0]"]),
    (Condition(Field.SEX, Operator.ONE_OF, number=1, texts=("SEX_MALE",)), ["number"]),
    (Condition(Field.SEX, Operator.IS_KNOWN, number=1, texts=("x",)), ["number", "texts"]),
    (Condition(Field.SEX, Operator.IS_KNOWN, field_key="alliance"), ["field_key"]),
    (Condition(Field.POINTS_BALANCE, Operator.AT_LEAST, number=1), ["field_key"]),
    (Condition(Field.CREDIT, Operator.AT_LEAST, field_key="otherbank", number=1), ["field_key"]),
])  # fmt: skip
def test_wrong_conditions_are_named(condition, paths):
    found = violations(
        ((Condition(Field.SEX, Operator.IS_KNOWN),), (Condition(Field.SEX, Operator.IS_KNOWN), condition)), "northbank"
    )
    assert [path for path, _ in found] == [f"all_of[1].any_of[1].{path}" for path in paths]


def test_right_conditions_are_accepted():
    assert wrong(Field.POINTS_BALANCE, Operator.LESS_THAN, field_key="shop", number=-2.5) == []
    assert wrong(Field.CREDIT, Operator.AT_LEAST, field_key="northbank", number=1) == []
    assert wrong(Field.CUSTOMER_LEVEL, Operator.ONE_OF, field_key="alliance", texts=("CUSTOMER_LEVEL_GOLD",)) == []
    assert wrong(Field.ADMINISTRATIVE_AREA, Operator.NONE_OF, texts=('南 Moravia\u00a0"',)) == []
    assert violations((), "northbank") == []


def test_an_empty_group_and_a_rule_that_is_too_long_are_refused():
    assert violations(((),), "northbank") == [("all_of[0].any_of", "must hold a condition")]
    long = Condition(Field.LANGUAGE, Operator.ONE_OF, texts=("x" * 100,) * 100)
    assert violations(((long,) * 9,), "northbank") == []
    assert [path for path, _ in violations(((long,) * 10,), "northbank")] == ["all_of"]


def test_the_expression_reads_as_the_rule():
    rule = (
        (Condition(Field.BIRTH_YEAR, Operator.AT_LEAST, number=1960.0),),
        (
            Condition(Field.CUSTOMER_LEVEL, Operator.ONE_OF, texts=("CUSTOMER_LEVEL_GOLD", "CUSTOMER_LEVEL_PLATINUM")),
            Condition(Field.POINTS_BALANCE, Operator.IS_UNKNOWN, field_key="shop"),
        ),
    )
    assert expression(rule) == (
        '(("birth_year" in number && number["birth_year"] >= 1960.0))'
        ' && (("customer_level:alliance" in text && text["customer_level:alliance"] in ["CUSTOMER_LEVEL_GOLD",'
        ' "CUSTOMER_LEVEL_PLATINUM"]) || !("points_balance:shop" in number))'
    )
    assert expression(()) == "true"


def test_a_rule_is_stored_without_loss():
    rule = (
        (Condition(Field.CREDIT, Operator.LESS_THAN, "northbank", 0.1 + 0.2),),
        (Condition(Field.LANGUAGE, Operator.ONE_OF, texts=('"\\南', "cs")),),
    )
    assert from_json(to_json(rule)) == rule
    assert from_json(to_json(())) == ()
    assert audience.profile_key(Field.CREDIT) == audience.profile_key(Field.CREDIT, "alliance") == "credit:alliance"
