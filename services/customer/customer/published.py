"""What the customer master publishes. No event holds a name, document, phone, e-mail, address or free text."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from chassis.outbox import Event
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.common.v1.money_pb2 import Money
from concord.customer.v1 import customer_events_pb2 as pb
from concord.customer.v1.activity_pb2 import ActivityDetail
from concord.customer.v1.attribute_pb2 import Attribute as ProtoAttribute
from concord.customer.v1.attribute_pb2 import PartyKind, Sex
from customer.domain.golden import Believed
from customer.domain.intake import activity_id as activity_id_of
from customer.domain.kyc import RiskLevel
from customer.domain.vocabulary import Attribute
from customer.store.customers import CustomerRow
from customer.store.holdings import HolderRow, HoldingRow
from customer.store.portfolios import Assignment
from customer.store.quality import Remembered
from customer.store.records import Member
from customer.store.sharing import Consent

INSTITUTION_CHANGED = "concord.customer.v1.institution.changed"
CUSTOMER_UPDATED = "concord.customer.v1.customer.updated"
QUALITY_CHANGED = "concord.customer.v1.quality.changed"
RECORDS_MOVED = "concord.customer.v1.customer.records_moved"
HOLDING_CHANGED = "concord.customer.v1.holding.changed"
PORTFOLIO_CHANGED = "concord.customer.v1.portfolio.changed"
ACTIVITY_RECORDED = "concord.customer.v1.activity.recorded"
KYC_DECIDED = "concord.customer.v1.kyc.decided"
CUSTOMER_ERASED = "concord.customer.v1.customer.erased"
SHARING_CONSENT_CHANGED = "concord.customer.v1.sharing_consent.changed"


def institution_changed(row: Any, epoch: int) -> Event:
    """The state of an institution; `row` is one of the table."""
    message = pb.InstitutionChanged(
        institution_id=row["institution_id"],
        state_version=StateVersion(epoch=epoch, version=row["version"]),
        kind=row["kind"],
        time_zone=row["time_zone"],
        country_code=row["country_code"],
    )
    return Event(INSTITUTION_CHANGED, aggregate_id=row["institution_id"], message=message)


def record_link(record_id: UUID, institution_id: str, customer_id: UUID, version: int, epoch: int) -> RecordLink:
    """Whose record it is."""
    return RecordLink(
        record_id=str(record_id),
        institution_id=institution_id,
        customer_id=str(customer_id),
        state_version=StateVersion(epoch=epoch, version=version),
    )


def _link(member: Member, epoch: int) -> RecordLink:
    return record_link(member.record_id, member.institution_id, member.customer_id, member.link_version, epoch)


def customer_changed(
    row: CustomerRow,
    members: Sequence[Member],
    believed: Mapping[Attribute, Sequence[Believed]],
    instant: datetime,
    epoch: int,
) -> Event:
    """The public state of a customer over all its records: no name, document, contact point or address.

    Args:
        row: the customer.
        members: all its live records.
        believed: what is believed of them at `instant`.
        instant: which roles have ended by then.
        epoch: of the database.
    """
    best = {attribute: values[0] for attribute, values in believed.items()}
    kind, born, sex = best.get(Attribute.PARTY_KIND), best.get(Attribute.BIRTH_DATE), best.get(Attribute.SEX)
    language, zone = best.get(Attribute.LANGUAGE), best.get(Attribute.TIME_ZONE)
    address = best.get(Attribute.ADDRESS)
    message = pb.CustomerChanged(
        customer_id=str(row.customer_id),
        state_version=StateVersion(epoch=epoch, version=row.version),
        party_kind=kind.value if kind else PartyKind.PARTY_KIND_UNSPECIFIED,
        birth_year=int(born.value[:4]) if born and born.valid else 0,
        sex=sex.value if sex else Sex.SEX_UNSPECIFIED,
        country_code=address.value.country_code if address else "",
        administrative_area=address.value.administrative_area if address else "",
        language_code=language.value if language else "",
        time_zone=zone.value if zone and zone.valid else "",
        attribute_qualities=[
            pb.AttributeQuality(
                attribute=cast("ProtoAttribute.ValueType", int(attribute)),
                valid=value.valid,
                rank=value.rank,
                sources_agreeing_count=value.agreeing_count,
                sources_conflicting_count=value.conflicting_count,
                observe_time_seconds=int(value.record.observed_at.timestamp()),
            )
            for attribute, value in best.items()
            if attribute != Attribute.PARTY_KIND
        ],
        record_links=[_link(member, epoch) for member in sorted(members, key=lambda member: member.record_id)],
        merged_into_customer_id=str(row.merged_into) if row.merged_into else "",
        create_time_seconds=int(row.create_time.timestamp()),
        restricted=row.restricted,
        role_kinds=_role_kinds(believed.get(Attribute.ROLE, ()), instant),
    )
    return Event(CUSTOMER_UPDATED, aggregate_id=str(row.customer_id), message=message)


def _role_kinds(roles: Sequence[Believed], instant: datetime) -> list[Any]:
    """Kinds of the roles that last. ISO dates sort as they follow."""
    today = instant.date().isoformat()
    return sorted({role.value.kind for role in roles if not role.value.end_date or role.value.end_date >= today})


def quality_changed(customer_id: UUID, quality: Remembered, epoch: int) -> Event:
    """The quality of a customer, which has entered another band."""
    message = pb.QualityChanged(
        customer_id=str(customer_id),
        state_version=StateVersion(epoch=epoch, version=quality.version),
        completeness_percent=quality.completeness_percent,
        credibility_percent=quality.credibility_percent,
    )
    return Event(QUALITY_CHANGED, aggregate_id=str(customer_id), message=message)


def records_moved(former: UUID, to: UUID, members: Iterable[Member], reason: str, epoch: int) -> Event:
    """Records went from one customer to another, all of them in one event."""
    message = pb.RecordsMoved(
        from_customer_id=str(former),
        to_customer_id=str(to),
        record_links=[_link(member, epoch) for member in sorted(members, key=lambda member: member.record_id)],
        reason=reason,
    )
    return Event(RECORDS_MOVED, aggregate_id=str(to), message=message)


def customer_erased(customer_id: UUID, record_ids: Iterable[UUID], whole: bool, now: datetime) -> Event:
    """Records of a customer were erased, perhaps all of them. A fact."""
    message = pb.CustomerErased(
        customer_id=str(customer_id),
        record_ids=sorted(map(str, record_ids)),
        whole=whole,
        erase_time_seconds=int(now.timestamp()),
    )
    return Event(CUSTOMER_ERASED, aggregate_id=str(customer_id), message=message)


def sharing_consent_changed(consent: Consent, customer_id: UUID, link_version: int, epoch: int) -> Event:
    """The state of a consent to share, and to whom its record belongs."""
    ends = [instant for instant in (consent.end_time, consent.revoke_time) if instant]
    message = pb.SharingConsentChanged(
        consent_id=str(consent.consent_id),
        state_version=StateVersion(epoch=epoch, version=consent.version),
        record_link=record_link(consent.record_id, consent.from_institution_id, customer_id, link_version, epoch),
        to_institution_id=consent.to_institution_id,
        purpose_code=consent.purpose_code,
        attributes=[cast("ProtoAttribute.ValueType", attribute) for attribute in consent.attributes],
        begin_time_seconds=int(consent.begin_time.timestamp()),
        end_time_seconds=int(min(ends).timestamp()) if ends else 0,
    )
    return Event(SHARING_CONSENT_CHANGED, aggregate_id=str(consent.consent_id), message=message)


def holding_changed(row: HoldingRow, holders: Iterable[HolderRow], epoch: int) -> Event:
    """The state of a holding."""
    message = pb.HoldingChanged(
        holding_id=str(row.holding_id),
        state_version=StateVersion(epoch=epoch, version=row.version),
        institution_id=row.institution_id,
        kind=cast(Any, row.kind),
        product_code=row.product_code,
        open_date=row.open_date.isoformat(),
        close_date=row.close_date.isoformat() if row.close_date else "",
        amount=money(row.currency_code, row.amount_minor_units),
        standing=cast(Any, row.standing),
        holders=[
            pb.Holder(
                record_link=record_link(holder.record_id, holder.institution_id, holder.customer_id, holder.link_version, epoch),
                role=cast(Any, holder.role),
            )
            for holder in holders
        ],
    )
    return Event(HOLDING_CHANGED, aggregate_id=str(row.holding_id), message=message)


def portfolio_changed(row: Assignment, epoch: int) -> Event:
    """Whether a member of staff looks after a customer."""
    message = pb.PortfolioChanged(
        institution_id=row.institution_id,
        staff_id=row.staff_id,
        record_link=record_link(row.record_id, row.institution_id, row.customer_id, row.link_version, epoch),
        state_version=StateVersion(epoch=epoch, version=row.version),
        department_id=row.department_id,
        assigned=row.end_time is None,
    )
    return Event(PORTFOLIO_CHANGED, aggregate_id=f"{row.institution_id}/{row.staff_id}", message=message)


def money(currency_code: str | None, minor_units: int | None) -> Money | None:
    """An amount as it is stored; None for none."""
    return None if currency_code is None else Money(currency_code=currency_code, minor_units=minor_units or 0)


def activity_recorded(
    activity_id: UUID,
    link: RecordLink,
    source_system: str,
    holding_id: UUID | None,
    detail: ActivityDetail,
    occurred_at: datetime,
) -> Event:
    """An activity. The source system is its resource name."""
    message = pb.ActivityRecorded(
        activity_id=str(activity_id),
        record_link=link,
        source_system_id=source_system.rpartition("/")[2],
        holding_id=str(holding_id) if holding_id else "",
        detail=detail,
    )
    if detail.WhichOneof("kind") == "reversal":
        message.reversed_activity_id = str(activity_id_of(source_system, detail.reversal.source_activity_key))
    return Event(ACTIVITY_RECORDED, aggregate_id=str(activity_id), message=message, event_id=activity_id, occurred_at=occurred_at)


def kyc_decided(case: Any, link_version: int, epoch: int) -> Event:
    """A KYC case was decided; `case` is its row with the customer it belongs to. A fact."""
    message = pb.KycDecided(
        kyc_case_id=str(case["case_id"]),
        record_link=record_link(case["record_id"], case["institution_id"], case["customer_id"], link_version, epoch),
        approved=case["next_review_date"] is not None,
        risk_level=RiskLevel(case["risk_level"]).name,
        next_review_date=case["next_review_date"].isoformat() if case["next_review_date"] else "",
        decide_time_seconds=int(case["decide_time"].timestamp()),
    )
    case_id = case["case_id"]
    return Event(KYC_DECIDED, aggregate_id=str(case_id), message=message, event_id=case_id, occurred_at=case["decide_time"])
