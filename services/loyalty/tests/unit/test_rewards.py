from datetime import UTC, datetime, timedelta

import pytest

from loyalty.domain import rewards
from loyalty.domain.rewards import Offer, RewardState, VoucherState, code_hash, new_code, normalized, refusal, state_at

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_a_code_is_read_however_it_is_typed():
    for code in (new_code() for _ in range(50)):
        typed = f" {code} ".replace("0", "o").replace("1", "l")
        assert len(code) == 23
        assert code_hash(code) == code_hash(code.lower().replace("-", "")) == code_hash(typed)
        assert code_hash(code) != code_hash(new_code())


@pytest.mark.parametrize("code", ["", "ABCDE", "U" * 20, "ABCDE-FGHJK-MNPQR-STVW", "ABCDEFGHJKMNPQRSTVWX0"])
def test_what_is_no_code_has_no_hash(code):
    assert normalized(code) is None
    assert code_hash(code) is None


def test_codes_are_drawn_from_all_letters():
    drawn = "".join(new_code().replace("-", "") for _ in range(200))
    assert set(drawn) == set(rewards.ALPHABET)


@pytest.mark.parametrize(
    ("offer", "bought", "reason"),
    [
        (Offer(RewardState.ACTIVE, None, None, None, None), 99, None),
        (Offer(RewardState.ACTIVE, 1, 2, NOW, NOW + timedelta(days=1)), 1, None),
        (Offer(RewardState.PAUSED, 1, None, None, None), 0, "REWARD_NOT_ACTIVE"),
        (Offer(RewardState.ACTIVE, 0, None, None, None), 0, "REWARD_OUT_OF_STOCK"),
        (Offer(RewardState.ACTIVE, 1, 2, None, None), 2, "REWARD_MEMBER_MAX"),
        (Offer(RewardState.ACTIVE, 1, 2, NOW + timedelta(days=1), None), 0, "REWARD_NOT_ACTIVE"),
        (Offer(RewardState.ACTIVE, 1, 2, None, NOW), 0, "REWARD_NOT_ACTIVE"),
    ],
)
def test_who_may_buy(offer, bought, reason):
    told = refusal(offer, bought, NOW)
    assert (told[0] if told else None) == reason


def test_a_voucher_past_its_end_is_expired_whether_or_not_it_was_swept():
    assert state_at(VoucherState.ISSUED, NOW, NOW) is VoucherState.EXPIRED
    assert state_at(VoucherState.ISSUED, NOW + timedelta(seconds=1), NOW) is VoucherState.ISSUED
    assert state_at(VoucherState.USED, NOW, NOW) is VoucherState.USED
    assert state_at(VoucherState.ISSUED, None, NOW) is VoucherState.ISSUED
