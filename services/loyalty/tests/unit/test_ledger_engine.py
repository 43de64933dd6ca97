"""The rules of the ledger, one by one."""

import uuid
from datetime import timedelta

import pytest

from loyalty.domain.ledger.books import LotsNeeded, Shelf
from loyalty.domain.ledger.engine import decide
from loyalty.domain.ledger.types import AccountKey, AccountKind, AccountStatus, KeyReused, LotState, Operation, Unknown

ANA, BOB, CHILD = (uuid.UUID(int=n) for n in (1, 2, 3))
BANK_SHOP, BANK_AIR, AIR_BANK, BANK_CAFE = (uuid.UUID(int=n) for n in (11, 12, 13, 14))
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def sound(world):
    yield
    assert world.problems() == []


def lots(world, account_id=ANA, program_id="bank"):
    found = [lot for lot in world.books.lots.values() if (lot.account_id, lot.program_id) == (account_id, program_id)]
    return sorted((lot.issued_points, lot.remaining_points) for lot in found)


def test_earned_points_are_a_lot_that_ends_by_the_policy(world):
    earned = world.earn(100)
    (lot,) = world.books.lots.values()
    assert (earned.outcome, earned.balance_points, earned.result["lot_id"]) == ("POSTED", 100, lot.lot_id)
    assert lot.lot_id == 1024
    assert lot.expire_time == world.now + 101 * DAY  # the end of the hundredth day
    assert world.balance("bank", "ISSUER") == -100


def test_the_same_key_is_one_effect_also_within_a_batch(world):
    first = world.command("Earn", key="k", program_id="bank", amount_points=10)
    again = world.command("Earn", key="k", program_id="bank", amount_points=10)
    other = world.command("Earn", key="k", program_id="bank", amount_points=11, content_hash=b"other")
    results = decide([first, again, other], world.books)
    assert results[0] is results[1]
    assert isinstance(results[0], Operation)
    assert results[2] == KeyReused(results[0])
    assert world.balance(ANA) == 10


def test_spending_takes_what_ends_first_and_own_lots_before_those_of_the_family(world):
    late = world.earn(50).result["lot_id"]
    world.later(days=-1)
    sooner = world.earn(30).result["lot_id"]
    world.later(days=1)
    childs = world.earn(20, CHILD).result["lot_id"]
    spent = world.redeem(95)
    assert spent.result["lots"] == [[sooner, 30], [late, 50], [childs, 15]]
    assert (spent.balance_points, spent.others_points) == (5, 5)
    assert world.balance("bank", "ISSUER") == -5  # the bank's own points at the bank: no partner, nothing to clear
    assert world.books.items == []


def test_a_refusal_is_an_operation_and_changes_nothing(world):
    world.earn(10)
    refused = world.redeem(11)
    assert (refused.outcome, refused.amount_points, refused.balance_points) == ("INSUFFICIENT_POINTS", 11, 10)
    assert world.books.entries[-1][0] == 1


def test_nothing_is_used_at_or_after_its_end(world):
    world.earn(10)
    world.books.now = next(iter(world.books.lots.values())).expire_time
    assert (world.redeem(5).outcome, world.hold(5).outcome) == ("POINTS_EXPIRED", "POINTS_EXPIRED")
    world.later(microseconds=-1)
    assert world.redeem(5).outcome == "POSTED"


def test_promised_points_are_spent_only_when_they_are_confirmed(world):
    promised = world.earn(40, pending=True)
    assert (world.balance(ANA), world.balance(ANA, "PENDING"), world.redeem(1).outcome) == (0, 40, "INSUFFICIENT_POINTS")
    confirmed = world.do("Confirm", None, earning_id=promised.operation_id)
    assert (confirmed.outcome, confirmed.balance_points, confirmed.account_id) == ("POSTED", 40, ANA)
    assert world.do("Confirm", earning_id=promised.operation_id).outcome == "LOT_NOT_PENDING"
    assert world.do("Cancel", earning_id=promised.operation_id).outcome == "LOT_NOT_PENDING"
    assert world.redeem(40).outcome == "POSTED"


