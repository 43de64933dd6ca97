"""CustomerService: golden customers, as the caller may see them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from chassis import clock, pages
from chassis.database import Connection
from chassis.gatherer import Gatherer
from chassis.identity import Principal, current_principal
from chassis.ids import parse_id, resource_id
from concord.customer.v1 import customer_service_pb2 as pb
from concord.customer.v1.customer_service_pb2_grpc import CustomerServiceServicer
from customer import dry_run, golden_customer, published
from customer.core import Core
from customer.rpc.callers import customer_not_found, only_customer, past, require_own, viewing_institution
from customer.rpc.list_customers import list_customers
from customer.rpc.search_customers import search_customers
from customer.standards import canonical, standardised
from customer.store import customers as customer_store
from customer.store import holdings as holding_store
from customer.store import institutions as institution_store
from customer.store import records as record_store
from customer.store import search
from customer.store.records import Member
from customer.store.search import Viewer

READ_TOGETHER_MAX = 64
FAR = datetime(9999, 1, 1, tzinfo=UTC)


class CustomerServicer(CustomerServiceServicer):
    """Translates. Concurrent reads of one institution share one statement."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._database = core.database
        self._index = core.index
        self._reads: Gatherer[tuple[UUID, str | None], list[Member]] = Gatherer(self._read, items_max=READ_TOGETHER_MAX)

    async def _read(self, wanted: list[tuple[UUID, str | None]]) -> list[list[Member] | Exception]:
        found: dict[tuple[UUID, str | None], list[Member]] = {}
        for viewer in {viewer for _, viewer in wanted}:
            mine = list({one for one in wanted if one[1] == viewer})
            async with self._core.viewers.connection(viewer) as connection:
                found |= zip(mine, await record_store.visible(connection, self._core.vault, mine, shared=True), strict=True)
        return [found[one] for one in wanted]

    async def GetCustomer(self, request: pb.GetCustomerRequest, context: Any) -> pb.Customer:
        principal = current_principal()
        customer_id = resource_id(request.name, "customers")
        await require_own(self._core.database, principal, customer_id)
        viewer, now = viewing_institution(principal), clock.now()
        if request.HasField("as_of") or request.HasField("known_at"):
            return await self._as_it_was(request, customer_id, viewer, now)
        members = await self._reads.submit((customer_id, viewer))
        if not members:
            async with self._database.connection() as connection:
                winner = await customer_store.winner(connection, customer_id)
            if winner != customer_id:
                customer_id, members = winner, await self._reads.submit((winner, viewer))
        if not members:
            raise customer_not_found(customer_id)
        policy = self._core.policies.remembered(now)
        if policy is None:
            async with self._database.connection() as connection:
                policy = await self._core.policies.at(connection, now)
        return golden_customer.customer(customer_id, members, policy, now, request.view)

    async def _as_it_was(
        self, request: pb.GetCustomerRequest, customer_id: UUID, viewer: str | None, now: datetime
    ) -> pb.Customer:
        known_at = past(request.known_at, "known_at", now) if request.HasField("known_at") else now
        as_of = past(request.as_of, "as_of", now) if request.HasField("as_of") else None
        seen: set[UUID] = set()
        members: list[Member] = []
        next_id: UUID | None = customer_id
        while not members and next_id is not None and next_id not in seen:
            # A merged customer had its own records before the merge; after it, the next one of the chain has them.
            seen.add(customer_id := next_id)
            async with self._core.viewers.connection(viewer) as connection:
                until = as_of or FAR
                [members] = await record_store.history(connection, self._core.vault, [(customer_id, viewer)], until, known_at)
            async with self._database.connection() as connection:
                row = await customer_store.get(connection, customer_id)
                policy = await self._core.policies.at(connection, as_of or known_at, known_at)
            next_id = row.merged_into if row else None
        if not members:
            raise customer_not_found(resource_id(request.name, "customers"))
        return golden_customer.customer(customer_id, members, policy, as_of or known_at, request.view)

    async def ListCustomers(self, request: pb.ListCustomersRequest, context: Any) -> pb.ListCustomersResponse:
        return await list_customers(self._core, current_principal(), request)

    async def SearchCustomers(self, request: pb.SearchCustomersRequest, context: Any) -> pb.SearchCustomersResponse:
        return await search_customers(self._core, current_principal(), request)

    async def ResolveCustomer(self, request: pb.ResolveCustomerRequest, context: Any) -> pb.ResolveCustomerResponse:
        principal = current_principal()
        async with self._database.connection() as connection:
            country = await _country(connection, principal)
            standard = standardised(canonical(request.party), country)
            only = await only_customer(connection, principal)
            return await dry_run.resolve(connection, self._core, standard, viewing_institution(principal), only)

    async def ListHoldings(self, request: pb.ListHoldingsRequest, context: Any) -> pb.ListHoldingsResponse:
        principal = current_principal()
        customer_id = resource_id(request.parent, "customers", "parent")
        await require_own(self._core.database, principal, customer_id)
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        after = parse_id(keys[0], "page_token") if keys else None
        institution = viewing_institution(principal)
        async with self._database.connection() as connection:
            customer_id = await customer_store.winner(connection, customer_id)
            if not await search.is_linked(connection, Viewer(viewing_institution(principal)), customer_id):
                raise customer_not_found(resource_id(request.parent, "customers", "parent"))
            rows = await holding_store.list_of_customer(connection, customer_id, institution, after, limit + 1)
        token = pages.encode([str(rows[limit - 1]["holding_id"])], request) if len(rows) > limit else ""
        return pb.ListHoldingsResponse(holdings=[_holding(customer_id, row) for row in rows[:limit]], next_page_token=token)


async def _country(connection: Connection, principal: Principal) -> str:
    row = await institution_store.get_institution(connection, principal.institution or "")
    return row["country_code"] if row else ""


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
