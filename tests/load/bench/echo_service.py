"""A chassis service that does nothing: an RPC answered at once with an empty message, and the relay of an empty outbox.

What a real service takes beyond this is its own work. It serves GetCustomer's contract, so that both sides carry the same request
through the same interceptors, with telemetry as every service has it.
"""

import asyncio
import json
from typing import Any

import grpc
import uvloop
from sqlalchemy import MetaData

from chassis import config, migrations, server, telemetry
from chassis.config import Settings
from chassis.database import Database
from chassis.server import Application
from chassis.tables import add_tables
from chassis.unit_of_work import Commands
from concord.customer.v1 import customer_service_pb2 as pb

NAME = "bench"


async def echo(request: pb.GetCustomerRequest, context: Any) -> pb.Customer:
    """An empty message."""
    return pb.Customer()


def add_echo_to_server(behaviour: Any, server: Any) -> None:
    """GetCustomer and no other method of the contract."""
    handler = grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=pb.GetCustomerRequest.FromString,
        response_serializer=pb.Customer.SerializeToString,
    )
    service = pb.DESCRIPTOR.services_by_name["CustomerService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"GetCustomer": handler}),))


async def run(settings: Settings) -> None:
    """Makes the chassis's tables and serves until SIGTERM."""
    metadata = MetaData()
    add_tables(metadata)
    await migrations.on_engine(settings.database_url, metadata.create_all)
    database = await Database.connect(settings.database_url, settings.database_connections_max)
    application = Application(
        name=NAME,
        settings=settings,
        database=database,
        commands=Commands(database),
        servicers=[(add_echo_to_server, echo)],
        background=[_say_ready],
    )
    await server.serve(application)


async def _say_ready() -> None:
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    loaded = config.load(Settings)
    telemetry.setup(NAME, loaded)
    uvloop.run(run(loaded))