def test_a_programme_may_promise_first(world):
    earned = world.earn(40, program_id="old")
    lot = world.books.lots[earned.result["lot_id"]]
    assert (lot.state, lot.active_time) == (LotState.PENDING, world.now + 10 * DAY)
    assert world.earn(1, program_id="old", pending=False).balance_points == 1


def test_a_cancelled_promise_goes_back_to_the_issuer(world):
    promised = world.earn(40, pending=True)
    assert world.do("Cancel", earning_id=promised.operation_id).outcome == "POSTED"
    assert (world.balance(ANA, "PENDING"), world.balance("bank", "ISSUER")) == (0, 0)
    assert world.do("Confirm", earning_id=promised.operation_id).outcome == "LOT_NOT_PENDING"
    assert world.do("Clawback", earning_id=promised.operation_id).outcome == "OVER_CLAWBACK"


def test_the_sweep_confirms_many_lots_of_many_members(world):
    ids = [world.earn(points, account, pending=True).result["lot_id"] for points, account in ((5, ANA), (6, BOB), (7, ANA))]
    confirmed = world.do("Confirm", None, program_id="bank", lot_ids=(*ids, ids[0], 999))
    assert (confirmed.amount_points, world.balance(ANA), world.balance(BOB)) == (18, 12, 6)
    again = world.do("Confirm", None, program_id="bank", lot_ids=tuple(ids))
    assert again.outcome == "LOT_NOT_PENDING"


def test_points_given_out_by_a_partner_are_owed_by_it(world):
    earned = world.earn(100, institution_id="cafe")
    assert earned.outcome == "POSTED"
    (item,) = world.books.items
    assert (item.payer_institution_id, item.payee_institution_id, item.points) == ("cafe", "bank", 100)
    assert world.earn(4901, institution_id="cafe").outcome == "CAP_EXCEEDED"
    assert world.earn(1, institution_id="nobody").outcome == "NO_AGREEMENT"
    world.do("Clawback", earning_id=earned.operation_id, amount_points=40)
    assert sum(item.points for item in world.books.items) == 60


def test_what_is_redeemed_elsewhere_is_owed_by_the_issuer(world):
    world.earn(2000)
    assert world.redeem(900, institution_id="shop").outcome == "POSTED"
    assert world.redeem(101, institution_id="shop").outcome == "CAP_EXCEEDED"
    assert world.redeem(100, institution_id="shop").outcome == "POSTED"
    assert world.balance("shop", "PARTNER") == 1000
    item = world.books.items[0]
    assert (item.payer_institution_id, item.payee_institution_id, item.agreement_id) == ("bank", "shop", BANK_SHOP)
    assert (item.points, item.price_numerator, item.price_denominator, item.fee_basis_points) == (900, 7, 10, 100)
    assert world.books.exposures[BANK_SHOP] == 700


def test_without_an_agreement_points_are_accepted_to_be_priced_later_unless_one_is_required(world, new_world):
    world.earn(10)
    assert world.redeem(10, institution_id="kiosk").outcome == "POSTED"
    (item,) = world.books.items
    assert (item.payee_institution_id, item.agreement_id, item.price_numerator) == ("kiosk", None, None)
    strict = new_world(agreement_required=True)
    strict.earn(10)
    assert strict.redeem(10, institution_id="kiosk").outcome == "NO_AGREEMENT"


