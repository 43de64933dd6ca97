"""What is asked in a simulation: anything that may be asked for, in any order, some of it twice or about what is over."""

import random
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from loyalty.domain.ledger import commands
from loyalty.domain.ledger.commands import AnyCommand
from loyalty.domain.ledger.types import RequestKey

ISSUER_OF = {"bank": "bank", "miles": "air", "old": "bank"}
PLACES = ("bank", "air", "shop", "kiosk")
WEIGHTS = {
    "earn": 8, "earn_at_the_cafe": 2, "redeem": 6, "hold": 4, "capture": 5, "void": 1, "expire_hold": 1, "refund": 4,
    "clawback": 2, "confirm": 2, "cancel": 1, "reverse": 1, "adjust": 1, "transfer": 2, "exchange": 2, "expire": 1,
    "activate": 1, "end": 0.1,
}  # fmt: skip
LOTS_OF_SWEEP_MAX = 50
AGAIN_MAX = 200


class Load:
    """Makes commands from a seed, and remembers what it may come back to."""

    def __init__(self, seed: int, members: Sequence[uuid.UUID], quotes: Sequence[uuid.UUID] = ()) -> None:
        self.chance = random.Random(seed)
        self.members, self.quotes = sorted(members), list(quotes)
        self.asked: list[AnyCommand] = []
        self._made: dict[str, list[uuid.UUID]] = {}
        self.lots: dict[int, str] = {}
        """Lots that were seen, with their programmes; whoever runs the load tells."""

    def batch(self, count: int, now: datetime) -> list[AnyCommand]:
        """So many commands; now and then one that was asked before, or twice in the batch."""
        batch: list[AnyCommand] = []
        for _ in range(count):
            again = self.asked + batch if self.chance.random() < 0.05 else []
            batch.append(self.chance.choice(again) if again else self.command(now))
        self.asked = (self.asked + batch)[-AGAIN_MAX:]
        return batch

    def command(self, now: datetime) -> AnyCommand:
        """Any command."""
        (name,) = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        return getattr(self, f"_{name}")(now)  # type: ignore[no-any-return]

    def _make(self, kind: str, now: datetime, account_id: uuid.UUID | None = None, **fields: Any) -> AnyCommand:
        operation_id = uuid.UUID(int=self.chance.getrandbits(128), version=4)
        self._made.setdefault(kind, []).append(operation_id)
        fields.setdefault("institution_id", "bank")
        key = RequestKey("bank/simulator", str(operation_id))
        made: AnyCommand = getattr(commands, kind)(
            operation_id=operation_id, key=key, account_id=account_id, effective_time=now, **fields
        )
        return made

    def _earlier(self, *kinds: str) -> uuid.UUID:
        found = [made for kind in kinds for made in self._made.get(kind, [])[-30:]]
        return self.chance.choice(found) if found else uuid.UUID(int=0)

    def _member(self) -> uuid.UUID:
        return self.chance.choice(self.members)

    def _points(self) -> int:
        return self.chance.choice([1, 7, 30, self.chance.randint(1, 120)])

    def _part(self) -> int | None:
        return self.chance.choice([None, self.chance.randint(1, 50)])

    def _earn(self, now: datetime) -> AnyCommand:
        program_id = self.chance.choice(sorted(ISSUER_OF))
        pending = self.chance.choice([None, False, False, True])
        active_time = now + timedelta(days=self.chance.randint(1, 9)) if pending and self.chance.random() < 0.7 else None
        return self._make(
            "Earn", now, self._member(), program_id=program_id, institution_id=ISSUER_OF[program_id],
            amount_points=2 * self._points(), pending=pending, active_time=active_time,
        )  # fmt: skip

    def _earn_at_the_cafe(self, now: datetime) -> AnyCommand:
        return self._make(
            "Earn", now, self._member(), program_id="bank", institution_id="cafe", amount_points=self._points(),
            pending=self.chance.random() < 0.3,
        )  # fmt: skip

    def _spending(self, kind: str, now: datetime, **fields: Any) -> AnyCommand:
        if self.quotes and self.chance.random() < 0.3:
            return self._make(kind, now, self.members[0], quote_id=self.chance.choice(self.quotes), **fields)
        program_id, place = self.chance.choice(sorted(ISSUER_OF)), self.chance.choice(PLACES)
        return self._make(
            kind, now, self._member(), program_id=program_id, institution_id=place, amount_points=self._points(), **fields
        )

    def _redeem(self, now: datetime) -> AnyCommand:
        return self._spending("Redeem", now)

    def _hold(self, now: datetime) -> AnyCommand:
        return self._spending("Hold", now, expire_time=now + timedelta(days=self.chance.randint(1, 20)))

    def _capture(self, now: datetime) -> AnyCommand:
        return self._make(
            "Capture", now, hold_id=self._earlier("Hold"), amount_units=self._part(), final=self.chance.random() < 0.3
        )

    def _void(self, now: datetime) -> AnyCommand:
        return self._make("Void", now, hold_id=self._earlier("Hold"))

    def _expire_hold(self, now: datetime) -> AnyCommand:
        return self._make("ExpireHold", now, hold_id=self._earlier("Hold"))

    def _refund(self, now: datetime) -> AnyCommand:
        spending_id = self._earlier("Capture", "Redeem", "Capture", "Redeem", "Refund")
        return self._make("Refund", now, spending_id=spending_id, amount_units=self._part())

    def _clawback(self, now: datetime) -> AnyCommand:
        return self._make("Clawback", now, earning_id=self._earlier("Earn"), amount_points=self._part())

    def _confirm(self, now: datetime) -> AnyCommand:
        return self._make("Confirm", now, earning_id=self._earlier("Earn"))

    def _cancel(self, now: datetime) -> AnyCommand:
        return self._make("Cancel", now, earning_id=self._earlier("Earn"))

    def _reverse(self, now: datetime) -> AnyCommand:
        kind = self.chance.choice(["Earn", "Adjust", "Adjust", "Transfer", "Exchange", "Redeem"])
        return self._make("Reverse", now, reversed_id=self._earlier(kind))

    def _adjust(self, now: datetime) -> AnyCommand:
        program_id, points = self.chance.choice(sorted(ISSUER_OF)), self._points()
        return self._make(
            "Adjust", now, self._member(), program_id=program_id, institution_id=ISSUER_OF[program_id],
            change_points=self.chance.choice([points, -points]),
        )  # fmt: skip

    def _transfer(self, now: datetime) -> AnyCommand:
        program_id = self.chance.choice(["bank", "bank", "miles"])
        return self._make(
            "Transfer", now, self._member(), to_account_id=self._member(), program_id=program_id, amount_points=self._points()
        )

    def _exchange(self, now: datetime) -> AnyCommand:
        program_id, into = self.chance.choice([("bank", "miles"), ("miles", "bank"), ("bank", "old")])
        return self._make(
            "Exchange", now, self._member(), program_id=program_id, to_program_id=into, amount_points=self._points()
        )

    def _swept(self) -> tuple[str, tuple[int, ...]]:
        program_id = self.chance.choice(sorted(ISSUER_OF))
        lots = [lot_id for lot_id, of in self.lots.items() if of == program_id]
        return program_id, tuple(self.chance.sample(lots, min(len(lots), LOTS_OF_SWEEP_MAX)))

    def _expire(self, now: datetime) -> AnyCommand:
        program_id, lot_ids = self._swept()
        return self._make("ExpireLots", now, program_id=program_id, lot_ids=lot_ids)

    def _activate(self, now: datetime) -> AnyCommand:
        program_id, lot_ids = self._swept()
        return self._make("Confirm", now, program_id=program_id, lot_ids=lot_ids)

    def _end(self, now: datetime) -> AnyCommand:
        return self._make("ExpireLots", now, self._member(), program_id=self.chance.choice(sorted(ISSUER_OF)))
