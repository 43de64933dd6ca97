"""Posts commands: the one way in which anything gets into the ledger."""

import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from chassis.unit_of_work import UnitOfWork
from loyalty.domain.ledger.books import Books, Limits, LotsNeeded, Owner
from loyalty.domain.ledger.commands import AnyCommand
from loyalty.domain.ledger.configuration import Configuration
from loyalty.domain.ledger.engine import decide
from loyalty.domain.ledger.types import AccountKind, ActivityKey, Entry, Head, Operation, OrderKey, Result
from loyalty.store import ledger_loading, ledger_writing
from loyalty.store.configuration import Configurations
from loyalty.store.ledger import lock_head
from loyalty.store.limits import load as load_limits
from loyalty.store.messages import low_water, points_posted

Objections: TypeAlias = Callable[[Books], Awaitable[Sequence[Exception | None]]]
LimitsOf: TypeAlias = Callable[[UnitOfWork, Sequence[AnyCommand], Configuration], Awaitable[Limits | None]]
CONFIGURATIONS_MAX = 8
_configurations: dict[object, Configurations] = {}
"""By ledger: what this process last read of its configuration."""


async def configuration_of(unit: UnitOfWork, head: Head) -> Configuration:
    """The configuration of the head that the transaction has locked."""
    key = head.ledger, unit.epoch
    if key not in _configurations and len(_configurations) >= CONFIGURATIONS_MAX:
        _configurations.clear()  # only tests see so many ledgers
    return await _configurations.setdefault(key, Configurations()).of_version(unit.connection, head.configuration_version)


async def post(
    unit: UnitOfWork,
    commands: Sequence[AnyCommand],
    head: Head | None = None,
    *,
    known: Mapping[OrderKey, Operation] | None = None,
    limits: LimitsOf | None = load_limits,
    objections: Objections | None = None,
) -> list[Result | Exception]:
    """Posts commands one after another in one batch, and publishes each operation that moved points of members.

    Args:
        unit: the transaction; the ledger is locked until it ends.
        commands: what is asked for.
        head: as `lock_head` gave it, where something that these commands were made of was read after that.
        known: the operations with the commands' keys, where they were read after that, too.
        limits: loads what callers, members and partners may do.
        objections: says for each command, on the books that were loaded for it, why it may not be asked for, or None.

    Returns:
        A result for each command, in order: of now, or of the first time its key came; or the objection.
    """
    if not commands:
        return []
    head = head or await lock_head(unit.connection)
    configuration = await configuration_of(unit, head)
    earlier = dict(known) if known is not None else await known_operations(unit, commands)
    complete: set[Owner] = set()
    objected: Sequence[Exception | None] | None = None
    while True:
        limited = await limits(unit, commands, configuration) if limits is not None else None
        loaded = await ledger_loading.load(unit.connection, commands, head, configuration, unit.now, earlier, complete, limited)
        if objections is not None and objected is None:
            objected = await objections(loaded.books)
        try:
            decided = decide(commands if not objected else _admitted(commands, objected), loaded.books)
            break
        except LotsNeeded as needed:
            complete |= needed.owners
    await ledger_writing.write(unit.connection, loaded.books, loaded.ids)
    _publish(unit, loaded.books, loaded.customers)
    if not objected:
        return list(decided)
    results = iter(decided)
    return [next(results) if objection is None else objection for objection in objected]


def _admitted(commands: Sequence[AnyCommand], objected: Sequence[Exception | None]) -> list[AnyCommand]:
    return [command for command, objection in zip(commands, objected, strict=True) if objection is None]


async def known_operations(unit: UnitOfWork, commands: Collection[AnyCommand]) -> dict[OrderKey, Operation]:
    """The operations of the past with the keys of these commands."""
    return await ledger_loading.known_operations(unit.connection, [command.key for command in commands])


def _publish(unit: UnitOfWork, books: Books, customers: Mapping[uuid.UUID, uuid.UUID | None]) -> None:
    legs: dict[int, list[Entry]] = {}
    for sequence, entry in books.entries:
        if entry.key.kind in MEMBERS:
            legs.setdefault(sequence, []).append(entry)
    for operation in books.posted:
        of_members = legs.get(operation.sequence)
        if of_members is None:
            continue
        activity_id = operation.key.activity_id if isinstance(operation.key, ActivityKey) else None
        leading = True
        for account_id, program_id, moved in grouped(operation, of_members):
            member = moved.get(AccountKind.MEMBER)
            owner = uuid.UUID(account_id)
            unit.publish(
                points_posted(
                    operation_id=operation.operation_id,
                    account_id=account_id,
                    customer_id=customers[owner],
                    program_id=program_id,
                    main_program_id=operation.program_id,
                    institution_id=operation.institution_id,
                    kind=operation.kind,
                    changes={kind: entry.amount_points for kind, entry in moved.items()},
                    balance_points=member.balance_points if member is not None else 0,
                    epoch=unit.epoch,
                    version=member.version if member is not None else 0,
                    effective_time=operation.effective_time,
                    activity_id=activity_id,
                    leading=leading,
                )
            )
            leading = False
    for terms in books.low_water.values():
        unit.publish(low_water(terms, books.exposures[terms.agreement_id]))


def grouped(operation: Operation, legs: Sequence[Entry]) -> list[tuple[str, str, dict[AccountKind, Entry]]]:
    """An operation's legs of members by account and programme, the leading group first: of the account itself in the main
    programme, or else the first by owner and programme."""
    if len(legs) == 1:
        return [(legs[0].key.owner, legs[0].key.program_id, {legs[0].key.kind: legs[0]})]
    groups: dict[tuple[str, str], dict[AccountKind, Entry]] = {}
    for leg in legs:
        groups.setdefault((leg.key.owner, leg.key.program_id), {})[leg.key.kind] = leg
    own = str(operation.account_id)
    order = sorted(groups, key=lambda group: (group[0] != own, group[1] != operation.program_id, group))
    return [(*group, groups[group]) for group in order]


MEMBERS = frozenset({AccountKind.MEMBER, AccountKind.PENDING, AccountKind.HELD, AccountKind.DEBT})
