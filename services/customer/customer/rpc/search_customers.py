"""Searches customers by a value of theirs. Names are found by keys that hold no name, and compared in clear before they count."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from chassis import clock, pages
from chassis.errors import InvalidArgument
from chassis.identity import Principal
from chassis.ids import parse_id
from concord.customer.v1 import customer_service_pb2 as pb
from customer import golden_customer
from customer.core import Core
from customer.domain import chinese_documents, contact_points, name_keys, names
from customer.domain.identity_documents import plain
from customer.domain.name_keys import Key, Query, Stage
from customer.rpc.callers import viewer_of
from customer.search_keys import EMAIL, IDENTIFIER, PHONE, name_of
from customer.store import institutions, search
from customer.store import records as record_store
from customer.store.records import Member
from customer.store.search import NO_CUSTOMER, KeyCondition, Viewer

EXAMINED_MAX = 1000
"""Customers compared for one page of a search by name; a page that found less says where to go on."""
EXAMINED_AT_ONCE_MIN = 50


async def search_customers(core: Core, principal: Principal, request: pb.SearchCustomersRequest) -> pb.SearchCustomersResponse:
    """A page of customers found.

    Raises:
        InvalidArgument: NAME_EMPTY, NAME_TOO_SHORT, PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(request.page_size, default=20, maximum=100)
    viewer = await viewer_of(core.database, principal)
    token = pages.decode(request.page_token, request)
    if request.WhichOneof("criterion") == "person_name":
        return await _Search(core, viewer, _query(request.person_name), limit, token).page(request)
    keys = await _keys(core, principal, request)
    after = parse_id(token[0], "page_token") if token else NO_CUSTOMER
    async with core.database.connection() as connection:
        found = await search.by_keys(connection, viewer, [KeyCondition((), keys)], after, limit + 1)
    customers = await golden_customers(core, viewer, found[:limit])
    next_token = pages.encode([str(found[limit - 1])], request) if len(found) > limit else ""
    return pb.SearchCustomersResponse(customers=customers, next_page_token=next_token)


async def visible(core: Core, viewer: Viewer, customer_ids: Sequence[UUID]) -> list[list[Member]]:
    """The records of customers that the viewer may see."""
    async with core.viewers.connection(viewer.institution_id) as connection:
        wanted = [(customer_id, viewer.institution_id) for customer_id in customer_ids]
        return await record_store.visible(connection, core.vault, wanted, shared=True)


async def golden_customers(core: Core, viewer: Viewer, customer_ids: Sequence[UUID]) -> list[pb.Customer]:
    """The golden customers with these ids, without those that are gone by now."""
    return await _golden(core, zip(customer_ids, await visible(core, viewer, customer_ids), strict=True))


async def _golden(core: Core, found: Iterable[tuple[UUID, list[Member]]]) -> list[pb.Customer]:
    now = clock.now()
    async with core.database.connection() as connection:
        policy = await core.policies.at(connection, now)
    return [golden_customer.customer(customer_id, members, policy, now) for customer_id, members in found if members]


async def institutions_of(core: Core, viewer: Viewer) -> list[str]:
    """Under whose keys the viewer looks up: its own, or every institution's."""
    if viewer.institution_id is not None:
        return [viewer.institution_id]
    async with core.database.connection() as connection:
        return await institutions.all_ids(connection)


async def _keys(core: Core, principal: Principal, request: pb.SearchCustomersRequest) -> list[int]:
    viewer = await viewer_of(core.database, principal)
    if request.WhichOneof("criterion") == "identifier":
        number = plain(request.identifier)
        # A resident card of 15 digits is kept with 18, too.
        pairs = {(IDENTIFIER, number), (IDENTIFIER, chinese_documents.resident_card(number).number)}
    elif request.WhichOneof("criterion") == "email":
        pairs = {(EMAIL, contact_points.email(request.email)[0].casefold())}
    else:
        async with core.database.connection() as connection:
            row = await institutions.get_institution(connection, principal.institution or "")
        pairs = {(PHONE, contact_points.phone(request.phone, row["country_code"] if row else "").number)}
    return [key for institution in await institutions_of(core, viewer) for key in core.index.lookups(institution, pairs)]


