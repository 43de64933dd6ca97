"""What the ledger is made of: ledger accounts, operations and their outcomes, lots, holds, and what spendings consist of."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

HASH_OF_NOTHING = bytes(32)
LOTS_PER_OPERATION_MAX = 1024
"""Lots that one operation may issue: a lot's id is its operation's sequence × this + its ordinal."""
NEVER = datetime.max.replace(tzinfo=UTC)
"""Where lots without an expiry stand in the order of spending."""


class OperationKind(StrEnum):
    """What an operation is."""

    __hash__ = str.__hash__

    EARN = "EARN"
    CONFIRM = "CONFIRM"
    CANCEL = "CANCEL"
    HOLD = "HOLD"
    CAPTURE = "CAPTURE"
    VOID = "VOID"
    HOLD_EXPIRE = "HOLD_EXPIRE"
    REDEEM = "REDEEM"
    REFUND = "REFUND"
    CLAWBACK = "CLAWBACK"
    REVERSE_EARN = "REVERSE_EARN"
    """What a clawback was before there were lots and debts."""
    ADJUST = "ADJUST"
    TRANSFER = "TRANSFER"
    EXCHANGE = "EXCHANGE"
    EXPIRE = "EXPIRE"
    REVERSE = "REVERSE"
    SETTLE = "SETTLE"


class Outcome(StrEnum):
    """What became of it; all but POSTED are refusals, and move nothing."""

    __hash__ = str.__hash__

    POSTED = "POSTED"
    INSUFFICIENT_POINTS = "INSUFFICIENT_POINTS"
    POINTS_EXPIRED = "POINTS_EXPIRED"
    """There would be enough, were they not past their end."""
    ACCOUNT_FROZEN = "ACCOUNT_FROZEN"
    ACCOUNT_CLOSED = "ACCOUNT_CLOSED"
    QUOTE_EXPIRED = "QUOTE_EXPIRED"
    QUOTE_USED = "QUOTE_USED"
    HOLD_NOT_OPEN = "HOLD_NOT_OPEN"
    HOLD_EXPIRED = "HOLD_EXPIRED"
    OVER_CAPTURE = "OVER_CAPTURE"
    OVER_REFUND = "OVER_REFUND"
    NOT_REFUNDABLE = "NOT_REFUNDABLE"
    OVER_CLAWBACK = "OVER_CLAWBACK"
    NOT_REVERSIBLE = "NOT_REVERSIBLE"
    LOT_NOT_PENDING = "LOT_NOT_PENDING"
    CAP_EXCEEDED = "CAP_EXCEEDED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    NO_AGREEMENT = "NO_AGREEMENT"
    NO_RATE = "NO_RATE"
    TRANSFER_NOT_ALLOWED = "TRANSFER_NOT_ALLOWED"
    AMOUNT_TOO_SMALL = "AMOUNT_TOO_SMALL"
    """An exchange that would give nothing."""
    TOO_MANY_LOTS = "TOO_MANY_LOTS"
    """A transfer that would issue more lots than one operation may: ask for fewer points at a time."""


class AccountKind(StrEnum):
    """What a ledger account holds. In each programme all of them sum to zero."""

    __hash__ = str.__hash__  # that of enums is written in Python, and these are in every key of the hot path

    MEMBER = "MEMBER"
    """Points a member may spend: of its ACTIVE lots what remains and is not reserved. Never below zero."""
    PENDING = "PENDING"
    """Points promised to a member: what remains of its PENDING lots. Never below zero."""
    HELD = "HELD"
    """Points of a member that open holds reserve. Never below zero."""
    DEBT = "DEBT"
    """What a clawback could not take: the next earnings pay it first. Never above zero."""
    ISSUER = "ISSUER"
    """Of the issuing institution: minus all points that are outstanding anywhere."""
    PARTNER = "PARTNER"
    """Of an institution: others' points that it accepted and that are not settled."""
    LIQUIDITY = "LIQUIDITY"
    """Of an institution: what conversions into its programme gave out, notionally."""
    REDEEMED = "REDEEMED"
    """Of an institution: what converted points bought, notionally."""
    ROUNDING = "ROUNDING"
    """Of a programme's issuer: whole points left over where amounts were rounded."""


class AccountKey(NamedTuple):
    """A ledger account: whose, and points of which programme. The owner is a member account's id or an institution's."""

    owner: str
    kind: AccountKind
    program_id: str


