"""The ledger's arithmetic, pure: commands in, operations, entries and lots out, exactly as if they came one after another."""

from loyalty.domain.ledger.old import Batch, KeyReused, Operation, Order, Result, chain_hash, post
from loyalty.domain.ledger.types import (
    HASH_OF_NOTHING,
    AccountKey,
    AccountKind,
    ActivityKey,
    Balance,
    Entry,
    Head,
    OperationKind,
    OrderKey,
    Outcome,
    RequestKey,
)

__all__ = [
    "HASH_OF_NOTHING",
    "AccountKey",
    "AccountKind",
    "ActivityKey",
    "Balance",
    "Batch",
    "Entry",
    "Head",
    "KeyReused",
    "Operation",
    "OperationKind",
    "Order",
    "OrderKey",
    "Outcome",
    "RequestKey",
    "Result",
    "chain_hash",
    "post",
]
