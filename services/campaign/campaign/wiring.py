"""Puts the service together: the only composition root."""

from campaign.config import Settings
from campaign.domain.evaluator import CelEvaluator
from campaign.events.fold import SUBSCRIPTIONS
from campaign.events.planner import Planner
from campaign.events.republish import REPUBLISHERS
from campaign.rpc.campaign_service import CampaignServicer
from campaign.rpc.offer_service import OfferServicer
from campaign.store.tables import PROJECTIONS, metadata
from chassis.channel import channel
from chassis.command_line import ServiceDefinition
from chassis.database import Database
from chassis.identity import InternalTokens
from chassis.server import Application
from chassis.unit_of_work import Commands
from concord.campaign.v1.campaign_service_pb2_grpc import add_CampaignServiceServicer_to_server
from concord.campaign.v1.offer_service_pb2_grpc import add_OfferServiceServicer_to_server
from concord.contact.v1.reservation_service_pb2_grpc import ReservationServiceStub

NAME = "campaign"


async def build(settings: Settings) -> Application:
    """Connects and composes.

    Raises:
        ValueError: naming the variable that is missing.
    """
    if settings.target_contact is None:
        raise ValueError("CONCORD_TARGET_CONTACT is missing. Set it to host:port of the contact service.")
    tokens = InternalTokens.from_settings(NAME, settings)
    database = await Database.connect(settings.database_url, settings.database_connections_max)
    commands = Commands(database)
    evaluator = CelEvaluator()
    contact = channel(settings.target_contact, tokens)
    planner = Planner(commands, evaluator, ReservationServiceStub(contact), settings.wave_page_customers_max)
    return Application(
        name=NAME,
        settings=settings,
        database=database,
        commands=commands,
        tokens=tokens,
        servicers=[
            (add_CampaignServiceServicer_to_server, CampaignServicer(database, commands, evaluator, planner.wake)),
            (add_OfferServiceServicer_to_server, OfferServicer(database, commands)),
        ],
        consumers=SUBSCRIPTIONS,
        background=[planner.plan, planner.settle],
        channels=[contact],
    )


SERVICE = ServiceDefinition(
    name=NAME,
    settings=Settings,
    build=build,
    metadata=metadata,
    republishers=REPUBLISHERS,
    projections=[table.name for table in PROJECTIONS],
)