class Balance(NamedTuple):
    """State of a ledger account; `version` counts its entries."""

    balance_points: int = 0
    version: int = 0


class Entry(NamedTuple):
    """One leg of an operation, with the state of its ledger account after it."""

    key: AccountKey
    version: int
    amount_points: int
    balance_points: int


class Head(NamedTuple):
    """The end of the chain: the last operation's sequence and hash; which version of the configuration is in force; and which
    ledger it is."""

    sequence: int
    hash: bytes
    configuration_version: int = 1
    ledger: str = ""


class RequestKey(NamedTuple):
    """A caller asks once."""

    caller: str
    request_id: str


class ActivityKey(NamedTuple):
    """An activity earns, and is taken back, once in each programme."""

    activity_id: uuid.UUID
    program_id: str
    kind: OperationKind


class SystemKey(NamedTuple):
    """Something the service does by itself, once: such as `expire/{lot}`."""

    text: str


OrderKey: TypeAlias = RequestKey | ActivityKey | SystemKey


@dataclass(slots=True)
class Operation:
    """What was asked for and what became of it.

    `amount_points` is in the unit of what was asked for: points of `program_id`, or minor units of the currency that the result
    names. `balance_points` is what the member may spend in the programme after it (where refused: what was found),
    `others_points` the part of it on other accounts of its family. `shortfall_points` is what became a debt. `target_id` is the
    operation (or hold) that it is about. `result` holds what was decided: lines, lots, residues, clearing.
    """

    operation_id: uuid.UUID
    key: OrderKey
    kind: OperationKind
    account_id: uuid.UUID | None
    program_id: str | None
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
    target_id: uuid.UUID | None = None
    configuration_version: int | None = None
    command: str | None = None
    """The input as canonical JSON; None of operations from before there were lots."""
    result: dict[str, Any] | None = None
    hash: bytes = b""


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The same key came with other content: nothing happens."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Unknown:
    """What the command is about does not exist, or not for this account: nothing happens, and nothing is kept."""

    reason: str
    """Such as HOLD_NOT_FOUND."""


Result: TypeAlias = Operation | KeyReused | Unknown


@dataclass(slots=True)
class Decided:
    """What a rule says of a command. Where it is refused, nothing in the books was changed."""

    outcome: Outcome
    program_id: str | None
    amount_points: int
    balance_points: int = 0
    others_points: int = 0
    shortfall_points: int = 0
    target_id: uuid.UUID | None = None
    account_id: uuid.UUID | None = None
    """Of what it is about, where the command does not name it."""
    institution_id: str | None = None
    """Where it happens, where the command does not know."""
    result: dict[str, Any] | None = None


class LotState(StrEnum):
    """Whether a lot's points are promised or owned."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"


@dataclass(slots=True, eq=False)
class Lot:
    """Points that were issued together and end together."""

    lot_id: int
    account_id: uuid.UUID
    program_id: str
    institution_id: str
    """Where they were earned."""
    state: LotState
    issued_points: int
    remaining_points: int
    reserved_points: int
    active_time: datetime | None
    """When they became, or are to become, the member's; None: when they are confirmed."""
    expire_time: datetime | None
    """From when on they cannot be used."""
    origin_lot_id: int | None = None
    """Where they come from, after a transfer or as grace after a refund."""
    order: tuple[datetime, int] = field(init=False, repr=False)
    """Its place in the order of spending, among lots of the same account."""

    def __post_init__(self) -> None:
        self.order = (self.expire_time or NEVER, self.lot_id)

    @property
    def available_points(self) -> int:
        """What is neither used nor reserved."""
        return self.remaining_points - self.reserved_points


@dataclass(slots=True, eq=False)
class LotUse:
    """What an operation used of a lot, and how much of that refunds brought back."""

    sequence: int
    ordinal: int
    lot_id: int
    points: int
    returned_points: int = 0


class LotReturn(NamedTuple):
    """What a refund brought back of a use."""

    sequence: int
    ordinal: int
    use_sequence: int
    use_ordinal: int
    lot_id: int
    points: int


class Target(NamedTuple):
    """In what a price is stated: points of a programme, or minor units of a currency."""

    program_id: str | None
    currency_code: str | None = None


