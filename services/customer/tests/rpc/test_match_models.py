"""Match models with a second person, dry runs that explain, and rematch runs in a process of their own."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import grpc
import pytest

from chassis import clock
from chassis.testing import reason
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import intake_service_pb2 as intake_pb
from concord.customer.v1 import link_service_pb2 as link_pb
from concord.customer.v1 import match_model_service_pb2 as pb
from concord.customer.v1.link_service_pb2_grpc import LinkServiceStub
from concord.customer.v1.match_model_service_pb2_grpc import MatchModelServiceStub
from concord.customer.v1.match_pb2 import MatchZone
from customer.domain.match_jobs import ModelState
from customer.domain.match_model import default_model
from customer.domain.reviews import ReviewKind
from customer.store import match_models
from customer.training import population

CHILD_SECONDS_MAX = 120.0
"""A process starts in seven seconds; on a machine that is busy otherwise, in a minute."""
SCOPES = ("match.read", "match.write", "match.approve")
JAN = {"name": "Jan Novák", "born": "1985-03-12", "phone": "+420601234567", "email": "jan.novak@seznam.cz"}


def models(master, subject="ann"):
    return MatchModelServiceStub(master.channel(scopes=SCOPES, subject=subject, **master.operator))


def content(**changes):
    return json.dumps(json.loads(default_model().to_json()) | changes)


async def activated(master, **changes):
    made = await models(master).CreateMatchModel(
        pb.CreateMatchModelRequest(content_json=content(**changes), request_id=master.request_id())
    )
    return await models(master, "bob").ActivateMatchModel(
        pb.ActivateMatchModelRequest(name=made.name, request_id=master.request_id())
    )


async def finished(master, rematch):
    async with asyncio.timeout(60):
        while True:
            found = await models(master).GetRematch(pb.GetRematchRequest(name=rematch.name))
            if found.state != pb.REMATCH_STATE_RUNNING:
                return found
            await asyncio.sleep(0.1)


async def resolve(master, institution="bank", **fields):
    party = master.source_record("x", **fields).party
    return await master.customers(institution).ResolveCustomer(customer_pb.ResolveCustomerRequest(party=party))


async def test_a_model_is_activated_by_a_second_person_and_decides_from_then_on(master):
    ann, bob = models(master), models(master, "bob")
    shipped = (await ann.ListMatchModels(pb.ListMatchModelsRequest())).match_models
    assert [(one.name, one.state) for one in shipped] == [("matchModels/default-1", pb.MATCH_MODEL_STATE_ACTIVE)]
    made = await ann.CreateMatchModel(pb.CreateMatchModelRequest(content_json=content(link_bits=98.0), request_id="m1"))
    assert (made.name, made.state, made.link_bits, made.creator) == ("matchModels/1", pb.MATCH_MODEL_STATE_DRAFT, 98.0, "ann")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ann.ActivateMatchModel(pb.ActivateMatchModelRequest(name=made.name, request_id="m2"))
    assert reason(refused.value) == "SECOND_PERSON_NEEDED"
    past = pb.ActivateMatchModelRequest(name=made.name, effective_time=master.at(0), request_id="m3")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bob.ActivateMatchModel(past)
    assert reason(refused.value) == "EFFECTIVE_TIME_PAST"
    active = await bob.ActivateMatchModel(pb.ActivateMatchModelRequest(name=made.name, request_id="m4"))
    assert (active.state, active.approver) == (pb.MATCH_MODEL_STATE_ACTIVE, "bob")
    states = [one.state for one in (await ann.ListMatchModels(pb.ListMatchModelsRequest())).match_models]
    assert states == [pb.MATCH_MODEL_STATE_ACTIVE, pb.MATCH_MODEL_STATE_RETIRED]
    await master.ingest("a", **JAN)
    strict = await resolve(master, **JAN)
    assert (strict.match_model, strict.zone, strict.link_bits) == ("matchModels/1", MatchZone.MATCH_ZONE_STEWARD, 98.0)
    await activated(master)
    assert (await resolve(master, **JAN)).zone == MatchZone.MATCH_ZONE_LINK
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ann.CreateMatchModel(pb.CreateMatchModelRequest(content_json=content(steward_bits=99.0), request_id="m5"))
    assert reason(refused.value) == "MODEL_INVALID"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ann.GetMatchModel(pb.GetMatchModelRequest(name="matchModels/77"))
    assert reason(refused.value) == "MATCH_MODEL_NOT_FOUND"


async def test_a_dry_run_explains_to_those_who_are_linked_and_tells_nothing_to_others(master):
    stored = await master.ingest("a", **JAN)
    found = await resolve(master, **JAN)
    assert (found.customer, found.resolution_reason) == (stored.customer, "MATCH_WEIGHT")
    bits = {one.attribute: (one.level, one.bits) for one in found.explanation.contributions}
    assert bits["name"][0] == bits["phone"][0] == bits["birth_date"][0] == "SAME"
    assert found.weight_bits == pytest.approx(sum(one for _, one in bits.values()), abs=0.01)
    assert found.weight_bits >= found.link_bits
    assert not any(value in str(found.explanation) for value in ("Nov", "1985", "6012", "seznam"))
    # A twin is asked about.
    twin = await resolve(master, **JAN | {"name": "Petr Novák", "email": "p@novakovi.cz"})
    assert (twin.zone, twin.customer) == (MatchZone.MATCH_ZONE_STEWARD, "")
    [rival] = twin.rivals
    assert (rival.customer, rival.reason) == (stored.customer, "GIVEN_NAME_DIFFERS")
    # To an institution without a link, somebody known is as nobody.
    unknown = {"name": "Aurora Gigney", "born": "1976-04-09", "phone": "+420777000111"}
    assert await resolve(master, "insurer", **JAN) == await resolve(master, "insurer", **unknown)
    # One with a link learns the outcome, and levels against its own record only.
    await master.ingest("p", parent=master.policies, name="Jan Novák", born="1985-03-12", email="jan.novak@seznam.cz")
    linked = await resolve(master, "insurer", **JAN)
    assert linked.customer == stored.customer
    assert "phone" not in {one.attribute for one in linked.explanation.contributions}


async def run(master, **fields):
    started = await models(master).StartRematch(pb.StartRematchRequest(request_id=master.request_id(), **fields))
    return await finished(master, started)


async def test_a_rematch_run_finds_what_was_missed_although_its_process_is_killed(master):
    await activated(master, link_bits=98.0, steward_bits=97.0)  # so strict that one person becomes two customers
    one, other = await master.ingest("a", **JAN), await master.ingest("b", **JAN)
    assert one.customer != other.customer
    await activated(master)
    started = await models(master).StartRematch(pb.StartRematchRequest(request_id=master.request_id()))
    assert await killed_child()
    found = await finished(master, started)
    assert (found.state, found.progress_percent) == (pb.REMATCH_STATE_SUCCEEDED, 100)
    assert (found.missed_pairs_count, found.doubtful_clusters_count, found.links_applied_count) == (1, 0, 0)
    assert found.pairs_compared_count == 1
    [missed] = (await models(master).ListRematchFindings(pb.ListRematchFindingsRequest(parent=started.name))).findings
    assert {missed.customer, missed.other_customer} == {one.customer, other.customer}
    assert (missed.zone, missed.reason, missed.applied) == (MatchZone.MATCH_ZONE_LINK, "WEIGHT", False)
    assert await open_reviews(master, ReviewKind.POSSIBLE_MATCH) == 1
    # A run that lost how far it was looks again, and finds nothing twice.
    async with master.running.application.database.connection() as connection:
        await connection.execute("UPDATE rematches SET state = 1, progress = ''")
    assert (await finished(master, started)).missed_pairs_count == 1
    # What a steward rejected stays apart, however much it weighs.
    links = LinkServiceStub(master.channel(scopes=("match.decide",), **master.operator))
    sides = {"left": one.customer, "right": other.customer}
    rejected = await links.RejectMatch(link_pb.RejectMatchRequest(**sides, reason_code="TWINS", request_id="j1"))
    assert (await run(master, apply_links=True)).missed_pairs_count == 0
    await links.WithdrawMatchRejection(link_pb.WithdrawMatchRejectionRequest(name=rejected.name, request_id="j2"))
    # Nothing is merged until it is asked for; then once.
    applied = await run(master, apply_links=True)
    assert (applied.links_applied_count, applied.missed_pairs_count) == (1, 1)
    assert len({(await master.ingest(key, day=2, **JAN)).customer for key in ("a", "b")}) == 1
    assert (await run(master, apply_links=True)).missed_pairs_count == 0


async def test_a_rematch_run_doubts_customers_that_the_model_in_force_would_not_make(master):
    one, other = await master.ingest("a", **JAN), await master.ingest("b", **JAN)
    assert one.customer == other.customer
    await activated(master, link_bits=98.0, steward_bits=97.0)
    found = await run(master)
    assert (found.missed_pairs_count, found.doubtful_clusters_count) == (0, 1)
    [doubt] = (await models(master).ListRematchFindings(pb.ListRematchFindingsRequest(parent=found.name))).findings
    assert (doubt.customer, doubt.other_customer, doubt.records_apart_count) == (one.customer, "", 1)
    assert await open_reviews(master, ReviewKind.DOUBTFUL_CLUSTER) == 1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await run(master, match_model="matchModels/default-1", apply_links=True)
    assert reason(refused.value) == "MODEL_NOT_IN_FORCE"
    assert (await run(master, match_model="matchModels/default-1")).doubtful_clusters_count == 0


async def open_reviews(master, kind: ReviewKind) -> int:
    async with master.running.application.database.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM review_items WHERE kind = $1", kind)
        return count


async def killed_child(after_seconds: float = 0.5) -> bool:
    """Kills the process that works off the jobs, soon after there is one."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CHILD_SECONDS_MAX):
            while True:
                for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
                    with contextlib.suppress(OSError):
                        if "customer.match_jobs" in Path(f"/proc/{child}/cmdline").read_text():
                            await asyncio.sleep(after_seconds)
                            os.kill(int(child), signal.SIGKILL)
                            return True
                await asyncio.sleep(0.05)
    return False


