import itertools
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import migrations
from chassis.command_line import ServiceDefinition
from chassis.identity import PrincipalKind
from chassis.testing import Running
from chassis.testing.fixtures import execute, in_thread
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import institution_service_pb2 as institution_pb
from concord.customer.v1 import intake_service_pb2 as intake_pb
from concord.customer.v1.customer_service_pb2_grpc import CustomerServiceStub
from concord.customer.v1.institution_service_pb2_grpc import InstitutionServiceStub
from concord.customer.v1.intake_service_pb2_grpc import IntakeServiceStub

os.environ["CONCORD_CUSTOMER_INDEX_KEY"] = "5e" * 32
os.environ["CONCORD_CUSTOMER_ROOT_KEY"] = "7a" * 32

from customer.wiring import SERVICE

SCOPES = (
    "institution.read", "institution.write", "record.write", "activity.write", "customer.read", "personal.read",
)  # fmt: skip
CORE = "institutions/bank/sourceSystems/core"
POLICIES = "institutions/insurer/sourceSystems/policies"
_ids = itertools.count(1)


@dataclass
class Master:
    """The service with a bank and an insurer, and stubs of their callers."""

    running: Running
    core: str = CORE
    policies: str = POLICIES
    _channels: dict[Any, Any] = field(default_factory=dict)

    @staticmethod
    def request_id() -> str:
        return f"request-{next(_ids)}"

    @staticmethod
    def at(day: int, hour: int = 0) -> Timestamp:
        return Timestamp(seconds=1_700_000_000 + day * 86_400 + hour * 3600)

    @staticmethod
    def person(**fields: Any) -> Any:
        """A party from plain words: name, born, national_id, passport, phone, email."""
        party: dict[str, Any] = {"party_kind": "PARTY_KIND_PERSON"}
        if name := fields.pop("name", None):
            party["party_name"] = {"full_name": name}
        if born := fields.pop("born", None):
            party["birth_date"] = born
        identifiers = []
        if national_id := fields.pop("national_id", None):
            identifiers.append({"scheme": 1, "country_code": fields.pop("country", "CZ"), "value": national_id})
        if passport := fields.pop("passport", None):
            identifiers.append({"scheme": 2, "country_code": "CZ", "value": passport})
        party["identifiers"] = identifiers
        if phone := fields.pop("phone", None):
            party["phones"] = [{"number": phone}]
        if email := fields.pop("email", None):
            party["emails"] = [{"address": email}]
        return party | fields

    @classmethod
    def source_record(cls, key: str, day: int = 0, **fields: Any) -> intake_pb.SourceRecord:
        return intake_pb.SourceRecord(source_record_key=key, observe_time=cls.at(day), party=cls.person(**fields))

    def channel(self, institution: str | None = "bank", scopes: tuple[str, ...] = SCOPES, **more: Any) -> Any:
        key = (institution, scopes, tuple(more.items()))
        if key not in self._channels:
            self._channels[key] = self.running.channel(institution=institution, scopes=scopes, **more)
        return self._channels[key]

    def intake(self, institution: str | None = "bank", **more: Any) -> Any:
        return IntakeServiceStub(self.channel(institution, **more))

    def customers(self, institution: str | None = "bank", **more: Any) -> Any:
        return CustomerServiceStub(self.channel(institution, **more))

    def institutions(self, institution: str | None = "bank", **more: Any) -> Any:
        return InstitutionServiceStub(self.channel(institution, **more))

    @property
    def operator(self) -> dict[str, Any]:
        return {"institution": None, "kind": PrincipalKind.OPERATOR}

    async def ingest(self, key: str, parent: str = CORE, day: int = 0, **fields: Any) -> intake_pb.IngestRecordResult:
        request = intake_pb.IngestRecordRequest(
            parent=parent, source_record=self.source_record(key, day, **fields), request_id=self.request_id()
        )
        result: intake_pb.IngestRecordResult = await self.intake(parent.split("/")[1]).IngestRecord(request)
        return result

    async def get(self, name: str, institution: str | None = "bank", **more: Any) -> customer_pb.Customer:
        customer: customer_pb.Customer = await self.customers(institution, **more).GetCustomer(
            customer_pb.GetCustomerRequest(name=name)
        )
        return customer

    async def create(self, institution: str, source_system: str, rank: int = 10, country: str = "CZ", **ranks: int) -> None:
        stub = self.institutions(**self.operator)
        attribute_ranks: Any = [{"attribute": f"ATTRIBUTE_{name.upper()}", "rank": value} for name, value in ranks.items()]
        await stub.CreateInstitution(
            institution_pb.CreateInstitutionRequest(
                institution_id=institution,
                institution=institution_pb.Institution(
                    display_name=institution,
                    kind=institution_pb.INSTITUTION_KIND_BANK,
                    time_zone="Europe/Prague",
                    country_code=country,
                ),
                request_id=f"create-{institution}",
            )
        )
        await stub.CreateSourceSystem(
            institution_pb.CreateSourceSystemRequest(
                parent=f"institutions/{institution}",
                source_system_id=source_system,
                source_system=institution_pb.SourceSystem(
                    display_name=source_system,
                    default_rank=rank,
                    attribute_ranks=attribute_ranks,
                ),
                request_id=self.request_id(),
            )
        )


@pytest.fixture(scope="session")
def keys_url(postgres_server: Any) -> str:
    """The key store of all tests: ids are new everywhere, so that they can share it."""
    in_thread(execute(postgres_server.url(), "CREATE DATABASE customer_keys"))
    url: str = postgres_server.url("customer_keys")
    in_thread(migrations.migrate("customer:vault_migrations", url))
    return url


@pytest.fixture
def database_url(database_url: str, keys_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CONCORD_CUSTOMER_KEYS_URL", keys_url)
    return database_url


@pytest_asyncio.fixture
async def master(start: Any) -> Master:
    made = Master(await start())
    await made.create("bank", "core")
    await made.create("insurer", "policies", rank=20)
    return made


@pytest.fixture(scope="session")
def service() -> ServiceDefinition:
    return SERVICE
