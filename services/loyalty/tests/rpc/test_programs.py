"""What programmes promise, through the contract: terms that change by etag, and expiry policies for new lots."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.testing import reason
from concord.loyalty.v1 import program_service_pb2 as pb
from loyalty.store import configuration

NAME = "programs/bank-points"


async def refusal(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason(refused.value)


def policy(kind, effective_time=None, **fields) -> pb.CreateExpiryPolicyVersionRequest:
    version = pb.ExpiryPolicyVersion(kind=pb.ExpiryKind.Value(f"EXPIRY_KIND_{kind}"), **fields)
    if effective_time:
        version.effective_time.FromDatetime(effective_time)
    return pb.CreateExpiryPolicyVersionRequest(parent=NAME, expiry_policy_version=version, request_id=f"{kind}{fields}")


async def load(alliance):
    async with alliance.running.application.database.connection() as connection:
        return await configuration.load(connection)


async def test_a_programme_is_changed_by_who_read_it(alliance):
    staff = alliance.programs()
    before = await staff.GetProgram(pb.GetProgramRequest(name=NAME))
    assert (before.unit_display_name, before.time_zone, before.decimals) == ("points", "UTC", 0)
    first = await load(alliance)
    wanted = pb.Program(name=NAME, unit_display_name="miles", time_zone="Asia/Shanghai", pending_days=14, transfers_allowed=True)
    wanted.liability_value.CopyFrom(pb.PointValue(numerator=3, denominator=4, currency_code="USD"))
    after = await staff.UpdateProgram(pb.UpdateProgramRequest(program=wanted, etag=before.etag, request_id="a"))
    assert (after.unit_display_name, after.time_zone, after.pending_days, after.transfers_allowed) == (
        "miles", "Asia/Shanghai", 14, True,
    )  # fmt: skip
    assert (after.display_name, after.liability_value.numerator, after.etag != before.etag) == ("Bank-Points", 3, True)
    loaded = await load(alliance)
    terms = loaded.program("bank-points")
    assert (loaded.version > first.version, terms.pending_days, terms.zone.key) == (True, 14, "Asia/Shanghai")
    other = pb.UpdateProgramRequest(program=wanted, etag=before.etag, request_id="b")
    assert await refusal(staff.UpdateProgram(other)) == "ETAG_MISMATCH"
    cleared = pb.UpdateProgramRequest(
        program=pb.Program(name=NAME), update_mask=FieldMask(paths=["liability_value", "transfers_allowed"]), request_id="c"
    )
    now = await staff.UpdateProgram(cleared)
    assert (now.HasField("liability_value"), now.transfers_allowed, now.pending_days) == (False, False, 14)


async def test_what_an_issuer_stands_for_is_its_own_business(alliance):
    wanted = pb.Program(name=NAME)
    wanted.liability_value.CopyFrom(pb.PointValue(numerator=1, denominator=2, currency_code="USD"))
    await alliance.programs().UpdateProgram(pb.UpdateProgramRequest(program=wanted, request_id="a"))
    seen = await alliance.programs("broker").GetProgram(pb.GetProgramRequest(name=NAME))
    listed = await alliance.programs("broker").ListPrograms(pb.ListProgramsRequest())
    assert not seen.HasField("liability_value")
    assert not listed.programs[0].HasField("liability_value")
    assert await refusal(alliance.programs("broker").UpdateProgram(pb.UpdateProgramRequest(program=wanted, request_id="a"))) == (
        "PROGRAM_NOT_FOUND"
    )


@pytest.mark.parametrize(
    ("program", "mask", "expected"),
    [
        (pb.Program(name=NAME, time_zone="Mars/Olympus"), [], "PROGRAM_INVALID"),
        (pb.Program(name=NAME, display_name=" "), [], "PROGRAM_INVALID"),
        (pb.Program(name=NAME), ["display_name"], "PROGRAM_INVALID"),
        (pb.Program(name=NAME), [], "UPDATE_MASK_INVALID"),
        (pb.Program(name=NAME, sandbox=True), ["sandbox"], "UPDATE_MASK_INVALID"),
        (pb.Program(name=NAME, decimals=2), ["decimals"], "UPDATE_MASK_INVALID"),
    ],
)
async def test_what_cannot_be_changed(alliance, program, mask, expected):
    request = pb.UpdateProgramRequest(program=program, update_mask=FieldMask(paths=mask), request_id="a")
    assert await refusal(alliance.programs().UpdateProgram(request)) == expected


async def test_an_expiry_policy_holds_for_lots_from_then_on(alliance):
    staff = alliance.programs()
    begins = datetime.now(UTC) + timedelta(days=30)
    first = await staff.CreateExpiryPolicyVersion(policy("MONTHS", months=24))
    await staff.CreateExpiryPolicyVersion(policy("DAYS", begins, days=90))
    program = await staff.GetProgram(pb.GetProgramRequest(name=NAME))
    assert program.expiry_policy == first
    terms = (await load(alliance)).program("bank-points")
    issued = datetime(2026, 12, 1, 12, tzinfo=UTC)
    assert terms.expire_time(issued, issued) == datetime(2029, 1, 1, tzinfo=UTC)
    assert terms.expire_time(begins, begins).date() == (begins + timedelta(days=91)).date()
    listed = await alliance.programs("broker").ListExpiryPolicyVersions(
        pb.ListExpiryPolicyVersionsRequest(parent=NAME, page_size=1)
    )
    following = await staff.ListExpiryPolicyVersions(
        pb.ListExpiryPolicyVersionsRequest(parent=NAME, page_size=1, page_token=listed.next_page_token)
    )
    assert [v.name[-1] for page in (listed, following) for v in page.expiry_policy_versions] == ["2", "1"]


@pytest.mark.parametrize(
    "request_",
    [
        policy("MONTHS"),
        policy("NEVER", days=3),
        policy("FIXED_DATE", fixed_date="2027-02-30"),
        policy("NEVER", datetime(2026, 1, 1, tzinfo=UTC)),  # points that were issued keep their end
    ],
)
async def test_what_is_wrong_with_an_expiry_policy(alliance, request_):
    assert await refusal(alliance.programs().CreateExpiryPolicyVersion(request_)) == "EXPIRY_POLICY_INVALID"
    assert await refusal(alliance.programs("broker").CreateExpiryPolicyVersion(policy("NEVER"))) == "PROGRAM_NOT_FOUND"