def test_holds_reserve_and_captures_sum_up(world):
    world.earn(100)
    held = world.hold(60)
    assert (held.balance_points, world.balance(ANA, "HELD")) == (40, 60)
    assert world.redeem(41).outcome == "INSUFFICIENT_POINTS"
    hold_id = held.operation_id
    assert world.do("Capture", hold_id=hold_id, amount_units=25).outcome == "POSTED"
    assert world.do("Capture", hold_id=hold_id, amount_units=36).outcome == "OVER_CAPTURE"
    assert world.do("Capture", hold_id=hold_id, amount_units=35).outcome == "POSTED"
    assert world.books.holds[hold_id].state == "CAPTURED"
    assert world.do("Capture", hold_id=hold_id, amount_units=1).outcome == "HOLD_NOT_OPEN"
    assert world.do("Void", hold_id=hold_id).outcome == "HOLD_NOT_OPEN"
    assert (world.balance(ANA), world.balance(ANA, "HELD"), world.balance("bank", "ISSUER")) == (40, 0, -40)


def test_a_final_capture_releases_the_rest_and_a_void_everything(world):
    world.earn(100)
    first, second = world.hold(60).operation_id, world.hold(40).operation_id
    world.do("Capture", hold_id=first, amount_units=10, final=True)
    assert (world.books.holds[first].state, world.balance(ANA)) == ("RELEASED", 50)
    world.do("Capture", hold_id=second, amount_units=10)
    assert world.do("Void", hold_id=second).balance_points == 80
    assert world.do("Capture", hold_id=second).outcome == "HOLD_NOT_OPEN"
    assert world.do("Void", hold_id=uuid.uuid4()) == Unknown("HOLD_NOT_FOUND")


def test_a_refund_of_a_final_capture_leaves_alone_what_ended_with_it(world):
    world.earn(10)
    world.later(days=1)
    world.earn(10)
    held = world.hold(20, expire_time=world.now + 200 * DAY)
    world.later(days=150)
    captured = world.do("Capture", hold_id=held.operation_id, amount_units=10, final=True)
    assert [ended for _, _, ended in captured.result["released"]] == [10]
    back = world.do("Refund", spending_id=captured.operation_id)
    assert back.result["lots"] == captured.result["lots"]


def test_a_capture_after_the_end_of_the_hold_is_refused_before_and_after_the_sweep(world):
    world.earn(100)
    hold_id = world.hold(60).operation_id
    assert world.do("ExpireHold", hold_id=hold_id) == Unknown("HOLD_NOT_DUE")
    world.later(days=1)
    assert world.do("Capture", hold_id=hold_id).outcome == "HOLD_EXPIRED"
    assert world.do("ExpireHold", hold_id=hold_id).outcome == "POSTED"
    assert (world.balance(ANA), world.books.holds[hold_id].state) == (100, "EXPIRED")
    assert world.do("Capture", hold_id=hold_id).outcome == "HOLD_EXPIRED"
    assert world.do("ExpireHold", hold_id=hold_id).outcome == "HOLD_NOT_OPEN"


def test_reserved_points_outlive_their_end_until_they_are_released(world):
    lot_id = world.earn(100).result["lot_id"]
    captured = world.hold(60, expire_time=world.now + 200 * DAY).operation_id
    voided = world.hold(30, expire_time=world.now + 200 * DAY).operation_id
    world.later(days=150)
    expired = world.do("ExpireLots", None, program_id="bank", lot_ids=(lot_id,))
    assert (expired.amount_points, world.balance(ANA), world.balance(ANA, "HELD")) == (10, 0, 90)
    assert world.do("ExpireLots", None, program_id="bank", lot_ids=(lot_id,)) == Unknown("NOTHING_TO_EXPIRE")
    assert world.do("Capture", hold_id=captured).outcome == "POSTED"
    released = world.do("Void", hold_id=voided)
    assert released.result["released"] == [[lot_id, 30, 30]]
    assert (world.balance(ANA), world.balance(ANA, "HELD"), world.balance("bank", "ISSUER")) == (0, 0, 0)