async def attempts(master, name) -> int:
    async with master.running.application.database.connection() as connection:
        version = int(name.removeprefix("matchModels/"))
        count: int = await connection.fetchval("SELECT attempts_count FROM match_models WHERE version = $1", version)
        return count


async def begun(master, name) -> None:
    """A process works on the training: one that only ends after the last job is not the one to kill."""
    async with asyncio.timeout(CHILD_SECONDS_MAX):
        while not await attempts(master, name):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def trained(master, name):
    async with asyncio.timeout(2 * CHILD_SECONDS_MAX):
        while True:
            found = await models(master).GetMatchModel(pb.GetMatchModelRequest(name=name))
            if found.state != pb.MATCH_MODEL_STATE_TRAINING:
                return found
            await asyncio.sleep(0.1)


async def test_what_a_process_writes_late_changes_no_training_that_is_over(master):
    """Progress is told from another thread, and a process that lost its lease does not know it yet."""
    async with master.running.application.database.connection() as connection:
        made = [await match_models.insert(connection, 0.001, 10, "ann", clock.now()) for _ in range(2)]
        await match_models.progressed(connection, made[0], 60)
        await match_models.progressed(connection, made[0], 40)
        assert (await match_models.get(connection, made[0])).progress_percent == 60
        await match_models.trained(connection, made[0], content())
        await match_models.progressed(connection, made[0], 99)
        await match_models.trained(connection, made[0], "another")
        await match_models.failed(connection, made[0], "TOO_FEW_RECORDS")
        row = await match_models.get(connection, made[0])
        assert (row.state, row.progress_percent, row.content, row.error_reason) == (ModelState.TRAINED, 100, content(), "")
        await match_models.progressed(connection, made[1], 60)
        assert (await match_models.take_training(connection)).progress_percent == 0  # begun anew


