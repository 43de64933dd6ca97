"""Puts loyalty together: the only place that knows all of it."""

from functools import partial

from chassis.command_line import ServiceDefinition
from chassis.consumer import Subscription
from chassis.database import Database
from chassis.server import Application
from chassis.unit_of_work import Commands
from concord.loyalty.v1.account_service_pb2_grpc import add_AccountServiceServicer_to_server
from concord.loyalty.v1.exchange_service_pb2_grpc import add_ExchangeServiceServicer_to_server
from concord.loyalty.v1.ledger_service_pb2_grpc import (
    add_ControlServiceServicer_to_server,
    add_LedgerServiceServicer_to_server,
)
from concord.loyalty.v1.program_service_pb2_grpc import add_ProgramServiceServicer_to_server
from loyalty.config import Settings
from loyalty.events import fold
from loyalty.events.republish import REPUBLISHERS
from loyalty.rpc.account_service import AccountServicer
from loyalty.rpc.control_service import ControlServicer
from loyalty.rpc.exchange_service import ExchangeServicer
from loyalty.rpc.ledger_service import LedgerServicer
from loyalty.rpc.program_service import ProgramServicer
from loyalty.store import quotes
from loyalty.store.configuration import Configurations
from loyalty.store.tables import metadata
from loyalty.store.watch import Watch


async def build(settings: Settings) -> Application:
    """Connects to the database and puts the service together."""
    database = await Database.connect(settings.database_url, settings.database_connections_max)
    commands = Commands(database)
    return Application(
        name="loyalty",
        settings=settings,
        database=database,
        commands=commands,
        servicers=[
            (add_AccountServiceServicer_to_server, AccountServicer(database, commands)),
            (add_LedgerServiceServicer_to_server, LedgerServicer(database, commands)),
            (add_ExchangeServiceServicer_to_server, ExchangeServicer(database, commands, Configurations())),
            (add_ProgramServiceServicer_to_server, ProgramServicer(database, commands)),
            (add_ControlServiceServicer_to_server, ControlServicer(database)),
        ],
        consumers=[Subscription(stream="customer", durable="loyalty", handler=fold.fold_customer_events, types=fold.TYPES)],
        background=[Watch(database, settings.invariants_every_seconds).run, partial(quotes.keep_clean, database)],
    )


SERVICE = ServiceDefinition(
    name="loyalty",
    settings=Settings,
    build=build,
    metadata=metadata,
    republishers=REPUBLISHERS,
    projections=["record_links", "institutions"],
)