def test_lots_end_by_the_sweep_and_all_of_an_account_when_its_owner_goes(world):
    first = world.earn(10).result["lot_id"]
    world.later(days=50)
    world.earn(20)
    world.earn(5, pending=True)
    world.later(days=60)
    assert world.do("ExpireLots", None, program_id="bank", lot_ids=(first, first + 1024)).amount_points == 10
    ended = world.do("ExpireLots", ANA, program_id="bank")
    assert (ended.amount_points, ended.balance_points, world.balance(ANA, "PENDING")) == (25, 0, 0)


def test_a_refund_comes_back_to_the_same_lots_with_their_old_end(world):
    first = world.earn(10).result["lot_id"]
    world.later(days=1)
    second = world.earn(20).result["lot_id"]
    spent = world.redeem(25, institution_id="shop")
    back = world.do("Refund", None, spending_id=spent.operation_id, amount_units=18)
    assert back.result["lots"] == [[second, 15], [first, 3]]  # the last used first
    assert (back.balance_points, world.balance("shop", "PARTNER")) == (23, 7)
    assert world.do("Refund", spending_id=spent.operation_id, amount_units=8).outcome == "OVER_REFUND"
    assert world.do("Refund", spending_id=spent.operation_id).amount_points == 7
    assert world.do("Refund", spending_id=spent.operation_id).outcome == "OVER_REFUND"
    assert sum(item.points for item in world.books.items) == 0
    assert lots(world) == [(10, 10), (20, 20)]


def test_only_spendings_are_refunded(world):
    earned = world.earn(10)
    spent = world.redeem(10)
    back = world.do("Refund", spending_id=spent.operation_id)
    refused = world.redeem(11)
    for operation in (earned, back, refused, world.hold(5)):
        assert world.do("Refund", spending_id=operation.operation_id).outcome == "NOT_REFUNDABLE"
    assert world.do("Refund", spending_id=uuid.uuid4()) == Unknown("OPERATION_NOT_FOUND")


def test_a_refund_of_points_past_their_end_goes_to_the_issuer_or_lives_on_by_grace(world):
    lot_id = world.earn(10).result["lot_id"]
    graced = world.earn(10, program_id="old", pending=False).result["lot_id"]
    spent, other = world.redeem(10), world.redeem(10, program_id="old")
    world.later(days=150)
    back = world.do("Refund", spending_id=spent.operation_id)
    assert (back.result["expired"], back.balance_points) == ([[lot_id, 10]], 0)
    again = world.do("Refund", spending_id=other.operation_id)
    (made,) = again.result["grace"]
    lot = world.books.lots[made[2]]
    assert (made[:2], lot.expire_time, lot.origin_lot_id) == ([graced, 10], world.now + 7 * DAY, graced)
    assert world.redeem(10, program_id="old").outcome == "POSTED"


def test_a_clawback_takes_its_own_lot_then_others_and_leaves_a_debt_that_earnings_pay(world):
    first = world.earn(100)
    world.redeem(70)
    second = world.earn(20)
    taken = world.do("Clawback", None, earning_id=first.operation_id)
    assert taken.result["lots"] == [[first.result["lot_id"], 30], [second.result["lot_id"], 20]]
    assert (taken.shortfall_points, world.balance(ANA, "DEBT"), world.balance(ANA)) == (50, -50, 0)
    third = world.earn(30)
    assert (third.balance_points, third.result["debt_points"], world.balance(ANA, "DEBT")) == (0, 30, -20)
    promised = world.earn(30, pending=True)
    assert world.balance(ANA, "DEBT") == -20
    confirmed = world.do("Confirm", earning_id=promised.operation_id)
    assert (confirmed.balance_points, confirmed.result["debt_points"], world.balance(ANA, "DEBT")) == (10, 20, 0)
    assert world.do("Clawback", earning_id=first.operation_id).outcome == "OVER_CLAWBACK"
    assert world.do("Clawback", earning_id=third.operation_id, amount_points=31).outcome == "OVER_CLAWBACK"


