"""The ledger's arithmetic: orders in, operations and entries out, exactly as if the orders came one after another.

An order moves points of one programme between a member and a counterparty, by double entry; a redemption
also takes from the accounts that stand under the member's, where its own has too few. What becomes of it is an operation, also
when it is refused. Everything here is pure: the store locks, reads and writes.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from loyalty.domain.ledger.types import (
    AccountKey,
    AccountKind,
    Balance,
    Entry,
    Head,
    OperationKind,
    OrderKey,
    Outcome,
)


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for. `key` makes it happen once; `content_hash` tells whether the same key asks for the same."""

    operation_id: uuid.UUID
    key: OrderKey
    kind: OperationKind
    account_id: uuid.UUID
    program_id: str
    institution_id: str
    counterparty: AccountKey
    amount_points: int
    effective_time: datetime
    content_hash: bytes = b""
    reference: str = ""
    rule: str = ""
    family: tuple[uuid.UUID, ...] = ()
    """Accounts that stand under this one; a redemption spends theirs after its own, in this order."""

    member: AccountKey = field(init=False)
    """The ledger account of the member."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "member", self._of(self.account_id))

    def _of(self, account_id: uuid.UUID) -> AccountKey:
        return AccountKey(str(account_id), AccountKind.MEMBER, self.program_id)

    @property
    def members(self) -> list[AccountKey]:
        """The ledger accounts that it may take from, in the order of taking."""
        return [self.member, *map(self._of, self.family)]

    @property
    def touches(self) -> list[AccountKey]:
        """Every ledger account that it may move."""
        return [*self.members, self.counterparty]


@dataclass(frozen=True, slots=True)
class Operation:
    """An order and what became of it. `amount_points` is what moved, or what was refused; `shortfall_points` what a
    reversal could not take back; `balance_points` the member's balance after it, or the one found. `others_points` is the part
    of it on accounts that stand under the member's, where they were asked for points too."""

    operation_id: uuid.UUID
    key: OrderKey
    kind: OperationKind
    account_id: uuid.UUID
    program_id: str
    institution_id: str
    amount_points: int
    effective_time: datetime
    content_hash: bytes
    reference: str
    rule: str
    sequence: int
    outcome: Outcome
    balance_points: int
    shortfall_points: int
    post_time: datetime
    others_points: int = 0
    hash: bytes = b""


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The same key came with other content: nothing happens."""

    operation: Operation


Result: TypeAlias = Operation | KeyReused


@dataclass(slots=True)
class Batch:
    """What a batch of orders comes to: a result for each order, and what is new."""

    head: Head
    results: list[Result] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    entries: list[tuple[Operation, Entry]] = field(default_factory=list)
    balances: dict[AccountKey, Balance] = field(default_factory=dict)
    """New states of the ledger accounts that moved."""


def post(
    orders: Sequence[Order],
    balances: Mapping[AccountKey, Balance],
    known: Mapping[OrderKey, Operation],
    head: Head,
    now: datetime,
) -> Batch:
    """Decides orders in their order. A missing balance is zero.

    Args:
        orders: what is asked for; the same key may come twice.
        balances: states of the ledger accounts they touch.
        known: operations of the past with the same keys.
        head: the end of the chain.
        now: when they are posted.
    """
    batch = Batch(head)
    decided = dict(known)
    for order in orders:
        earlier = decided.get(order.key)
        if earlier is None:
            decided[order.key] = operation = _decide(order, batch, balances, now)
            batch.results.append(operation)
        else:
            batch.results.append(earlier if earlier.content_hash == order.content_hash else KeyReused(earlier))
    return batch


def _decide(order: Order, batch: Batch, balances: Mapping[AccountKey, Balance], now: datetime) -> Operation:
    if order.amount_points <= 0:
        raise ValueError("an order moves more than zero points")
    members = order.members if order.kind is OperationKind.REDEEM else [order.member]
    found = [(batch.balances.get(key) or balances.get(key) or Balance()).balance_points for key in members]
    changes = _member_changes(order, found)
    change = sum(changes)
    entries: list[Entry] = []
    if change:
        for key, amount in (*zip(members, changes, strict=True), (order.counterparty, -change)):
            if not amount:
                continue
            state = batch.balances.get(key) or balances.get(key) or Balance()
            entry = Entry(key, state.version + 1, amount, state.balance_points + amount)
            batch.balances[key] = Balance(entry.balance_points, entry.version)
            entries.append(entry)
    moved = abs(change)
    unhashed = Operation(
        operation_id=order.operation_id,
        key=order.key,
        kind=order.kind,
        account_id=order.account_id,
        program_id=order.program_id,
        institution_id=order.institution_id,
        amount_points=moved or order.amount_points,
        effective_time=order.effective_time,
        content_hash=order.content_hash,
        reference=order.reference,
        rule=order.rule,
        sequence=batch.head.sequence + 1,
        outcome=Outcome.POSTED if change else Outcome.INSUFFICIENT_POINTS,
        balance_points=sum(found) + change,
        shortfall_points=order.amount_points - moved if order.kind is OperationKind.REVERSE_EARN else 0,
        post_time=now,
        others_points=sum(found[1:]) + sum(changes[1:]),
    )
    operation = _with_hash(unhashed, chain_hash(batch.head.hash, unhashed, entries))
    batch.head = Head(operation.sequence, operation.hash)
    batch.operations.append(operation)
    batch.entries.extend((operation, entry) for entry in entries)
    return operation


def _member_changes(order: Order, found: Sequence[int]) -> list[int]:
    """Points each member account gets (negative: gives); none where the order is refused.

    Args:
        order: what is asked for.
        found: the balances of the accounts it may move: the member's own first.
    """
    own = found[0]
    if order.kind is OperationKind.EARN:
        return [order.amount_points]
    if order.kind is not OperationKind.REDEEM:
        return [-min(order.amount_points, own)]  # what is not there stays as the operation's shortfall
    missing = order.amount_points if sum(found) >= order.amount_points else 0
    changes = []
    for balance_points in found:
        taken = min(missing, balance_points)
        missing -= taken
        changes.append(-taken)
    return changes


def _with_hash(operation: Operation, chained: bytes) -> Operation:
    object.__setattr__(operation, "hash", chained)  # `replace` would build the whole operation twice on the hot path
    return operation


def chain_hash(previous: bytes, operation: Operation, entries: Iterable[Entry]) -> bytes:
    """The hash that chains an operation, with its legs, to the one before. It covers everything but the reference, whose
    content hash is in it: free text can be erased without breaking the chain."""
    content: list[object] = [
        operation.sequence,
        str(operation.operation_id),
        [str(part) for part in operation.key],
        operation.content_hash.hex(),
        operation.kind,
        operation.outcome,
        str(operation.account_id),
        operation.program_id,
        operation.institution_id,
        operation.amount_points,
        operation.balance_points,
        operation.shortfall_points,
        operation.rule,
        operation.effective_time.isoformat(),
        operation.post_time.isoformat(),
        sorted([*entry.key, entry.version, entry.amount_points, entry.balance_points] for entry in entries),
    ]
    if operation.others_points:
        content.append(operation.others_points)
    return hashlib.sha256(previous + json.dumps(content, separators=(",", ":")).encode()).digest()
