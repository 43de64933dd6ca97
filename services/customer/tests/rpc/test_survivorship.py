"""Policies are drafted, tried, activated by a second person and followed by what is published; pins; calibration; quality."""

import asyncio
from typing import Any

import pytest
from grpc.aio import AioRpcError

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.common.v1.money_pb2 import Money
from concord.customer.v1 import customer_events_pb2 as events
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import intake_service_pb2 as intake_pb
from concord.customer.v1 import quality_service_pb2 as quality_pb
from concord.customer.v1 import survivorship_service_pb2 as pb
from concord.customer.v1.attribute_pb2 import ATTRIBUTE_ADDRESS, ATTRIBUTE_BIRTH_DATE, ATTRIBUTE_NAME, ATTRIBUTE_PHONE
from concord.customer.v1.quality_service_pb2_grpc import QualityServiceStub
from concord.customer.v1.survivorship_service_pb2_grpc import SurvivorshipServiceStub
from customer import policy_worker
from customer.store import policy_jobs as store

WRITE = ("policy.read", "policy.write", "policy.approve", "customer.read", "match.decide", "personal.read")
FULL = customer_pb.CUSTOMER_VIEW_FULL
NOBODY = "customers/0190a0b0-0000-7000-8000-000000000000"
JAN = {"national_id": "7103192745", "born": "1971-03-19"}
KYC = "institutions/insurer/sourceSystems/policies"


def policies(master, subject="ann"):
    return SurvivorshipServiceStub(master.channel(scopes=WRITE, subject=subject, **master.operator))


def steward(master, institution="bank", **more):
    return SurvivorshipServiceStub(
        master.channel(institution, scopes=WRITE, kind=PrincipalKind.STAFF, subject=f"steward-{institution}", **more)
    )


async def refused(call):
    with pytest.raises(AioRpcError) as error:
        await call
    return reason(error.value)


async def full(master, name, institution=None):
    who = {"institution": institution} if institution else master.operator
    request = customer_pb.GetCustomerRequest(name=name, view=FULL)
    return await master.customers(**who).GetCustomer(request)


