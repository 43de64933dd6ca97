"""The chain of hashes: each operation's covers its content, its legs, and the hash before."""

import hashlib
import json
from collections.abc import Iterable

import orjson

from loyalty.domain.ledger.types import Entry, Operation


def canonical(content: object) -> bytes:
    """One text for each content, the same wherever it is made again."""
    return orjson.dumps(content, str, orjson.OPT_SORT_KEYS)  # str: for ids as the database's driver gives them


def chain_hash(previous: bytes, operation: Operation, entries: Iterable[Entry]) -> bytes:
    """The hash that chains an operation, with its legs, to the one before. It covers everything but the reference, whose
    content hash is in it: free text can be erased without breaking the chain."""
    if operation.command is None:
        return _hash_without_lots(previous, operation, entries)
    content = [
        operation.sequence,
        operation.operation_id,
        *operation.key,
        operation.content_hash.hex(),
        operation.kind,
        operation.outcome,
        operation.account_id,
        operation.program_id,
        operation.institution_id,
        operation.target_id,
        operation.amount_points,
        operation.balance_points,
        operation.others_points,
        operation.shortfall_points,
        operation.rule,
        operation.configuration_version,
        operation.effective_time,
        operation.post_time,
        orjson.Fragment(operation.command),
        operation.result,
        sorted([*entry.key, entry.version, entry.amount_points, entry.balance_points] for entry in entries),
    ]
    return hashlib.sha256(previous + canonical(content)).digest()


def _hash_without_lots(previous: bytes, operation: Operation, entries: Iterable[Entry]) -> bytes:
    """As operations were hashed before there were lots: theirs stay as they are."""
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
