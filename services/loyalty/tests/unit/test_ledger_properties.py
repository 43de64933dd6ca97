"""Whatever is asked for in whatever order, the books hold."""

import uuid
from datetime import timedelta
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from loyalty.domain.ledger.engine import decide
from loyalty.domain.ledger.types import KeyReused, Operation, Outcome, Unknown

ANA, BOB, CHILD = (uuid.UUID(int=n) for n in (1, 2, 3))
BANK_SHOP, BANK_AIR, AIR_BANK = (uuid.UUID(int=n) for n in (11, 12, 13))
DAY = timedelta(days=1)

POINTS = st.integers(1, 120)
PART = st.none() | st.integers(1, 150)
MEMBER = st.sampled_from([ANA, BOB, CHILD])
ISSUED = {"bank": "bank", "miles": "air", "old": "bank"}
PROGRAM = st.sampled_from(sorted(ISSUED))
PICKED = st.integers(0, 30)
"""Which of the earlier operations: counted back from the last of its kind."""
STEP = st.one_of(
    st.tuples(st.just("earn"), MEMBER, PROGRAM, POINTS, st.sampled_from([None, True, False])),
    st.tuples(st.just("earn"), MEMBER, PROGRAM, POINTS, st.just(False)),
    st.tuples(st.just("earn at the cafe"), MEMBER, POINTS),
    st.tuples(st.just("redeem"), MEMBER, PROGRAM, POINTS, st.sampled_from(["bank", "air", "shop", "kiosk"])),
    st.tuples(st.just("hold"), MEMBER, PROGRAM, POINTS, st.sampled_from(["bank", "air", "shop"])),
    st.tuples(st.just("quote"), MEMBER, POINTS, POINTS, st.booleans()),
    st.tuples(st.just("capture"), PICKED, PART, st.booleans()),
    st.tuples(st.just("void"), PICKED),
    st.tuples(st.just("expire hold"), PICKED),
    st.tuples(st.just("refund"), PICKED, PART),
    st.tuples(st.just("clawback"), PICKED, PART),
    st.tuples(st.just("confirm"), PICKED),
    st.tuples(st.just("cancel"), PICKED),
    st.tuples(st.just("reverse"), PICKED),
    st.tuples(st.just("adjust"), MEMBER, PROGRAM, st.integers(-60, 60).filter(bool)),
    st.tuples(st.just("transfer"), MEMBER, MEMBER, PROGRAM, POINTS),
    st.tuples(st.just("exchange"), MEMBER, PROGRAM, PROGRAM, POINTS),
    st.tuples(st.just("sweep"), PROGRAM),
    st.tuples(st.just("end"), MEMBER, PROGRAM),
    st.tuples(st.just("later"), st.integers(0, 60)),
)


