"""Puts the rating service together; the only composition root."""

from chassis.channel import channel
from chassis.command_line import ServiceDefinition
from chassis.consumer import Subscription
from chassis.database import Database
from chassis.identity import InternalTokens
from chassis.republish import Pause, Republisher
from chassis.server import Application
from chassis.unit_of_work import Commands
from concord.customer.v1.quality_service_pb2_grpc import QualityServiceStub
from concord.rating.v1.rating_service_pb2_grpc import add_RatingServiceServicer_to_server
from concord.rating.v1.scorecard_service_pb2_grpc import add_ScorecardServiceServicer_to_server
from rating.config import Settings
from rating.events.fold import TYPES, fold_customer_events
from rating.events.pause import Resumer, acknowledged_by_bus
from rating.events.published import rating_pages
from rating.events.qualities import Qualities
from rating.events.rerate import Rerater
from rating.rpc.rating_service import RatingServicer
from rating.rpc.scorecard_service import ScorecardServicer
from rating.store import pauses
from rating.store.tables import metadata


async def build(settings: Settings) -> Application:
    """The application, connected to its database.

    Raises:
        ValueError: naming the variable that is missing.
    """
    if settings.target_customer is None:
        raise ValueError("CONCORD_TARGET_CUSTOMER is missing. Set it to host:port of the customer service.")
    tokens = InternalTokens.from_settings("rating", settings)
    database = await Database.connect(settings.database_url, settings.database_connections_max)
    commands = Commands(database)
    customer = channel(settings.target_customer, tokens)
    rerater = Rerater(commands, Qualities(QualityServiceStub(customer)), settings.rerate_delay_ms)
    resumer = Resumer(database, acknowledged_by_bus(settings))
    return Application(
        name="rating",
        settings=settings,
        database=database,
        commands=commands,
        tokens=tokens,
        servicers=[
            (add_RatingServiceServicer_to_server, RatingServicer(database)),
            (add_ScorecardServiceServicer_to_server, ScorecardServicer(database, commands)),
        ],
        consumers=[Subscription(stream="customer", durable="rating", types=TYPES, handler=fold_customer_events)],
        background=[] if settings.rerate_paused else [rerater.run, resumer.run],
        channels=[customer],
    )


SERVICE = ServiceDefinition(
    name="rating",
    settings=Settings,
    build=build,
    metadata=metadata,
    republishers=[Republisher("ratings", rating_pages)],
    projections=["record_links", "customer_states", "customers", "holdings", "holding_owners", "activities"],
    pause=Pause(begin=pauses.begin, end=pauses.end_all),
)