def test_a_clawback_of_a_promise_takes_the_promise(world):
    promised = world.earn(30, pending=True)
    taken = world.do("Clawback", earning_id=promised.operation_id, amount_points=10)
    assert (taken.outcome, world.balance(ANA, "PENDING")) == ("POSTED", 20)
    assert world.do("Confirm", earning_id=promised.operation_id).amount_points == 20


def test_adjustments_give_and_take(world):
    assert world.do("Adjust", program_id="bank", change_points=10).balance_points == 10
    assert world.do("Adjust", program_id="bank", change_points=-11).outcome == "INSUFFICIENT_POINTS"
    assert world.do("Adjust", program_id="bank", change_points=-4).balance_points == 6


def test_transfers_keep_end_and_origin(world):
    lot_id = world.earn(100).result["lot_id"]
    sent = world.do("Transfer", to_account_id=BOB, program_id="bank", amount_points=60)
    ((source, points, made),) = sent.result["lots"]
    assert (source, points, sent.balance_points, world.balance(BOB)) == (lot_id, 60, 40, 60)
    assert world.books.lots[made].expire_time == world.books.lots[lot_id].expire_time
    on = world.do("Transfer", BOB, to_account_id=CHILD, program_id="bank", amount_points=10)
    assert world.books.lots[on.result["lots"][0][2]].origin_lot_id == lot_id
    world.earn(5, program_id="miles", institution_id="air")
    for changes in ({"program_id": "miles"}, {"to_account_id": CHILD}, {"to_account_id": ANA}):
        fields = {"to_account_id": BOB, "program_id": "bank", "amount_points": 5} | changes
        assert world.do("Transfer", **fields).outcome == "TRANSFER_NOT_ALLOWED"


def test_an_exchange_gives_the_floor_and_leaves_whole_points_as_a_residue(world):
    world.earn(109)
    done = world.do("Exchange", program_id="bank", amount_points=109, to_program_id="miles")
    # floor(109 × 3/10) = 32 miles, for which 107 points are needed at least.
    assert (done.result["received_points"], done.result["residue_points"]) == (32, 2)
    assert (world.balance(ANA), world.balance(ANA, program_id="miles")) == (0, 32)
    assert (world.balance("air", "PARTNER"), world.balance("bank", "ROUNDING")) == (107, 2)
    assert (world.balance("air", "ISSUER", "miles"), world.books.items[0].points) == (-32, 107)
    assert world.do("Exchange", program_id="bank", amount_points=3, to_program_id="miles").outcome == "AMOUNT_TOO_SMALL"
    assert world.do("Exchange", program_id="bank", amount_points=3, to_program_id="old").outcome == "NO_RATE"


def test_what_is_reversed_is_undone_as_a_whole_or_not_at_all(world):
    earned = world.earn(100)
    done = world.do("Exchange", program_id="bank", amount_points=59, to_program_id="miles")
    assert world.do("Reverse", None, reversed_id=earned.operation_id).outcome == "NOT_REVERSIBLE"
    assert world.do("Reverse", None, reversed_id=done.operation_id).outcome == "POSTED"
    assert (world.balance(ANA), world.balance("air", "PARTNER"), world.balance("bank", "ROUNDING")) == (100, 0, 0)
    assert sum(item.points for item in world.books.items) == 0
    assert world.do("Reverse", None, reversed_id=done.operation_id).outcome == "NOT_REVERSIBLE"
    sent = world.do("Transfer", to_account_id=BOB, program_id="bank", amount_points=60)
    assert world.do("Reverse", None, reversed_id=sent.operation_id).outcome == "POSTED"
    down = world.do("Adjust", program_id="bank", change_points=-30)
    assert world.do("Reverse", None, reversed_id=down.operation_id).outcome == "POSTED"
    assert world.do("Reverse", None, reversed_id=earned.operation_id).outcome == "POSTED"
    assert (world.balance(ANA), world.balance(BOB), world.balance("bank", "ISSUER")) == (0, 0, 0)
    assert world.do("Reverse", reversed_id=world.redeem(1).operation_id).outcome == "NOT_REVERSIBLE"