class Steps:
    """Turns steps into commands: those about earlier operations take one that there is."""

    def __init__(self, world) -> None:
        self.world = world

    def take(self, name, *given):
        return getattr(self, name.replace(" ", "_"))(*given)

    def _earlier(self, picked, *kinds):
        found = [operation.operation_id for operation in self.world.books.posted if not kinds or operation.kind in kinds]
        return found[-1 - picked % len(found)] if found else uuid.UUID(int=0)

    def earn(self, member, program_id, points, pending):
        return self.world.earn(points, member, program_id, pending=pending, institution_id=ISSUED[program_id])

    def earn_at_the_cafe(self, member, points):
        return self.world.earn(points, member, "bank", institution_id="cafe")

    def redeem(self, member, program_id, points, place):
        return self.world.redeem(points, member, program_id, institution_id=place)

    def hold(self, member, program_id, points, place):
        return self.world.hold(points, member, program_id, place, expire_time=self.world.now + 30 * DAY)

    def quote(self, member, miles, value, held):
        needed = -(-value * 10 // 3)
        lines = [("miles", miles, miles, 1, 1, None, None), ("bank", needed, value, 3, 10, BANK_AIR, 1)]
        quote_id = self.world.quote(lines, ("miles",), member)
        if held:
            return self.world.do("Hold", member, quote_id=quote_id, expire_time=self.world.now + 30 * DAY)
        return self.world.do("Redeem", member, quote_id=quote_id)

    def capture(self, picked, amount, final):
        return self.world.do("Capture", None, hold_id=self._earlier(picked, "HOLD"), amount_units=amount, final=final)

    def void(self, picked):
        return self.world.do("Void", None, hold_id=self._earlier(picked, "HOLD"))

    def expire_hold(self, picked):
        return self.world.do("ExpireHold", None, hold_id=self._earlier(picked, "HOLD"))

    def refund(self, picked, amount):
        return self.world.do(
            "Refund", None, spending_id=self._earlier(picked, "CAPTURE", "REDEEM", "REFUND"), amount_units=amount
        )

    def clawback(self, picked, points):
        return self.world.do("Clawback", None, earning_id=self._earlier(picked, "EARN"), amount_points=points)

    def confirm(self, picked):
        return self.world.do("Confirm", None, earning_id=self._earlier(picked, "EARN"))

    def cancel(self, picked):
        return self.world.do("Cancel", None, earning_id=self._earlier(picked, "EARN"))

    def reverse(self, picked):
        return self.world.do("Reverse", None, reversed_id=self._earlier(picked))

    def adjust(self, member, program_id, change):
        return self.world.do("Adjust", member, program_id=program_id, change_points=change, institution_id=ISSUED[program_id])

    def transfer(self, member, other, program_id, points):
        return self.world.do("Transfer", member, to_account_id=other, program_id=program_id, amount_points=points)

    def exchange(self, member, program_id, into, points):
        return self.world.do("Exchange", member, program_id=program_id, to_program_id=into, amount_points=points)

    def sweep(self, program_id):
        return self.world.do("ExpireLots", None, program_id=program_id, lot_ids=tuple(self.world.books.lots))

    def end(self, member, program_id):
        return self.world.do("ExpireLots", member, program_id=program_id)

    def later(self, days):
        self.world.later(days=days)


def state(books):
    lots = {lot.lot_id: (lot.remaining_points, lot.reserved_points, lot.state) for lot in books.lots.values()}
    holds = {hold.hold_id: (hold.state, hold.captured_units) for hold in books.holds.values()}
    return dict(books.balances), lots, holds, dict(books.exposures), len(books.items), len(books.new_uses), len(books.returns)


@settings(max_examples=120, deadline=None)
@given(steps=st.lists(STEP, min_size=8, max_size=40))
def test_the_books_hold(new_world, steps):
    world = new_world()
    taking = Steps(world)
    for step in steps:
        before = state(world.books)
        result = taking.take(*step)
        if isinstance(result, Unknown) or (isinstance(result, Operation) and result.outcome is not Outcome.POSTED):
            assert state(world.books) == before, step
        assert world.problems() == [], step
    posted = [operation for operation in world.books.posted if operation.outcome is Outcome.POSTED]
    back: dict[uuid.UUID, int] = {}
    for operation in posted:
        if operation.kind in {"REFUND", "CLAWBACK", "CAPTURE", "CANCEL"} and operation.target_id is not None:
            back[operation.target_id] = back.get(operation.target_id, 0) + operation.amount_points
    for operation_id, amount in back.items():
        assert amount <= world.books.operations[operation_id].amount_points


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, min_size=4, max_size=25), repeats=st.lists(st.integers(0, 24), max_size=8))
def test_what_comes_again_changes_nothing(new_world, steps, repeats):
    world = new_world()
    taking = Steps(world)
    asked, original = [], world.command

    def remembered(*arguments, **fields):
        asked.append(original(*arguments, **fields))
        return asked[-1]

    world.command = remembered
    for step in steps:
        taking.take(*step)
    kept = {operation.key for operation in world.books.posted}
    again = [asked[number] for number in repeats if number < len(asked) and asked[number].key in kept]
    before = state(world.books)
    answers = decide(again, world.books)
    assert [answer.operation_id for answer in answers] == [command.operation_id for command in again]
    for command in again:
        command.content_hash = b"other"
    assert all(isinstance(answer, KeyReused) for answer in decide(again, world.books))
    assert state(world.books) == before


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.integers(1, 50_000), min_size=1, max_size=6))
def test_captures_in_any_parts_take_what_one_would(new_world, parts):
    """Line by line the least points that are worth what was captured, and in the end exactly what was held."""
    world = new_world()
    value = sum(parts)
    needed = -(-value * 10 // 3)
    world.earn(needed)
    quote_id = world.quote([("bank", needed, value, 3, 10, BANK_AIR, 1)], ("miles",))
    hold_id = world.do("Hold", quote_id=quote_id, expire_time=world.now + DAY).operation_id
    captured = 0
    for part in parts:
        captured += part
        assert world.do("Capture", hold_id=hold_id, amount_units=part).outcome == "POSTED"
        taken = world.balance("air", "PARTNER")
        assert taken == -(-captured * needed // value)
        assert taken * Fraction(3, 10) >= captured
        assert world.balance("air", "ROUNDING", "miles") == taken * 3 // 10 - captured
    assert (world.balance("air", "PARTNER"), world.problems()) == (needed, [])


@settings(max_examples=200, deadline=None)
@given(points=st.integers(1, 10**9))
def test_no_round_trip_gains(new_world, points):
    """There and back, 3/10 × 33/10 = 99/100."""
    world = new_world()
    world.earn(points)
    there = world.do("Exchange", program_id="bank", amount_points=points, to_program_id="miles")
    if there.outcome is Outcome.POSTED:
        world.do("Exchange", program_id="miles", amount_points=there.result["received_points"], to_program_id="bank")
    assert world.balance(ANA) + world.balance("bank", "ROUNDING") <= points
    assert world.problems() == []
