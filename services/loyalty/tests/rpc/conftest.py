"""What tests of settlement share: people of institutions, agreements, and items that come from anywhere."""

import uuid
from datetime import UTC, datetime

import pytest

from chassis.identity import PrincipalKind
from chassis.testing import received
from concord.common.v1.event_pb2 import StateVersion
from concord.customer.v1.customer_events_pb2 import InstitutionChanged
from concord.loyalty.v1 import exchange_service_pb2 as exchange_pb
from concord.loyalty.v1 import settlement_service_pb2 as pb
from concord.loyalty.v1.exchange_service_pb2_grpc import ExchangeServiceStub
from concord.loyalty.v1.settlement_service_pb2_grpc import (
    DisputeServiceStub,
    ReconciliationServiceStub,
    SettlementServiceStub,
)
from loyalty.settling import Settler

SCOPES = ["settlement.read", "settlement.write", "points.admin", "points.read"]


class Clock:
    """Stands still where it is put; until then it is the machine's."""

    def __init__(self) -> None:
        self.now: datetime | None = None

    def __call__(self) -> datetime:
        return self.now or datetime.now(UTC)


class House:
    """People of the institutions at settlement. Items are written as the ledger writes them, with operations of their own."""

    def __init__(self, alliance) -> None:
        self.alliance, self.running = alliance, alliance.running
        self.commands, self.database = self.running.application.commands, self.running.application.database
        self.request_id, self.program = alliance.request_id, alliance.program

    def _channel(self, institution, subject):
        kind = PrincipalKind.OPERATOR if institution in (None, "-") else PrincipalKind.STAFF
        return self.alliance.channel(institution if institution != "-" else None, kind=kind, subject=subject, scopes=SCOPES)

    def settlements(self, institution=None, subject="ann"):
        return SettlementServiceStub(self._channel(institution, subject))

    def reconciliations(self, institution, subject="ann"):
        return ReconciliationServiceStub(self._channel(institution, subject))

    def disputes(self, institution, subject="ann"):
        return DisputeServiceStub(self._channel(institution, subject))

    def asking(self, kind, name, **fields):
        return kind(name=name, request_id=self.request_id(), **fields)

    @staticmethod
    def listing(institution, **fields):
        return pb.ListSettlementsRequest(parent=f"institutions/{institution}", **fields)

    async def found(self, *institutions):
        for institution in institutions:
            message = InstitutionChanged(institution_id=institution, state_version=StateVersion(epoch=1, version=1))
            await self.running.deliver(received("concord.customer.v1.institution.changed", message))

    async def agreement(
        self, issuer, partner, *, price=(1, 1), fee=0, cut_off="17:00", zone="UTC", currency="USD",
        basis="AT_REDEMPTION", prepaid=False,
    ):  # fmt: skip
        """An active agreement's id."""
        terms = exchange_pb.AgreementTerms(
            price_numerator=price[0], price_denominator=price[1], fee_basis_points=fee, low_water_minor_units=0,
            cut_off_time=cut_off, time_zone=zone,
        )  # fmt: skip
        if not prepaid:
            terms.net_debit_cap_minor_units = 10**12
        agreement = exchange_pb.Agreement(
            issuer=f"institutions/{issuer}", partner=f"institutions/{partner}", currency_code=currency, terms=terms,
            basis=exchange_pb.AgreementBasis.Value(f"AGREEMENT_BASIS_{basis}"),
            funding=exchange_pb.AgreementFunding.Value(f"AGREEMENT_FUNDING_{'PREPAID' if prepaid else 'CREDIT'}"),
        )  # fmt: skip
        desk = ExchangeServiceStub(self._channel(issuer, "ann"))
        made = await desk.CreateAgreement(exchange_pb.CreateAgreementRequest(agreement=agreement, request_id=self.request_id()))
        await desk.SubmitAgreement(self.asking(exchange_pb.SubmitAgreementRequest, made.name))
        for side in (issuer, partner):
            approver = ExchangeServiceStub(self._channel(side, f"eve-of-{side}"))
            await approver.ApproveAgreement(self.asking(exchange_pb.ApproveAgreementRequest, made.name))
        return uuid.UUID(made.name.split("/")[1])

    async def items(self, *items):
        """Writes (agreement, payer, payee, programme, points[, time]) as the ledger does; returns their operations' ids."""
        operation_ids = [uuid.uuid4() for _ in items]
        async with self.database.transaction() as connection:
            sequence = await connection.fetchval("SELECT sequence FROM ledger_heads FOR UPDATE")
            for operation_id, (agreement, payer, payee, program, points, *time) in zip(operation_ids, items, strict=True):
                sequence += 1
                await connection.execute(
                    "INSERT INTO operations (operation_id, sequence, kind, outcome, institution_id, amount_points,"
                    " balance_points, shortfall_points, system_key, content_hash, reference, rule, effective_time, post_time,"
                    " hash) VALUES ($1, $2, 'REDEEM', 'POSTED', $3, abs($4::bigint), 0, 0, $5, '', $6, '', $7, $7, '\\x01')",
                    operation_id, sequence, payee, points, f"test/{operation_id}", f"R-{sequence}",
                    time[0] if time else self.commands._clock(),
                )  # fmt: skip
                await connection.execute(
                    "INSERT INTO clearing_items (sequence, position, payer_institution_id, payee_institution_id, agreement_id,"
                    " agreement_version, program_id, points, price_numerator, price_denominator, fee_basis_points, currency_code)"
                    " SELECT $1, 0, $2, $3, agreement_id, v.version, $4, $5, price_numerator, price_denominator,"
                    " fee_basis_points, currency_code FROM agreements a JOIN agreement_versions v USING (agreement_id)"
                    " WHERE agreement_id = $6",
                    sequence, payer, payee, program, points, agreement,
                )  # fmt: skip
            await connection.execute("UPDATE ledger_heads SET sequence = $1, hash = '\\x01'", sequence)
        return operation_ids

    async def sequence_of(self, operation_id):
        async with self.database.connection() as connection:
            return await connection.fetchval("SELECT sequence FROM operations WHERE operation_id = $1", operation_id)

    async def close(self, name):
        return await self.settlements().CloseSettlement(self.asking(pb.CloseSettlementRequest, name))

    async def closed(self):
        """Closes the open settlement; its name for the operator."""
        await Settler(self.commands).step()
        [opened] = (await self.settlements().ListSettlements(self.listing("-", state=pb.SETTLEMENT_STATE_OPEN))).settlements
        return (await self.close(opened.name)).name

    async def confirm(self, institution, name, **fields):
        return await self.settlements(institution).ConfirmSettlement(self.asking(pb.ConfirmSettlementRequest, name, **fields))

    async def acknowledge(self, institution, name, payer):
        return await self.settlements(institution).AcknowledgePayment(
            self.asking(pb.AcknowledgePaymentRequest, name, payer=f"institutions/{payer}")
        )

    async def download(self, institution, name, page_size=0):
        """A whole file."""
        request = pb.DownloadSettlementFileRequest(name=name.replace("/-/", f"/{institution}/") + "/file", page_size=page_size)
        text = ""
        while True:
            page = await self.settlements(institution).DownloadSettlementFile(request)
            text += page.csv
            if not page.next_page_token:
                return text
            request.page_token = page.next_page_token


@pytest.fixture
async def house(alliance) -> House:
    return House(alliance)


@pytest.fixture
def clock(house, monkeypatch) -> Clock:
    """The clock of commands."""
    made = Clock()
    monkeypatch.setattr(house.commands, "_clock", made)
    return made