async def test_a_training_says_why_it_failed_and_begins_anew_when_it_is_killed(master):
    asked = await models(master).TrainMatchModel(pb.TrainMatchModelRequest(request_id="t1"))
    assert (asked.state, asked.false_links_share_max) == (pb.MATCH_MODEL_STATE_TRAINING, 0.001)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await models(master, "bob").ActivateMatchModel(pb.ActivateMatchModelRequest(name=asked.name, request_id="t2"))
    assert reason(refused.value) == "MODEL_NOT_TRAINED"
    found = await trained(master, asked.name)
    assert (found.state, found.error_reason) == (pb.MATCH_MODEL_STATE_FAILED, "TOO_FEW_RECORDS")

    made = population.make(400, 200, 5)
    for parent, people in ((master.core, made.people), (master.policies, [person for _, person in made.copies])):
        await master.intake(parent.split("/")[1]).BatchIngestRecords(
            intake_pb.BatchIngestRecordsRequest(
                parent=parent,
                request_id=master.request_id(),
                source_records=[
                    intake_pb.SourceRecord(
                        source_record_key=str(number), observe_time=master.at(0), party=population.party(person)
                    )
                    for number, person in enumerate(people)
                ],
            )
        )
    asked = await models(master).TrainMatchModel(pb.TrainMatchModelRequest(request_id="t3"))
    await begun(master, asked.name)
    assert await killed_child(after_seconds=0)
    found = await trained(master, asked.name)
    assert await attempts(master, asked.name) == 2
    assert (found.state, found.records_count, found.progress_percent) == (pb.MATCH_MODEL_STATE_DRAFT, 600, 100)
    assert found.trained_from == "records of the platform"
    active = await models(master, "bob").ActivateMatchModel(pb.ActivateMatchModelRequest(name=found.name, request_id="t4"))
    assert active.state == pb.MATCH_MODEL_STATE_ACTIVE
    await master.ingest("x", **JAN)
    assert (await resolve(master, **JAN)).match_model == found.name
