"""ContactPolicyService: the caps of the alliance and of institutions."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from chassis.database import Database
from chassis.errors import InvalidArgument, PermissionDenied
from chassis.identity import PrincipalKind, current_principal, require_institution
from chassis.unit_of_work import Commands, UnitOfWork
from concord.contact.v1 import contact_policy_service_pb2 as pb
from concord.contact.v1.contact_policy_service_pb2_grpc import ContactPolicyServiceServicer
from concord.contact.v1.contact_service_pb2 import CONTACT_PURPOSE_SERVICE
from contact.rpc.translate import next_page_token, page_keys, page_size, timestamp
from contact.store import policies


class ContactPolicyServicer(ContactPolicyServiceServicer):
    """Serves the versions of contact policies."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreateContactPolicyVersion(
        self, request: pb.CreateContactPolicyVersionRequest, context: Any
    ) -> pb.ContactPolicyVersion:
        async def handler(unit: UnitOfWork) -> pb.ContactPolicyVersion:
            policy_id = request.parent.split("/")[1]
            if policy_id != policies.ALLIANCE:
                require_institution(unit.principal, policy_id)
            elif unit.principal.kind is not PrincipalKind.OPERATOR:
                raise PermissionDenied("OPERATOR_NEEDED", "only the alliance's operator writes the alliance's policy")
            caps = _caps(request.contact_policy_version.contact_caps)
            version = await policies.add_version(unit.connection, policy_id, caps, unit.now, unit.principal.caller)
            return _version(policy_id, version, caps, unit.now)

        return await self._commands.run(request, handler)

    async def ListContactPolicyVersions(
        self, request: pb.ListContactPolicyVersionsRequest, context: Any
    ) -> pb.ListContactPolicyVersionsResponse:
        policy_id, limit = request.parent.split("/")[1], page_size(request)
        if policy_id != policies.ALLIANCE:  # that one binds everybody, so everybody may read it
            require_institution(current_principal(), policy_id)
        [before] = page_keys(request, int) or [None]
        async with self._database.connection() as connection:
            rows = await policies.page(connection, policy_id, before, limit + 1)
        return pb.ListContactPolicyVersionsResponse(
            contact_policy_versions=[
                _version(policy_id, row["version"], policies.caps_of(row), row["created_at"]) for row in rows[:limit]
            ],
            next_page_token=next_page_token(request, rows, limit, "version"),
        )


def _caps(contact_caps: Iterable[pb.ContactCap]) -> list[dict[str, int]]:
    caps = []
    for index, cap in enumerate(contact_caps):
        if cap.purpose == CONTACT_PURPOSE_SERVICE:
            field = f"contact_policy_version.contact_caps[{index}].purpose"
            rule = "must be marketing, sales or unspecified (both together): service contacts are never capped"
            raise InvalidArgument("CAP_INVALID", f"{field} {rule}", field_violations=[(field, rule)])
        caps.append(
            {
                "channel": int(cap.channel),
                "purpose": int(cap.purpose),
                "contacts_max": cap.contacts_max,
                "window_hours": cap.window_hours,
            }
        )
    return caps


def _version(policy_id: str, version: int, caps: Iterable[dict[str, Any]], created_at: datetime) -> pb.ContactPolicyVersion:
    return pb.ContactPolicyVersion(
        name=f"contactPolicies/{policy_id}/versions/{version}",
        contact_caps=[pb.ContactCap(**cap) for cap in caps],
        create_time=timestamp(created_at),
    )
