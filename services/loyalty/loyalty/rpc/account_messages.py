"""Accounts, their statements and lots as the contract has them."""

import json
import uuid
from datetime import datetime
from typing import Any

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import etags
from chassis.identity import Principal
from concord.loyalty.v1 import account_service_pb2 as pb
from loyalty.domain.four_eyes import OPERATOR
from loyalty.domain.ledger.types import AccountKind, AccountStatus, LotState, OperationKind
from loyalty.store.messages import KINDS

STATES = {status: pb.AccountState.Value(f"ACCOUNT_STATE_{status}") for status in AccountStatus}
LOT_STATES = {state: pb.LotState.Value(f"LOT_STATE_{state}") for state in LotState}
KIND_NAMES = {value: kind for kind, value in KINDS.items()}
HOLDING = {OperationKind.CAPTURE, OperationKind.VOID, OperationKind.HOLD_EXPIRE}


def to_account(row: asyncpg.Record, principal: Principal) -> pb.Account:
    """The account in a row of `accounts.view`."""
    balances = json.loads(row["balances"] or "[]")
    ending = json.loads(row["ending"] or "[]")
    holder, parent, account_id = row["holder_customer_id"], row["parent_account_id"], row["account_id"]
    message = pb.Account(
        name=f"accounts/{account_id}",
        customer=f"customers/{holder}" if holder else "",
        state=STATES[AccountStatus(row["status"])],
        balances=_balances(balances, ending),
        memberships=[to_membership(principal, _instants(one)) for one in json.loads(row["memberships"] or "[]")],
        # Every version only rises, so their sum changes with each change of any of them.
        etag=etags.etag(row["version"] + sum(balance["version"] for balance in balances)),
        parent_account=f"accounts/{parent}" if parent else "",
        child_accounts=[_child(child, balances, ending) for child in row["child_account_ids"]],
        freezes=[_freeze(principal, one) for one in json.loads(row["freezes"] or "[]")],
    )
    message.create_time.FromDatetime(row["create_time"])
    if row["close_time"] is not None:
        message.close_time.FromDatetime(row["close_time"])
    return message


def _child(account_id: uuid.UUID, balances: list[dict[str, Any]], ending: list[dict[str, Any]]) -> pb.ChildAccount:
    own = str(account_id)
    return pb.ChildAccount(
        account=f"accounts/{account_id}",
        balances=_balances(
            [balance for balance in balances if balance["account_id"] == own], [end for end in ending if end["account_id"] == own]
        ),
    )


def _balances(balances: list[dict[str, Any]], ending: list[dict[str, Any]]) -> list[pb.Balance]:
    """The sums over accounts, by programme."""
    sums: dict[str, dict[str, int]] = {}
    for balance in balances:
        points = sums.setdefault(balance["program_id"], dict.fromkeys(AccountKind, 0))
        points[balance["kind"]] += balance["balance_points"]
    return [_balance(program_id, sums[program_id], ending) for program_id in sorted(sums)]


def _balance(program_id: str, points: dict[str, int], ending: list[dict[str, Any]]) -> pb.Balance:
    available, held = points[AccountKind.MEMBER], points[AccountKind.HELD]
    message = pb.Balance(
        program=f"programs/{program_id}",
        balance_points=available,
        pending_points=points[AccountKind.PENDING],
        held_points=held,
        debt_points=-points[AccountKind.DEBT],
        total_points=available + held,
    )
    ends = [end for end in ending if end["program_id"] == program_id]
    if ends:
        first = min(end["expire_time"] for end in ends)  # the database writes all instants in the same way
        message.next_expire_time.FromJsonString(first)
        message.next_expire_points = sum(end["points"] for end in ends if end["expire_time"] == first)
    return message


def _freeze(principal: Principal, freeze: dict[str, Any]) -> pb.Freeze:
    side = freeze["institution_id"]
    own = principal.sees_all or principal.institution == side
    message = pb.Freeze(institution=f"institutions/{side}", reason_code=freeze["reason_code"] if own else "")
    message.freeze_time.FromJsonString(freeze["freeze_time"])
    return message


