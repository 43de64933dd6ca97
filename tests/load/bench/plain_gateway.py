"""What one would write by hand: a Starlette route, a gRPC call, `json_format`; no authentication, no traces.

It holds a token that the backend accepts, because the backend asks everybody for one.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import uvicorn
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from concord.customer.v1.customer_service_pb2 import GetCustomerRequest
from concord.customer.v1.customer_service_pb2_grpc import CustomerServiceStub

CALL_SECONDS_MAX = 5.0


@asynccontextmanager
async def connected(app: Starlette) -> AsyncIterator[None]:
    """Connects on the loop that serves."""
    async with grpc.aio.insecure_channel(os.environ["BENCH_TARGET"]) as channel:
        app.state.stub = CustomerServiceStub(channel)
        print(json.dumps({"ready": True}), flush=True)
        yield


async def get_customer(request: Request) -> Response:
    """GET /v1/customers/{customer}."""
    customer = await request.app.state.stub.GetCustomer(
        GetCustomerRequest(name=f"customers/{request.path_params['customer']}"), timeout=CALL_SECONDS_MAX, metadata=METADATA
    )
    return Response(json_format.MessageToJson(customer, indent=None), media_type="application/json")


METADATA = (("concord-identity", os.environ.get("BENCH_TOKEN", "")),)

if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[Route("/v1/customers/{customer}", get_customer)], lifespan=connected),
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
