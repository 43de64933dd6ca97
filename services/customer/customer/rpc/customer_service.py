"""CustomerService: golden customers, as the caller may see them."""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from chassis import clock, pages
from chassis.database import Connection, Database
from chassis.errors import InvalidArgument, NotFound
from chassis.gatherer import Gatherer
from chassis.identity import Principal, current_principal
from chassis.ids import parse_id, resource_id
from concord.customer.v1 import customer_service_pb2 as pb
from concord.customer.v1.customer_service_pb2_grpc import CustomerServiceServicer
from concord.customer.v1.party_pb2 import Party
from customer import messages, published
from customer.domain import contact_points, names
from customer.domain.blind_index import BlindIndex
from customer.domain.resolution import Customers
from customer.domain.vocabulary import ResolutionReason
from customer.rpc.callers import bound_customer, viewing_institution
from customer.store import customers as customer_store
from customer.store import holdings as holding_store
from customer.store import institutions as institution_store
from customer.store import records as record_store
from customer.store.customers import Viewer
from customer.store.records import Member

READ_TOGETHER_MAX = 64


class CustomerServicer(CustomerServiceServicer):
    """Translates. Concurrent reads share one statement."""

    def __init__(self, database: Database, index: BlindIndex) -> None:
        self._database = database
        self._index = index
        self._reads: Gatherer[tuple[UUID, str | None], list[Member]] = Gatherer(self._read, items_max=READ_TOGETHER_MAX)

    async def _read(self, wanted: list[tuple[UUID, str | None]]) -> list[list[Member] | Exception]:
        async with self._database.connection() as connection:
            return cast("list[list[Member] | Exception]", await record_store.visible(connection, wanted))

    async def GetCustomer(self, request: pb.GetCustomerRequest, context: Any) -> pb.Customer:
        principal = current_principal()
        customer_id = resource_id(request.name, "customers")
        _require_own(principal, customer_id)
        members = await self._reads.submit((customer_id, viewing_institution(principal)))
        if not members:
            raise _not_found(customer_id)
        return messages.customer(customer_id, members)

    async def ListCustomers(self, request: pb.ListCustomersRequest, context: Any) -> pb.ListCustomersResponse:
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        viewer = _viewer(current_principal(), pages.decode(request.page_token, request))
        async with self._database.connection() as connection:
            found = await customer_store.list_linked(connection, viewer, limit + 1)
            customers = await _golden(connection, found[:limit], viewer)
        token = pages.encode([str(found[limit - 1])], request) if len(found) > limit else ""
        return pb.ListCustomersResponse(customers=customers, next_page_token=token)

    async def SearchCustomers(self, request: pb.SearchCustomersRequest, context: Any) -> pb.SearchCustomersResponse:
        limit = pages.page_size(request.page_size, default=20, maximum=100)
        principal = current_principal()
        viewer = _viewer(principal, pages.decode(request.page_token, request))
        async with self._database.connection() as connection:
            found = await self._search(connection, request, principal, viewer, limit + 1)
            customers = await _golden(connection, found[:limit], viewer)
        token = pages.encode([str(found[limit - 1])], request) if len(found) > limit else ""
        return pb.SearchCustomersResponse(customers=customers, next_page_token=token)

    async def _search(
        self, connection: Connection, request: pb.SearchCustomersRequest, principal: Principal, viewer: Viewer, limit: int
    ) -> list[UUID]:
        criterion = request.WhichOneof("criterion")
        if criterion == "person_name":
            prefixes = names.query_prefixes(request.person_name)
            if not prefixes:
                rule = "must have a letter or digit"
                raise InvalidArgument("NAME_EMPTY", f"person_name {rule}", field_violations=[("person_name", rule)])
            return await customer_store.find_by_name(connection, prefixes, viewer, limit)
        if criterion == "identifier":
            key = self._index.identifier(request.identifier)
        elif criterion == "email":
            key = self._index.email(contact_points.email(request.email)[0])
        else:
            country = await _country(connection, principal)
            key = self._index.phone(contact_points.phone(request.phone, country)[0])
        return await customer_store.find_by_keys(connection, [key], viewer, limit)

    async def ResolveCustomer(self, request: pb.ResolveCustomerRequest, context: Any) -> pb.ResolveCustomerResponse:
        principal = current_principal()
        today = clock.now().date()
        async with self._database.connection() as connection:
            country = await _country(connection, principal)
            identity = messages.identity_of(messages.standardised(messages.canonical(request.party), country), today)
            documents = sorted(messages.document_keys(self._index, identity))
            candidates = await record_store.customers_by_document(connection, documents) if documents else []
            known = Customers()
            institution, linked = viewing_institution(principal), set()
            for members in await record_store.visible(connection, [(candidate, None) for candidate in candidates]):
                for member in members:
                    found = messages.identity_of(Party.FromString(member.party), today)
                    known.link(member.customer_id, member.record_id, found)
                    if institution in (None, member.institution_id):
                        linked.add(member.customer_id)
        customer_id, reason = known.resolve(identity)
        only = bound_customer(principal)
        if customer_id is None or customer_id not in linked or only not in (None, customer_id):
            # One answer for "nobody" and for "somebody you are not linked with": it must not tell that a person is known.
            return pb.ResolveCustomerResponse(resolution_reason=ResolutionReason.NEW_CUSTOMER.name)
        return pb.ResolveCustomerResponse(customer=f"customers/{customer_id}", resolution_reason=reason.name)

    async def ListHoldings(self, request: pb.ListHoldingsRequest, context: Any) -> pb.ListHoldingsResponse:
        principal = current_principal()
        customer_id = resource_id(request.parent, "customers", "parent")
        _require_own(principal, customer_id)
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        after = parse_id(keys[0], "page_token") if keys else None
        institution = viewing_institution(principal)
        async with self._database.connection() as connection:
            if not await customer_store.list_linked(connection, Viewer(institution, customer_id), 1):
                raise _not_found(customer_id)
            rows = await holding_store.list_of_customer(connection, customer_id, institution, after, limit + 1)
        token = pages.encode([str(rows[limit - 1]["holding_id"])], request) if len(rows) > limit else ""
        return pb.ListHoldingsResponse(holdings=[_holding(customer_id, row) for row in rows[:limit]], next_page_token=token)


