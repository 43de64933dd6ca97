"""Lists customers by id, filtered by what the caller may see of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from chassis import clock, pages
from chassis.errors import NotFound
from chassis.identity import Principal
from chassis.ids import parse_id, resource_id
from concord.customer.v1 import customer_service_pb2 as pb
from customer import golden_customer
from customer.core import Core
from customer.domain.golden import golden
from customer.domain.quality import Quality, assess
from customer.publishing import by_match
from customer.rpc.callers import viewer_of, viewing_institution
from customer.rpc.search_customers import golden_customers, institutions_of, visible
from customer.search_keys import ROLE
from customer.statements import view
from customer.store import links as link_store
from customer.store import quality as quality_store
from customer.store import search
from customer.store.search import NO_CUSTOMER, Filters, Viewer
from customer.survivorship_standard import quality_standard

EXAMINED_MAX = 500
"""Customers whose quality is computed for one page; a page that has fewer rows says where to go on."""


async def list_customers(core: Core, principal: Principal, request: pb.ListCustomersRequest) -> pb.ListCustomersResponse:
    """A page of customers.

    Raises:
        NotFound: the institution to filter by is another than the caller's.
    """
    limit = pages.page_size(request.page_size, default=50, maximum=200)
    viewer = await viewer_of(core.database, principal)
    token = pages.decode(request.page_token, request)
    after = parse_id(token[0], "page_token") if token else NO_CUSTOMER
    filters = await _filters(core, principal, viewer, request)
    by_quality = _asks_for_quality(request)
    wanted = EXAMINED_MAX if by_quality else limit
    async with core.database.connection() as connection:
        found = await search.by_filters(connection, viewer, filters, after, wanted + 1)
    if not by_quality:
        customers = await golden_customers(core, viewer, found[:limit])
        last = found[limit - 1] if len(found) > limit else None
    else:
        customers, last = await _of_quality(core, viewer, request, found, limit)
    return pb.ListCustomersResponse(customers=customers, next_page_token=pages.encode([str(last)], request) if last else "")


async def _filters(core: Core, principal: Principal, viewer: Viewer, request: pb.ListCustomersRequest) -> Filters:
    institution_id = request.institution.removeprefix("institutions/") or None
    if institution_id is not None and viewing_institution(principal) not in (None, institution_id):
        raise NotFound("INSTITUTION_NOT_FOUND", f"{request.institution} does not exist")
    keys: list[int] = []
    if request.role_kind:
        institution_ids = [institution_id] if institution_id else await institutions_of(core, viewer)
        keys = [core.index.lookup(one, ROLE, str(request.role_kind)) for one in institution_ids]
    since = request.changed_since_time
    return Filters(
        institution_id=institution_id,
        any_key=keys,
        changed_since=datetime.fromtimestamp(since.seconds, UTC) if request.HasField("changed_since_time") else None,
        relationship_kind=request.relationship_kind,
        related_to=resource_id(request.related_customer, "customers", "related_customer") if request.related_customer else None,
    )


def _asks_for_quality(request: pb.ListCustomersRequest) -> bool:
    return any(
        (
            request.completeness_percent_min,
            request.completeness_percent_max,
            request.credibility_percent_min,
            request.credibility_percent_max,
        )
    )


async def _of_quality(
    core: Core, viewer: Viewer, request: pb.ListCustomersRequest, found: Sequence[UUID], limit: int
) -> tuple[list[pb.Customer], UUID | None]:
    """Those whose quality, as the caller sees them, is in the band; and the last one examined if there may be more."""
    now = clock.now()
    examined = found[:EXAMINED_MAX]
    records = await visible(core, viewer, examined)
    async with core.database.connection() as connection:
        policy = await core.policies.at(connection, now)
        kinds = await quality_store.holding_kinds(connection, examined, viewer.institution_id, now.date())
        matched = [member.record_id for members in records for member in members if by_match(member)]
        weights = await link_store.weights_bits(connection, matched, viewer.institution_id)
    customers: list[pb.Customer] = []
    for customer_id, members in zip(examined, records, strict=True):
        if not members:
            continue
        believed = golden([view(member) for member in members], policy, now)
        if _is_in_band(request, assess(believed, kinds.get(customer_id, ()), weights, quality_standard(), now)):
            customers.append(golden_customer.customer(customer_id, members, policy, now))
        if len(customers) == limit:
            return customers, customer_id if customer_id != found[-1] else None
    return customers, examined[-1] if len(found) > len(examined) else None


def _is_in_band(request: pb.ListCustomersRequest, quality: Quality) -> bool:
    return (
        request.completeness_percent_min <= quality.completeness_percent <= (request.completeness_percent_max or 100)
        and request.credibility_percent_min <= quality.credibility_percent <= (request.credibility_percent_max or 100)
    )  # fmt: skip