@dataclass(slots=True)
class SpendLine:
    """Points of one programme in a spending, and what they pay of the price: floor(points × numerator / denominator) ≥ value."""

    program_id: str
    points: int
    value_units: int
    numerator: int = 1
    denominator: int = 1
    agreement_id: uuid.UUID | None = None
    """By which the issuer pays the redeemer; None where it is the same institution, or where there is none."""
    agreement_version: int | None = None

    def content(self) -> dict[str, Any]:
        """As it stands in commands and results."""
        return {
            "program_id": self.program_id,
            "points": self.points,
            "value_units": self.value_units,
            "numerator": self.numerator,
            "denominator": self.denominator,
            "agreement_id": self.agreement_id,
            "agreement_version": self.agreement_version,
        }


class HoldState(StrEnum):
    """What became of a hold. All but OPEN are final."""

    OPEN = "OPEN"
    CAPTURED = "CAPTURED"
    """Captured in full."""
    RELEASED = "RELEASED"
    """Captured in part, finally: the rest was released."""
    VOIDED = "VOIDED"
    EXPIRED = "EXPIRED"


@dataclass(slots=True, eq=False)
class HoldLot:
    """What a line of a hold reserves of a lot."""

    position: int
    ordinal: int
    lot_id: int
    points: int
    captured_points: int = 0


@dataclass(slots=True, eq=False)
class HoldLine:
    """A line of a hold and what of it was captured."""

    position: int
    line: SpendLine
    captured_points: int = 0
    captured_value_units: int = 0


@dataclass(slots=True, eq=False)
class Hold:
    """Reserved points. Amounts are in units of the target."""

    hold_id: uuid.UUID
    """That of the operation that made it."""
    account_id: uuid.UUID
    institution_id: str
    target: Target
    state: HoldState
    amount_units: int
    captured_units: int
    create_time: datetime
    expire_time: datetime
    quote_id: uuid.UUID | None = None
    close_time: datetime | None = None
    lines: list[HoldLine] = field(default_factory=list)
    lots: list[HoldLot] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class SpentLine:
    """A line of a capture or redemption, and what of it was refunded."""

    sequence: int
    position: int
    line: SpendLine
    target: Target
    refunded_points: int = 0
    refunded_value_units: int = 0


@dataclass(slots=True, eq=False)
class Quote:
    """A promise of rates until it expires; used once."""

    quote_id: uuid.UUID
    account_id: uuid.UUID
    institution_id: str
    target: Target
    lines: tuple[SpendLine, ...]
    expire_time: datetime
    used_by_operation_id: uuid.UUID | None = None

    @property
    def value_units(self) -> int:
        """What its lines are worth together."""
        return sum(line.value_units for line in self.lines)


class ClearingItem(NamedTuple):
    """What one institution owes another for points: points × price, a fee of it beside. Negative points are owed the other way.

    Without an agreement there is no price yet: agreement, price, fee and currency are None.
    """

    sequence: int
    position: int
    payer_institution_id: str
    payee_institution_id: str
    agreement_id: uuid.UUID | None
    agreement_version: int | None
    program_id: str
    points: int
    price_numerator: int | None
    price_denominator: int | None
    fee_basis_points: int | None
    currency_code: str | None


class AccountStatus(StrEnum):
    """What a member account may do. A frozen one earns but does not spend; a closed one only lets end what it began."""

    OPEN = "OPEN"
    FROZEN = "FROZEN"
    CLOSED = "CLOSED"


@dataclass(slots=True, eq=False)
class Pool:
    """Whose points a member of a pool may spend beside its own."""

    owners: tuple[uuid.UUID, ...]
    """Other members' accounts, with those that stand under them, in the order in which they joined."""
    draw_points_max: int | None = None
    """Most points of them in each programme and month."""
    drawn_points: dict[str, int] = field(default_factory=dict)
    """Of this month, by programme; the batch adds to it."""

    def left(self, program_id: str, points: int) -> int:
        """How many of so many points may still be taken."""
        if self.draw_points_max is None:
            return points
        return max(0, min(points, self.draw_points_max - self.drawn_points.get(program_id, 0)))


class Account(NamedTuple):
    """A member account as the ledger sees it."""

    account_id: uuid.UUID
    status: AccountStatus = AccountStatus.OPEN
    customer_id: uuid.UUID | None = None
    family: tuple[uuid.UUID, ...] = ()
    """Accounts whose points it spends after its own among those that end at the same time."""
    parent_account_id: uuid.UUID | None = None
    """The account under which it stands: it is read only."""
    pool: Pool | None = None
    """Loaded only for spendings that ask for it."""


Exposures: TypeAlias = dict[uuid.UUID, Fraction]
"""By agreement: what is held or owed and not settled, in minor units of its currency, exactly."""
