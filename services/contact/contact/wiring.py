"""Puts the service together; the only composition root."""

from functools import partial

from chassis.command_line import ServiceDefinition
from chassis.consumer import Subscription
from chassis.database import Database
from chassis.republish import Republisher
from chassis.server import Application
from chassis.unit_of_work import Commands
from concord.contact.v1.contact_policy_service_pb2_grpc import add_ContactPolicyServiceServicer_to_server
from concord.contact.v1.contact_service_pb2_grpc import add_ContactServiceServicer_to_server
from concord.contact.v1.permission_service_pb2_grpc import add_PermissionServiceServicer_to_server
from concord.contact.v1.reservation_service_pb2_grpc import add_ReservationServiceServicer_to_server
from contact.config import Settings
from contact.events import customers, touches
from contact.events.expiry import release_expired_for_ever
from contact.events.republish import contact_pages, permission_pages
from contact.rpc.contact_policy_service import ContactPolicyServicer
from contact.rpc.contact_service import ContactServicer
from contact.rpc.permission_service import PermissionServicer
from contact.rpc.reservation_service import ReservationServicer
from contact.store.tables import metadata


async def build(settings: Settings) -> Application:
    """Connects the database and puts the service together."""
    database = await Database.connect(settings.database_url, settings.database_connections_max)
    commands = Commands(database)
    return Application(
        name="contact",
        settings=settings,
        database=database,
        commands=commands,
        servicers=[
            (add_ContactServiceServicer_to_server, ContactServicer(database, commands)),
            (add_ContactPolicyServiceServicer_to_server, ContactPolicyServicer(database, commands)),
            (add_PermissionServiceServicer_to_server, PermissionServicer(database, commands)),
            (add_ReservationServiceServicer_to_server, ReservationServicer(commands)),
        ],
        consumers=[
            Subscription(stream="customer", durable="contact", types=customers.TYPES, handler=customers.fold_customers),
            Subscription(stream="campaign", durable="contact", types=touches.TYPES, handler=touches.carry_out_touches),
        ],
        background=[partial(release_expired_for_ever, commands)],
    )


SERVICE = ServiceDefinition(
    name="contact",
    settings=Settings,
    build=build,
    metadata=metadata,
    republishers=[Republisher("contacts", contact_pages), Republisher("permissions", permission_pages)],
    projections=["record_links", "customer_states"],
)