def _query(text: str) -> Query:
    asked = name_keys.query(text)
    if asked.is_empty:
        reason, rule = "NAME_EMPTY", "must have a letter or digit"
        if names.words(text):
            reason, rule = "NAME_TOO_SHORT", f"must have a Han letter or a word of {name_keys.WORD_LETTERS_MIN} letters"
        raise InvalidArgument(reason, f"person_name {rule}", field_violations=[("person_name", rule)])
    return asked


class _Search:
    """One page of a search by name: stage after stage, in each by id. Misspelt names only where nothing better is found."""

    def __init__(self, core: Core, viewer: Viewer, asked: Query, limit: int, token: Sequence[str]) -> None:
        self.core = core
        self.viewer = viewer
        self.asked = asked
        self.limit = limit
        self.stage = int(token[0]) if token else int(Stage.WHOLE)
        self.after = parse_id(token[1], "page_token") if token else NO_CUSTOMER
        self.found_better = bool(token) and token[2] == "1"
        self.found: list[tuple[UUID, list[Member], Stage]] = []

    async def page(self, request: pb.SearchCustomersRequest) -> pb.SearchCustomersResponse:
        institution_ids = await institutions_of(self.core, self.viewer)
        examined = 0
        while not self._is_over() and len(self.found) < self.limit and examined < EXAMINED_MAX:
            examined += await self._advance(institution_ids)
        response = pb.SearchCustomersResponse(
            customers=await _golden(self.core, [(customer_id, members) for customer_id, members, _ in self.found]),
            name_matches=[pb.NameMatch.ValueType(min(stage, Stage.ERROR) + 1) for _, _, stage in self.found],
        )
        if not self._is_over():
            better = "1" if self.found_better else "0"
            response.next_page_token = pages.encode([str(self.stage), str(self.after), better], request)
        return response

    def _is_over(self) -> bool:
        return self.stage > (Stage.START if self.found_better else Stage.FAR)

    async def _advance(self, institution_ids: Sequence[str]) -> int:
        """Examines some more customers; how many."""
        conditions = [
            KeyCondition(self._hashed(institution, condition.all_of), self._hashed(institution, condition.any_of))
            for institution in institution_ids
            for condition in name_keys.conditions(self.asked, Stage(self.stage))
        ]
        # Misspelt names are few among those that sound alike, and finding these is what costs.
        least = EXAMINED_AT_ONCE_MIN * (1 if self.stage <= Stage.START else 5)
        at_once = max(least, self.limit - len(self.found) + 1)
        ids: list[UUID] = []
        if conditions:
            async with self.core.database.connection() as connection:
                ids = await search.by_keys(connection, self.viewer, conditions, self.after, at_once)
        for customer_id, members in zip(ids, await visible(self.core, self.viewer, ids) if ids else (), strict=True):
            if len(self.found) == self.limit:
                return len(ids)
            self.after = customer_id
            if self._found_at(members) == self.stage:
                self.found.append((customer_id, members, Stage(self.stage)))
                self.found_better |= self.stage <= Stage.START
        if len(ids) < at_once:
            self.stage, self.after = self.stage + 1, NO_CUSTOMER
        return len(ids)

    def _hashed(self, institution_id: str, keys: Iterable[Key]) -> list[int]:
        return sorted(self.core.index.lookups(institution_id, keys))

    def _found_at(self, members: Iterable[Member]) -> Stage | None:
        """The first stage at which the customer is found by a record of the viewer's own; what others share is not searched."""
        mine = (member for member in members if self.viewer.institution_id in (None, member.institution_id))
        stages = [name_keys.found_at(self.asked, name_of(member.party.party_name)) for member in mine]
        return min((stage for stage in stages if stage is not None), default=None)
