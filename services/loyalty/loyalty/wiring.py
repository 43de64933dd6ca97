"""Puts loyalty together: the only place that knows all of it."""

from functools import partial

from chassis.command_line import ServiceDefinition
from chassis.consumer import Subscription
from chassis.database import Database
from chassis.server import Application
from chassis.unit_of_work import Commands
from concord.loyalty.v1.account_service_pb2_grpc import add_AccountServiceServicer_to_server
from concord.loyalty.v1.adjustment_service_pb2_grpc import add_AdjustmentServiceServicer_to_server
from concord.loyalty.v1.earn_rule_service_pb2_grpc import add_EarnRuleServiceServicer_to_server
from concord.loyalty.v1.exchange_service_pb2_grpc import add_ExchangeServiceServicer_to_server
from concord.loyalty.v1.ledger_service_pb2_grpc import (
    add_ControlServiceServicer_to_server,
    add_LedgerServiceServicer_to_server,
)
from concord.loyalty.v1.liability_service_pb2_grpc import add_LiabilityServiceServicer_to_server
from concord.loyalty.v1.limit_service_pb2_grpc import add_LimitServiceServicer_to_server
from concord.loyalty.v1.pool_service_pb2_grpc import add_PoolServiceServicer_to_server
from concord.loyalty.v1.program_service_pb2_grpc import add_ProgramServiceServicer_to_server
from concord.loyalty.v1.reward_service_pb2_grpc import add_RewardServiceServicer_to_server
from concord.loyalty.v1.settlement_service_pb2_grpc import (
    add_DisputeServiceServicer_to_server,
    add_ReconciliationServiceServicer_to_server,
    add_SettlementServiceServicer_to_server,
)
from concord.loyalty.v1.tier_service_pb2_grpc import add_TierServiceServicer_to_server
from loyalty.caretaking import Caretaker
from loyalty.config import Settings
from loyalty.events import fold, levels
from loyalty.events.republish import REPUBLISHERS
from loyalty.expiring import ExpiryNotices
from loyalty.reporting import Summing
from loyalty.rpc.account_service import AccountServicer
from loyalty.rpc.adjustment_service import AdjustmentServicer
from loyalty.rpc.control_service import ControlServicer
from loyalty.rpc.dispute_service import DisputeServicer
from loyalty.rpc.earn_rule_service import EarnRuleServicer
from loyalty.rpc.exchange_service import ExchangeServicer
from loyalty.rpc.ledger_service import LedgerServicer
from loyalty.rpc.liability_service import LiabilityServicer
from loyalty.rpc.limit_service import LimitServicer
from loyalty.rpc.pool_service import PoolServicer
from loyalty.rpc.program_service import ProgramServicer
from loyalty.rpc.reconciliation_service import ReconciliationServicer
from loyalty.rpc.reward_service import RewardServicer
from loyalty.rpc.settlement_service import SettlementServicer
from loyalty.rpc.tier_service import TierServicer
from loyalty.settling import Settler
from loyalty.store import quotes
from loyalty.store.configuration import Configurations
from loyalty.store.tables import metadata
from loyalty.store.watch import Watch
from loyalty.sweeping import Sweeper


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
            (add_AdjustmentServiceServicer_to_server, AdjustmentServicer(database, commands)),
            (add_PoolServiceServicer_to_server, PoolServicer(database, commands)),
            (add_LedgerServiceServicer_to_server, LedgerServicer(database, commands)),
            (add_ExchangeServiceServicer_to_server, ExchangeServicer(database, commands, Configurations())),
            (add_ProgramServiceServicer_to_server, ProgramServicer(database, commands)),
            (add_ControlServiceServicer_to_server, ControlServicer(database)),
            (add_SettlementServiceServicer_to_server, SettlementServicer(database, commands)),
            (add_ReconciliationServiceServicer_to_server, ReconciliationServicer(database, commands)),
            (add_DisputeServiceServicer_to_server, DisputeServicer(database, commands)),
            (add_LiabilityServiceServicer_to_server, LiabilityServicer(database)),
            (add_EarnRuleServiceServicer_to_server, EarnRuleServicer(database, commands)),
            (add_TierServiceServicer_to_server, TierServicer(database, commands)),
            (add_LimitServiceServicer_to_server, LimitServicer(database, commands)),
            (add_RewardServiceServicer_to_server, RewardServicer(database, commands)),
        ],
        consumers=[
            Subscription(stream="customer", durable="loyalty", handler=fold.fold_customer_events, types=fold.TYPES),
            Subscription(stream="rating", durable="loyalty", handler=levels.fold_ratings, types=levels.TYPES),
        ],
        background=[
            Watch(database, settings.invariants_every_seconds).run,
            Sweeper(commands, settings.sweep_every_seconds).run,
            partial(quotes.keep_clean, database),
            Settler(commands).run,
            Caretaker(commands).run,
            Summing(commands).run,
            ExpiryNotices(commands, settings.expiry_notice_days).run,
        ],
    )


SERVICE = ServiceDefinition(
    name="loyalty",
    settings=Settings,
    build=build,
    metadata=metadata,
    republishers=REPUBLISHERS,
    projections=["record_links", "institutions", "customer_levels"],
)
