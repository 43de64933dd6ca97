"""SharingConsentService: what customers let institutions share."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from chassis import pages
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.identity import Principal, current_principal
from chassis.ids import new_id, parse_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import sharing_consent_service_pb2 as pb
from concord.customer.v1.attribute_pb2 import Attribute
from concord.customer.v1.sharing_consent_service_pb2_grpc import SharingConsentServiceServicer
from customer import published
from customer.changes import Changes
from customer.core import Core
from customer.domain.audit import Action
from customer.domain.intake import SECONDS_MIN
from customer.messages import timestamp
from customer.rpc.callers import no_such_customer, require_linked, require_own, viewing_institution
from customer.store import institutions, sharing
from customer.store.records import Member
from customer.store.sharing import Consent
from customer.store.vault import bound_to

SECONDS_MAX = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())


class SharingConsentServicer(SharingConsentServiceServicer):
    """Translates. A consent hangs on the oldest record of the institution that shares, and moves with it."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core = core
        self._commands = commands

    async def GrantSharingConsent(self, request: pb.GrantSharingConsentRequest, context: Any) -> pb.SharingConsent:
        async def handler(unit: UnitOfWork) -> pb.SharingConsent:
            changes, anchor = await self._anchor(unit, resource_id(request.parent, "customers", "parent"))
            consent_id = new_id()
            key = (await self._core.vault.keys([anchor.record_id]))[anchor.record_id]
            begin = _instant(request, "begin_time") or changes.now
            end = _instant(request, "end_time")
            if end is not None and end <= begin:
                raise _invalid("end_time", "END_BEFORE_BEGIN", "must be later than begin_time")
            consent = Consent(
                consent_id, 1, anchor.record_id, anchor.customer_id, anchor.institution_id, await self._to(unit, request, anchor),
                request.purpose_code, tuple(sorted(request.attributes)),
                key.seal(request.evidence_reference.encode(), bound_to(sharing.EVIDENCE, consent_id)), begin, end, None, "",
                changes.now, None, unit.principal.subject,
            )  # fmt: skip
            await sharing.write(unit.connection, [consent])
            return await self._written(unit, consent, anchor, Action.SHARE, request.purpose_code)

        return await self._commands.run(request, handler)

    async def RevokeSharingConsent(self, request: pb.RevokeSharingConsentRequest, context: Any) -> pb.SharingConsent:
        async def handler(unit: UnitOfWork) -> pb.SharingConsent:
            customer, consent_text = resource_segments(request.name, "customers", "sharingConsents")
            changes, mine = await self._anchor(unit, parse_id(customer, "name"))
            consent = await sharing.get(unit.connection, parse_id(consent_text, "name"), mine.customer_id)
            if consent is None or consent.from_institution_id != unit.principal.institution:
                raise NotFound("SHARING_CONSENT_NOT_FOUND", f"{request.name} does not exist, or was not given to you")
            if consent.revoke_time is not None:
                raise FailedPrecondition("SHARING_CONSENT_REVOKED", f"{request.name} was revoked before")
            revoked = consent.revoked(changes.now, request.reason_code, unit.principal.subject)
            await sharing.write(unit.connection, [revoked])
            anchor = changes.members[mine.customer_id][consent.record_id]
            return await self._written(unit, revoked, anchor, Action.SHARE_REVOKE, request.reason_code)

        return await self._commands.run(request, handler)

    async def ListSharingConsents(self, request: pb.ListSharingConsentsRequest, context: Any) -> pb.ListSharingConsentsResponse:
        principal = current_principal()
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        after = parse_id(keys[0], "page_token") if keys else None
        viewer = viewing_institution(principal)
        customer_id = await require_linked(self._core, principal, resource_id(request.parent, "customers", "parent"))
        async with self._core.viewers.connection(viewer) as connection:
            rows = await sharing.page(connection, customer_id, viewer, request.show_ended, after, limit + 1)
        token = pages.encode([str(rows[limit - 1].consent_id)], request) if len(rows) > limit else ""
        shown = await messages_of(self._core, principal, rows[:limit])
        return pb.ListSharingConsentsResponse(sharing_consents=shown, next_page_token=token)

    async def _anchor(self, unit: UnitOfWork, customer_id: UUID) -> tuple[Changes, Member]:
        """The caller's oldest record of a customer, whose lock is taken; of a merged customer that of its winner is not taken."""
        await require_own(self._core.database, unit.principal, customer_id)
        changes = Changes(unit, self._core)
        await changes.load([customer_id])
        mine = [one for one in changes.members.get(customer_id, {}).values() if one.institution_id == unit.principal.institution]
        if not mine:
            raise await no_such_customer(unit.connection, unit.principal, customer_id)
        return changes, min(mine, key=lambda member: member.record_id)

    async def _to(self, unit: UnitOfWork, request: pb.GrantSharingConsentRequest, anchor: Member) -> str:
        if not request.to_institution:
            return sharing.EVERYBODY
        to = resource_id_text(request.to_institution)
        if to == anchor.institution_id:
            raise _invalid("to_institution", "INSTITUTION_OWN", "must be another institution than the one that shares")
        if await institutions.get_institution(unit.connection, to) is None:
            raise _invalid("to_institution", "INSTITUTION_UNKNOWN", "must be an institution of the alliance, or empty for all")
        return to

    async def _written(
        self, unit: UnitOfWork, consent: Consent, anchor: Member, action: Action, reason_code: str
    ) -> pb.SharingConsent:
        event = published.sharing_consent_changed(consent, anchor.customer_id, anchor.link_version, unit.epoch)
        unit.publish(event)
        [message] = await messages_of(self._core, unit.principal, [consent])
        await self._core.audit.append(
            unit,
            action,
            customers=[consent.customer_id],
            records=[consent.record_id],
            reason_code=reason_code,
            resource=message.name,
        )
        return message