def test_frozen_accounts_earn_and_end_what_they_began_and_closed_ones_only_that(world):
    earned = world.earn(100)
    hold_id = world.hold(10).operation_id
    for status, outcome in ((AccountStatus.FROZEN, "ACCOUNT_FROZEN"), (AccountStatus.CLOSED, "ACCOUNT_CLOSED")):
        world.status(ANA, status)
        refused = [
            world.redeem(1), world.hold(1), world.do("Transfer", to_account_id=BOB, program_id="bank", amount_points=1),
            world.do("Exchange", program_id="bank", amount_points=10, to_program_id="miles"),
        ]  # fmt: skip
        assert {result.outcome for result in refused} == {outcome}
        assert world.do("Capture", hold_id=hold_id, amount_units=1).outcome == "POSTED"
        assert world.earn(1).outcome == ("POSTED" if status is AccountStatus.FROZEN else "ACCOUNT_CLOSED")
    assert world.do("Clawback", earning_id=earned.operation_id).outcome == "POSTED"


# ---- quotes


def test_a_quote_takes_points_of_several_issuers_all_or_none(world):
    world.earn(100)
    world.earn(10, program_id="miles", institution_id="air")
    # 40 miles: 10 of its own, and 100 bank points at 3/10 for 30.
    quote_id = world.quote([("miles", 10, 10, 1, 1, None, None), ("bank", 100, 30, 3, 10, BANK_AIR, 1)], ("miles",))
    held = world.do("Hold", quote_id=quote_id, expire_time=world.now + DAY)
    assert (held.outcome, held.amount_points, held.institution_id) == ("POSTED", 40, "air")
    assert world.do("Redeem", quote_id=quote_id).outcome == "QUOTE_USED"
    first = world.do("Capture", hold_id=held.operation_id, amount_units=11)
    # One mile of the second line: ceil(1 × 100 / 30) = 4 points, worth 1.2.
    assert first.result["residues"] == {"1": [0, "1", "5"]}
    assert (world.balance("air", "PARTNER"), world.balance("air", "REDEEMED", "miles")) == (4, 1)
    world.do("Capture", hold_id=held.operation_id)
    assert (world.balance("air", "PARTNER"), world.balance("air", "REDEEMED", "miles")) == (100, 30)
    assert world.balance("air", "LIQUIDITY", "miles") == -30
    assert world.books.exposures[BANK_AIR] == 50


def test_whole_points_left_over_are_a_leg_of_their_own_and_go_back_with_the_last_refund(world):
    world.earn(100)
    quote_id = world.quote([("bank", 100, 25, 3, 10, BANK_AIR, 1)], ("miles",))  # worth 30, pays 25
    spent = world.do("Redeem", quote_id=quote_id)
    assert (spent.result["residues"], world.balance("air", "ROUNDING", "miles")) == ({"0": [5, "0", "1"]}, 5)
    world.do("Refund", spending_id=spent.operation_id, amount_units=10)
    assert (world.balance(ANA), world.balance("air", "ROUNDING", "miles")) == (40, 5)
    world.do("Refund", spending_id=spent.operation_id)
    for owner, kind in (("air", "ROUNDING"), ("air", "LIQUIDITY"), ("air", "REDEEMED")):
        assert world.balance(owner, kind, "miles") == 0
    assert (world.balance(ANA), world.balance("air", "PARTNER")) == (100, 0)


