import pytest

from loyalty.domain import expressions
from loyalty.domain.expressions import ExpressionInvalid, Failed, check, evaluate

FACTS = dict.fromkeys(expressions.TEXTS, "") | dict.fromkeys(expressions.INTEGERS, 7) | {"local": {"hour": 9}}


@pytest.mark.parametrize(
    ("text", "of_type", "value"),
    [
        ("amount / 2", int, 3),
        ("amount * tier_percent / 10", int, 4),
        ("amount in [1, 7] && local.hour >= 8", bool, True),
        ("category == '1.5' || currency == 'double(x)'", bool, False),
        ("amount > 5 ? amount : 0", int, 7),
    ],
)
def test_an_expression_comes_to_a_whole_number_or_a_condition(text, of_type, value):
    check(text, of_type)
    assert evaluate(text, FACTS) == value


@pytest.mark.parametrize(
    ("text", "of_type", "line", "column", "says"),
    [
        ("amount >", bool, 1, 9, "Syntax error"),
        ("amount > 1 &&\n  foo", bool, 2, 3, "undeclared reference to 'foo'"),
        ("amount * 1.5", int, 1, 10, "whole numbers"),
        ("amount > 0 && int(double(amount) * double(3)) > 1", bool, 1, 19, "whole numbers"),
        ("1e3", int, 1, 1, "whole numbers"),
        ("amount", bool, 1, 1, "must come to a condition"),
        ("amount > 1", int, 1, 1, "must come to a whole number"),
        ("local.hours > 1", bool, 1, 7, "local has year"),
        ("amount + category", int, 1, 8, "no matching overload"),
        ("1 + " * 600 + "1", int, 1, 2001, "longer than 2000"),
    ],
)
def test_what_is_wrong_is_named_with_its_position(text, of_type, line, column, says):
    with pytest.raises(ExpressionInvalid) as refused:
        check(text, of_type)
    wrong = refused.value.wrong
    assert (wrong.line, wrong.column) == (line, column)
    assert says in wrong.message
    assert str(wrong).startswith(f"line {line}, column {column}: ")


@pytest.mark.parametrize("text", ["amount / 0", "amount * 9223372036854775807", "local['day'] + 1", "int('x')"])
def test_what_comes_to_no_value_says_why(text):
    check(text, int)
    assert isinstance(evaluate(text, FACTS), Failed)


def test_a_loop_without_end_is_stopped():
    text = "amount > 0"
    for i in range(12):
        text = f"[1,2,3,4,5,6,7,8,9,0].all(x{i}, {text})"
    check(text, bool)
    assert isinstance(evaluate(text, FACTS), Failed)
