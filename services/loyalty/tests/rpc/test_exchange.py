"""Agreements and rates through the contract: who drafts, who approves, what holds from when."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.loyalty.v1 import exchange_service_pb2 as pb
from concord.loyalty.v1.exchange_service_pb2_grpc import ExchangeServiceStub
from loyalty.domain.ledger.configuration import Basis
from loyalty.store import configuration

TERMS = {
    "price_numerator": 3, "price_denominator": 2, "fee_basis_points": 100, "net_debit_cap_minor_units": 1_000_000,
    "low_water_minor_units": 50_000, "cut_off_time": "17:30", "time_zone": "Europe/Prague",
}  # fmt: skip


class Desk:
    """People of the institutions, and what they do at ExchangeService."""

    def __init__(self, alliance) -> None:
        self.alliance = alliance

    def of(self, institution: str | None = "bank", subject: str = "ann"):
        kind = PrincipalKind.OPERATOR if institution is None else PrincipalKind.STAFF
        return ExchangeServiceStub(self.alliance.channel(institution, kind=kind, subject=subject))

    def draft(self, **changes) -> pb.CreateAgreementRequest:
        fields: dict[str, Any] = {
            "issuer": "institutions/bank", "partner": "institutions/shop", "basis": pb.AGREEMENT_BASIS_AT_REDEMPTION,
            "currency_code": "USD", "funding": pb.AGREEMENT_FUNDING_CREDIT,
        }  # fmt: skip
        agreement = pb.Agreement(terms=self.terms(changes.pop("terms", {})), **fields | changes)
        return pb.CreateAgreementRequest(agreement=agreement, request_id=self.alliance.request_id())

    @staticmethod
    def terms(changes) -> pb.AgreementTerms:
        return pb.AgreementTerms(**{key: value for key, value in (TERMS | changes).items() if value is not None})

    def asking(self, kind, name, **fields):
        return kind(name=name, request_id=self.alliance.request_id(), **fields)

    async def approve(self, name, side="bank", subject="bob", **fields):
        return await self.of(side, subject).ApproveAgreement(self.asking(pb.ApproveAgreementRequest, name, **fields))

    async def active(self, **changes):
        """An agreement that both sides approved."""
        made = await self.of().CreateAgreement(self.draft(**changes))
        await self.of().SubmitAgreement(self.asking(pb.SubmitAgreementRequest, made.name))
        issuer, partner = made.issuer.split("/")[1], made.partner.split("/")[1]
        await self.approve(made.name, issuer, "bob")
        return await self.approve(made.name, partner, "eve")

    def rate(self, numerator, denominator=1, source="bank-points", target="shop-points", at=None) -> pb.CreateRateRequest:
        rate = pb.Rate(
            from_program=f"programs/{source}", to_program=f"programs/{target}", numerator=numerator, denominator=denominator
        )
        if at is not None:
            rate.valid_from.FromDatetime(at)
        return pb.CreateRateRequest(rate=rate, request_id=self.alliance.request_id())

    async def publish(self, *arguments, drafter="bank", approver="shop", **options):
        draft = await self.of(drafter).CreateRate(self.rate(*arguments, **options))
        return await self.of(approver, "eve").ApproveRate(self.asking(pb.ApproveRateRequest, draft.name))

    async def configuration(self):
        async with self.alliance.running.application.database.connection() as connection:
            return await configuration.load(connection)


@pytest.fixture
async def desk(alliance) -> Desk:
    await alliance.program("shop-points", "shop")
    return Desk(alliance)


async def refused(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason(error.value)


async def test_an_agreement_holds_when_both_sides_approved_it(desk):
    before = await desk.configuration()
    draft = await desk.of().CreateAgreement(desk.draft())
    assert (draft.state, draft.newest_version.state) == (pb.AGREEMENT_STATE_DRAFT, pb.AGREEMENT_VERSION_STATE_DRAFT)
    assert await refused(desk.approve(draft.name)) == "AGREEMENT_NOT_SUBMITTED"
    submitted = await desk.of().SubmitAgreement(desk.asking(pb.SubmitAgreementRequest, draft.name, etag=draft.etag))
    assert await refused(desk.approve(draft.name, subject="ann")) == "APPROVAL_BY_SAME_PERSON"
    assert await refused(desk.approve(draft.name, etag=draft.etag)) == "ETAG_MISMATCH"
    assert (await desk.configuration()).version == before.version
    half = await desk.approve(draft.name, etag=submitted.etag)
    assert half.state == pb.AGREEMENT_STATE_DRAFT
    whole = await desk.approve(draft.name, "shop", "eve")
    assert (whole.state, whole.newest_version.state) == (pb.AGREEMENT_STATE_ACTIVE, pb.AGREEMENT_VERSION_STATE_APPROVED)
    # Persons are named to their own side only.
    assert [(a.institution, a.approver) for a in whole.newest_version.approvals] == [
        ("institutions/bank", ""), ("institutions/shop", "eve"),
    ]  # fmt: skip
    assert (list(whole.newest_version.drafters), whole.terms) == ([], draft.terms)
    after = await desk.configuration()
    assert after.version > before.version
    terms = after.agreement("bank", "shop", Basis.AT_REDEMPTION, datetime.now(UTC))
    assert (terms.price_numerator, terms.price_denominator, terms.limit_minor_units) == (3, 2, 1_000_000)
    assert after.agreement("shop", "bank", Basis.AT_REDEMPTION, datetime.now(UTC)) is None
    assert after.agreement("bank", "shop", Basis.AT_ISSUANCE, datetime.now(UTC)) is None


async def test_the_operator_stands_in_for_one_side_only(desk):
    draft = await desk.of(None, "ops").CreateAgreement(desk.draft())
    await desk.of(None, "ops").SubmitAgreement(desk.asking(pb.SubmitAgreementRequest, draft.name))
    assert await refused(desk.approve(draft.name, None, "ops-2")) == "APPROVAL_SIDE_INVALID"
    assert await refused(desk.approve(draft.name, "bank", "bob", institution="institutions/shop")) == "APPROVAL_SIDE_INVALID"
    assert await refused(desk.approve(draft.name, None, "ops", institution="institutions/shop")) == "APPROVAL_BY_SAME_PERSON"
    await desk.approve(draft.name, None, "ops-2", institution="institutions/shop")
    assert await refused(desk.approve(draft.name, None, "ops-3", institution="institutions/bank")) == "APPROVAL_OF_BOTH_SIDES"
    whole = await desk.approve(draft.name, "bank", "bob")
    assert [(a.institution, a.by_operator, a.approver) for a in whole.newest_version.approvals] == [
        ("institutions/shop", True, ""), ("institutions/bank", False, "bob"),
    ]  # fmt: skip


async def test_new_terms_replace_the_old_ones_when_approved_again(desk):
    made = await desk.active()
    amend = desk.asking(pb.AmendAgreementRequest, made.name, terms=desk.terms({"price_numerator": 5}), etag=made.etag)
    amended = await desk.of("shop", "eve").AmendAgreement(amend)
    assert amended.newest_version.name.endswith("/versions/2")
    now = datetime.now(UTC)
    assert (await desk.configuration()).agreement("bank", "shop", Basis.AT_REDEMPTION, now).price_numerator == 3
    await desk.of().SubmitAgreement(desk.asking(pb.SubmitAgreementRequest, made.name))
    await desk.approve(made.name, "shop", "sue")
    await desk.approve(made.name, "bank", "ann")
    loaded = await desk.configuration()
    assert loaded.agreement("bank", "shop", Basis.AT_REDEMPTION, datetime.now(UTC)).price_numerator == 5
    assert loaded.agreement("bank", "shop", Basis.AT_REDEMPTION, now).price_numerator == 3
    assert loaded.agreement_version(uuid.UUID(made.name.split("/")[1]), 1).price_numerator == 3
    versions = await desk.of().ListAgreementVersions(pb.ListAgreementVersionsRequest(parent=made.name, page_size=1))
    following = await desk.of().ListAgreementVersions(
        pb.ListAgreementVersionsRequest(parent=made.name, page_size=1, page_token=versions.next_page_token)
    )
    assert [v.terms.price_numerator for page in (versions, following) for v in page.agreement_versions] == [5, 3]


async def test_terms_for_later(desk):
    begins = datetime.now(UTC) + timedelta(days=30)
    effective = {"effective_time": begins}
    draft = desk.draft()
    draft.agreement.terms.effective_time.FromDatetime(effective["effective_time"])
    made = await desk.of().CreateAgreement(draft)
    await desk.of().SubmitAgreement(desk.asking(pb.SubmitAgreementRequest, made.name))
    await desk.approve(made.name)
    await desk.approve(made.name, "shop", "eve")
    loaded = await desk.configuration()
    assert loaded.agreement("bank", "shop", Basis.AT_REDEMPTION, datetime.now(UTC)) is None
    assert loaded.agreement("bank", "shop", Basis.AT_REDEMPTION, begins) is not None
    exposure = await desk.of().GetAgreementExposure(pb.GetAgreementExposureRequest(name=f"{made.name}/exposure"))
    assert (exposure.version_in_force, exposure.bound_minor_units) == (0, 0)


async def test_an_agreement_is_suspended_resumed_and_ended(desk):
    made = await desk.active()
    stopped = await desk.of("shop", "eve").SuspendAgreement(desk.asking(pb.SuspendAgreementRequest, made.name))
    assert (stopped.state, stopped.suspended_by) == (pb.AGREEMENT_STATE_SUSPENDED, "institutions/shop")
    assert (await desk.configuration()).agreement("bank", "shop", Basis.AT_REDEMPTION, datetime.now(UTC)) is None
    for institution, subject, expected in (
        ("bank", "ann", "SUSPENDED_BY_OTHER_SIDE"), ("shop", "eve", "APPROVAL_BY_SAME_PERSON"),
    ):  # fmt: skip
        call = desk.of(institution, subject).ResumeAgreement(desk.asking(pb.ResumeAgreementRequest, made.name))
        assert await refused(call) == expected
    resumed = await desk.of("shop", "sue").ResumeAgreement(desk.asking(pb.ResumeAgreementRequest, made.name))
    assert (resumed.state, resumed.suspended_by) == (pb.AGREEMENT_STATE_ACTIVE, "")
    assert (await desk.configuration()).agreement("bank", "shop", Basis.AT_REDEMPTION, datetime.now(UTC)) is not None
    assert await refused(desk.of().CreateAgreement(desk.draft())) == "AGREEMENT_EXISTS"
    ended = await desk.of().EndAgreement(desk.asking(pb.EndAgreementRequest, made.name))
    assert ended.state == pb.AGREEMENT_STATE_ENDED
    loaded = await desk.configuration()
    assert loaded.agreement("bank", "shop", Basis.AT_REDEMPTION, datetime.now(UTC)) is None
    assert loaded.agreement_version(uuid.UUID(made.name.split("/")[1]), 1) is not None  # what is on its way is finished
    assert await refused(desk.of().SuspendAgreement(desk.asking(pb.SuspendAgreementRequest, made.name))) == "AGREEMENT_ENDED"
    assert (await desk.of().CreateAgreement(desk.draft())).name != made.name


async def test_packs_bound_what_is_owed(desk):
    terms = {"net_debit_cap_minor_units": None, "low_water_minor_units": 200}
    made = await desk.active(funding=pb.AGREEMENT_FUNDING_PREPAID, terms=terms)

    def pack(minor_units):
        return pb.AddAgreementPackRequest(
            parent=made.name, agreement_pack=pb.AgreementPack(minor_units=minor_units, reference="wire 7"),
            request_id=desk.alliance.request_id(),
        )  # fmt: skip

    assert await refused(desk.of("bank").AddAgreementPack(pack(1000))) == "PACK_STATED_BY_PAYER"
    first = await desk.of("shop", "eve").AddAgreementPack(pack(1000))
    await desk.of("shop", "eve").AddAgreementPack(pack(-400))
    assert await refused(desk.of("shop", "eve").AddAgreementPack(pack(-601))) == "PACKS_OUT_OF_RANGE"
    terms_now = (await desk.configuration()).agreement("bank", "shop", Basis.AT_REDEMPTION, datetime.now(UTC))
    assert terms_now.limit_minor_units == 600
    listed = await desk.of().ListAgreementPacks(pb.ListAgreementPacksRequest(parent=made.name))
    assert ([p.minor_units for p in listed.agreement_packs], listed.agreement_packs[1]) == ([-400, 1000], first)
    agreement_id = uuid.UUID(made.name.split("/")[1])
    async with desk.alliance.running.application.database.transaction() as connection:
        await connection.execute(
            "INSERT INTO exposures (agreement_id, exposure_numerator, exposure_denominator) VALUES ($1, 1201, 3)", agreement_id
        )
    exposure = await desk.of().GetAgreementExposure(pb.GetAgreementExposureRequest(name=f"{made.name}/exposure"))
    assert (exposure.exposure_minor_units, exposure.bound_minor_units, exposure.available_minor_units, exposure.is_low) == (
        401, 600, 199, True,
    )  # fmt: skip
    assert (exposure.payer, exposure.payee) == ("institutions/bank", "institutions/shop")
    credit = await desk.active(basis=pb.AGREEMENT_BASIS_AT_ISSUANCE)
    on_credit = pack(1)
    on_credit.parent = credit.name
    assert await refused(desk.of("bank").AddAgreementPack(on_credit)) == "AGREEMENT_NOT_PREPAID"


async def test_agreements_are_there_for_their_two_institutions_only(desk):
    made = await desk.active()
    mine = (await desk.of("shop").ListAgreements(pb.ListAgreementsRequest())).agreements
    assert [agreement.name for agreement in mine] == [made.name]
    stranger = desk.of("broker", "mallory")
    assert not (await stranger.ListAgreements(pb.ListAgreementsRequest())).agreements
    assert await refused(stranger.CreateAgreement(desk.draft())) == "INSTITUTION_NOT_FOUND"
    for call in (
        stranger.GetAgreement(pb.GetAgreementRequest(name=made.name)),
        stranger.GetAgreementExposure(pb.GetAgreementExposureRequest(name=f"{made.name}/exposure")),
        stranger.ListAgreementPacks(pb.ListAgreementPacksRequest(parent=made.name)),
        stranger.SuspendAgreement(desk.asking(pb.SuspendAgreementRequest, made.name)),
        stranger.ApproveAgreement(desk.asking(pb.ApproveAgreementRequest, made.name)),
    ):
        assert await refused(call) == "AGREEMENT_NOT_FOUND"
    wrong = desk.draft(terms={"time_zone": "Mars/Olympus", "net_debit_cap_minor_units": None})
    assert await refused(desk.of().CreateAgreement(wrong)) == "AGREEMENT_INVALID"
    unknown = desk.draft(partner="institutions/nowhere")
    assert await refused(desk.of().CreateAgreement(unknown)) == "INSTITUTION_NOT_FOUND"


async def test_a_rate_is_published_by_the_other_side_and_valid_until_the_next(desk):
    draft = await desk.of().CreateRate(desk.rate(1, 2))
    look_up = pb.LookUpRateRequest(from_program="programs/bank-points", to_program="programs/shop-points")
    assert await refused(desk.of().LookUpRate(look_up)) == "RATE_NOT_FOUND"
    assert await refused(desk.of("broker").GetRate(pb.GetRateRequest(name=draft.name))) == "RATE_NOT_FOUND"
    approve = desk.asking(pb.ApproveRateRequest, draft.name)
    assert await refused(desk.of("bank", "ann").ApproveRate(approve)) == "APPROVAL_BY_SAME_PERSON"
    assert await refused(desk.of("bank", "bob").ApproveRate(approve)) == "APPROVAL_OF_BOTH_SIDES"
    assert await refused(desk.of("broker", "mallory").ApproveRate(approve)) == "RATE_NOT_FOUND"
    published = await desk.of("shop", "eve").ApproveRate(approve)
    assert published.valid_from.ToDatetime(UTC) >= draft.valid_from.ToDatetime(UTC)  # never before it was published
    begins = datetime.now(UTC) + timedelta(days=1)
    await desk.publish(2, 3, at=begins)
    now = await desk.of("broker").LookUpRate(look_up)
    assert (now.numerator, now.denominator, now.valid_until.ToDatetime(UTC)) == (1, 2, begins)
    look_up.at_time.FromDatetime(begins)
    assert (await desk.of("broker").LookUpRate(look_up)).numerator == 2
    loaded = await desk.configuration()
    assert loaded.rate("bank-points", "shop-points", begins - timedelta(seconds=1)).denominator == 2
    assert loaded.rate("bank-points", "shop-points", begins).denominator == 3
    await desk.publish(0, at=begins + timedelta(days=1))
    assert (await desk.configuration()).rate("bank-points", "shop-points", begins + timedelta(days=1)) is None
    look_up.at_time.FromDatetime(begins + timedelta(days=1))
    assert await refused(desk.of().LookUpRate(look_up)) == "RATE_NOT_FOUND"


async def test_no_cycle_of_rates_gains(desk):
    await desk.alliance.program("broker-points", "broker")
    await desk.publish(3)
    await desk.publish(1, 2, source="shop-points", target="broker-points", drafter="shop", approver="broker")
    begins = datetime.now(UTC) + timedelta(days=7)
    back = {"source": "broker-points", "target": "bank-points", "drafter": "broker", "approver": "bank"}
    await desk.publish(2, 3, **back)
    draft = await desk.of("broker").CreateRate(desk.rate(68, 100, source="broker-points", target="bank-points", at=begins))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await desk.of("bank", "eve").ApproveRate(desk.asking(pb.ApproveRateRequest, draft.name))
    assert reason(error.value) == "RATE_CYCLE_GAINS"
    words = error.value.details() or ""
    assert "bank-points -> shop-points -> broker-points -> bank-points" in words
    assert "51/50 (a gain of 1/50)" in words
    assert begins.isoformat() in words
    withdrawn = await desk.of("broker").WithdrawRate(desk.asking(pb.WithdrawRateRequest, draft.name))
    assert withdrawn.state == pb.RATE_STATE_WITHDRAWN
    assert await refused(desk.of("broker").GetRate(pb.GetRateRequest(name=draft.name))) == "RATE_NOT_FOUND"


async def test_two_rates_that_gain_only_together_are_not_both_published(desk):
    there = await desk.of("bank").CreateRate(desk.rate(2))
    back = await desk.of("bank").CreateRate(desk.rate(1, source="shop-points", target="bank-points"))
    stub = desk.of("shop", "eve")
    answers = await asyncio.gather(
        *(stub.ApproveRate(desk.asking(pb.ApproveRateRequest, draft.name)) for draft in (there, back)), return_exceptions=True
    )
    refusals = [reason(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert refusals == ["RATE_CYCLE_GAINS"]


async def test_rates_in_pages(desk):
    begins = datetime.now(UTC)
    for day in range(1, 4):
        await desk.publish(1, day, at=begins + timedelta(days=day))
    await desk.publish(1, 5, source="shop-points", target="bank-points")
    await desk.of().CreateRate(desk.rate(1, 9))
    found, request = [], pb.ListRatesRequest(page_size=2)
    while True:
        page = await desk.of("broker").ListRates(request)
        found += [(rate.from_program, rate.denominator) for rate in page.rates]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == [*(("programs/bank-points", day) for day in (1, 2, 3)), ("programs/shop-points", 5)]
    mine = pb.ListRatesRequest(from_program="programs/bank-points")
    assert len((await desk.of().ListRates(mine)).rates) == 4  # with the draft


async def test_what_is_wrong_with_a_rate(desk):
    at = datetime.now(UTC) + timedelta(days=1)
    await desk.publish(1, 2, at=at)
    for institution, request, expected in (
        ("bank", desk.rate(1, 3, at=at), "RATE_EXISTS"),
        ("bank", desk.rate(1, source="bank-points", target="bank-points"), "RATE_INVALID"),
        ("bank", desk.rate(1, target="nothing"), "PROGRAM_NOT_FOUND"),
        ("broker", desk.rate(1), "PROGRAM_NOT_FOUND"),
    ):
        assert await refused(desk.of(institution).CreateRate(request)) == expected


async def test_the_database_refuses_what_was_approved_to_change(desk):
    await desk.active()
    await desk.publish(1, 2)
    async with desk.alliance.running.application.database.connection() as connection:
        for statement in (
            "UPDATE agreement_versions SET price_numerator = 9",
            "DELETE FROM agreement_versions",
            "UPDATE rates SET numerator = 9",
            "DELETE FROM rates",
        ):
            with pytest.raises(asyncpg.RestrictViolationError):
                await connection.execute(statement)