def _instants(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: datetime.fromisoformat(row[name]) for name in ("create_time", "consent_time") if row[name] is not None}


def to_membership(principal: Principal, row: asyncpg.Record | dict[str, Any]) -> pb.InstitutionMembership:
    """A link as the caller may see it."""
    # Pairwise: an institution that knew another's member ids could compare lists with it.
    own = principal.sees_all or principal.institution == row["institution_id"]
    message = pb.InstitutionMembership(
        name=f"accounts/{row['account_id']}/links/{row['institution_id']}",
        member_id=row["member_id"] if own else "",
        consent_reference=row["consent_reference"] if own else "",
    )
    message.create_time.FromDatetime(row["create_time"])
    if row["consent_time"] is not None:
        message.consent_time.FromDatetime(row["consent_time"])
    if row.get("end_time") is not None:
        message.end_time.FromDatetime(row["end_time"])
    return message


def to_line(row: asyncpg.Record) -> pb.StatementLine:
    """A line of a statement."""
    kind = OperationKind(row["kind"])
    message = pb.StatementLine(
        operation=f"operations/{row['operation_id']}",
        program=f"programs/{row['program_id']}",
        kind=KINDS[kind],
        amount_points=row["amount_points"] or 0,
        balance_points=row["balance_points"],
        entry_version=row["version"] or 0,
        effective_time=_timestamp(row["effective_time"]),
        post_time=_timestamp(row["post_time"]),
        institution=f"institutions/{row['institution_id']}" if row["institution_id"] else "",
        account=f"accounts/{row['owner']}",
        pending_change_points=row["pending_points"] or 0,
        held_change_points=row["held_points"] or 0,
        debt_change_points=-(row["debt_points"] or 0),
    )
    if kind is OperationKind.HOLD:
        message.hold = f"holds/{row['operation_id']}"
    elif kind in HOLDING:
        message.hold = f"holds/{row['target_id']}"
    if row["ends"] is not None:
        message.expire_time.FromJsonString(row["ends"])
    return message


def _timestamp(instant: datetime) -> Timestamp:
    # Twice as fast as FromDatetime, and a page has two for each line.
    seconds = instant.timestamp()
    return Timestamp(seconds=int(seconds // 1), nanos=instant.microsecond * 1000)


def to_lot(row: asyncpg.Record) -> pb.Lot:
    """A lot."""
    message = pb.Lot(
        name=f"accounts/{row['account_id']}/lots/{row['lot_id']}",
        program=f"programs/{row['program_id']}",
        institution=f"institutions/{row['institution_id']}",
        state=LOT_STATES[LotState(row["state"])],
        issued_points=row["issued_points"],
        remaining_points=row["remaining_points"],
        available_points=0 if row["state"] == LotState.PENDING else row["remaining_points"] - row["reserved_points"],
        held_points=row["reserved_points"],
    )
    for field in ("active_time", "expire_time"):
        if row[field] is not None:
            getattr(message, field).FromDatetime(row[field])
    return message


def to_summary(sums: list[asyncpg.Record], expiring: list[asyncpg.Record]) -> pb.StatementSummary:
    """A statement summed up: of each programme the opening balance comes first, then its kinds."""
    message = pb.StatementSummary()
    for row in sums:
        if row["kind"] is None:
            opening = row["opening_points"]
            message.programs.add(program=f"programs/{row['program_id']}", opening_points=opening, closing_points=opening)
            continue
        program = message.programs[-1]
        program.closing_points += row["credited_points"] - row["debited_points"]
        program.kinds.add(
            kind=KINDS[OperationKind(row["kind"])],
            lines_count=row["lines_count"],
            credited_points=row["credited_points"],
            debited_points=row["debited_points"],
        )
    for row in expiring:
        ends = message.expiring.add(program=f"programs/{row['program_id']}", points=row["points"])
        ends.expire_time.FromDatetime(row["expire_time"])
    return message


def side_of(principal: Principal) -> str:
    """For which side somebody acts: an institution, or `-`, the operator."""
    return principal.institution or OPERATOR
