"""Faults planted into the engine, each found by the simulation and its model. Where the engine's text changes, plant anew."""

import inspect
import textwrap

import pytest
from simulator.memory import simulate

from loyalty.domain.ledger import books, corrections, earning, engine, exchange, holds, refunds, spending

BATCHES = 120
SEEDS = range(1, 5)

PLANTED = {
    "a debt is forgotten": (corrections, "clawback", "debt = missing - found", "debt = 0"),
    "debts are not paid": (earning, "_pay_debt", "if debt <= 0:", "if True:"),
    "a promise is cancelled and still owed": (earning, "cancel", "take_back(books, earning, program, points)", "pass"),
    "promised points can be spent": (earning, "earn", "points, pending, active_time", "points, False, active_time"),
    "points past their end are spent": (books.Books, "pick", "lot.expire_time > self.now", "True"),
    "own points come after the family's": (books.Books, "pick", "rank[lot.account_id]", "-rank[lot.account_id]"),
    "more is captured than was held": (holds, "capture", "or amount > left", ""),
    "a hold is captured after its end": (holds, "capture", "if held.expire_time <= books.now or", "if"),
    "captures round down": (
        holds, "capture", "-(-captured_value * line.line.points // line.line.value_units)",
        "captured_value * line.line.points // line.line.value_units",
    ),
    "a final capture releases nothing": (holds, "capture", "elif command.final", "elif False"),
    "what ended during a hold comes back": (
        holds, "_release", "ended = lot.expire_time is not None and lot.expire_time <= books.now", "ended = False",
    ),
    "released points stay exposed": (holds, "_release", "if terms is not None:", "if False:"),
    "a hold ends twice": (holds, "_end", "if held.state is not HoldState.OPEN:", "if False:"),
    "more is refunded than was spent": (refunds, "refund", "if amount > left or amount <= 0:", "if amount <= 0:"),
    "refunds begin with the first line": (refunds, "refund", "-line.position", "line.position"),
    "refunds are not owed back": (refunds, "_refund_line", "to_redeemer(books, program, place, spent, -points)", "pass"),
    "refunds go to the oldest use first": (refunds, "give_back", "-use.ordinal", "use.ordinal"),
    "ended points live on without grace": (refunds, "give_back", "lot.expire_time > books.now", "True"),
    "a cap is not kept": (spending, "_within_caps", "if not books.within_cap(agreement, points[key]):", "if False:"),
    "a quote is used twice": (spending, "_not_now", "quote.used_by_operation_id is not None", "False"),
    "a quote never ends": (spending, "_not_now", "quote.expire_time <= books.now", "False"),
    "an own redemption waits for clearing": (spending, "to_redeemer", "if program.institution_id == place:", "if False:"),
    "the residue of a conversion is lost": (spending, "convert", "-value_points - residue_points", "-value_points"),
    "exchanges round up": (
        exchange, "_conversion", "points * rate.numerator // rate.denominator", "-(-points * rate.numerator // rate.denominator)",
    ),
    "transferred points begin a new life": (exchange, "transfer", "books.now, lot.expire_time,", "books.now, None,"),
    "an operation is undone twice": (corrections, "reverse", "books.reversed_ids.add(operation.operation_id)", "pass"),
    "what is spent in part is undone": (corrections, "reverse", "and all(_whole(lot, books) for lot in issued)", ""),
    "what does not end is swept": (
        corrections, "expire_lots", "lot.expire_time is not None and lot.expire_time <= books.now", "True",
    ),
    "the same request is done twice": (engine, "decide", "if earlier is None:", "if True:"),
}  # fmt: skip


def found(batches: int = BATCHES) -> str | None:
    for seed in SEEDS:
        try:
            problems, _ = simulate(seed, batches)
        except Exception as error:
            return repr(error)
        if problems:
            return problems[0]
    return None


def test_nothing_is_found_where_nothing_is_planted():
    assert found() is None


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(monkeypatch, name):
    place, function, text, fault = PLANTED[name]
    source = textwrap.dedent(inspect.getsource(getattr(place, function)))
    assert text in source, f"{function} has another text now: plant the fault anew"
    module = inspect.getmodule(getattr(place, function))
    scope: dict[str, object] = {}
    exec(compile(source.replace(text, fault), f"<{name}>", "exec"), module.__dict__, scope)
    monkeypatch.setattr(place, function, scope[function])
    for kind, rule in engine.RULES.items():
        if rule.__name__ == function:
            monkeypatch.setitem(engine.RULES, kind, scope[function])
    for user in (corrections, earning, exchange, holds, refunds, spending):
        if getattr(user, function, None) is not None and user is not place:
            monkeypatch.setattr(user, function, scope[function])
    assert found() is not None