async def until(read, done):
    async with asyncio.timeout(30):
        while not done(found := await read()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def draft(master, **changes):
    """The policy in force with changes, as a draft."""
    current = await policies(master).GetPolicy(pb.GetPolicyRequest(name="survivorshipPolicies/current"))
    for field, value in changes.items():
        if isinstance(value, (list, tuple)):
            current.standard.ClearField(field)
            getattr(current.standard, field).extend(value)
        else:
            setattr(current.standard, field, value)
    request = pb.CreatePolicyDraftRequest(standard=current.standard, request_id=master.request_id())
    return await policies(master).CreatePolicyDraft(request)


async def tried(master, policy, **more):
    request = pb.DryRunPolicyRequest(name=policy.name, request_id=master.request_id(), **more)
    run = await policies(master).DryRunPolicy(request)
    return await until(
        lambda: policies(master).GetPolicyDryRun(pb.GetPolicyDryRunRequest(name=run.name)),
        lambda found: found.state == pb.POLICY_JOB_STATE_SUCCEEDED,
    )


def activation(master, policy, subject="bob", **more):
    request = pb.ActivatePolicyRequest(name=policy.name, etag=policy.etag, request_id=master.request_id(), **more)
    return policies(master, subject).ActivatePolicy(request)


async def in_force(master, policy):
    return await until(
        lambda: policies(master).GetPolicy(pb.GetPolicyRequest(name=policy.name)),
        lambda found: found.state == pb.POLICY_STATE_IN_FORCE and found.sweep_percent == 100,
    )


def trust(source, points):
    return pb.SourceTrust(source_system=source, trust_points=points)


async def conflicting(master):
    """One person, whom the bank (rank 10) and the insurer (rank 20) name otherwise."""
    mine = await master.ingest("k1", name="Jan Novák", **JAN)
    theirs = await master.ingest("p1", master.policies, day=1, name="Jan Nowak", **JAN)
    assert mine.customer == theirs.customer
    return mine, theirs


async def test_a_policy_is_drafted_tried_activated_by_another_and_followed_by_what_is_published(master):
    mine, _ = await conflicting(master)
    alone = await master.ingest("k2", name="Petr Malý", national_id="8001011238")
    assert (await full(master, mine.customer)).party_name.full_name == "Jan Novák"
    policy = await draft(master, title="The insurer first", source_trusts=[trust(master.policies, 99)])
    assert (policy.state, policy.authors) == (pb.POLICY_STATE_DRAFT, ["ann"])

    assert await refused(activation(master, policy)) == "DRY_RUN_MISSING"
    run = await tried(master, policy)
    assert (run.customers_done_count, run.customers_total_count, run.customers_changed_count) == (2, 2, 1)
    [name] = [change for change in run.attribute_changes if change.attribute == ATTRIBUTE_NAME]
    assert (run.values_changed_count, name.values_changed_count) == (1, 1)
    [example] = name.examples
    assert (example.customer, example.from_source_system, example.to_source_system) == (
        mine.customer,
        master.core,
        master.policies,
    )
    assert example.rule == customer_pb.SURVIVORSHIP_RULE_TRUST
    [born] = [change for change in run.attribute_changes if change.attribute == ATTRIBUTE_BIRTH_DATE]
    assert (born.values_changed_count, born.sources_changed_count) == (0, 1)

    assert await refused(activation(master, policy, subject="ann")) == "SECOND_PERSON_NEEDED"
    policy.standard.reserve_trust_points = 0.2
    update = pb.UpdatePolicyDraftRequest(
        name=policy.name, standard=policy.standard, etag=policy.etag, request_id=master.request_id()
    )
    changed = await policies(master, "eve").UpdatePolicyDraft(update)
    assert (changed.authors, changed.dry_run) == (["ann", "eve"], "")
    assert await refused(activation(master, policy)) == "ETAG_MISMATCH"
    assert await refused(activation(master, changed)) == "DRY_RUN_MISSING"  # that one was of other content
    await tried(master, changed)
    assert await refused(activation(master, changed, subject="eve")) == "SECOND_PERSON_NEEDED"
    assert await refused(activation(master, changed, effective_time=master.at(0))) == "EFFECTIVE_TIME_OUT_OF_RANGE"

    before = len(await master.running.events("concord.customer.v1.customer.updated"))
    activated = await activation(master, changed)
    assert activated.state == pb.POLICY_STATE_SCHEDULED
    assert (await full(master, mine.customer)).policy_version == 1
    await in_force(master, changed)
    golden = await full(master, mine.customer)
    assert (golden.party_name.full_name, golden.policy_version) == ("Jan Nowak", 2)
    moved = (await master.running.events("concord.customer.v1.customer.updated"))[before:]
    assert {f"customers/{event.aggregate_id}" for event in moved} == {mine.customer} != {alone.customer}
    [quality] = [one for one in moved[-1].message(events.CustomerChanged).attribute_qualities if one.attribute == ATTRIBUTE_NAME]
    assert quality.rank == 20

    past = customer_pb.GetCustomerRequest(name=mine.customer, known_at=activated.activate_time)
    was = await master.customers(**master.operator).GetCustomer(past)
    assert (was.party_name.full_name, was.policy_version) == ("Jan Novák", 1)
    assert await refused(activation(master, changed)) == "POLICY_NOT_DRAFT"
    listed = await policies(master).ListPolicies(pb.ListPoliciesRequest(page_size=1))
    [first] = (await policies(master).ListPolicies(pb.ListPoliciesRequest(page_token=listed.next_page_token))).policies
    assert [(one.name, one.state) for one in (*listed.policies, first)] == [
        ("survivorshipPolicies/2", pb.POLICY_STATE_IN_FORCE), ("survivorshipPolicies/1", pb.POLICY_STATE_RETIRED),
    ]  # fmt: skip

    older = await draft(master, title="Tried against what is no more in force")
    run = await tried(master, older)
    assert (run.base_policy, run.values_changed_count) == ("survivorshipPolicies/2", 0)


async def test_a_policy_that_cannot_be_is_named_by_field_and_by_what_would_be_right(master):
    for changes, field in (
        ({"rules": [customer_pb.SURVIVORSHIP_RULE_TRUST]}, "standard.rules[0]"),
        ({"rules": [customer_pb.SURVIVORSHIP_RULE_PIN, customer_pb.SURVIVORSHIP_RULE_RANK]}, "standard.rules[1]"),
        ({"source_trusts": [trust("bank", 1)]}, "standard.source_trusts[0].source_system"),
        ({"half_life_days": -1.0}, "standard.half_life_days"),
        ({"attributes": [pb.AttributeStandard()]}, "standard"),
    ):
        with pytest.raises(AioRpcError) as error:
            await draft(master, **changes)
        assert reason(error.value) == "POLICY_INVALID"
        assert field in str(error.value.details())
    missing = pb.GetPolicyRequest(name="survivorshipPolicies/77")
    assert await refused(policies(master).GetPolicy(missing)) == "POLICY_NOT_FOUND"


async def test_the_whole_view_tells_trust_and_rivals(master):
    mine, theirs = await conflicting(master)
    basic = await master.get(mine.customer, **master.operator)
    assert not any(one.rivals or one.HasField("trust_parts") for one in basic.provenances)
    golden = await full(master, mine.customer)
    [name] = [one for one in golden.provenances if one.field == "party_name"]
    assert name.trust_points == pytest.approx(100 * 50 / 59)
    parts = name.trust_parts
    assert (parts.base_trust_points, parts.decay_factor, parts.validation_factor) == (pytest.approx(100 * 50 / 59), 1, 1)
    assert (name.sources_agreeing_count, name.sources_conflicting_count) == (1, 1)
    [rival] = name.rivals
    assert (rival.record, rival.value, rival.valid) == (theirs.record, "Jan Nowak", True)
    assert rival.trust_points == pytest.approx(100 * 50 / 69)
    masked = await master.customers(scopes=("customer.read",), **master.operator).GetCustomer(
        customer_pb.GetCustomerRequest(name=mine.customer, view=FULL)
    )
    assert [one.rivals[0].value for one in masked.provenances if one.field == "party_name"] == ["***"]
    own = await full(master, mine.customer, "bank")
    assert not any(one.rivals for one in own.provenances)  # what others say is not the bank's to see


async def test_pins_decide_follow_merges_and_are_seen_in_time(master):
    mine, theirs = await conflicting(master)

    async def pin(stub, record, attribute=ATTRIBUTE_NAME, name=mine.customer):
        request = pb.PinValueRequest(
            name=name, attribute=attribute, record=record, reason="seen in branch", request_id=master.request_id()
        )
        return await stub.PinValue(request)

    def unpin(stub, name=mine.customer):
        request = pb.UnpinValueRequest(name=name, attribute=ATTRIBUTE_NAME, reason="wrong", request_id=master.request_id())
        return stub.UnpinValue(request)

    assert await refused(pin(steward(master), theirs.record)) == "RECORD_NOT_FOUND"
    assert await refused(pin(steward(master), mine.record, ATTRIBUTE_ADDRESS)) == "ATTRIBUTE_NOT_STATED"
    assert await refused(pin(steward(master), mine.record, name=NOBODY)) == "CUSTOMER_NOT_FOUND"
    assert await refused(unpin(steward(master))) == "NOT_PINNED"
    pinned = await pin(steward(master, "insurer"), theirs.record)
    assert (pinned.record, pinned.reason, pinned.pinned_by) == (theirs.record, "seen in branch", "steward-insurer")
    golden = await full(master, mine.customer)
    [name] = [one for one in golden.provenances if one.field == "party_name"]
    assert (golden.party_name.full_name, name.rule) == ("Jan Nowak", customer_pb.SURVIVORSHIP_RULE_PIN)
    assert name.pin_time == pinned.pin_time
    assert (await full(master, mine.customer, "bank")).party_name.full_name == "Jan Novák"

    later = await pin(steward(master), mine.record)  # of two pins the later
    assert (await full(master, mine.customer)).party_name.full_name == "Jan Novák"
    [ended] = (await unpin(steward(master))).pins
    assert (ended.name, ended.unpinned_by, ended.unpin_reason) == (later.name, "steward-bank", "wrong")
    assert (await full(master, mine.customer)).party_name.full_name == "Jan Nowak"
    between = customer_pb.GetCustomerRequest(name=mine.customer, known_at=later.pin_time)
    assert (await master.customers(**master.operator).GetCustomer(between)).party_name.full_name == "Jan Novák"
    seen = await steward(master).ListPins(pb.ListPinsRequest(parent=mine.customer))
    assert [one.name for one in seen.pins] == [later.name]
    everything = await policies(master).ListPins(pb.ListPinsRequest(parent=mine.customer))
    assert [one.name for one in everything.pins] == [later.name, pinned.name]
    async with master.running.application.database.connection() as connection:
        assert not await connection.fetchval("SELECT bool_or(reason LIKE '%branch%'::bytea) FROM pins")
        actions = await connection.fetch("SELECT action FROM audit_entries WHERE action = 'PIN'")
    assert len(actions) == 3


async def test_a_sweep_or_dry_run_that_dies_goes_on_where_it_stopped(master, monkeypatch):
    for number, name in enumerate(("Adam Malý", "Eva Černá", "Petr Zelený", "Ivana Bílá", "Hugo Modrý")):
        await master.ingest(f"k{number}", name=name, born=f"19{50 + 7 * number}-0{number + 1}-11")
    monkeypatch.setattr(policy_worker, "CUSTOMERS_AT_ONCE", 2)
    real, calls = store.advance, 0

    async def dies_twice(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        await real(*arguments)
        if calls in (2, 3):
            raise ConnectionResetError("killed before the commit")

    monkeypatch.setattr(store, "advance", dies_twice)
    policy = await draft(master, half_life_days=100.0)
    run = await tried(master, policy)
    assert (run.customers_done_count, calls) == (5, 5)
    sample = await tried(master, policy, sample_percent=50)
    assert sample.customers_done_count < 5
    assert sample.sample_percent == 50


async def test_calibration_proposes_and_changes_nothing(master):
    await master.ingest("v0", master.policies, name="Nobody")
    verified = {"verifications": [{"attribute": ATTRIBUTE_BIRTH_DATE, "method": 1, "verify_date": "2023-11-20"}]}
    verifiers = pb.VerificationStandard(source_systems=[KYC])
    policy = (await policies(master).GetPolicy(pb.GetPolicyRequest(name="survivorshipPolicies/current"))).standard
    policy.verification.CopyFrom(verifiers)
    made = await policies(master).CreatePolicyDraft(pb.CreatePolicyDraftRequest(standard=policy, request_id=master.request_id()))
    await tried(master, made)
    await activation(master, made)
    await in_force(master, made)
    people = [f"80{month:02}{day:02}" for month in range(1, 5) for day in range(1, 11)]
    for number, birth in enumerate(people):
        passport = f"AB{number:06}"
        date = f"1980-{birth[2:4]}-{birth[4:]}"
        await master.ingest(f"v{number + 1}", master.policies, name=f"Person {birth}", passport=passport, born=date, **verified)
        stated = "1980-12-24" if number % 10 == 0 else date
        await master.ingest(f"b{number + 1}", name=f"Person {birth}", passport=passport, born=stated)
    asked = await policies(master).CalibrateTrust(pb.CalibrateTrustRequest(request_id=master.request_id()))
    found = await until(
        lambda: policies(master).GetTrustCalibration(pb.GetTrustCalibrationRequest(name=asked.name)),
        lambda one: one.state == pb.POLICY_JOB_STATE_SUCCEEDED,
    )
    [born] = [one for one in found.estimates if one.attribute == ATTRIBUTE_BIRTH_DATE]
    total = born.agreements_count + born.disagreements_count
    assert (born.source_system, born.proposed) == (master.core, True)
    assert total >= 30
    assert born.trust_points == pytest.approx(100 * (born.agreements_count + 1) / (total + 2))
    assert born.trust_points_low < born.trust_points < born.trust_points_high
    proposal = await policies(master).GetPolicy(pb.GetPolicyRequest(name=found.draft_policy))
    assert proposal.state == pb.POLICY_STATE_DRAFT
    [attribute] = proposal.standard.attributes
    assert (attribute.attribute, attribute.source_trusts[0].source_system) == (ATTRIBUTE_BIRTH_DATE, master.core)
    current = await policies(master).GetPolicy(pb.GetPolicyRequest(name="survivorshipPolicies/current"))
    assert current.name == made.name


async def test_quality_is_read_by_viewer_and_published_when_a_band_is_crossed(master):
    def qualities(institution="bank", **more):
        return QualityServiceStub(master.channel(institution, **more))

    async def published():
        return await master.running.events("concord.customer.v1.quality.changed")

    mine = await master.ingest("k1", name="Jan Novák", phone="601123456")
    [first] = await published()
    message = first.message(events.QualityChanged)
    assert (message.completeness_percent, message.state_version.version) == (55, 1)
    await master.ingest("k1", day=1, name="Jan Novák", phone="601123457")
    assert len(await published()) == 1  # the same bands
    await master.ingest("k1", day=2, name="Jan Novák", phone="601123457", email="jan@example.com", born="1971-03-19")
    second = (await published())[-1].message(events.QualityChanged)
    assert (second.completeness_percent, second.state_version.version) == (85, 2)

    read = await qualities().GetQuality(quality_pb.GetQualityRequest(name=f"{mine.customer}/quality"))
    assert (read.stage, read.completeness_percent) == (quality_pb.CUSTOMER_STAGE_PROSPECT, 85)
    assert (read.next_attribute, read.next_advice) == (ATTRIBUTE_ADDRESS, quality_pb.QUALITY_ADVICE_ASK)
    assert await refused(qualities("insurer").GetQuality(quality_pb.GetQualityRequest(name=read.name))) == "CUSTOMER_NOT_FOUND"
    batch = quality_pb.BatchGetQualitiesRequest(names=[NOBODY, mine.customer])
    [same] = (await qualities(**master.operator).BatchGetQualities(batch)).qualities
    assert (same.name, same.completeness_percent) == (read.name, 85)
    assert await refused(qualities().BatchGetQualities(batch)) == "KIND_NOT_ADMITTED"

    holding: Any = {
        "source_holding_key": "h1", "kind": 3, "product_code": "loan", "open_date": "2024-01-01", "observe_time": master.at(3),
        "amount": Money(currency_code="CZK", minor_units=1), "holders": [{"source_record_key": "k1", "role": 1}],
    }  # fmt: skip
    await master.intake().BatchUpsertHoldings(
        intake_pb.BatchUpsertHoldingsRequest(parent=master.core, source_holdings=[holding], request_id=master.request_id())
    )
    third = (await published())[-1].message(events.QualityChanged)
    assert third.completeness_percent == 43  # a borrower must tell more: 15 + 14 + 8 + 12 of 113
    lent = await qualities().GetQuality(quality_pb.GetQualityRequest(name=read.name))
    assert (lent.stage, lent.completeness_percent) == (quality_pb.CUSTOMER_STAGE_CUSTOMER, 43)
    assert ATTRIBUTE_PHONE in [one.attribute for one in lent.reasons]


async def poison(master, record):
    """Makes the row of a record unreadable; what it held."""
    async with master.running.application.database.connection() as connection:
        record_id = record.rpartition("/")[2]
        held = await connection.fetchval("SELECT party FROM records WHERE record_id = $1::text::uuid", record_id)
        await connection.execute("UPDATE records SET party = 'broken' WHERE record_id = $1::text::uuid", record_id)
    return held


async def cure(master, record, held):
    async with master.running.application.database.connection() as connection:
        await connection.execute(
            "UPDATE records SET party = $2 WHERE record_id = $1::text::uuid", record.rpartition("/")[2], held
        )


async def test_one_poisonous_customer_holds_up_no_job_and_is_named(master, monkeypatch):
    monkeypatch.setattr(policy_worker, "RETRY_AFTER_SECONDS", (0.05, 0.05, 0.05))
    mine, _ = await conflicting(master)
    bad = await master.ingest("k2", name="Petr Malý", national_id="8001011238")
    await master.ingest("k3", name="Ota Nový", national_id="8101011237")
    held = await poison(master, bad.record)
    policy = await draft(master, title="The insurer first", source_trusts=[trust(master.policies, 99)])
    run = await tried(master, policy)
    assert (run.customers_done_count, run.customers_changed_count, run.skipped_customers) == (3, 1, [bad.customer])
    calibration = await policies(master).CalibrateTrust(pb.CalibrateTrustRequest(request_id=master.request_id()))
    read = pb.GetTrustCalibrationRequest(name=calibration.name)
    calibrated = await until(
        lambda: policies(master).GetTrustCalibration(read), lambda found: found.state == pb.POLICY_JOB_STATE_SUCCEEDED
    )
    assert calibrated.skipped_customers == [bad.customer]
    await activation(master, policy)
    swept = await in_force(master, policy)
    assert swept.sweep_skipped_customers == [bad.customer]
    assert (await full(master, mine.customer)).party_name.full_name == "Jan Nowak"
    await cure(master, bad.record, held)


async def test_a_skipped_customer_is_tried_again_before_a_job_ends(master, monkeypatch):
    monkeypatch.setattr(policy_worker, "RETRY_AFTER_SECONDS", (0.05, 60, 60))
    mine, _ = await conflicting(master)
    held = await poison(master, mine.record)
    policy = await draft(master, title="The insurer first", source_trusts=[trust(master.policies, 99)])
    request = pb.DryRunPolicyRequest(name=policy.name, request_id=master.request_id())
    started = await policies(master).DryRunPolicy(request)

    async def read():
        return await policies(master).GetPolicyDryRun(pb.GetPolicyDryRunRequest(name=started.name))

    skipped = await until(read, lambda found: found.skipped_customers)
    assert (skipped.state, skipped.customers_done_count) == (pb.POLICY_JOB_STATE_RUNNING, 1)
    await cure(master, mine.record, held)
    async with master.running.application.database.connection() as connection:
        await connection.execute("UPDATE survivorship_jobs SET retry_at = now() WHERE retry_at IS NOT NULL")
    done = await until(read, lambda found: found.state == pb.POLICY_JOB_STATE_SUCCEEDED)
    assert (list(done.skipped_customers), done.customers_changed_count, done.customers_done_count) == ([], 1, 1)
