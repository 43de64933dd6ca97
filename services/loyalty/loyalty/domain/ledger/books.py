"""The working state of a batch: what was loaded of the ledger, changed in memory as commands are decided, and what is new."""

import bisect
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple, Protocol, TypeAlias

from loyalty.domain.ledger.commands import Command
from loyalty.domain.ledger.configuration import AgreementTerms, Configuration, Funding, ProgramTerms
from loyalty.domain.ledger.types import (
    LOTS_PER_OPERATION_MAX,
    NEVER,
    Account,
    AccountKey,
    AccountKind,
    Balance,
    ClearingItem,
    Decided,
    Entry,
    Head,
    Hold,
    Lot,
    LotReturn,
    LotState,
    LotUse,
    Operation,
    OrderKey,
    Outcome,
    Quote,
    SpendLine,
    SpentLine,
)

NOTHING = Balance()
Owner: TypeAlias = tuple[uuid.UUID, str]
"""A member account and a programme."""


class LotsNeeded(Exception):
    """The lots that were loaded do not reach: load all of these owners' and decide the batch again."""

    def __init__(self, owners: Iterable[Owner]) -> None:
        super().__init__("more lots are needed")
        self.owners = set(owners)


class Taken(NamedTuple):
    """Points to be taken of a lot."""

    lot: Lot
    points: int


class Limits(Protocol):
    """What callers, members and partners may do how often and how much; decided in the batch, so that nobody passes by."""

    def exceeded(self, command: Command, lines: Sequence[SpendLine], books: "Books") -> dict[str, Any] | None:
        """The limit that this earning or spending would pass, and when it is free again; None where it would pass none."""

    def count(self, command: Command, lines: Sequence[SpendLine], books: "Books") -> None:
        """It was posted."""

    def rows(self) -> list[tuple[uuid.UUID, str, datetime, int, int]]:
        """What is counted now: limit, subject, window, operations, points."""


class Shelf:
    """ACTIVE lots of an owner with points available, in the order of spending. Incomplete ones end with the last loaded lot."""

    __slots__ = ("complete", "lots")

    def __init__(self, lots: Iterable[Lot] = (), complete: bool = True) -> None:
        self.lots = sorted(lots, key=_order)
        self.complete = complete

    def trimmed(self) -> list[Lot]:
        """The lots, without what is used up at the beginning: a busy account does not pass over it again and again."""
        lots = self.lots
        while lots and lots[0].remaining_points == lots[0].reserved_points:
            del lots[0]
        return lots

    def put(self, lot: Lot) -> None:
        """Puts a lot in its place, unless it is there, or lots that were not loaded come before it."""
        place = bisect.bisect_left(self.lots, lot.order, key=_order)
        if place == len(self.lots):
            if self.complete:
                self.lots.append(lot)
        elif self.lots[place] is not lot:
            self.lots.insert(place, lot)


def _order(lot: Lot) -> tuple[datetime, int]:
    return lot.order