def test_a_price_in_money_is_paid_at_the_agreements_price(world):
    world.earn(100)
    quote_id = world.quote([("bank", 100, 70, 7, 10, BANK_SHOP, 1)], (None, "USD"), institution_id="shop")
    held = world.do("Hold", quote_id=quote_id, expire_time=world.now + DAY)
    captured = world.do("Capture", hold_id=held.operation_id, amount_units=33, final=True)
    assert (captured.amount_points, world.balance("shop", "PARTNER"), world.balance(ANA)) == (33, 48, 52)
    back = world.do("Refund", spending_id=captured.operation_id, amount_units=33)
    assert (back.outcome, world.balance(ANA)) == ("POSTED", 100)


def test_what_a_quote_needs(world):
    world.earn(100)
    line = ("bank", 100, 30, 3, 10, BANK_AIR, 1)
    late = world.quote([line], ("miles",))
    assert world.do("Redeem", BOB, quote_id=late) == Unknown("QUOTE_NOT_FOUND")
    world.later(minutes=5)
    assert world.do("Redeem", quote_id=late).outcome == "QUOTE_EXPIRED"
    short = world.quote([line, ("miles", 1, 1, 1, 1, None, None)], ("miles",))
    refused = world.do("Redeem", quote_id=short)
    assert (refused.outcome, refused.result) == ("INSUFFICIENT_POINTS", {"program_id": "miles", "points": 1})
    ended = world.quote([("bank", 100, 30, 3, 10, uuid.uuid4(), 1)], ("miles",))
    assert world.do("Redeem", quote_id=ended).outcome == "NO_AGREEMENT"
    assert world.balance(ANA) == 100


def test_a_pack_that_runs_low_is_told_once(world):
    world.earn(2 * 10**6)
    for _ in range(3):
        world.redeem(10**6 - 10, institution_id="air")
    assert list(world.books.low_water) == []
    world.redeem(20, institution_id="air")
    assert list(world.books.low_water) == [BANK_AIR]


def test_settlements_move_what_partners_hold_back_to_the_issuer(world):
    world.earn(100)
    world.redeem(100, institution_id="kiosk")
    legs = (AccountKey("kiosk", AccountKind.PARTNER, "bank"), -100), (AccountKey("bank", AccountKind.ISSUER, "bank"), 100)
    assert world.do("Settle", None, legs=legs).amount_points == 100
    assert (world.balance("kiosk", "PARTNER"), world.balance("bank", "ISSUER")) == (0, 0)
    with pytest.raises(ValueError, match="sum to zero"):
        world.do("Settle", None, legs=legs[:1])


# ---- what callers must not do, and hooks


@pytest.mark.parametrize("points", [0, -1])
def test_nothing_is_about_no_points(world, points):
    with pytest.raises(ValueError, match="more than zero"):
        world.earn(points)


def test_what_does_not_exist_is_kept_nowhere(world):
    assert world.earn(1, uuid.uuid4()) == Unknown("ACCOUNT_NOT_FOUND")
    assert world.earn(1, program_id="none") == Unknown("PROGRAM_NOT_FOUND")
    assert world.redeem(1, program_id="none") == Unknown("PROGRAM_NOT_FOUND")
    assert world.books.posted == []


def test_a_limit_refuses_and_counts_what_was_posted(world):
    class TwiceOnly:
        counted = 0

        def exceeded(self, command, lines, books):
            return {"limit": "twice"} if self.counted + sum(line.points for line in lines) > 20 else None

        def count(self, command, lines, books):
            self.counted += sum(line.points for line in lines)

    world.books.limits = TwiceOnly()
    assert [world.earn(9).outcome, world.redeem(9).outcome, world.earn(9).outcome] == ["POSTED", "POSTED", "LIMIT_EXCEEDED"]


def test_lots_that_were_not_loaded_are_asked_for(world):
    world.earn(10)
    world.earn(10)
    shelf = world.books.shelf((ANA, "bank"))
    world.books._shelves[ANA, "bank"] = Shelf(shelf.lots[:1], complete=False)
    with pytest.raises(LotsNeeded):
        world.books.pick((ANA,), "bank", 11)
    assert len(world.books.pick((ANA,), "bank", 10)) == 1
