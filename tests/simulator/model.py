"""The ledger again in the plainest words: who reads the log of operations can decide each of them anew, and knows all balances.

Shares nothing with the engine but the terms of programmes, agreements and rates. It keeps no ledger accounts: what members have
it counts over lots, what institutions owe over what happened.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from loyalty.domain.ledger.configuration import AgreementTerms, Basis, PlainConfiguration
from loyalty.domain.ledger.types import Operation

LOTS_PER_OPERATION = 1024
END_OF_TIME = datetime.max.replace(tzinfo=UTC)


class Refused(Exception):
    """An operation that moves nothing; its outcome."""


@dataclass
class Lot:
    """Points that were issued together."""

    lot_id: int
    account_id: uuid.UUID
    program_id: str
    pending: bool
    issued: int
    remaining: int
    expire_time: datetime | None
    reserved: int = 0

    @property
    def free(self) -> int:
        """What may be spent of it, its time aside."""
        return 0 if self.pending else self.remaining - self.reserved


@dataclass
class Line:
    """A line of a spending: points of a programme for a part of the price."""

    program_id: str
    points: int
    value: int
    rate: Fraction
    agreement: AgreementTerms | None
    done_points: int = 0
    done_value: int = 0
    lots: list[list[int]] = field(default_factory=list)
    """Of a hold: [lot, reserved, captured]; of a spending: [lot, used, returned]."""
    residue: int = 0


@dataclass
class Spending:
    """A hold, or what a capture or redemption spent."""

    institution_id: str
    target: str | None
    lines: list[Line]
    state: str = "OPEN"
    expire_time: datetime | None = None


@dataclass
class Deed:
    """What may be undone: an operation with what it used and issued."""

    operation: Operation
    used: list[list[int]]
    issued: list[Lot]
    taken_back: int = 0
    undone: bool = False
    agreement: AgreementTerms | None = None
    residue: int = 0


class Model:
    """Replays a log.

    Args:
        configuration: the terms, the same for the whole log.
        families: of each member account the accounts that stand under it.
        quotes: by id, [institution, target programme or None, lines, expire time].
    """

    def __init__(
        self,
        configuration: PlainConfiguration,
        families: Mapping[uuid.UUID, tuple[uuid.UUID, ...]],
        quotes: Mapping[uuid.UUID, tuple[uuid.UUID, str, str | None, list[dict[str, Any]], datetime]],
    ) -> None:
        self.terms, self.families, self.quotes = configuration, families, quotes
        self.lots: dict[int, Lot] = {}
        self.open: dict[tuple[uuid.UUID, str], dict[int, Lot]] = {}
        """By owner and programme the lots that have points left."""
        self.house: Counter[tuple[str, str, str]] = Counter()
        self.debts: Counter[tuple[uuid.UUID, str]] = Counter()
        self.exposures: dict[uuid.UUID, Fraction] = {}
        self.owed: Counter[tuple[str, str, str]] = Counter()
        """Points by payer, payee, programme."""
        self.holds: dict[uuid.UUID, Spending] = {}
        self.spendings: dict[uuid.UUID, Spending] = {}
        self.deeds: dict[uuid.UUID, Deed] = {}
        self.used_quotes: set[uuid.UUID] = set()

    def replay(self, operation: Operation) -> tuple[str, int]:
        """The outcome that an operation must have had, and its amount."""
        self.now, self.operation, self.asked = operation.post_time, operation, json.loads(operation.command or "{}")
        self.used: list[list[int]] = []
        self.issued: list[Lot] = []
        self.reserved: list[list[int]] = []
        try:
            amount = getattr(self, operation.kind.lower())()
        except Refused as refused:
            return str(refused), operation.amount_points
        return "POSTED", amount

    def lots_agree(self) -> bool:
        """Whether the operation that was replayed last spent or reserved the lots that the model would."""
        if self.operation.kind not in {"REDEEM", "HOLD", "CAPTURE"} or self.operation.outcome != "POSTED":
            return True
        mine = self.reserved
        if self.operation.kind != "HOLD":
            mine = [use[:2] for line in self.spendings[self.operation.operation_id].lines for use in line.lots]
        return mine == (self.operation.result or {}).get("lots")

    # ---- what members and institutions have

    def balances(self) -> dict[tuple[str, str, str], int]:
        """All ledger accounts that are not empty, by owner, kind and programme."""
        found = Counter(self.house)
        for lot in self.lots.values():
            owner = str(lot.account_id)
            found[owner, "PENDING" if lot.pending else "MEMBER", lot.program_id] += lot.remaining - lot.reserved
            found[owner, "HELD", lot.program_id] += lot.reserved
        for (account_id, program_id), points in self.debts.items():
            found[str(account_id), "DEBT", program_id] -= points
        return {key: points for key, points in found.items() if points}

    def _free(self, owners: Iterable[uuid.UUID], program_id: str) -> int:
        return sum(lot.free for owner in owners for lot in self.open.get((owner, program_id), {}).values())

    def _pick(
        self, owners: tuple[uuid.UUID, ...], program_id: str, points: int, first: int | None = None
    ) -> list[tuple[Lot, int]]:
        """Soonest end first, own before the family's, older before younger."""
        lots = [
            lot
            for owner in owners
            for lot in self.open.get((owner, program_id), {}).values()
            if lot.free > 0 and not self._over(lot)
        ]
        lots.sort(key=lambda lot: (lot.lot_id != first, lot.expire_time or END_OF_TIME, owners.index(lot.account_id), lot.lot_id))
        picked = []
        for lot in lots:
            taken = min(lot.free, points)
            if taken:
                picked.append((lot, taken))
                points -= taken
        return picked

    def _spendable(self, owners: tuple[uuid.UUID, ...], program_id: str, points: int) -> list[tuple[Lot, int]]:
        if self._free(owners, program_id) < points:
            raise Refused("INSUFFICIENT_POINTS")
        picked = self._pick(owners, program_id, points)
        if sum(taken for _, taken in picked) < points:
            raise Refused("POINTS_EXPIRED")
        return picked

    def _over(self, lot: Lot) -> bool:
        return lot.expire_time is not None and lot.expire_time <= self.now

    # ---- what may happen to lots

    def _use(self, lot: Lot, points: int) -> None:
        lot.remaining -= points
        self.used.append([lot.lot_id, points, 0])
        assert 0 <= lot.reserved <= lot.remaining
        if not lot.remaining:
            del self.open[lot.account_id, lot.program_id][lot.lot_id]

    def _issue(
        self, account_id: uuid.UUID, program_id: str, points: int, *, pending: bool = False, expire_time: datetime | None = None
    ) -> Lot:
        lot_id = self.operation.sequence * LOTS_PER_OPERATION + len(self.issued)
        lot = self.lots[lot_id] = Lot(lot_id, account_id, program_id, pending, points, points, expire_time)
        self.issued.append(lot)
        self._opened(lot)
        return lot

    def _opened(self, lot: Lot) -> None:
        self.open.setdefault((lot.account_id, lot.program_id), {})[lot.lot_id] = lot

    def _issuer(self, program_id: str, points: int) -> None:
        self.house[self._issuer_of(program_id), "ISSUER", program_id] += points

    def _issuer_of(self, program_id: str) -> str:
        return self.terms.programs[program_id].institution_id

    def _pay_debt(self, lot: Lot) -> None:
        paid = min(self.debts[lot.account_id, lot.program_id], lot.remaining)
        if paid:
            self.debts[lot.account_id, lot.program_id] -= paid
            self._use(lot, paid)

    def _give_back(self, used: list[list[int]], points: int) -> None:
        for use in reversed(used):
            lot, back = self.lots[use[0]], min(points, use[1] - use[2])
            if back <= 0:
                continue
            use[2] += back
            points -= back
            if not self._over(lot):
                lot.remaining += back
                self._opened(lot)
            elif grace_days := self.terms.programs[lot.program_id].refund_grace_days:
                self._issue(lot.account_id, lot.program_id, back, expire_time=self.now + timedelta(days=grace_days))
            else:
                self._issuer(lot.program_id, back)
        assert points == 0

    # ---- between institutions

    def _expose(self, terms: AgreementTerms | None, points: int, check: bool = False) -> None:
        if terms is None:
            return
        after = self.exposures.get(terms.agreement_id, Fraction(0)) + points * Fraction(
            terms.price_numerator, terms.price_denominator
        )
        if check and terms.limit_minor_units is not None and after > terms.limit_minor_units:
            raise Refused("CAP_EXCEEDED")
        if not check:
            self.exposures[terms.agreement_id] = after

    def _redeemed(self, place: str, line: Line, points: int) -> None:
        """The redeemer gets points: its own end, others' it will be paid for."""
        issuer = self._issuer_of(line.program_id)
        if issuer == place:
            self._issuer(line.program_id, points)
        else:
            self.house[place, "PARTNER", line.program_id] += points
            self.owed[issuer, place, line.program_id] += points

    def _converted(self, place: str, target: str | None, line: Line, value: int, residue: int) -> None:
        if target is not None and target != line.program_id:
            self.house[place, "LIQUIDITY", target] -= value + residue
            self.house[place, "REDEEMED", target] += value
            self.house[self._issuer_of(target), "ROUNDING", target] += residue

    # ---- operations

    def _owners(self, account_id: uuid.UUID | None) -> tuple[uuid.UUID, ...]:
        assert account_id is not None
        return account_id, *self.families.get(account_id, ())

    def _did(self, agreement: AgreementTerms | None = None, residue: int = 0) -> None:
        self.deeds[self.operation.operation_id] = Deed(
            self.operation, self.used, list(self.issued), agreement=agreement, residue=residue
        )

    def earn(self) -> int:
        asked, operation = self.asked, self.operation
        program, points, place = self.terms.programs[asked["program_id"]], asked["amount_points"], operation.institution_id
        terms = None
        if place != program.institution_id:
            terms = self.terms.agreement(program.institution_id, place, Basis.AT_ISSUANCE, self.now)
            if terms is None:
                raise Refused("NO_AGREEMENT")
            self._expose(terms, points, check=True)
        pending, active_time = asked["pending"], asked["active_time"]
        active_time = datetime.fromisoformat(active_time) if active_time else None
        if pending is None:
            pending = program.pending_days > 0
            active_time = operation.effective_time + timedelta(days=program.pending_days) if pending else None
        start = active_time if pending and active_time else self.now
        expire_time = (
            datetime.fromisoformat(asked["expire_time"]) if asked["expire_time"] else program.expire_time(self.now, start)
        )
        assert operation.account_id is not None
        lot = self._issue(operation.account_id, program.program_id, points, pending=pending, expire_time=expire_time)
        self._issuer(program.program_id, -points)
        if not pending:
            self._pay_debt(lot)
        if terms is not None:
            self._expose(terms, points)
            self.owed[place, program.institution_id, program.program_id] += points
        self._did(terms)
        return int(points)

    def confirm(self) -> int:
        if self.asked["earning_id"]:
            lot_ids = (
                [self.deeds[uuid.UUID(self.asked["earning_id"])].operation.sequence * LOTS_PER_OPERATION]
                if (uuid.UUID(self.asked["earning_id"]) in self.deeds)
                else []
            )
        else:
            lot_ids = self.asked["lot_ids"]
        lots = [self.lots[lot_id] for lot_id in dict.fromkeys(lot_ids) if lot_id in self.lots]
        lots = [lot for lot in lots if lot.pending and lot.remaining and lot.program_id == self.operation.program_id]
        if not lots:
            raise Refused("LOT_NOT_PENDING")
        points = sum(lot.remaining for lot in lots)
        for lot in lots:
            lot.pending = False
            self._pay_debt(lot)
        return points

    def cancel(self) -> int:
        deed = self.deeds.get(uuid.UUID(self.asked["earning_id"]))
        lot = deed.issued[0] if deed is not None else None
        if deed is None or lot is None or not lot.pending or not lot.remaining:
            raise Refused("LOT_NOT_PENDING")
        points = lot.remaining
        self._use(lot, points)
        self._issuer(lot.program_id, points)
        self._unearn(deed, points)
        return points

    def _unearn(self, deed: Deed, points: int) -> None:
        deed.taken_back += points
        if deed.agreement is not None:
            self._expose(deed.agreement, -points)
            issuer = deed.agreement.issuer_institution_id
            self.owed[deed.operation.institution_id, issuer, deed.issued[0].program_id] -= points

    def _planned(self) -> tuple[Spending, list[list[tuple[Lot, int]]]]:
        operation, asked = self.operation, self.asked
        if asked["quote_id"]:
            quote_id = uuid.UUID(asked["quote_id"])
            _, place, target, rows, expire_time = self.quotes[quote_id]
            if quote_id in self.used_quotes:
                raise Refused("QUOTE_USED")
            if expire_time <= self.now:
                raise Refused("QUOTE_EXPIRED")
        else:
            place, target = operation.institution_id, asked["program_id"]
            rows = [{"program_id": target, "points": asked["amount_points"], "value_units": asked["amount_points"]}]
        lines = []
        for row in rows:
            issuer = self._issuer_of(row["program_id"])
            terms = None if issuer == place else self.terms.agreement(issuer, place, Basis.AT_REDEMPTION, self.now)
            if row.get("agreement_id"):
                if terms is None or str(terms.agreement_id) != str(row["agreement_id"]):
                    raise Refused("NO_AGREEMENT")
                terms = self.terms.agreements[terms.agreement_id, row["agreement_version"]]
            if issuer != place and terms is None and self.terms.agreement_required:
                raise Refused("NO_AGREEMENT")
            rate = Fraction(row.get("numerator", 1), row.get("denominator", 1))
            lines.append(Line(row["program_id"], row["points"], row["value_units"], rate, terms))
        picked = [self._spendable(self._owners(operation.account_id), line.program_id, line.points) for line in lines]
        exposed: Counter[uuid.UUID] = Counter()
        for line in lines:
            if line.agreement is not None:
                exposed[line.agreement.agreement_id] += line.points
                self._expose(line.agreement, exposed[line.agreement.agreement_id], check=True)
        if asked["quote_id"]:
            self.used_quotes.add(uuid.UUID(asked["quote_id"]))
        return Spending(place, target, lines), picked

    def redeem(self) -> int:
        spending, picked = self._planned()
        for line, lots in zip(spending.lines, picked, strict=True):
            for lot, points in lots:
                self._use(lot, points)
                line.lots.append(self.used[-1])
            self._expose(line.agreement, line.points)
            self._spend(spending, line, line.points, line.value)
            line.done_points = line.done_value = 0
        self.spendings[self.operation.operation_id] = spending
        return sum(line.value for line in spending.lines)

    def _spend(self, spending: Spending, line: Line, points: int, value: int) -> None:
        """Points of a line go to the redeemer; `done_points` of it went before."""
        self._redeemed(spending.institution_id, line, points)
        line.residue = int((line.done_points + points) * line.rate) - int(line.done_points * line.rate) - value
        self._converted(spending.institution_id, spending.target, line, value, line.residue)

    def hold(self) -> int:
        spending, picked = self._planned()
        spending.expire_time = datetime.fromisoformat(self.asked["expire_time"])
        for line, lots in zip(spending.lines, picked, strict=True):
            for lot, points in lots:
                lot.reserved += points
                self.reserved.append([lot.lot_id, points])
                line.lots.append([lot.lot_id, points, 0])
            self._expose(line.agreement, line.points)
        self.holds[self.operation.operation_id] = spending
        return sum(line.value for line in spending.lines)

    def capture(self) -> int:
        hold = self.holds[uuid.UUID(self.asked["hold_id"])]
        left = sum(line.value - line.done_value for line in hold.lines)
        amount = left if self.asked["amount_units"] is None else self.asked["amount_units"]
        if hold.state != "OPEN":
            raise Refused("HOLD_EXPIRED" if hold.state == "EXPIRED" else "HOLD_NOT_OPEN")
        assert hold.expire_time is not None
        if hold.expire_time <= self.now:
            raise Refused("HOLD_EXPIRED")
        if amount > left:
            raise Refused("OVER_CAPTURE")
        spending = Spending(hold.institution_id, hold.target, [])
        rest = amount
        for line in hold.lines:
            value = min(rest, line.value - line.done_value)
            if not value:
                continue
            rest -= value
            points = -(-(line.done_value + value) * line.points // line.value) - line.done_points
            made = Line(line.program_id, points, value, line.rate, line.agreement, done_points=line.done_points)
            self._spend(spending, made, points, value)
            made.done_points = 0
            line.done_points, line.done_value = line.done_points + points, line.done_value + value
            for reserved in line.lots:
                taken = min(points, reserved[1] - reserved[2])
                if taken:
                    points -= taken
                    reserved[2] += taken
                    self.lots[reserved[0]].reserved -= taken
                    self._use(self.lots[reserved[0]], taken)
                    made.lots.append(self.used[-1])
            spending.lines.append(made)
        if amount == left:
            hold.state = "CAPTURED"
        elif self.asked["final"]:
            self._release(hold, "RELEASED")
        self.spendings[self.operation.operation_id] = spending
        return int(amount)

    def _release(self, hold: Spending, state: str) -> int:
        hold.state = state
        for line in hold.lines:
            for lot_id, reserved, captured in line.lots:
                lot, points = self.lots[lot_id], reserved - captured
                lot.reserved -= points
                if points and self._over(lot):
                    self._use(lot, points)
                    self._issuer(lot.program_id, points)
            self._expose(line.agreement, line.done_points - line.points)
        return sum(line.value - line.done_value for line in hold.lines)

    def void(self) -> int:
        hold = self.holds[uuid.UUID(self.asked["hold_id"])]
        if hold.state != "OPEN":
            raise Refused("HOLD_NOT_OPEN")
        return self._release(hold, "VOIDED")

    def hold_expire(self) -> int:
        hold = self.holds[uuid.UUID(self.asked["hold_id"])]
        if hold.state != "OPEN":
            raise Refused("HOLD_NOT_OPEN")
        assert hold.expire_time is not None
        assert hold.expire_time <= self.now
        return self._release(hold, "EXPIRED")

    def refund(self) -> int:
        spending = self.spendings.get(uuid.UUID(self.asked["spending_id"]))
        if spending is None:
            raise Refused("NOT_REFUNDABLE")
        left = sum(line.value - line.done_value for line in spending.lines)
        amount = left if self.asked["amount_units"] is None else self.asked["amount_units"]
        if not 0 < amount <= left:
            raise Refused("OVER_REFUND")
        rest = amount
        for line in reversed(spending.lines):
            value = min(rest, line.value - line.done_value)
            if not value:
                continue
            rest -= value
            line.done_value += value
            points = line.points - line.done_points - -(-(line.value - line.done_value) * line.points // line.value)
            line.done_points += points
            self._give_back(line.lots, points)
            self._redeemed(spending.institution_id, line, -points)
            self._expose(line.agreement, -points)
            whole = line.done_value == line.value
            self._converted(spending.institution_id, spending.target, line, -value, -line.residue if whole else 0)
        return int(amount)

    def clawback(self) -> int:
        deed = self.deeds.get(uuid.UUID(self.asked["earning_id"]))
        if deed is None:
            raise Refused("OVER_CLAWBACK")
        left = deed.operation.amount_points - deed.taken_back
        points = left if self.asked["amount_points"] is None else self.asked["amount_points"]
        if not 0 < points <= left:
            raise Refused("OVER_CLAWBACK")
        own, missing = deed.issued[0], points
        if own.pending:
            promised = min(points, own.remaining)
            missing -= promised
            if promised:
                self._use(own, promised)
        for lot, taken in self._pick((own.account_id,), own.program_id, missing, own.lot_id):
            self._use(lot, taken)
            missing -= taken
        self.debts[own.account_id, own.program_id] += missing
        self._issuer(own.program_id, points)
        self._unearn(deed, points)
        return int(points)

    def adjust(self) -> int:
        account_id, program_id, change = self.operation.account_id, self.asked["program_id"], self.asked["change_points"]
        assert account_id is not None
        if change > 0:
            end = self.asked["expire_time"]
            expire_time = datetime.fromisoformat(end) if end else self.terms.programs[program_id].expire_time(self.now, self.now)
            self._pay_debt(self._issue(account_id, program_id, change, expire_time=expire_time))
        else:
            for lot, points in self._spendable((account_id,), program_id, -change):
                self._use(lot, points)
        self._issuer(program_id, -change)
        self._did()
        return abs(int(change))

    def transfer(self) -> int:
        asked, owners = self.asked, self._owners(self.operation.account_id)
        receiver, points = uuid.UUID(asked["to_account_id"]), asked["amount_points"]
        if not self.terms.programs[asked["program_id"]].transfers_allowed or receiver in owners:
            raise Refused("TRANSFER_NOT_ALLOWED")
        for lot, taken in self._spendable(owners, asked["program_id"], points):
            self._use(lot, taken)
            self._issue(receiver, lot.program_id, taken, expire_time=lot.expire_time)
        self._did()
        return int(points)

    def exchange(self) -> int:
        asked, owners = self.asked, self._owners(self.operation.account_id)
        program, into = self.terms.programs[asked["program_id"]], self.terms.programs[asked["to_program_id"]]
        points = asked["amount_points"]
        terms, received, residue = self._conversion(program.program_id, into.program_id, points)
        for lot, taken in self._spendable(owners, program.program_id, points):
            self._use(lot, taken)
        line = Line(program.program_id, points - residue, received, Fraction(1), terms)
        self._redeemed(into.institution_id, line, points - residue)
        self._expose(terms, points - residue)
        self.house[program.institution_id, "ROUNDING", program.program_id] += residue
        self._issuer(into.program_id, -received)
        self._issue(owners[0], into.program_id, received, expire_time=into.expire_time(self.now, self.now))
        self._did(terms, residue)
        return int(points)

    def _conversion(self, program_id: str, into_id: str, points: int) -> tuple[AgreementTerms | None, int, int]:
        rate = self.terms.rate(program_id, into_id, self.now)
        if rate is None or program_id == into_id:
            raise Refused("NO_RATE")
        exact = Fraction(rate.numerator, rate.denominator)
        received = int(points * exact)
        if not received:
            raise Refused("AMOUNT_TOO_SMALL")
        residue = points - -int(-received / exact // 1)
        payer, payee = self._issuer_of(program_id), self._issuer_of(into_id)
        terms = None
        if payer != payee:
            terms = self.terms.agreement(payer, payee, Basis.AT_REDEMPTION, self.now)
            if terms is None:
                raise Refused("NO_AGREEMENT")
            self._expose(terms, points - residue, check=True)
        return terms, received, residue

    def expire(self) -> int:
        asked, program_id = self.asked, self.asked["program_id"]
        if self.operation.account_id is not None and not asked["lot_ids"]:
            lots = [lot for lot in self.lots.values() if lot.account_id == self.operation.account_id]
        else:
            lots = [self.lots[lot_id] for lot_id in dict.fromkeys(asked["lot_ids"]) if self._over(self.lots[lot_id])]
        total = 0
        for lot in lots:
            if lot.program_id == program_id and lot.remaining > lot.reserved:
                total += lot.remaining - lot.reserved
                self._use(lot, lot.remaining - lot.reserved)
        self._issuer(program_id, total)
        return total

    def reverse(self) -> int:
        deed = self.deeds.get(uuid.UUID(self.asked["reversed_id"]))
        if (
            deed is None
            or deed.undone
            or any(lot.remaining != lot.issued or lot.reserved or self._over(lot) for lot in deed.issued)
        ):
            raise Refused("NOT_REVERSIBLE")
        deed.undone, done = True, deed.operation
        for lot in deed.issued:
            self._use(lot, lot.remaining)
            if done.kind != "TRANSFER":
                self._issuer(lot.program_id, lot.issued)
        if done.kind == "EARN":
            self._unearn(deed, done.amount_points)
        elif done.kind == "ADJUST" and not deed.issued:
            self._issuer(deed.operation.program_id or "", -done.amount_points)
        elif done.kind == "EXCHANGE":
            asked = json.loads(done.command or "{}")
            points = done.amount_points - deed.residue
            line = Line(asked["program_id"], points, 0, Fraction(1), deed.agreement)
            self._redeemed(self._issuer_of(asked["to_program_id"]), line, -points)
            self._expose(deed.agreement, -points)
            self.house[self._issuer_of(asked["program_id"]), "ROUNDING", asked["program_id"]] -= deed.residue
        self._give_back(deed.used, sum(points - back for _, points, back in deed.used))
        return done.amount_points
