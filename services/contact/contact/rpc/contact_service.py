"""ContactService: the history of contacts, and the inbox."""

import uuid
from datetime import datetime
from typing import Any

import asyncpg

from chassis import customer_states, record_links
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, NotFound
from chassis.identity import current_principal
from chassis.ids import new_id
from chassis.unit_of_work import Commands, UnitOfWork
from concord.contact.v1.contact_service_pb2 import (
    Contact,
    InboxMessage,
    ListContactsRequest,
    ListContactsResponse,
    ListInboxMessagesRequest,
    ListInboxMessagesResponse,
    ReadInboxMessageRequest,
    RecordContactRequest,
)
from concord.contact.v1.contact_service_pb2_grpc import ContactServiceServicer
from contact.domain.kinds import Direction, State
from contact.published import contact_recorded
from contact.rpc.translate import id_in, institution_seen_by, next_page_token, page_keys, page_size, past_instant, timestamp
from contact.store import contacts, inbox
from contact.store.contacts import NewContact


class ContactServicer(ContactServiceServicer):
    """Serves the contact history of customers."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def RecordContact(self, request: RecordContactRequest, context: Any) -> Contact:
        async def handler(unit: UnitOfWork) -> Contact:
            customer_id, institution_id = id_in(request.parent, 1), unit.principal.institution
            await customer_states.writable(unit.connection, unit.principal, customer_id)
            assert institution_id is not None  # channels and staff always act for one
            if Direction(request.direction) is Direction.OUTBOUND:
                await _require_unrestricted(unit.connection, customer_id)
            records = await record_links.anchors(unit.connection, institution_id, [customer_id])
            if customer_id not in records:  # they moved away since the look above
                raise record_links.not_found(customer_id)
            new = NewContact(
                contact_id=new_id(),
                record_id=records[customer_id][0],
                institution_id=institution_id,
                direction=request.direction,
                channel=request.channel,
                purpose=request.purpose,
                state=State.DELIVERED,
                contact_time=past_instant(request.contact_time, "contact_time", unit.now),
                staff_id=request.staff_id,
                topic=request.topic,
            )
            [row] = await contacts.add(unit.connection, [new])
            unit.publish(contact_recorded(row, unit.epoch))
            return _contact(row)

        return await self._commands.run(request, handler)

    async def ListContacts(self, request: ListContactsRequest, context: Any) -> ListContactsResponse:
        principal, customer_id, limit = current_principal(), id_in(request.parent, 1), page_size(request)
        before = page_keys(request, datetime.fromisoformat, uuid.UUID)
        async with self._database.connection() as connection:
            customer_id = await customer_states.readable(connection, principal, customer_id)
            rows = await contacts.page(connection, customer_id, institution_seen_by(principal), before, limit + 1)
        return ListContactsResponse(
            contacts=[_contact(row) for row in rows[:limit]],
            next_page_token=next_page_token(request, rows, limit, "contact_time", "contact_id"),
        )

    async def ListInboxMessages(self, request: ListInboxMessagesRequest, context: Any) -> ListInboxMessagesResponse:
        principal, customer_id, limit = current_principal(), id_in(request.parent, 1), page_size(request)
        before = page_keys(request, datetime.fromisoformat, uuid.UUID)
        async with self._database.connection() as connection:
            customer_id = await customer_states.readable(connection, principal, customer_id)
            rows = await inbox.page(connection, customer_id, institution_seen_by(principal), before, limit + 1)
        return ListInboxMessagesResponse(
            inbox_messages=[_message(row, row["read_at"]) for row in rows[:limit]],
            next_page_token=next_page_token(request, rows, limit, "delivered_at", "touch_id"),
        )

    async def ReadInboxMessage(self, request: ReadInboxMessageRequest, context: Any) -> InboxMessage:
        async def handler(unit: UnitOfWork) -> InboxMessage:
            customer_id, message_id = id_in(request.name, 1), id_in(request.name, 3)
            await customer_states.writable(unit.connection, unit.principal, customer_id)
            row = await inbox.lock(unit.connection, message_id)
            owner = (customer_id, unit.principal.institution)
            if row is None or (row["customer_id"], row["institution_id"]) != owner:
                raise NotFound("INBOX_MESSAGE_NOT_FOUND", f"{request.name} does not exist, or was sent by another institution")
            if row["read_at"] is not None:
                return _message(row, row["read_at"])
            await inbox.mark_read(unit.connection, message_id, unit.now)
            changed = await contacts.mark_read(unit.connection, message_id)
            if changed is not None:
                unit.publish(contact_recorded(changed, unit.epoch))
            return _message(row, unit.now)

        return await self._commands.run(request, handler)


async def _require_unrestricted(connection: Connection, customer_id: uuid.UUID) -> None:
    if customer_id in await customer_states.restricted(connection, [customer_id]):
        raise FailedPrecondition(
            "CUSTOMER_RESTRICTED",
            f"customers/{customer_id} is restricted: nobody may contact it; what it says itself may be recorded",
        )


def _contact(row: asyncpg.Record) -> Contact:
    return Contact(
        name=f"customers/{row['customer_id']}/contacts/{row['contact_id']}",
        institution=f"institutions/{row['institution_id']}",
        direction=row["direction"],
        channel=row["channel"],
        purpose=row["purpose"],
        state=row["state"],
        contact_time=row["contact_time"],
        touch=row["touch"],
        staff_id=row["staff_id"],
        topic=row["topic"],
    )


def _message(row: asyncpg.Record, read_at: datetime | None) -> InboxMessage:
    return InboxMessage(
        name=f"customers/{row['customer_id']}/inboxMessages/{row['touch_id']}",
        institution=f"institutions/{row['institution_id']}",
        title=row["title"],
        body=row["body"],
        deliver_time=row["delivered_at"],
        read_time=timestamp(read_at),
    )