def resource_id_text(institution: str) -> str:
    """The id in the resource name of an institution."""
    return resource_segments(institution, "institutions", field="to_institution")[0]


async def messages_of(core: Core, principal: Principal, consents: "list[Consent]") -> list[pb.SharingConsent]:
    """Consents as the caller may see them: the evidence is for who has it, and for the operator."""
    viewer = viewing_institution(principal)
    readable = [one.record_id for one in consents if viewer in (None, one.from_institution_id)]
    keys = await core.vault.keys(readable) if readable else {}
    return [
        pb.SharingConsent(
            name=f"customers/{one.customer_id}/sharingConsents/{one.consent_id}",
            from_institution=f"institutions/{one.from_institution_id}",
            to_institution=f"institutions/{one.to_institution_id}" if one.to_institution_id else "",
            purpose_code=one.purpose_code,
            attributes=[Attribute.ValueType(attribute) for attribute in one.attributes],
            evidence_reference=(
                keys[one.record_id].open(one.evidence, bound_to(sharing.EVIDENCE, one.consent_id)).decode()
                if one.record_id in keys and viewer in (None, one.from_institution_id)
                else ""
            ),
            begin_time=timestamp(one.begin_time),
            end_time=timestamp(one.end_time) if one.end_time else None,
            record_time=timestamp(one.recorded_at),
            revoke_time=timestamp(one.revoke_time) if one.revoke_time else None,
            revoke_reason_code=one.revoke_reason_code,
        )
        for one in consents
    ]


def _instant(request: pb.GrantSharingConsentRequest, field: str) -> datetime | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    value: Timestamp = getattr(request, field)
    if not SECONDS_MIN <= value.seconds <= SECONDS_MAX:
        raise _invalid(field, "TIME_OUT_OF_RANGE", "must lie between the years 1850 and 2200")
    return datetime.fromtimestamp(value.seconds, UTC).replace(microsecond=value.nanos // 1000)


def _invalid(field: str, reason: str, rule: str) -> InvalidArgument:
    return InvalidArgument(reason, f"{field} {rule}", field_violations=[(field, rule)])
