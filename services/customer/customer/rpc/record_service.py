"""RecordService: what each source said when, and to whom it belonged when."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from chassis import pages
from chassis.database import Connection
from chassis.errors import InvalidArgument, NotFound
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import resource_id, resource_segments
from concord.customer.v1 import record_service_pb2 as pb
from concord.customer.v1.intake_service_pb2 import ResolutionReason, SourceRecord
from concord.customer.v1.party_pb2 import Party
from concord.customer.v1.record_service_pb2_grpc import RecordServiceServicer
from concord.customer.v1.review_service_pb2 import AttributeScore
from customer.core import Core
from customer.domain.matching import Explanation
from customer.merging import shown_steward
from customer.messages import timestamp
from customer.rpc.callers import customer_not_found, only_customer, require_own, viewing_institution
from customer.store import customers as customer_store
from customer.store import links as link_store
from customer.store import records as record_store
from customer.store import states as state_store
from customer.store.links import Link
from customer.store.records import STATED_PARTY, STATED_PAYLOAD, Member
from customer.store.vault import DataKey, bound_to

PAGE_ROWS, PAGE_ROWS_MAX = 50, 200


class RecordServicer(RecordServiceServicer):
    """Translates. Reads as the caller's institution, and decrypts with the key of each record."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def ListRecords(self, request: pb.ListRecordsRequest, context: Any) -> pb.ListRecordsResponse:
        principal = current_principal()
        asked_id = customer_id = resource_id(request.parent, "customers", "parent")
        await require_own(self._core.database, principal, customer_id)
        limit = pages.page_size(request.page_size, default=PAGE_ROWS, maximum=PAGE_ROWS_MAX)
        keys = pages.decode(request.page_token, request)
        viewer = viewing_institution(principal)
        async with self._core.viewers.connection(viewer) as connection:
            members = await self._visible(connection, customer_id, viewer)
            if not members:
                customer_id = await customer_store.winner(connection, customer_id)
                members = await self._visible(connection, customer_id, viewer) if customer_id != asked_id else []
            if not members:
                raise customer_not_found(asked_id)
            rest = sorted((one for one in members if not keys or str(one.record_id) > keys[0]), key=lambda one: one.record_id)
            shown = rest[:limit]
            records = await self._records(connection, principal, shown)
        token = pages.encode([str(shown[-1].record_id)], request) if len(rest) > limit else ""
        return pb.ListRecordsResponse(records=records, next_page_token=token, customer=f"customers/{customer_id}")

    async def GetRecord(self, request: pb.GetRecordRequest, context: Any) -> pb.Record:
        principal = current_principal()
        async with self._core.viewers.connection(viewing_institution(principal)) as connection:
            member = await self._member(connection, principal, request.name, "name")
            [record] = await self._records(connection, principal, [member])
        return record

    async def ListRecordStates(self, request: pb.ListRecordStatesRequest, context: Any) -> pb.ListRecordStatesResponse:
        principal = current_principal()
        limit = pages.page_size(request.page_size, default=PAGE_ROWS, maximum=PAGE_ROWS_MAX)
        keys = pages.decode(request.page_token, request)
        before = (datetime.fromisoformat(keys[0]), int(keys[1])) if keys else None
        async with self._core.viewers.connection(viewing_institution(principal)) as connection:
            member = await self._member(connection, principal, request.parent, "parent")
            rows = await state_store.page(connection, member.record_id, before, limit + 1)
        key = (await self._core.vault.keys([member.record_id]))[member.record_id]
        shown = rows[:limit]
        token = pages.encode([shown[-1]["observe_time"].isoformat(), str(shown[-1]["state_number"])], request)
        return pb.ListRecordStatesResponse(
            states=[_state(member, row, key) for row in shown], next_page_token=token if len(rows) > limit else ""
        )

    async def ListLinkHistory(self, request: pb.ListLinkHistoryRequest, context: Any) -> pb.ListLinkHistoryResponse:
        principal = current_principal()
        customer_id = resource_id(request.parent, "customers", "parent")
        await require_own(self._core.database, principal, customer_id)
        limit = pages.page_size(request.page_size, default=PAGE_ROWS, maximum=PAGE_ROWS_MAX)
        keys = pages.decode(request.page_token, request)
        before = (datetime.fromisoformat(keys[0]), UUID(keys[1]), int(keys[2])) if keys else None
        viewer = viewing_institution(principal)
        async with self._core.viewers.connection(viewer) as connection:
            rows = await link_store.of_customer(connection, customer_id, viewer, before, limit + 1)
            links = [Link(*tuple(row)[: len(link_store.COLUMNS)]) for row in rows[:limit]]
            seen = await link_store.as_seen(connection, links, viewer)
        if not rows and before is None:
            raise customer_not_found(customer_id)
        shown = rows[:limit]
        last = shown[-1] if len(rows) > limit else None
        token = (
            pages.encode([last["recorded_at"].isoformat(), str(last["record_id"]), str(last["link_version"])], request)
            if last
            else ""
        )
        return pb.ListLinkHistoryResponse(
            links=[_linkage(principal, _name(row), link) for row, link in zip(shown, seen, strict=True)], next_page_token=token
        )

    async def _visible(self, connection: Connection, customer_id: UUID, viewer: str | None) -> list[Member]:
        return (await record_store.visible(connection, self._core.vault, [(customer_id, viewer)]))[0]

    async def _member(self, connection: Connection, principal: Principal, name: str, field: str) -> Member:
        institution_id, _, record = resource_segments(name, "institutions", "sourceSystems", "records", field=field)
        require_institution(principal, institution_id)
        try:
            record_id = UUID(record)
        except ValueError:
            rule = "must end with the id of a record"
            raise InvalidArgument("NAME_INVALID", f"{field} {rule}", field_violations=[(field, rule)]) from None
        found = await record_store.by_ids(connection, self._core.vault, [record_id], viewing_institution(principal))
        only = await only_customer(connection, principal)
        mine = [member for member in found if member.name == name and only in (None, member.customer_id)]
        if not mine:
            raise NotFound("RECORD_NOT_FOUND", f"{name} does not exist")
        return mine[0]

    async def _records(self, connection: Connection, principal: Principal, members: Sequence[Member]) -> list[pb.Record]:
        live = await link_store.live(connection, [member.record_id for member in members])
        links = [live[member.record_id] for member in members]
        seen = await link_store.as_seen(connection, links, viewing_institution(principal))
        return [
            await self._record(connection, member, _linkage(principal, member.name, link))
            for member, link in zip(members, seen, strict=True)
        ]

    async def _record(self, connection: Connection, member: Member, link: pb.RecordLinkage) -> pb.Record:
        key = (await self._core.vault.keys([member.record_id]))[member.record_id]
        payload = await state_store.payload(connection, member.record_id, member.state_number)
        stated = SourceRecord.FromString(key.open(payload, bound_to(STATED_PAYLOAD, member.record_id, member.state_number)))
        return pb.Record(
            name=member.name,
            customer=f"customers/{member.customer_id}",
            source_record_key=stated.source_record_key,
            party=member.party,
            observe_time=timestamp(member.observe_time),
            state_number=member.state_number,
            link=link,
            create_time=timestamp(member.create_time),
            update_time=timestamp(member.update_time),
        )


