"""Loads all that a batch of commands touches: a few statements for the whole batch, whatever is in it.

What is loaded is the latest, because the transaction holds the head's lock since before. Lots are loaded up to a number for each
owner; a batch that needs more says so (`LotsNeeded`) and is decided again with all of those owners'.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from chassis.database import Connection
from loyalty.domain.ledger import commands as c
from loyalty.domain.ledger.books import Books, Limits, Owner
from loyalty.domain.ledger.configuration import Basis, Configuration
from loyalty.domain.ledger.types import (
    LOTS_PER_OPERATION_MAX,
    Account,
    AccountKey,
    AccountKind,
    AccountStatus,
    ActivityKey,
    Balance,
    Head,
    Hold,
    Lot,
    LotUse,
    Operation,
    OperationKind,
    OrderKey,
    Quote,
    RequestKey,
    SpentLine,
    SystemKey,
)
from loyalty.store import ledger_rows as rows
from loyalty.store import pools

LOTS_OF_OWNER_MAX = 24
"""Lots of an owner that are loaded at first; most spendings end long before."""
KINDS = {kind.value: kind for kind in AccountKind}
SPENDING = (c.Redeem, c.Hold, c.Transfer, c.Exchange, c.Adjust)


class Loaded(NamedTuple):
    """Books to decide on, the ids of their ledger accounts, and whose the member accounts are (None of an erased one)."""

    books: Books
    ids: dict[AccountKey, int]
    customers: dict[uuid.UUID, uuid.UUID | None]


async def known_operations(connection: Connection, keys: Iterable[OrderKey]) -> dict[OrderKey, Operation]:
    """Operations of the past with these keys (of activities: all that they caused). What took back an activity's points before
    there were debts counts as a clawback."""
    requests = [key for key in keys if isinstance(key, RequestKey)]
    activities = {key.activity_id for key in keys if isinstance(key, ActivityKey)}
    texts = [key.text for key in keys if isinstance(key, SystemKey)]
    found = []
    if requests:
        found += await connection.fetch(
            f"SELECT {_OPERATION} FROM unnest($1::text[], $2::text[]) AS key (caller, request_id)"
            " JOIN operations USING (caller, request_id)",
            [key.caller for key in requests], [key.request_id for key in requests],
        )  # fmt: skip
    if activities:
        found += await connection.fetch(
            f"SELECT {_OPERATION} FROM operations WHERE activity_id = ANY($1::uuid[])", list(activities)
        )
    if texts:
        found += await connection.fetch(f"SELECT {_OPERATION} FROM operations WHERE system_key = ANY($1::text[])", texts)
    known: dict[OrderKey, Operation] = {}
    for operation in map(rows.to_operation, found):
        key = operation.key
        if isinstance(key, ActivityKey) and operation.kind is OperationKind.REVERSE_EARN:
            key = key._replace(kind=OperationKind.CLAWBACK)
        known[key] = operation
    return known


async def load(
    connection: Connection,
    commands: Sequence[c.AnyCommand],
    head: Head,
    configuration: Configuration,
    now: datetime,
    known: dict[OrderKey, Operation],
    complete: Collection[Owner] = (),
    limits: Limits | None = None,
) -> Loaded:
    """The books for these commands.

    Args:
        connection: in the transaction that holds the head.
        commands: what is asked for.
        head: as it was locked.
        configuration: of the head's version.
        now: when they are posted.
        known: operations with the commands' keys: those commands need nothing.
        complete: owners of whom all lots are loaded.
        limits: what callers, members and partners may do.
    """
    fresh = [command for command in commands if command.key not in known]
    loading = _Loading(connection, configuration, now)
    if fresh:
        await loading.load(fresh, set(complete))
    books = Books(
        head, configuration, now,
        accounts=loading.accounts, balances=loading.balances, lots=loading.lots.values(), incomplete=loading.incomplete,
        operations=loading.operations.values(), taken_back=loading.taken_back, reversed_ids=loading.reversed_ids,
        uses=loading.uses, spent=loading.spent, holds=loading.holds, quotes=loading.quotes.values(), exposures=loading.exposures,
        known=known, limits=limits,
    )  # fmt: skip
    return Loaded(books, loading.ids, loading.customers)


class _Loading:
    """Goes from the commands to what they are about, to whose lots that is, to balances."""

    def __init__(self, connection: Connection, configuration: Configuration, now: datetime) -> None:
        self.connection, self.configuration, self.now = connection, configuration, now
        self.accounts: dict[uuid.UUID, Account] = {}
        self.customers: dict[uuid.UUID, uuid.UUID | None] = {}
        self.operations: dict[uuid.UUID, Operation] = {}
        self.taken_back: dict[uuid.UUID, int] = {}
        self.reversed_ids: set[uuid.UUID] = set()
        self.holds: list[Hold] = []
        self.quotes: dict[uuid.UUID, Quote] = {}
        self.spent: list[SpentLine] = []
        self.uses: list[LotUse] = []
        self.lots: dict[int, Lot] = {}
        self.incomplete: dict[Owner, tuple[datetime, int]] = {}
        self.balances: dict[AccountKey, Balance] = {}
        self.ids: dict[AccountKey, int] = {}
        self.exposures: dict[uuid.UUID, Fraction] = {}
        self.pairs: set[tuple[str, str]] = set()
        """(owner, programme) of the ledger accounts that may move."""
        self.places: set[tuple[str, str]] = set()
        """(programme, institution) of what may be spent or earned there."""
        self.agreement_ids: set[uuid.UUID] = set()

    async def load(self, commands: list[c.AnyCommand], complete: set[Owner]) -> None:
        await self._load_targets(commands)
        await self._load_accounts(self._account_ids(commands))
        await self._load_pools(commands)
        await self._load_lots(commands, complete)
        await self._load_accounts({lot.account_id for lot in self.lots.values()})
        self._find_pairs(commands)
        await self._load_balances()
        await self._load_exposures()

    # ---- what commands are about

    async def _load_targets(self, commands: list[c.AnyCommand]) -> None:
        ids = set[uuid.UUID]()
        for command in commands:
            if not isinstance(command, c.Earn | c.Spend):
                for name in ("earning_id", "spending_id", "reversed_id"):
                    target = getattr(command, name, None)
                    if target is not None:
                        ids.add(target)
        hold_ids = {command.hold_id for command in commands if isinstance(command, c.Capture | c.Void | c.ExpireHold)}
        quote_ids = {command.quote_id for command in commands if isinstance(command, c.Spend) and command.quote_id}
        if ids:
            found = await self.connection.fetch(
                f"SELECT {_OPERATION} FROM operations WHERE operation_id = ANY($1::uuid[])", list(ids)
            )
            self.operations = {row["operation_id"]: rows.to_operation(row) for row in found}
            for row in await self.connection.fetch(_TAKEN_BACK, list(ids)):
                self.taken_back[row["target_id"]] = row["points"]
                if row["reversed"]:
                    self.reversed_ids.add(row["target_id"])
        if hold_ids:
            await self._load_holds(list(hold_ids))
        if quote_ids:
            found = await self.connection.fetch("SELECT * FROM quotes WHERE quote_id = ANY($1::uuid[])", list(quote_ids))
            self.quotes = {row["quote_id"]: rows.to_quote(row) for row in found}

    async def _load_holds(self, hold_ids: list[uuid.UUID]) -> None:
        fetch = self.connection.fetch
        found = await fetch("SELECT * FROM holds WHERE hold_id = ANY($1::uuid[])", hold_ids)
        lines = await fetch("SELECT * FROM hold_lines WHERE hold_id = ANY($1::uuid[]) ORDER BY hold_id, position", hold_ids)
        lots = await fetch(
            "SELECT * FROM hold_lots WHERE hold_id = ANY($1::uuid[]) ORDER BY hold_id, position, ordinal", hold_ids
        )
        lines_of: dict[uuid.UUID, list[object]] = {}
        lots_of: dict[uuid.UUID, list[object]] = {}
        for row in lines:
            lines_of.setdefault(row["hold_id"], []).append(row)
        for row in lots:
            lots_of.setdefault(row["hold_id"], []).append(row)
        self.holds = [
            rows.to_hold(row, lines_of.get(row["hold_id"], ()), lots_of.get(row["hold_id"], ()))  # type: ignore[arg-type]
            for row in found
        ]

    # ---- whose it is

    def _account_ids(self, commands: list[c.AnyCommand]) -> set[uuid.UUID]:
        ids = {command.account_id for command in commands if command.account_id is not None}
        ids |= {command.to_account_id for command in commands if isinstance(command, c.Transfer)}
        ids |= {operation.account_id for operation in self.operations.values() if operation.account_id is not None}
        return ids | {hold.account_id for hold in self.holds}

    async def _load_accounts(self, account_ids: set[uuid.UUID]) -> None:
        missing = account_ids - self.accounts.keys()
        if not missing:
            return
        for row in await self.connection.fetch(_ACCOUNTS, list(missing)):
            account_id, holder = row["account_id"], row["holder_customer_id"]
            family = tuple(row["child_account_ids"] or ())
            self.accounts[account_id] = Account(
                account_id, AccountStatus(row["status"]), holder, family, row["parent_account_id"]
            )
            self.customers[account_id] = holder
            self.customers |= dict.fromkeys(family, holder)

    async def _load_pools(self, commands: list[c.AnyCommand]) -> None:
        asked = {command.account_id for command in commands if isinstance(command, c.Spend) and command.use_pool}
        known = [account_id for account_id in asked if account_id in self.accounts and account_id is not None]
        if known:
            for account_id, pool in (await pools.for_spending(self.connection, known, self.now)).items():
                self.accounts[account_id] = self.accounts[account_id]._replace(pool=pool)

    # ---- lots

    async def _load_lots(self, commands: list[c.AnyCommand], complete: set[Owner]) -> None:
        lot_ids, owners, ending = set[int](), set[Owner](), set[Owner]()
        spendings, reversed_sequences = set[int](), set[int]()
        for command in commands:
            target = self._target(command)
            if isinstance(command, SPENDING):
                self._add_owners(owners, command)
            elif isinstance(command, c.Confirm | c.ExpireLots):
                lot_ids.update(command.lot_ids)
                if isinstance(command, c.ExpireLots) and command.account_id is not None and not command.lot_ids:
                    ending.add((command.account_id, command.program_id))
            if target is None:
                continue
            if isinstance(command, c.Refund):
                spendings.add(target.sequence)
            elif isinstance(command, c.Reverse):
                reversed_sequences.add(target.sequence)
            else:
                lot_ids.add(target.sequence * LOTS_PER_OPERATION_MAX)
            if isinstance(command, c.Clawback) and target.account_id is not None and target.program_id is not None:
                owners.add((target.account_id, target.program_id))
        await self._load_uses(list(spendings | reversed_sequences))
        lot_ids.update(use.lot_id for use in self.uses)
        lot_ids.update(lot.lot_id for hold in self.holds for lot in hold.lots)
        await self._load_shelves(owners - complete - ending, LOTS_OF_OWNER_MAX)
        await self._load_shelves(owners & complete, None)
        if ending:
            await self._add_lots(_LOTS_OF_OWNERS, *map(list, zip(*ending, strict=True)))
        if lot_ids - self.lots.keys():
            await self._add_lots(_LOTS_BY_ID, list(lot_ids - self.lots.keys()))
        if reversed_sequences:
            await self._add_lots(_LOTS_OF_OPERATIONS, list(reversed_sequences))

    async def _load_uses(self, sequences: list[int]) -> None:
        if sequences:
            self.uses = [rows.to_use(row) for row in await self.connection.fetch(_USES, sequences)]
            self.spent = [rows.to_spent(row) for row in await self.connection.fetch(_SPENT, sequences)]

    def _target(self, command: c.AnyCommand) -> Operation | None:
        if not self.operations:
            return None
        for name in ("earning_id", "spending_id", "reversed_id"):
            target: uuid.UUID | None = getattr(command, name, None)
            if target is not None:
                return self.operations.get(target)
        return None

    def _add_owners(self, owners: set[Owner], command: c.Redeem | c.Hold | c.Transfer | c.Exchange | c.Adjust) -> None:
        account = self.accounts.get(command.account_id) if command.account_id is not None else None
        if account is None:
            return
        quote = self.quotes.get(command.quote_id) if isinstance(command, c.Spend) and command.quote_id is not None else None
        for program_id in [line.program_id for line in quote.lines] if quote is not None else [command.program_id]:
            owners.add((account.account_id, program_id))
            owners.update((child, program_id) for child in account.family)
            if account.pool is not None and isinstance(command, c.Spend) and command.use_pool:
                owners.update((owner, program_id) for owner in account.pool.owners)

    async def _load_shelves(self, owners: set[Owner], limit: int | None) -> None:
        if not owners:
            return
        account_ids, program_ids = map(list, zip(*owners, strict=True))
        found: dict[Owner, list[Lot]] = {}
        for row in await self.connection.fetch(_SHELVES, account_ids, program_ids, limit):
            lot = self.lots.setdefault(row["lot_id"], rows.to_lot(row))
            found.setdefault((lot.account_id, lot.program_id), []).append(lot)
        if limit is not None:
            self.incomplete |= {owner: lots[-1].order for owner, lots in found.items() if len(lots) >= limit}

    async def _add_lots(self, query: str, *arguments: object) -> None:
        for row in await self.connection.fetch(query, *arguments):
            self.lots.setdefault(row["lot_id"], rows.to_lot(row))

    # ---- balances and exposures

    def _find_pairs(self, commands: list[c.AnyCommand]) -> None:
        for command in commands:
            if isinstance(command, c.Earn | c.Spend | c.Adjust | c.Transfer | c.Exchange):
                if command.program_id:
                    self._add_place(command.program_id, command.institution_id)
                    self._add_family(command.account_id, command.program_id)
                self._find_pairs_of_receiver(command)
            elif isinstance(command, c.Settle):
                self.pairs.update((key.owner, key.program_id) for key, _ in command.legs)
                self.agreement_ids.update(agreement_id for agreement_id, _, _ in command.exposures)
            else:
                target = self._target(command)
                if target is not None and target.program_id is not None:
                    self._add_place(target.program_id, target.institution_id)
                    self._add_family(target.account_id, target.program_id)
                program_id = getattr(command, "program_id", "")
                if program_id:
                    self._add_place(program_id, None)
                    self._add_family(command.account_id, program_id)
        self._find_pairs_of_spendings()
        for operation in self.operations.values():
            result = operation.result or {}
            if "agreement" in result:
                self.agreement_ids.add(uuid.UUID(result["agreement"][0]))
            if "payee" in result and operation.program_id is not None:
                self._add_place(operation.program_id, result["payee"])
        owners = {(lot.account_id, lot.program_id) for lot in self.lots.values()}
        self.pairs.update((str(account_id), program_id) for account_id, program_id in owners)
        for program_id in {program_id for _, program_id in owners}:
            self._add_place(program_id, None)

    def _find_pairs_of_receiver(self, command: c.AnyCommand) -> None:
        if isinstance(command, c.Transfer):
            self._add_family(command.to_account_id, command.program_id)
        elif isinstance(command, c.Exchange):
            into = self.configuration.program(command.to_program_id)
            if into is not None:
                self._add_place(command.program_id, into.institution_id)
                self._add_place(command.to_program_id, None)
                self._add_family(command.account_id, command.to_program_id)

    def _find_pairs_of_spendings(self) -> None:
        spendings = [(hold.account_id, hold.institution_id, hold.target, [m.line for m in hold.lines]) for hold in self.holds]
        spendings += [(quote.account_id, quote.institution_id, quote.target, list(quote.lines)) for quote in self.quotes.values()]
        places = {operation.sequence: operation for operation in self.operations.values()}
        for spent in self.spent:
            operation = places[spent.sequence]
            assert operation.account_id is not None
            spendings.append((operation.account_id, operation.institution_id, spent.target, [spent.line]))
        for account_id, institution_id, price, lines in spendings:
            for program_id in {line.program_id for line in lines} | ({price.program_id} - {None}):
                assert program_id is not None
                self._add_place(program_id, institution_id)
                self._add_family(account_id, program_id)
            self.agreement_ids.update(line.agreement_id for line in lines if line.agreement_id is not None)

    def _add_place(self, program_id: str, institution_id: str | None) -> None:
        program = self.configuration.program(program_id)
        if program is None:
            return
        self.pairs.add((program.institution_id, program_id))
        if institution_id is not None and institution_id != program.institution_id:
            self.pairs.add((institution_id, program_id))
            self.places.add((program.institution_id, institution_id))

    def _add_family(self, account_id: uuid.UUID | None, program_id: str) -> None:
        account = self.accounts.get(account_id) if account_id is not None else None
        if account is not None:
            self.pairs.add((str(account.account_id), program_id))
            self.pairs.update((str(child), program_id) for child in account.family)

    async def _load_balances(self) -> None:
        if not self.pairs:
            return
        owners, program_ids = map(list, zip(*self.pairs, strict=True))
        for row in await self.connection.fetch(_BALANCES, owners, program_ids):
            ledger_account_id, owner, kind, program_id, balance_points, version = row
            key = AccountKey(owner, KINDS[kind], program_id)
            self.balances[key] = Balance(balance_points, version)
            self.ids[key] = ledger_account_id

    async def _load_exposures(self) -> None:
        for issuer_id, institution_id in self.places:
            for basis in Basis:
                terms = self.configuration.agreement(issuer_id, institution_id, basis, self.now)
                if terms is not None:
                    self.agreement_ids.add(terms.agreement_id)
        if self.agreement_ids:
            found = await self.connection.fetch(
                "SELECT * FROM exposures WHERE agreement_id = ANY($1::uuid[])", list(self.agreement_ids)
            )
            self.exposures = {row["agreement_id"]: rows.to_exposure(row) for row in found}


_OPERATION = rows.columns(rows.OPERATION)
_LOT = rows.columns(rows.LOT, "l")
_TAKEN_BACK = """
SELECT target_id, sum(amount_points)::bigint AS points, bool_or(kind = 'REVERSE') AS reversed
FROM operations WHERE target_id = ANY($1::uuid[]) AND outcome = 'POSTED' AND kind IN ('CANCEL', 'CLAWBACK', 'REVERSE')
GROUP BY target_id
"""
_ACCOUNTS = """
SELECT a.account_id, a.status, a.holder_customer_id, a.parent_account_id,
       CASE WHEN a.parent_account_id IS NULL AND a.holder_customer_id IS NOT NULL THEN ARRAY(
           SELECT f.account_id FROM accounts f
           WHERE f.holder_customer_id = a.holder_customer_id AND f.parent_account_id IS NOT NULL AND f.status <> 'FROZEN'
           ORDER BY f.account_id
       ) END AS child_account_ids
