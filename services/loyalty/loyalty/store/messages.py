"""What loyalty publishes, made from its rows: in the transaction that changes them, or when an owner says it again."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction

import asyncpg

from chassis.outbox import Event
from chassis.unit_of_work import UnitOfWork
from concord.common.v1.event_pb2 import StateVersion
from concord.loyalty.v1.account_service_pb2 import AccountState
from concord.loyalty.v1.account_service_pb2 import OperationKind as KindMessage
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged, AgreementLowWater, PointsExpiring, PointsPosted, TierChanged
from loyalty.domain.ledger.configuration import AgreementTerms
from loyalty.domain.ledger.types import AccountKind, OperationKind
from loyalty.store import accounts

ACCOUNT_CHANGED = "concord.loyalty.v1.account.changed"
POINTS_POSTED = "concord.loyalty.v1.points.posted"
POINTS_EXPIRING = "concord.loyalty.v1.points.expiring"
LOW_WATER = "concord.loyalty.v1.agreement.low_water"
TIER_CHANGED = "concord.loyalty.v1.tier.changed"
KINDS = {kind: KindMessage.Value(f"OPERATION_KIND_{kind}") for kind in OperationKind}


def account_changed(
    account_id: uuid.UUID,
    customer_id: uuid.UUID | None,
    parent_account_id: uuid.UUID | None,
    institution_ids: Iterable[str],
    status: str,
    *,
    epoch: int,
    version: int,
) -> Event:
    """The state of an account; `customer_id` is its holder, None of an erased one."""
    message = AccountChanged(
        account_id=str(account_id),
        state_version=StateVersion(epoch=epoch, version=version),
        customer_id=str(customer_id or ""),
        institution_ids=sorted(institution_ids),
        parent_account_id=str(parent_account_id or ""),
        state=AccountState.Value(f"ACCOUNT_STATE_{status}"),
    )
    return Event(ACCOUNT_CHANGED, str(account_id), message)


def points_posted(
    *,
    operation_id: uuid.UUID,
    account_id: uuid.UUID | str,
    customer_id: uuid.UUID | None,
    program_id: str,
    main_program_id: str | None,
    institution_id: str,
    kind: OperationKind,
    changes: Mapping[AccountKind, int],
    balance_points: int,
    epoch: int,
    version: int,
    effective_time: datetime,
    activity_id: uuid.UUID | None,
    leading: bool = True,
) -> Event:
    """The fact that points of an account moved: by how much on each of its ledger accounts in the programme. The id of an
    operation's leading one is the operation's."""
    account = str(account_id)
    message = PointsPosted(
        operation_id=str(operation_id),
        account_id=account,
        customer_id=str(customer_id) if customer_id is not None else "",
        program_id=program_id,
        institution_id=institution_id,
        kind=KINDS[kind],
        amount_points=changes.get(AccountKind.MEMBER, 0),
        balance_points=balance_points,
        state_version=StateVersion(epoch=epoch, version=version),
        effective_time_seconds=int(effective_time.timestamp()),
    )
    if activity_id is not None and kind is not OperationKind.EXPIRE:
        message.activity_id = str(activity_id)
    if len(changes) > 1 or AccountKind.MEMBER not in changes:
        message.pending_change_points = changes.get(AccountKind.PENDING, 0)
        message.held_change_points = changes.get(AccountKind.HELD, 0)
        message.debt_change_points = changes.get(AccountKind.DEBT, 0)
    event_id = operation_id
    if not leading:
        event_id = uuid.uuid5(operation_id, account if program_id == main_program_id else f"{account}/{program_id}")
    return Event(POINTS_POSTED, account, message, event_id=event_id)


def low_water(terms: AgreementTerms, exposure: Fraction) -> Event:
    """The fact that little is left of what was paid in before for an agreement."""
    message = AgreementLowWater(
        agreement_id=str(terms.agreement_id),
        issuer_institution_id=terms.issuer_institution_id,
        partner_institution_id=terms.partner_institution_id,
        currency_code=terms.currency_code,
        left_minor_units=int((terms.limit_minor_units or 0) - exposure),
    )
    return Event(LOW_WATER, str(terms.agreement_id), message)


def tier_changed(
    account_id: uuid.UUID,
    customer_id: uuid.UUID | None,
    program_id: str,
    tier_id: str,
    previous_tier_id: str,
    *,
    epoch: int,
    version: int,
) -> Event:
    """In which tier of a programme an account stands now."""
    message = TierChanged(
        account_id=str(account_id),
        customer_id=str(customer_id or ""),
        program_id=program_id,
        tier_id=tier_id,
        previous_tier_id=previous_tier_id,
        state_version=StateVersion(epoch=epoch, version=version),
    )
    return Event(TIER_CHANGED, str(account_id), message)


def points_expiring(row: asyncpg.Record, days_before: int) -> Event:
    """The fact that points of an account end within so many days; `row` as `expiring.take` gives it."""
    account_id = row["account_id"]
    message = PointsExpiring(
        account_id=str(account_id),
        customer_id=str(row["holder_customer_id"]),
        program_id=row["program_id"],
        points=row["points"],
        expire_date=row["expire_date"].isoformat(),
        expire_time_seconds=int(row["expire_time"].timestamp()),
        days_before=days_before,
    )
    return Event(POINTS_EXPIRING, str(account_id), message)


async def publish_accounts(unit: UnitOfWork, account_ids: Sequence[uuid.UUID]) -> None:
    """Publishes the states of accounts that have changed; their versions have risen."""
    if not account_ids:
        return
    for row in await accounts.states(unit.connection, account_ids):
        unit.publish(
            account_changed(
                row["account_id"],
                row["holder_customer_id"],
                row["parent_account_id"],
                row["institution_ids"],
                row["status"],
                epoch=unit.epoch,
                version=row["version"],
            )
        )
