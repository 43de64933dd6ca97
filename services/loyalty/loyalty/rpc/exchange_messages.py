"""Messages of ExchangeService from what the store gives, and back."""

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import etags
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.identity import Principal
from concord.loyalty.v1 import exchange_service_pb2 as pb
from loyalty.domain import agreements as domain
from loyalty.domain.agreements import AgreementState, Terms, Version, VersionState
from loyalty.domain.four_eyes import OPERATOR, Person, Refused, side_name
from loyalty.domain.ledger.configuration import Basis, Funding

PAGE_DEFAULT = 50
PAGE_MAX = 200
BASIS_OF = {pb.AgreementBasis.Value(f"AGREEMENT_BASIS_{basis}"): basis for basis in Basis}
FUNDING_OF = {pb.AgreementFunding.Value(f"AGREEMENT_FUNDING_{funding}"): funding for funding in Funding}
BASES = {basis: number for number, basis in BASIS_OF.items()}
FUNDINGS = {funding: number for number, funding in FUNDING_OF.items()}
STATES = {state: pb.AgreementState.Value(f"AGREEMENT_STATE_{state}") for state in AgreementState}
VERSION_STATES = {state: pb.AgreementVersionState.Value(f"AGREEMENT_VERSION_STATE_{state}") for state in VersionState}
RATE_STATES = {"DRAFT": pb.RATE_STATE_DRAFT, "PUBLISHED": pb.RATE_STATE_PUBLISHED}


def person_of(principal: Principal) -> Person:
    """Who acts, and for which side."""
    return Person(principal.subject, principal.institution or OPERATOR)


def invalid(wrong: Iterable[tuple[str, str]], reason: str, prefix: str = "") -> InvalidArgument:
    """The refusal of fields."""
    wrong = [(f"{prefix}{field}", rule) for field, rule in wrong]
    return InvalidArgument(reason, "; ".join(f"{field} {rule}" for field, rule in wrong), field_violations=wrong)


def refusal(refused: Refused) -> FailedPrecondition:
    """A rule's refusal in the words of the platform."""
    return FailedPrecondition(refused.reason, refused.message)


def agreement_not_found(name: str) -> NotFound:
    """No such agreement, or none of the caller's institution."""
    return NotFound("AGREEMENT_NOT_FOUND", f"{name} does not exist, or is not your institution's")


def rate_not_found(what: str) -> NotFound:
    """No such rate, or a draft of others."""
    return NotFound("RATE_NOT_FOUND", f"{what} does not exist")


def stamp(instant: datetime | None) -> Timestamp | None:
    """An instant as a message."""
    if instant is None:
        return None
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def terms_of(message: pb.AgreementTerms) -> Terms:
    """The terms in a message; `effective_time` goes with the version."""
    return Terms(
        price_numerator=message.price_numerator,
        price_denominator=message.price_denominator,
        fee_basis_points=message.fee_basis_points,
        net_debit_cap_minor_units=(message.net_debit_cap_minor_units if message.HasField("net_debit_cap_minor_units") else None),
        low_water_minor_units=message.low_water_minor_units,
        cut_off_time=message.cut_off_time,
        time_zone=message.time_zone,
    )


def wanted_time(message: pb.AgreementTerms) -> datetime | None:
    """From when terms shall hold."""
    return message.effective_time.ToDatetime(UTC) if message.HasField("effective_time") else None


def to_agreement(row: asyncpg.Record, newest: Version, viewer: Principal) -> pb.Agreement:
    """An agreement as its sides see it."""
    return pb.Agreement(
        name=f"agreements/{row['agreement_id']}",
        issuer=f"institutions/{row['issuer_institution_id']}",
        partner=f"institutions/{row['partner_institution_id']}",
        basis=BASES[Basis(row["basis"])],
        currency_code=row["currency_code"],
        funding=FUNDINGS[Funding(row["funding"])],
        state=STATES[AgreementState(row["state"])],
        terms=_terms(newest),
        newest_version=to_version(row, newest, viewer),
        suspended_by=_side(row["suspended_side"]) if row["suspended_side"] else "",
        etag=etags.etag(row["version"]),
        create_time=stamp(row["create_time"]),
    )


