"""Puts the customer master together; the only composition root."""

from chassis.command_line import FurtherDatabase, ServiceDefinition
from chassis.database import Database
from chassis.server import Application
from chassis.unit_of_work import Commands
from concord.customer.v1.customer_service_pb2_grpc import add_CustomerServiceServicer_to_server
from concord.customer.v1.import_service_pb2_grpc import add_ImportServiceServicer_to_server
from concord.customer.v1.institution_service_pb2_grpc import add_InstitutionServiceServicer_to_server
from concord.customer.v1.intake_service_pb2_grpc import add_IntakeServiceServicer_to_server
from customer.config import Settings
from customer.domain.blind_index import BlindIndex
from customer.events.republish import REPUBLISHERS
from customer.import_worker import ImportWorker
from customer.rpc.customer_service import CustomerServicer
from customer.rpc.import_service import ImportServicer
from customer.rpc.institution_service import InstitutionServicer
from customer.rpc.intake_service import IntakeServicer
from customer.store.tables import metadata
from customer.store.vault import Vault


async def build(settings: Settings) -> Application:
    """The service, connected to its database."""
    database = await Database.connect(settings.database_url, settings.database_connections_max)
    commands = Commands(database)
    vault = await Vault.connect(settings.customer_keys_url, settings.root_key)
    index = BlindIndex(settings.index_key)
    imports = ImportWorker(database, commands, vault, index, settings.import_processes)
    return Application(
        name="customer",
        settings=settings,
        database=database,
        commands=commands,
        servicers=[
            (add_InstitutionServiceServicer_to_server, InstitutionServicer(database, commands)),
            (add_IntakeServiceServicer_to_server, IntakeServicer(database, commands, index)),
            (add_CustomerServiceServicer_to_server, CustomerServicer(database, index)),
            (add_ImportServiceServicer_to_server, ImportServicer(database, commands, vault, index, imports)),
        ],
        background=[imports.run],
        closing=[vault.close],
    )


SERVICE = ServiceDefinition(
    name="customer",
    settings=Settings,
    build=build,
    metadata=metadata,
    republishers=REPUBLISHERS,
    further_databases=[FurtherDatabase("customer_keys_url", "customer:vault_migrations")],
)
