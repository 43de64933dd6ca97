"""Composed views: one answer from several services, asked in parallel. A part that fails is listed as missing.

Of a merged customer the master answers with the one that took it over; then the other parts are asked for that one too.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import orjson

from chassis.identity import METADATA_KEY
from gateway import templates
from gateway.application import JSON, Answer, Call
from gateway.contracts import ContractError, Contracts, Rpc
from gateway.identity import Admission
from gateway.json_encoder import Encode, Encoders
from gateway.problems import Problem, from_rpc_error, wrong
from gateway.routes import Route
from gateway.rpcs import unary
from gateway.transcoding import decode_percent
from gateway.values import Wrong

CUSTOMER_VIEW = templates.parse("/v1/customers/{customer}:view")
CUSTOMER_VIEW_NAME = "CustomerView"
CUSTOMER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PART_SECONDS_MAX = 3.0
"""A part that takes longer is missing: a view is worth having without it."""
DECISIVE = frozenset({400, 401, 403, 404})


@dataclass(frozen=True)
class Part:
    """A part of the customer view: which RPC answers it, and which field of the request names the customer."""

    name: str
    rpc_path: str
    customer_field: str
    list_field: str = ""
    arguments: tuple[tuple[str, Any], ...] = ()


MASTER = Part("customer", "/concord.customer.v1.CustomerService/GetCustomer", "name")
PARTS = (
    MASTER,
    Part("ratings", "/concord.rating.v1.RatingService/ListRatings", "parent", "ratings"),
    Part("contacts", "/concord.contact.v1.ContactService/ListContacts", "parent", "contacts", (("page_size", 20),)),
    Part("points", "/concord.loyalty.v1.AccountService/GetCustomerAccount", "customer"),
)


class CustomerView:
    """Serves `GET /v1/customers/{customer}:view`."""

    def __init__(self, contracts: Contracts, channels: Mapping[str, grpc.aio.Channel]) -> None:
        encoders = Encoders(contracts.pool)
        rpcs = {part: _rpc(contracts, part) for part in PARTS}
        self.admission = Admission(rpcs[MASTER])
        self._parts = [_Caller(part, rpc, channels[rpc.owner], encoders) for part, rpc in rpcs.items()]

    async def __call__(self, call: Call) -> Answer:
        """Serves a call.

        Raises:
            Problem: what the master says when it refuses (404 of the master is 404 of all), or when no part can be had.
        """
        customer = _customer(call)
        outcomes = await self._ask(call, self._parts, customer)
        winner = str(outcomes[0].get("name")).removeprefix("customers/") if isinstance(outcomes[0], dict) else customer
        if winner != customer and CUSTOMER.fullmatch(winner):
            # Merged: the master knows first. Asked for the one that took over, no part can answer with what was before.
            outcomes[1:] = await self._ask(call, self._parts[1:], winner)
        view: dict[str, Any] = {}
        missing = []
        for part, outcome in zip(PARTS, outcomes, strict=True):
            if not isinstance(outcome, Problem):
                view[part.name] = outcome
            elif part is MASTER and outcome.status in DECISIVE:
                raise outcome
            else:
                missing.append({"part": part.name, "reason": outcome.reason, "status": outcome.status, "detail": outcome.detail})
        if not view:
            assert isinstance(outcomes[0], Problem)
            raise outcomes[0]
        return Answer(orjson.dumps({**view, "missing": missing}), [JSON])

    async def _ask(self, call: Call, parts: Sequence["_Caller"], customer: str) -> list[Any]:
        return await asyncio.gather(*(part.ask(call, f"customers/{customer}") for part in parts))


class _Caller:
    """Asks for one part."""

    def __init__(self, part: Part, rpc: Rpc, channel: grpc.aio.Channel, encoders: Encoders) -> None:
        self._part = part
        self._request_class = rpc.request_class
        self._admission = Admission(rpc)
        self._call = unary(channel, rpc)
        self._encode: Encode = encoders.of(rpc.descriptor.output_type)
        if part.list_field:
            self._list_name = rpc.descriptor.output_type.fields_by_name[part.list_field].json_name

    async def ask(self, call: Call, customer: str) -> Any:
        """The part as JSON is made of, or the Problem why it is missing."""
        refusal = self._admission.refusal(call.caller.principal)
        if refusal is not None:
            return refusal
        request = self._request_class(**{self._part.customer_field: customer}, **dict(self._part.arguments))
        seconds = call.seconds if self._part is MASTER else min(call.seconds, PART_SECONDS_MAX)
        metadata = ((METADATA_KEY, call.caller.internal_token), ("traceparent", call.traceparent))
        try:
            response = await self._call(request, timeout=seconds, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)
        document = self._encode(response)
        return document.get(self._list_name, []) if self._part.list_field else document


def _customer(call: Call) -> str:
    if call.query:
        name = call.query.split("&")[0].split("=")[0]
        raise wrong("QUERY_INVALID", name[:60] if name.isalnum() else "query", "is not a query parameter of this method")
    if b"content-length" in call.headers or b"transfer-encoding" in call.headers:
        raise Problem(400, "BODY_NOT_ALLOWED", "this method takes no body")
    try:
        customer = decode_percent(call.segments[-1])
    except Wrong as refusal:
        raise wrong("PATH_INVALID", "customer", str(refusal)) from None
    if not CUSTOMER.fullmatch(customer):
        raise wrong("PATH_INVALID", "customer", "must be a customer's id, a UUID in lower case")
    return customer


def _rpc(contracts: Contracts, part: Part) -> Rpc:
    rpc = contracts.rpc(part.rpc_path)
    if rpc is None or part.customer_field not in rpc.descriptor.input_type.fields_by_name:
        raise ContractError(f"the customer view needs {part.rpc_path} with {part.customer_field}")
    return rpc


def routes(contracts: Contracts, channels: Mapping[str, grpc.aio.Channel]) -> list[Route]:
    """The routes of the composed views; none where the contracts have no customers."""
    if contracts.rpc(MASTER.rpc_path) is None:
        return []
    return [Route("GET", CUSTOMER_VIEW, CUSTOMER_VIEW_NAME, CustomerView(contracts, channels))]