FROM accounts a WHERE a.account_id = ANY($1::uuid[])
"""
_SHELVES = f"""
SELECT lot.* FROM unnest($1::uuid[], $2::text[]) AS owner (account_id, program_id)
CROSS JOIN LATERAL (
    SELECT {_LOT} FROM lots l
    WHERE l.account_id = owner.account_id AND l.program_id = owner.program_id AND open AND state = 'ACTIVE'
    ORDER BY expire_time, lot_id LIMIT $3
) lot
"""
_LOTS_OF_OWNERS = f"""
SELECT {_LOT} FROM unnest($1::uuid[], $2::text[]) AS owner (account_id, program_id) JOIN lots l USING (account_id, program_id)
WHERE open
"""
_LOTS_BY_ID = f"SELECT {_LOT} FROM lots l WHERE lot_id = ANY($1::bigint[])"
_LOTS_OF_OPERATIONS = f"""
SELECT {_LOT} FROM unnest($1::bigint[]) AS issued (sequence)
JOIN lots l ON l.lot_id >= issued.sequence * {LOTS_PER_OPERATION_MAX}
    AND l.lot_id < (issued.sequence + 1) * {LOTS_PER_OPERATION_MAX}
"""
_USES = "SELECT * FROM lot_uses WHERE sequence = ANY($1::bigint[])"
_SPENT = "SELECT * FROM spend_lines WHERE sequence = ANY($1::bigint[])"
_BALANCES = """
SELECT a.ledger_account_id, a.owner, a.kind, a.program_id, a.balance_points, a.version
FROM unnest($1::text[], $2::text[]) AS pair (owner, program_id) JOIN ledger_accounts a USING (owner, program_id)
"""