def _state(member: Member, row: Any, key: DataKey) -> pb.RecordState:
    number, record_id = row["state_number"], member.record_id
    payload = SourceRecord.FromString(key.open(row["payload"], bound_to(STATED_PAYLOAD, record_id, number)))
    last = max(row["observe_time"], row["last_sighting"] or row["observe_time"])
    return pb.RecordState(
        state_number=number,
        observe_time=timestamp(row["observe_time"]),
        last_observe_time=timestamp(last),
        record_time=timestamp(row["recorded_at"]),
        present=number == member.state_number,
        stated_party=payload.party,
        party=Party.FromString(key.open(row["party"], bound_to(STATED_PARTY, record_id, number))),
    )


def _name(row: Any) -> str:
    return f"institutions/{row['institution_id']}/sourceSystems/{row['source_system_id']}/records/{row['record_id']}"


def _linkage(principal: Principal, record: str, link: Link) -> pb.RecordLinkage:
    scores = Explanation.from_bytes(link.explanation).contributions if link.explanation else ()
    return pb.RecordLinkage(
        record=record,
        customer=f"customers/{link.customer_id}",
        link_version=link.link_version,
        origin=pb.LinkOrigin.ValueType(link.origin),
        reason=ResolutionReason.ValueType(link.reason),
        weight_bits=link.weight_bits or 0.0,
        model_version=link.model_version,
        scores=[AttributeScore(attribute=score.attribute, level=score.level, bits=score.bits) for score in scores],
        record_time=timestamp(link.recorded_at),
        supersede_time=timestamp(link.superseded_at) if link.superseded_at else None,
        decided_by=shown_steward(principal, link.decided_by),
    )