def _require_own(principal: Principal, customer_id: UUID) -> None:
    if bound_customer(principal) not in (None, customer_id):
        raise _not_found(customer_id)


def _not_found(customer_id: UUID) -> NotFound:
    return NotFound("CUSTOMER_NOT_FOUND", f"customers/{customer_id} does not exist, or your institution has no link with it")


def _viewer(principal: Principal, keys: Sequence[str]) -> Viewer:
    viewer = Viewer(viewing_institution(principal), bound_customer(principal))
    return Viewer(viewer.institution_id, viewer.customer_id, parse_id(keys[0], "page_token")) if keys else viewer


async def _country(connection: Connection, principal: Principal) -> str:
    row = await institution_store.get_institution(connection, principal.institution or "")
    return row["country_code"] if row else ""


async def _golden(connection: Connection, customer_ids: Sequence[UUID], viewer: Viewer) -> list[pb.Customer]:
    wanted = [(customer_id, viewer.institution_id) for customer_id in customer_ids]
    found = zip(customer_ids, await record_store.visible(connection, wanted), strict=True)
    return [messages.customer(customer_id, members) for customer_id, members in found if members]


def _holding(customer_id: UUID, row: Any) -> pb.Holding:
    return pb.Holding(
        name=f"customers/{customer_id}/holdings/{row['holding_id']}",
        source_system=f"institutions/{row['institution_id']}/sourceSystems/{row['source_system_id']}",
        kind=row["kind"],
        product_code=row["product_code"],
        open_date=row["open_date"].isoformat(),
        close_date=row["close_date"].isoformat() if row["close_date"] else "",
        amount=published.money(row["currency_code"], row["amount_minor_units"]),
        standing=row["standing"],
        role=row["role"],
    )
