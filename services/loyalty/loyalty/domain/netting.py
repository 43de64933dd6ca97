"""Who pays whom, so that every net position becomes zero: with as few payments as there can be. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

EXACT_INSTITUTIONS_MAX = 12
"""Up to so many institutions with a position the number of payments is the least possible; above, it is below their number."""


class Instruction(NamedTuple):
    """`payer` pays `payee` so many minor units, above zero."""

    payer: str
    payee: str
    amount_minor_units: int


def instructions_of(positions: Mapping[str, int]) -> list[Instruction]:
    """The payments that settle net positions (positive: gets), ordered by payer and payee. The same positions give the same ones.

    Raises:
        ValueError: when the positions do not sum to zero.
    """
    if sum(positions.values()) != 0:
        raise ValueError("net positions must sum to zero")
    open_positions = [(institution, amount) for institution, amount in sorted(positions.items()) if amount]
    groups = _zero_groups(open_positions) if len(open_positions) <= EXACT_INSTITUTIONS_MAX else [open_positions]
    return sorted(instruction for group in groups for instruction in _within(group))


def _within(group: Sequence[tuple[str, int]]) -> list[Instruction]:
    """Payments within a group that sums to zero, fewer than it has members: the greatest debtor pays the greatest creditor."""
    left = dict(group)
    instructions = []
    while any(left.values()):
        payer = min(left, key=lambda institution: (left[institution], institution))
        payee = min(left, key=lambda institution: (-left[institution], institution))
        amount = min(-left[payer], left[payee])
        left[payer] += amount
        left[payee] -= amount
        instructions.append(Instruction(payer, payee, amount))
    return instructions


def _zero_groups(positions: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """Parts positions into as many groups that sum to zero as there can be: each group saves a payment.

    `best[chosen]` is the greatest number of groups closed on the way to the set `chosen`, when members are added one by one:
    one is closed whenever the sum so far is zero.
    """
    everyone = (1 << len(positions)) - 1
    sums, best, last = [0] * (everyone + 1), [0] * (everyone + 1), [0] * (everyone + 1)
    for chosen in range(1, everyone + 1):
        lowest = (chosen & -chosen).bit_length() - 1
        sums[chosen] = sums[chosen & (chosen - 1)] + positions[lowest][1]
        before, member = max((best[chosen & ~(1 << member)], -member) for member in range(len(positions)) if chosen >> member & 1)
        best[chosen], last[chosen] = before + (sums[chosen] == 0), -member
    groups: list[list[tuple[str, int]]] = []
    chosen = everyone
    while chosen:
        if sums[chosen] == 0:
            groups.append([])
        groups[-1].append(positions[last[chosen]])
        chosen &= ~(1 << last[chosen])
    return groups
