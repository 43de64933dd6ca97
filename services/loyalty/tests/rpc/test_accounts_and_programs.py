import uuid

import grpc
import pytest

from chassis.testing import reason
from concord.loyalty.v1 import account_service_pb2 as pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb
from concord.loyalty.v1 import program_service_pb2 as programs_pb
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged


async def refusal(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason(refused.value)


async def test_a_customer_has_one_account(alliance):
    customer = await alliance.customer("bank", "broker")
    request = pb.OpenAccountRequest(customer=customer.name, institutions=["institutions/bank"], request_id="r")
    first = await alliance.accounts().OpenAccount(request)
    assert first.customer == customer.name
    assert [m.name for m in first.memberships] == [f"{first.name}/links/bank"]
    assert await alliance.accounts().OpenAccount(request) == first
    other = await alliance.accounts("broker").OpenAccount(
        pb.OpenAccountRequest(customer=customer.name, institutions=["institutions/broker"], request_id="r")
    )
    assert (other.name, len(other.memberships)) == (first.name, 2)
    assert await alliance.accounts().GetCustomerAccount(pb.GetCustomerAccountRequest(customer=customer.name)) != first
    events = [event.message(AccountChanged) for event in await alliance.running.events("concord.loyalty.v1.account.changed")]
    assert [(list(e.institution_ids), e.state_version.version) for e in events] == [(["bank"], 1), (["bank", "broker"], 2)]
    assert {e.customer_id for e in events} == {str(customer.customer_id)}


async def test_member_ids_are_pairwise_and_seen_by_their_institution_only(alliance):
    customer = await alliance.customer("bank", "broker")
    account = await alliance.account(customer, "bank", "broker")
    seen = {}
    for institution in ("bank", "broker", None):
        message = await alliance.accounts(institution).GetAccount(pb.GetAccountRequest(name=account))
        seen[institution] = [m.member_id for m in message.memberships]
    bank, broker = seen[None]
    assert bank != broker
    assert min(len(bank), len(broker)) >= 20
    assert (seen["bank"], seen["broker"]) == ([bank, ""], ["", broker])


async def test_linking_an_institution_once(alliance):
    customer = await alliance.customer("bank")
    account = await alliance.account(customer)
    stub = alliance.accounts()
    before = await stub.GetAccount(pb.GetAccountRequest(name=account))
    first = await stub.LinkInstitution(pb.LinkInstitutionRequest(parent=account, institution="institutions/bank", request_id="a"))
    again = await stub.LinkInstitution(pb.LinkInstitutionRequest(parent=account, institution="institutions/bank", request_id="b"))
    assert first == again
    after = await stub.GetAccount(pb.GetAccountRequest(name=account))
    assert (list(after.memberships), after.etag != before.etag) == ([first], True)
    assert len(await alliance.running.events("concord.loyalty.v1.account.changed")) == 2


async def test_what_a_caller_may_not_do(alliance):
    customer = await alliance.customer("bank")
    account = await alliance.account(customer, "bank")
    unknown, nobody = f"customers/{uuid.uuid4()}", f"accounts/{uuid.uuid4()}"

    def open_account(name, *institutions):
        return pb.OpenAccountRequest(customer=name, institutions=institutions, request_id=alliance.request_id())

    bank, broker, operator = alliance.accounts(), alliance.accounts("broker"), alliance.accounts(None)
    for call, expected in (
        (bank.OpenAccount(open_account(unknown)), "CUSTOMER_NOT_FOUND"),
        (operator.OpenAccount(open_account(unknown)), "CUSTOMER_NOT_FOUND"),
        (broker.OpenAccount(open_account(customer.name)), "CUSTOMER_NOT_FOUND"),
        (bank.OpenAccount(open_account(customer.name, "institutions/broker")), "INSTITUTION_NOT_FOUND"),
        (operator.OpenAccount(open_account(customer.name, "institutions/nowhere")), "INSTITUTION_NOT_FOUND"),
        (broker.GetAccount(pb.GetAccountRequest(name=account)), "ACCOUNT_NOT_FOUND"),
        (bank.GetAccount(pb.GetAccountRequest(name=nobody)), "ACCOUNT_NOT_FOUND"),
        (broker.GetCustomerAccount(pb.GetCustomerAccountRequest(customer=customer.name)), "CUSTOMER_NOT_FOUND"),
        (broker.ListStatementLines(pb.ListStatementLinesRequest(parent=account)), "ACCOUNT_NOT_FOUND"),
        (
            bank.LinkInstitution(pb.LinkInstitutionRequest(parent=account, institution="institutions/shop", request_id="x")),
            "INSTITUTION_NOT_FOUND",
        ),
        (
            broker.LinkInstitution(pb.LinkInstitutionRequest(parent=account, institution="institutions/broker", request_id="x")),
            "ACCOUNT_NOT_FOUND",
        ),
        (alliance.accounts(scopes=["points.read"]).OpenAccount(open_account(customer.name)), "SCOPE_MISSING"),
    ):
        assert await refusal(call) == expected


async def test_a_statement_in_pages_newest_first(alliance):
    customer, account = await alliance.member(100)
    await alliance.program("bank-miles", "bank")
    await alliance.rule("bank-miles", "everything")
    await alliance.running.deliver(alliance.spending(customer, -1000))
    for i in range(5):
        await alliance.ledger().RedeemPoints(alliance.redemption(account, 10, reference=f"till {i}"))
    stub, lines, token = alliance.accounts(), [], ""
    while True:
        page = await stub.ListStatementLines(pb.ListStatementLinesRequest(parent=account, page_size=3, page_token=token))
        lines += page.statement_lines
        token = page.next_page_token
        if not token:
            break
    whole = await stub.ListStatementLines(pb.ListStatementLinesRequest(parent=account))
    assert list(whole.statement_lines) == lines
    assert [(line.program, line.amount_points, line.balance_points, line.entry_version) for line in lines] == [
        *(("programs/bank-points", -10, 60 + 10 * i, 7 - i) for i in range(5)),
        ("programs/bank-points", 10, 110, 2), ("programs/bank-miles", 10, 10, 1), ("programs/bank-points", 100, 100, 1),
    ]  # fmt: skip
    assert {line.institution for line in lines[:5]} == {"institutions/shop"}
    miles = await stub.ListStatementLines(pb.ListStatementLinesRequest(parent=account, program="programs/bank-miles"))
    assert list(miles.statement_lines) == [lines[6]]
    other = pb.ListStatementLinesRequest(parent=account, program="programs/bank-miles", page_token=page.next_page_token or "AAAA")
    assert await refusal(stub.ListStatementLines(other)) == "PAGE_TOKEN_INVALID"


async def test_programs_and_their_rules(alliance):
    staff = alliance.programs()
    program = await staff.GetProgram(programs_pb.GetProgramRequest(name="programs/bank-points"))
    assert (program.institution, program.display_name) == ("institutions/bank", "Bank-Points")
    for i in range(3):
        await alliance.program(f"extra-{i}", "broker")
        await alliance.rule("bank-points", f"rule-{i}")
    first = await staff.ListPrograms(programs_pb.ListProgramsRequest(page_size=3))
    second = await staff.ListPrograms(programs_pb.ListProgramsRequest(page_size=3, page_token=first.next_page_token))
    names = [p.name for page in (first, second) for p in page.programs]
    assert (names, second.next_page_token) == (
        ["programs/bank-points", "programs/extra-0", "programs/extra-1", "programs/extra-2"],
        "",
    )
    await alliance.rule("bank-points", "rule-1")
    request = programs_pb.ListEarnRuleVersionsRequest(parent="programs/bank-points/earnRules/-", page_size=4)
    page = await staff.ListEarnRuleVersions(request)
    request.page_token = page.next_page_token
    rest = await staff.ListEarnRuleVersions(request)
    assert [v.name.removeprefix("programs/bank-points/earnRules/") for p in (page, rest) for v in p.earn_rule_versions] == [
        "everything/versions/1", "rule-0/versions/1", "rule-1/versions/1", "rule-1/versions/2", "rule-2/versions/1",
    ]  # fmt: skip
    one = programs_pb.ListEarnRuleVersionsRequest(parent="programs/bank-points/earnRules/rule-1")
    assert [v.points_max for v in (await staff.ListEarnRuleVersions(one)).earn_rule_versions] == [10_000] * 2


async def test_programs_belong_to_their_institution(alliance):
    def create(program_id, institution):
        program = programs_pb.Program(institution=f"institutions/{institution}", display_name="X")
        return programs_pb.CreateProgramRequest(program_id=program_id, program=program, request_id=alliance.request_id())

    broker = alliance.programs("broker")
    assert await refusal(broker.CreateProgram(create("theirs", "bank"))) == "INSTITUTION_NOT_FOUND"
    assert await refusal(alliance.programs("nowhere").CreateProgram(create("theirs", "nowhere"))) == "INSTITUTION_NOT_FOUND"
    assert await refusal(alliance.programs().CreateProgram(create("bank-points", "bank"))) == "PROGRAM_EXISTS"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await alliance.rule("bank-points", "mine", institution="broker")
    assert reason(refused.value) == "PROGRAM_NOT_FOUND"
    listing = programs_pb.ListEarnRuleVersionsRequest(parent="programs/bank-points/earnRules/-")
    assert await refusal(broker.ListEarnRuleVersions(listing)) == "PROGRAM_NOT_FOUND"


async def test_the_operator_verifies_the_ledger(alliance):
    _, account = await alliance.member(100)
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 10))
    answer = await alliance.control().VerifyInvariants(ledger_pb.VerifyInvariantsRequest())
    assert (answer.valid, answer.operations_count, answer.entries_count, len(answer.results)) == (True, 2, 4, 13)
    assert all(result.invariant.isupper() and result.description for result in answer.results)