def to_version(row: asyncpg.Record, version: Version, viewer: Principal) -> pb.AgreementVersion:
    """A version of an agreement's terms. Persons are named to their own side only."""

    def seen(person: Person) -> bool:
        return viewer.sees_all or viewer.institution == person.side

    return pb.AgreementVersion(
        name=f"agreements/{row['agreement_id']}/versions/{version.number}",
        state=VERSION_STATES[version.state],
        terms=_terms(version),
        drafters=[person.subject for person in version.drafters if seen(person)],
        approvals=[
            pb.AgreementApproval(
                institution=f"institutions/{approval.institution_id}",
                by_operator=approval.by.side == OPERATOR,
                approver=approval.by.subject if seen(approval.by) else "",
                approve_time=stamp(approval.approve_time),
            )
            for approval in version.approvals
        ],
        effective_time=stamp(version.effective_time),
    )


def to_exposure(row: asyncpg.Record, version: Version | None, owed: Fraction, packs_minor_units: int) -> pb.AgreementExposure:
    """What is owed under an agreement and what may be."""
    payer, payee = domain.payer_and_payee(Basis(row["basis"]), row["issuer_institution_id"], row["partner_institution_id"])
    message = pb.AgreementExposure(
        name=f"agreements/{row['agreement_id']}/exposure",
        currency_code=row["currency_code"],
        exposure_minor_units=math.ceil(owed),
        payer=f"institutions/{payer}",
        payee=f"institutions/{payee}",
    )
    if version is not None:
        bound = domain.bound_minor_units(Funding(row["funding"]), version.terms, packs_minor_units)
        message.version_in_force = version.number
        message.bound_minor_units = bound
        message.available_minor_units = math.floor(bound - owed)
        message.is_low = domain.is_low(bound, owed, version.terms.low_water_minor_units)
    return message


def to_pack(row: asyncpg.Record) -> pb.AgreementPack:
    """A pack."""
    return pb.AgreementPack(
        name=f"agreements/{row['agreement_id']}/packs/{row['pack_number']}",
        minor_units=row["minor_units"],
        reference=row["reference"],
        create_time=stamp(row["create_time"]),
    )


def to_rate(row: asyncpg.Record) -> pb.Rate:
    """A rate."""
    return pb.Rate(
        name=f"rates/{row['rate_id']}",
        from_program=f"programs/{row['from_program_id']}",
        to_program=f"programs/{row['to_program_id']}",
        numerator=row["numerator"],
        denominator=row["denominator"],
        rounding=pb.RATE_ROUNDING_DOWN,
        valid_from=stamp(row["valid_from"]),
        valid_until=stamp(row["valid_until"]),
        state=RATE_STATES[row["state"]],
        create_time=stamp(row["create_time"]),
        publish_time=stamp(row["publish_time"]),
    )


def to_quote(row: asyncpg.Record) -> pb.Quote:
    """A quote."""
    lines = [_quote_line(line) for line in json.loads(row["lines"])]
    return pb.Quote(
        name=f"quotes/{row['quote_id']}",
        account=f"accounts/{row['account_id']}",
        institution=f"institutions/{row['institution_id']}",
        target_program=f"programs/{row['target_program_id']}" if row["target_program_id"] else "",
        currency_code=row["currency_code"] or "",
        amount=row["amount_units"],
        lines=lines,
        points_value=sum(line.value for line in lines),
        money_minor_units=row["money_minor_units"],
        reference=row["reference"],
        create_time=stamp(row["create_time"]),
        expire_time=stamp(row["expire_time"]),
        operation=f"operations/{row['used_by_operation_id']}" if row["used_by_operation_id"] else "",
    )


def _quote_line(line: dict[str, object]) -> pb.QuoteLine:
    points, value = int(str(line["points"])), int(str(line["value_units"]))
    numerator, denominator = int(str(line["numerator"])), int(str(line["denominator"]))
    since = line["rate_valid_from"]
    return pb.QuoteLine(
        program=f"programs/{line['program_id']}",
        points=points,
        value=value,
        numerator=numerator,
        denominator=denominator,
        residue_numerator=points * numerator - value * denominator,
        rate_valid_from=stamp(datetime.fromisoformat(str(since))) if since else None,
        agreement=f"agreements/{line['agreement_id']}/versions/{line['agreement_version']}" if line["agreement_id"] else "",
    )


def _terms(version: Version) -> pb.AgreementTerms:
    terms = version.terms
    return pb.AgreementTerms(
        price_numerator=terms.price_numerator,
        price_denominator=terms.price_denominator,
        fee_basis_points=terms.fee_basis_points,
        net_debit_cap_minor_units=terms.net_debit_cap_minor_units,
        low_water_minor_units=terms.low_water_minor_units,
        cut_off_time=terms.cut_off_time,
        time_zone=terms.time_zone,
        effective_time=stamp(version.wanted_time),
    )


def _side(side: str) -> str:
    return "operator" if side == OPERATOR else side_name(side)
