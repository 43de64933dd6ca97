"""What may be asked of the ledger. A command is decided once for each key; its `content` is all that deciding it needs beside the
state, so that a model can replay it."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, TypeAlias

from loyalty.domain.ledger.types import AccountKey, OperationKind, OrderKey


@dataclass(slots=True, kw_only=True)
class Command:
    """What all commands have. `key` makes it happen once; `content_hash` tells whether the same key asks for the same."""

    kind: ClassVar[OperationKind]
    operation_id: uuid.UUID
    key: OrderKey
    account_id: uuid.UUID | None
    institution_id: str
    """Where it happens."""
    effective_time: datetime
    content_hash: bytes = b""
    former_hash: bytes = b""
    """What `content_hash` was for the same content before there were lots."""
    reference: str = ""
    """A caller's free text, kept beside the operation and not in the chain, so that it can be erased."""
    rule: str = ""
    """`{rule}/versions/{version}` that earned, where one did."""

    parts: ClassVar[tuple[str, ...]] = ()

    def content(self) -> dict[str, Any]:
        """The canonical input beside what every operation has as columns."""
        return {name: getattr(self, name) for name in self.parts}


@dataclass(slots=True, kw_only=True)
class Earn(Command):
    """Points for a member: its own at once, or promised until `active_time` (or until they are confirmed, where that is None).

    Without an `expire_time` the programme's policy gives one.
    """

    kind = OperationKind.EARN
    parts = ("program_id", "amount_points", "pending", "active_time", "expire_time")
    program_id: str
    amount_points: int
    pending: bool | None = None
    """None: as the programme says."""
    active_time: datetime | None = None
    expire_time: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Confirm(Command):
    """Promised points become the member's: those of an earning, or of many lots of one programme that are due (the sweep)."""

    kind = OperationKind.CONFIRM
    parts = ("earning_id", "program_id", "lot_ids")
    earning_id: uuid.UUID | None = None
    program_id: str = ""
    lot_ids: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class Cancel(Command):
    """A promise is taken back: the points of a pending earning go back to the issuer."""

    kind = OperationKind.CANCEL
    parts = ("earning_id",)
    earning_id: uuid.UUID


@dataclass(slots=True, kw_only=True)
class Spend(Command):
    """What holds and redemptions have: a quote, or points of one programme."""

    parts: ClassVar[tuple[str, ...]] = ("quote_id", "program_id", "amount_points")
    quote_id: uuid.UUID | None = None
    program_id: str = ""
    amount_points: int = 0
    use_pool: bool = False
    """Whether points of the account's pool may be taken, too."""

    def content(self) -> dict[str, Any]:
        """Says so only where it is so: what was written before there were pools stays as it is."""
        made = Command.content(self)
        return made | {"use_pool": True} if self.use_pool else made


@dataclass(slots=True, kw_only=True)
class Redeem(Spend):
    """Spends at once, all or nothing."""

    kind = OperationKind.REDEEM


@dataclass(slots=True, kw_only=True)
class Hold(Spend):
    """Reserves, all or nothing, until `expire_time`. The hold's id is the operation's."""

    kind = OperationKind.HOLD
    parts = ("quote_id", "program_id", "amount_points", "expire_time")
    expire_time: datetime


@dataclass(slots=True, kw_only=True)
class Capture(Command):
    """Spends what a hold reserves: an amount in the hold's unit, or (None) all that is left. `final` releases the rest."""

    kind = OperationKind.CAPTURE
    parts = ("hold_id", "amount_units", "final")
    hold_id: uuid.UUID
    amount_units: int | None = None
    final: bool = False


@dataclass(slots=True, kw_only=True)
class Void(Command):
    """Releases all that a hold still reserves."""

    kind = OperationKind.VOID
    parts = ("hold_id",)
    hold_id: uuid.UUID


@dataclass(slots=True, kw_only=True)
class ExpireHold(Command):
    """The same, because its time is over."""

    kind = OperationKind.HOLD_EXPIRE
    parts = ("hold_id",)
    hold_id: uuid.UUID


@dataclass(slots=True, kw_only=True)
class Refund(Command):
    """Brings back what a capture or redemption spent: an amount in its unit, or (None) all that is left of it."""

    kind = OperationKind.REFUND
    parts = ("spending_id", "amount_units")
    spending_id: uuid.UUID
    amount_units: int | None = None


@dataclass(slots=True, kw_only=True)
class Clawback(Command):
    """Takes back what was earned: points, or (None) all that is left of it. What is not there becomes a debt."""

    kind = OperationKind.CLAWBACK
    parts = ("earning_id", "amount_points")
    earning_id: uuid.UUID
    amount_points: int | None = None


@dataclass(slots=True, kw_only=True)
class Adjust(Command):
    """Gives (above zero) or takes (below zero) points by decision of two persons of the issuer."""

    kind = OperationKind.ADJUST
    parts = ("program_id", "change_points", "expire_time")
    program_id: str
    change_points: int
    expire_time: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Transfer(Command):
    """Moves points to another member; they keep their end."""

    kind = OperationKind.TRANSFER
    parts = ("to_account_id", "program_id", "amount_points")
    to_account_id: uuid.UUID
    program_id: str
    amount_points: int


@dataclass(slots=True, kw_only=True)
class Exchange(Command):
    """Changes points of one programme into another's at the rate in force."""

    kind = OperationKind.EXCHANGE
    parts = ("program_id", "amount_points", "to_program_id")
    program_id: str
    amount_points: int
    to_program_id: str


@dataclass(slots=True, kw_only=True)
class ExpireLots(Command):
    """Points of one programme end: of lots whose time is over (the sweep; of many accounts), or, where `account_id` is given and
    no lots are, all that an account has, whatever their time (an erasure, a closing)."""

    kind = OperationKind.EXPIRE
    parts = ("program_id", "lot_ids")
    program_id: str
    lot_ids: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class Reverse(Command):
    """Undoes an ADJUST, TRANSFER, EXCHANGE or EARN as a whole, where its points are still there."""

    kind = OperationKind.REVERSE
    parts = ("reversed_id",)
    reversed_id: uuid.UUID


@dataclass(slots=True, kw_only=True)
class Settle(Command):
    """What was settled leaves the clearing accounts: legs between house accounts, which sum to zero in each programme, and by how
    much each agreement's exposure falls (numerator, denominator; minor units)."""

    kind = OperationKind.SETTLE
    legs: tuple[tuple[AccountKey, int], ...]
    exposures: tuple[tuple[uuid.UUID, int, int], ...] = ()

    def content(self) -> dict[str, Any]:
        """Fractions as text: they may be longer than JSON's numbers."""
        return {
            "legs": [[*key, points] for key, points in self.legs],
            "exposures": [[agreement, str(numerator), str(denominator)] for agreement, numerator, denominator in self.exposures],
        }


AnyCommand: TypeAlias = (
    Earn
    | Confirm
    | Cancel
    | Redeem
    | Hold
    | Capture
    | Void
    | ExpireHold
    | Refund
    | Clawback
    | Adjust
    | Transfer
    | Exchange
    | ExpireLots
    | Reverse
    | Settle
)
