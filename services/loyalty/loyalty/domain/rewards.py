"""Rewards and their vouchers: who may buy, what a code is, what may become of a voucher. Pure."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's: no letters that look like digits."""
CODE_CHARACTERS = 20
"""100 bits: not to be guessed, and so a plain hash of it is as good as none to who reads the table."""
GROUP_CHARACTERS = 5
VOUCHER_DAYS_MAX = 3650


class RewardState(StrEnum):
    """Whether a reward can be bought."""

    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    ENDED = "ENDED"


class VoucherState(StrEnum):
    """What became of a voucher. All but ISSUED are final."""

    ISSUED = "ISSUED"
    USED = "USED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Offer:
    """What deciding on a purchase needs of a reward."""

    state: RewardState
    stock_left: int | None
    """None: without bound."""
    member_max: int | None
    available_from: datetime | None
    available_until: datetime | None


def refusal(offer: Offer, bought_count: int, now: datetime) -> tuple[str, str] | None:
    """Why a reward cannot be bought now: reason and message; None where it can."""
    if offer.state is not RewardState.ACTIVE:
        return "REWARD_NOT_ACTIVE", "the reward is not on sale"
    if offer.available_from is not None and now < offer.available_from:
        return "REWARD_NOT_ACTIVE", f"the reward is on sale from {offer.available_from.isoformat()} on"
    if offer.available_until is not None and now >= offer.available_until:
        return "REWARD_NOT_ACTIVE", f"the reward was on sale until {offer.available_until.isoformat()}"
    if offer.stock_left is not None and offer.stock_left <= 0:
        return "REWARD_OUT_OF_STOCK", "nothing of the reward is left"
    if offer.member_max is not None and bought_count >= offer.member_max:
        return "REWARD_MEMBER_MAX", f"a member gets it {offer.member_max} times at most"
    return None


def new_code() -> str:
    """A code, in groups to be read aloud."""
    plain = "".join(secrets.choice(ALPHABET) for _ in range(CODE_CHARACTERS))
    return "-".join(plain[i : i + GROUP_CHARACTERS] for i in range(0, CODE_CHARACTERS, GROUP_CHARACTERS))


def normalized(code: str) -> str | None:
    """A code as it was made, however it was typed; None when it can be none."""
    plain = "".join(code.upper().replace("-", " ").split()).translate(str.maketrans("OIL", "011"))
    return plain if len(plain) == CODE_CHARACTERS and set(plain) <= set(ALPHABET) else None


def code_hash(code: str) -> bytes | None:
    """By which a code is found; None when it can be none."""
    plain = normalized(code)
    return hashlib.blake2b(plain.encode(), digest_size=32, person=b"voucher-code").digest() if plain else None


def state_at(state: VoucherState, expire_time: datetime | None, now: datetime) -> VoucherState:
    """The state at an instant: one that is past its end is expired, whether or not it was swept."""
    if state is VoucherState.ISSUED and expire_time is not None and expire_time <= now:
        return VoucherState.EXPIRED
    return state
