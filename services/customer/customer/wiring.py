"""Puts the customer master together; the only composition root."""

import contextlib

import asyncpg

from chassis.command_line import FurtherDatabase, ServiceDefinition
from chassis.database import Database
from chassis.server import Application
from chassis.unit_of_work import Commands
from concord.customer.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from concord.customer.v1.customer_service_pb2_grpc import add_CustomerServiceServicer_to_server
from concord.customer.v1.import_service_pb2_grpc import add_ImportServiceServicer_to_server
from concord.customer.v1.institution_service_pb2_grpc import add_InstitutionServiceServicer_to_server
from concord.customer.v1.intake_service_pb2_grpc import add_IntakeServiceServicer_to_server
from concord.customer.v1.kyc_service_pb2_grpc import add_KycServiceServicer_to_server
from concord.customer.v1.link_service_pb2_grpc import add_LinkServiceServicer_to_server
from concord.customer.v1.match_model_service_pb2_grpc import add_MatchModelServiceServicer_to_server
from concord.customer.v1.privacy_service_pb2_grpc import add_PrivacyServiceServicer_to_server
from concord.customer.v1.quality_service_pb2_grpc import add_QualityServiceServicer_to_server
from concord.customer.v1.record_service_pb2_grpc import add_RecordServiceServicer_to_server
from concord.customer.v1.relationship_service_pb2_grpc import add_RelationshipServiceServicer_to_server
from concord.customer.v1.review_service_pb2_grpc import add_ReviewServiceServicer_to_server
from concord.customer.v1.screening_list_service_pb2_grpc import add_ScreeningListServiceServicer_to_server
from concord.customer.v1.sharing_consent_service_pb2_grpc import add_SharingConsentServiceServicer_to_server
from concord.customer.v1.staff_service_pb2_grpc import add_StaffServiceServicer_to_server
from concord.customer.v1.survivorship_service_pb2_grpc import add_SurvivorshipServiceServicer_to_server
from customer.config import Settings
from customer.core import Core
from customer.domain.blind_index import BlindIndex
from customer.erasing import Sweep
from customer.events.republish import REPUBLISHERS, customer_republisher
from customer.import_worker import ImportWorker
from customer.kyc import Reviews
from customer.match_jobs import MatchWorker
from customer.policy_worker import PolicyWorker
from customer.rpc.audit_service import AuditServicer
from customer.rpc.customer_service import CustomerServicer
from customer.rpc.import_service import ImportServicer
from customer.rpc.institution_service import InstitutionServicer
from customer.rpc.intake_service import IntakeServicer
from customer.rpc.kyc_service import KycServicer
from customer.rpc.link_service import LinkServicer
from customer.rpc.match_model_service import MatchModelServicer
from customer.rpc.privacy_service import PrivacyServicer
from customer.rpc.quality_service import QualityServicer
from customer.rpc.record_service import RecordServicer
from customer.rpc.relationship_service import RelationshipServicer
from customer.rpc.review_service import ReviewServicer
from customer.rpc.screening_list_service import ScreeningListServicer
from customer.rpc.sharing_consent_service import SharingConsentServicer
from customer.rpc.staff_service import StaffServicer
from customer.rpc.survivorship_service import SurvivorshipServicer
from customer.screening import Lists
from customer.store.audit import AuditTrail
from customer.store.match_models import MatchModels
from customer.store.policies import Policies
from customer.store.tables import metadata
from customer.store.vault import Vault
from customer.store.viewers import Viewers


async def build(settings: Settings) -> Application:
    """The service, connected to its database."""
    database = await Database.connect(settings.database_url, settings.database_connections_max)
    commands = Commands(database)
    vault = await Vault.connect(settings.customer_keys_url, settings.root_key)
    viewers = await Viewers.connect(database, settings.database_url, settings.database_connections_max)
    index = BlindIndex(settings.index_key)
    models = MatchModels(database, settings.index_key)
    with contextlib.suppress(asyncpg.UndefinedTableError):  # `serve` says so when migrations are missing
        await models.refresh()
    match_jobs = MatchWorker(database, settings)
    core = Core(database, viewers, index, vault, models, Policies(), AuditTrail(settings.root_key))
    erasures = Sweep(commands, core)
    lists = Lists()
    kyc_reviews = Reviews(core, commands, lists)
    policy_jobs = PolicyWorker(core, commands)
    imports = ImportWorker(core, commands, settings.index_key, settings.import_processes)
    return Application(
        name="customer",
        settings=settings,
        database=database,
        commands=commands,
        servicers=[
            (add_InstitutionServiceServicer_to_server, InstitutionServicer(database, commands)),
            (add_IntakeServiceServicer_to_server, IntakeServicer(core, commands)),
            (add_CustomerServiceServicer_to_server, CustomerServicer(core)),
            (add_RecordServiceServicer_to_server, RecordServicer(core)),
            (add_LinkServiceServicer_to_server, LinkServicer(core, commands)),
            (add_ReviewServiceServicer_to_server, ReviewServicer(core, commands)),
            (add_RelationshipServiceServicer_to_server, RelationshipServicer(core, commands)),
            (add_StaffServiceServicer_to_server, StaffServicer(core, commands)),
            (add_MatchModelServiceServicer_to_server, MatchModelServicer(core, commands, models, match_jobs)),
            (add_SurvivorshipServiceServicer_to_server, SurvivorshipServicer(core, commands, policy_jobs)),
            (add_QualityServiceServicer_to_server, QualityServicer(core)),
            (add_SharingConsentServiceServicer_to_server, SharingConsentServicer(core, commands)),
            (add_KycServiceServicer_to_server, KycServicer(core, commands, lists)),
            (add_ScreeningListServiceServicer_to_server, ScreeningListServicer(database, commands)),
            (add_PrivacyServiceServicer_to_server, PrivacyServicer(core, commands)),
            (add_AuditServiceServicer_to_server, AuditServicer(core)),
            (add_ImportServiceServicer_to_server, ImportServicer(database, commands, vault, index, imports)),
        ],
        background=[models.run, match_jobs.run, policy_jobs.run, imports.run, erasures.run, kyc_reviews.run],
        closing=[viewers.close, vault.close],
        republishers=[customer_republisher(core)],
    )


SERVICE = ServiceDefinition(
    name="customer",
    settings=Settings,
    build=build,
    metadata=metadata,
    republishers=REPUBLISHERS,
    further_databases=[FurtherDatabase("customer_keys_url", "customer:vault_migrations")],
)