class Books:
    """What a batch stands on and what it makes. Rules change it only through its methods, after they decided to post."""

    def __init__(
        self,
        head: Head,
        configuration: Configuration,
        now: datetime,
        *,
        accounts: Mapping[uuid.UUID, Account] | None = None,
        balances: Mapping[AccountKey, Balance] | None = None,
        lots: Iterable[Lot] = (),
        incomplete: Mapping[Owner, tuple[datetime, int]] | None = None,
        operations: Iterable[Operation] = (),
        taken_back: Mapping[uuid.UUID, int] | None = None,
        reversed_ids: Iterable[uuid.UUID] = (),
        uses: Iterable[LotUse] = (),
        spent: Iterable[SpentLine] = (),
        holds: Iterable[Hold] = (),
        quotes: Iterable[Quote] = (),
        exposures: Mapping[uuid.UUID, Fraction] | None = None,
        known: Mapping[OrderKey, Operation] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.head, self.configuration, self.now, self.limits = head, configuration, now, limits
        self.sequence = head.sequence + 1
        self.head_at_start = head.sequence
        """The last sequence that was written before the batch."""
        self.accounts = dict(accounts or {})
        self.balances = dict(balances or {})
        self.lots = {lot.lot_id: lot for lot in lots}
        self.operations = {operation.operation_id: operation for operation in operations}
        self.taken_back = dict(taken_back or {})
        self.reversed_ids = set(reversed_ids)
        self.uses: dict[int, list[LotUse]] = {}
        self.spent: dict[int, list[SpentLine]] = {}
        self.holds = {hold.hold_id: hold for hold in holds}
        self.quotes = {quote.quote_id: quote for quote in quotes}
        self.exposures = dict(exposures or {})
        self.known = dict(known or {})
        self._shelves: dict[Owner, Shelf] = {}
        self._keys: dict[tuple[uuid.UUID, str, str], AccountKey] = {}
        self._fill(uses, spent, incomplete or {})
        # What is new.
        self.posted: list[Operation] = []
        self.entries: list[tuple[int, Entry]] = []
        self.moved: set[AccountKey] = set()
        self.new_lots: list[Lot] = []
        self.changed_lots: dict[int, Lot] = {}
        self.activated_lots: set[int] = set()
        self.new_uses: list[LotUse] = []
        self.changed_uses: dict[tuple[int, int], LotUse] = {}
        self.returns: list[LotReturn] = []
        self.new_holds: dict[uuid.UUID, Hold] = {}
        self.changed_holds: dict[uuid.UUID, Hold] = {}
        self.new_spent: list[SpentLine] = []
        self.changed_spent: dict[tuple[int, int], SpentLine] = {}
        self.items: list[ClearingItem] = []
        self.changed_exposures: set[uuid.UUID] = set()
        self.used_quotes: dict[uuid.UUID, uuid.UUID] = {}
        self.low_water: dict[uuid.UUID, AgreementTerms] = {}
        self.begin()

    def _fill(self, uses: Iterable[LotUse], spent: Iterable[SpentLine], incomplete: Mapping[Owner, tuple[datetime, int]]) -> None:
        """Of owners who have more lots than were loaded, only those up to the last one in order are on the shelf."""
        shelves: dict[Owner, list[Lot]] = {owner: [] for owner in incomplete}
        for lot in self.lots.values():
            if lot.state is LotState.ACTIVE and lot.remaining_points > lot.reserved_points:
                owner = lot.account_id, lot.program_id
                if owner not in incomplete or lot.order <= incomplete[owner]:
                    shelves.setdefault(owner, []).append(lot)
        for owner, lots in shelves.items():
            self._shelves[owner] = Shelf(lots, owner not in incomplete)
        for use in uses:
            self.uses.setdefault(use.sequence, []).append(use)
        for line in spent:
            self.spent.setdefault(line.sequence, []).append(line)

    # ---- one operation

    def begin(self) -> None:
        """Forgets the legs of the operation before."""
        self.legs: dict[AccountKey, int] = {}
        self.lots_issued_count = self.uses_count = self.returns_count = self.items_count = 0

    def end(self) -> list[Entry]:
        """The legs of the operation as entries; the balances are moved."""
        entries = []
        for key, amount in self.legs.items():
            if amount:
                before = self.balances.get(key, NOTHING)
                after = Balance(before.balance_points + amount, before.version + 1)
                self.balances[key] = after
                self.moved.add(key)
                entries.append(Entry(key, after.version, amount, after.balance_points))
        return entries

    # ---- reading

    def key(self, account_id: uuid.UUID, kind: AccountKind, program_id: str) -> AccountKey:
        """The ledger account of a member."""
        asked = account_id, kind, program_id
        key = self._keys.get(asked)
        if key is None:
            key = self._keys[asked] = AccountKey(str(account_id), kind, program_id)
        return key

    def points(self, account_id: uuid.UUID, kind: AccountKind, program_id: str) -> int:
        """A member's balance, with the legs of the operation in hand."""
        key = self.key(account_id, kind, program_id)
        return self.balances.get(key, NOTHING).balance_points + self.legs.get(key, 0)

    def points_of(self, account: Account, program_id: str) -> tuple[int, int]:
        """What an account may spend with its family, and the family's part of it."""
        if not account.family:
            return self.points(account.account_id, AccountKind.MEMBER, program_id), 0
        others = sum(self.points(child, AccountKind.MEMBER, program_id) for child in account.family)
        return self.points(account.account_id, AccountKind.MEMBER, program_id) + others, others

    def shelf(self, owner: Owner) -> Shelf:
        """The lots of an owner that have points available."""
        shelf = self._shelves.get(owner)
        if shelf is None:
            shelf = self._shelves[owner] = Shelf()
        return shelf

    def pick(self, owners: Sequence[uuid.UUID], program_id: str, points: int, first: Lot | None = None) -> list[Taken]:
        """Which lots to take points of, in the order of spending; fewer points where there are no more. Changes nothing.

        Args:
            owners: member accounts: among lots that end together the first one's go first.
            program_id: whose points.
            points: how many.
            first: a lot to begin with.

        Raises:
            LotsNeeded: when there may be lots that were not loaded.
        """
        shelves = [self.shelf((owner, program_id)) for owner in owners]
        lots: Sequence[Lot] = shelves[0].trimmed()
        if len(shelves) > 1:
            incomplete = [owner for owner, shelf in zip(owners, shelves, strict=True) if not shelf.complete]
            if incomplete:
                raise LotsNeeded((owner, program_id) for owner in incomplete)
            rank = {owner: position for position, owner in enumerate(owners)}
            lots = sorted(
                (lot for shelf in shelves for lot in shelf.lots),
                key=lambda lot: (lot.expire_time or NEVER, rank[lot.account_id], lot.lot_id),
            )
        missing, taken = points, []
        if first is not None:
            lots = [first, *(lot for lot in lots if lot is not first)]
        for lot in lots:
            if missing <= 0:
                break
            available = lot.remaining_points - lot.reserved_points
            if available > 0 and (lot.expire_time is None or lot.expire_time > self.now):
                taken.append(Taken(lot, min(available, missing)))
                missing -= available
        if missing > 0 and len(shelves) == 1 and not shelves[0].complete:
            raise LotsNeeded([(owners[0], program_id)])
        return taken

    # ---- changing

    def move(self, key: AccountKey, points: int) -> None:
        """Adds to a leg of the operation."""
        self.legs[key] = self.legs.get(key, 0) + points

    def move_member(self, account_id: uuid.UUID, kind: AccountKind, program_id: str, points: int) -> None:
        """Adds to a leg of a member."""
        key = self.key(account_id, kind, program_id)
        self.legs[key] = self.legs.get(key, 0) + points

    def move_issuer(self, program: ProgramTerms, points: int) -> None:
        """Adds to the issuer's leg: below zero issues, above zero takes back."""
        self.move(AccountKey(program.institution_id, AccountKind.ISSUER, program.program_id), points)

    def issue(self, lot: Lot) -> None:
        """Puts a new lot into the books; its id comes from `next_lot_id`."""
        self.lots[lot.lot_id] = lot
        self.new_lots.append(lot)
        if lot.state is LotState.ACTIVE and lot.remaining_points > lot.reserved_points:
            self.shelf((lot.account_id, lot.program_id)).put(lot)

    def next_lot_id(self) -> int:
        """The id of the operation's next lot."""
        if self.lots_issued_count >= LOTS_PER_OPERATION_MAX:
            raise OverflowError("an operation issues too many lots")
        self.lots_issued_count += 1
        return self.sequence * LOTS_PER_OPERATION_MAX + self.lots_issued_count - 1

    def changed(self, lot: Lot) -> None:
        """Says that a lot is not as it was."""
        if lot.lot_id // LOTS_PER_OPERATION_MAX <= self.head_at_start:
            self.changed_lots[lot.lot_id] = lot

    def use(self, lot: Lot, points: int) -> None:
        """Writes down that the operation used points of a lot; `remaining_points` falls, `reserved_points` is the caller's."""
        lot.remaining_points -= points
        self.changed(lot)
        made = LotUse(self.sequence, self.uses_count, lot.lot_id, points)
        self.uses_count += 1
        self.new_uses.append(made)
        self.uses.setdefault(self.sequence, []).append(made)

    def reserve(self, lot: Lot, points: int) -> None:
        """Reserves points of a lot, or (below zero) releases them."""
        lot.reserved_points += points
        self.changed(lot)
        if points < 0 and lot.remaining_points > lot.reserved_points:
            self.shelf((lot.account_id, lot.program_id)).put(lot)

    def give_back(self, use: LotUse, points: int) -> Lot:
        """Brings points of a use back into their lot."""
        lot = self.lots[use.lot_id]
        lot.remaining_points += points
        use.returned_points += points
        self.changed(lot)
        if use.sequence <= self.head_at_start:
            self.changed_uses[use.sequence, use.ordinal] = use
        self.returns.append(LotReturn(self.sequence, self.returns_count, use.sequence, use.ordinal, lot.lot_id, points))
        self.returns_count += 1
        if lot.state is LotState.ACTIVE:
            self.shelf((lot.account_id, lot.program_id)).put(lot)
        return lot

    def activate(self, lot: Lot) -> None:
        """A promise becomes true."""
        lot.state, lot.active_time = LotState.ACTIVE, self.now
        self.activated_lots.add(lot.lot_id)
        self.changed(lot)
        if lot.remaining_points:
            self.shelf((lot.account_id, lot.program_id)).put(lot)

    def hold_changed(self, hold: Hold) -> None:
        """Says that a hold is not as it was."""
        if hold.hold_id not in self.new_holds:
            self.changed_holds[hold.hold_id] = hold

    def owe(self, payer: str, payee: str, program_id: str, points: int, terms: AgreementTerms | None) -> None:
        """Writes a clearing item."""
        self.items.append(
            ClearingItem(
                self.sequence,
                self.items_count,
                payer,
                payee,
                terms.agreement_id if terms else None,
                terms.version if terms else None,
                program_id,
                points,
                terms.price_numerator if terms else None,
                terms.price_denominator if terms else None,
                terms.fee_basis_points if terms else None,
                terms.currency_code if terms else None,
            )
        )
        self.items_count += 1

    def within_cap(self, terms: AgreementTerms, points: int) -> bool:
        """Whether an agreement bears the exposure of so many points more."""
        if terms.limit_minor_units is None:
            return True
        exposure = self.exposures.get(terms.agreement_id, 0)
        return exposure + Fraction(points * terms.price_numerator, terms.price_denominator) <= terms.limit_minor_units

    def limited(self, command: Command, lines: Sequence[SpendLine], decided: Decided) -> bool:
        """Whether a limit refuses it; then what was decided says which, and when it is free again."""
        passed = self.limits.exceeded(command, lines, self) if self.limits is not None else None
        if passed is not None:
            decided.outcome, decided.result = Outcome.LIMIT_EXCEEDED, passed
        return passed is not None

    def expose(self, terms: AgreementTerms, points: int) -> None:
        """Raises the exposure of an agreement by points, or (below zero) lowers it."""
        before = self.exposures.get(terms.agreement_id, Fraction(0))
        after = before + Fraction(points * terms.price_numerator, terms.price_denominator)
        self.exposures[terms.agreement_id] = after
        self.changed_exposures.add(terms.agreement_id)
        if terms.funding is Funding.PREPAID and terms.low_water_minor_units is not None and terms.limit_minor_units is not None:
            mark = terms.limit_minor_units - terms.low_water_minor_units
            if before <= mark < after:
                self.low_water[terms.agreement_id] = terms

    def lower(self, agreement_id: uuid.UUID, numerator: int, denominator: int) -> None:
        """Lowers the exposure of an agreement by an exact amount of minor units."""
        before = self.exposures.get(agreement_id, Fraction(0))
        self.exposures[agreement_id] = before - Fraction(numerator, denominator)
        self.changed_exposures.add(agreement_id)
