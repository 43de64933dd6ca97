"""KycService: cases of an institution, from opening to the second person's decision."""

from typing import Any
from uuid import UUID

from chassis import etags, pages
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from chassis.identity import Principal, current_principal
from chassis.ids import new_id, parse_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import kyc_service_pb2 as pb
from concord.customer.v1.attribute_pb2 import Attribute as ProtoAttribute
from concord.customer.v1.kyc_service_pb2_grpc import KycServiceServicer
from concord.customer.v1.party_pb2 import VerificationMethod
from customer import kyc, kyc_standard, published
from customer.core import Core
from customer.domain.audit import Action
from customer.domain.intake import Rejected, day
from customer.domain.kyc import (
    CaseState,
    Disposition,
    RiskLevel,
    Standard,
    StepResult,
    Topic,
    Trigger,
    approval_refused,
    blocking_reason,
    months_later,
)
from customer.messages import timestamp
from customer.rpc.callers import no_such_customer
from customer.screening import Lists
from customer.store import customers as customer_store
from customer.store import kyc as store

EVIDENCE, DECISION, HIT = "kyc_evidence.content", "kyc_cases.decision_reason", "kyc_hits.reason"


class KycServicer(KycServiceServicer):
    """Translates; the rules are in domain/kyc.py."""

    def __init__(self, core: Core, commands: Commands, lists: Lists) -> None:
        self._core = core
        self._commands = commands
        self._lists = lists

    async def GetKycStandard(self, request: pb.GetKycStandardRequest, context: Any) -> pb.KycStandard:
        return _standard(kyc_standard.parsed(kyc_standard.shipped()))

    async def OpenKycCase(self, request: pb.OpenKycCaseRequest, context: Any) -> pb.KycCase:
        customer_id = resource_id(request.parent, "customers", "parent")
        trigger = Trigger(request.trigger or Trigger.ONBOARDING)

        async def handler(unit: UnitOfWork) -> pb.KycCase:
            institution = _institution(unit.principal)
            customer = await kyc.known(unit.connection, self._core, customer_id, institution)
            if customer is None:
                raise await no_such_customer(unit.connection, unit.principal, customer_id)
            opened = await kyc.open_case(unit, customer, institution, trigger, request.product_codes, unit.principal.subject)
            if opened is None:
                raise FailedPrecondition(
                    "CASE_OPEN", f"{request.parent} has a case that is not decided; finish or cancel it (ListKycCases finds it)"
                )
            return await self._answer(unit, opened["case_id"])

        return await self._commands.run(request, handler)

    async def GetKycCase(self, request: pb.GetKycCaseRequest, context: Any) -> pb.KycCase:
        case_id = resource_id(request.name, "kycCases")
        async with self._core.database.connection() as connection:
            case = _own(await store.get_case(connection, case_id), current_principal(), request.name)
            return await self._whole(connection, case)

    async def ListKycCases(self, request: pb.ListKycCasesRequest, context: Any) -> pb.ListKycCasesResponse:
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        before = parse_id(keys[0], "page_token") if keys else None
        customer_id = resource_id(request.customer, "customers", "customer") if request.customer else None
        async with self._core.database.connection() as connection:
            if customer_id is not None:
                customer_id = await customer_store.winner(connection, customer_id)
            rows = await store.list_cases(
                connection, _institution(current_principal()), before, limit + 1, customer_id, request.state, request.overdue
            )
            found = [_case(row, await kyc.standard_of(connection, row)) for row in rows[:limit]]
        token = pages.encode([str(rows[limit - 1]["case_id"])], request) if len(rows) > limit else ""
        return pb.ListKycCasesResponse(kyc_cases=found, next_page_token=token)

    async def RecordKycEvidence(self, request: pb.RecordKycEvidenceRequest, context: Any) -> pb.KycCase:
        case_id, evidence = resource_id(request.name, "kycCases"), request.evidence
        try:
            expire_date = day(evidence.expire_date, "evidence.expire_date")
        except Rejected as rejected:
            raise _invalid(rejected.field, rejected.reason, rejected.description) from None
        if not evidence.result:
            raise _invalid("evidence.result", "RESULT_MISSING", "must be PASSED, FAILED or WAIVED")

        async def handler(unit: UnitOfWork) -> pb.KycCase:
            case = await self._lock(unit, case_id, request.name, CaseState.OPEN)
            standard = await kyc.standard_of(unit.connection, case)
            checklist = {step.step_id: step for step in _checklist(standard, case)}
            if request.step_id not in checklist:
                raise _invalid("step_id", "STEP_UNKNOWN", f"must be a step of this case: {', '.join(checklist)}")
            if StepResult(evidence.result) is StepResult.WAIVED and not (checklist[request.step_id].waivable and evidence.note):
                raise _invalid("evidence.result", "STEP_NOT_WAIVABLE", "WAIVED needs a waivable step and a note that says why")
            evidence_id = new_id()
            sealed = await kyc.seal(self._core, case["record_id"], EVIDENCE, evidence_id, evidence.SerializeToString())
            if sealed is None:
                raise _no_case(request.name)
            values = (
                evidence_id, case_id, request.step_id, evidence.result, sealed, expire_date, unit.principal.subject, unit.now,
            )  # fmt: skip
            await store.add_evidence(unit.connection, values)
            await store.update_case(unit.connection, case_id, {})
            return await self._answer(unit, case_id)

        return await self._commands.run(request, handler)

    async def ScreenKycCase(self, request: pb.ScreenKycCaseRequest, context: Any) -> pb.KycCase:
        case_id = resource_id(request.name, "kycCases")

        async def handler(unit: UnitOfWork) -> pb.KycCase:
            case = await self._lock(unit, case_id, request.name, CaseState.OPEN)
            await kyc.screen(unit, self._core, self._lists, case, await self._customer(unit, case, request.name))
            return await self._answer(unit, case_id)

        return await self._commands.run(request, handler)

    async def DisposeScreeningHit(self, request: pb.DisposeScreeningHitRequest, context: Any) -> pb.KycCase:
        case_text, hit_text = resource_segments(request.name, "kycCases", "hits")
        case_id, hit_id = parse_id(case_text, "name"), parse_id(hit_text, "name")

        async def handler(unit: UnitOfWork) -> pb.KycCase:
            case = await self._lock(unit, case_id, f"kycCases/{case_id}", CaseState.OPEN)
            known_hits = {hit["hit_id"] for hit in await store.hits(unit.connection, case_id)}
            reason = await kyc.seal(self._core, case["record_id"], HIT, hit_id, request.reason.encode())
            if hit_id not in known_hits or reason is None:
                raise NotFound("HIT_NOT_FOUND", f"{request.name} does not exist; screening again may have replaced it")
            hit = await store.dispose(unit.connection, hit_id, request.disposition, reason, unit.principal.subject)
            assert hit is not None, "the hit was read under the case's lock"
            await store.remember(unit.connection, case["record_id"], hit)
            await kyc.refresh_risk(unit, case, await self._customer(unit, case, request.name), {})
            return await self._answer(unit, case_id)

        return await self._commands.run(request, handler)

    async def SubmitKycCase(self, request: pb.SubmitKycCaseRequest, context: Any) -> pb.KycCase:
        case_id = resource_id(request.name, "kycCases")

        async def handler(unit: UnitOfWork) -> pb.KycCase:
            case = await self._lock(unit, case_id, request.name, CaseState.OPEN)
            etags.require(request.etag, etags.etag(case["version"]))
            customer = await self._customer(unit, case, request.name)
            await kyc.refresh_risk(unit, case, customer, {})
            case = _own(await store.get_case(unit.connection, case_id), unit.principal, request.name)
            results = kyc.last_results(await store.evidence(unit.connection, case_id))
            hits = await store.hits(unit.connection, case_id)
            missing = blocking_reason(
                _checklist(await kyc.standard_of(unit.connection, case), case),
                results,
                case["screen_time"] is not None,
                [Disposition(hit["disposition"]) for hit in hits],
            )
            if missing:
                raise FailedPrecondition("CASE_INCOMPLETE", f"{request.name} cannot be submitted yet: {missing}")
            changes = {"state": CaseState.SUBMITTED, "submitted_by": unit.principal.subject}
            await store.update_case(unit.connection, case_id, changes)
            return await self._answer(unit, case_id)

        return await self._commands.run(request, handler)

    async def DecideKycCase(self, request: pb.DecideKycCaseRequest, context: Any) -> pb.KycCase:
        case_id = resource_id(request.name, "kycCases")

        async def handler(unit: UnitOfWork) -> pb.KycCase:
            # The customer first, then its case, as erasures do.
            case = _own(await store.get_case(unit.connection, case_id), unit.principal, request.name)
            await customer_store.lock(unit.connection, [case["customer_id"]])
            case = await self._lock(unit, case_id, request.name, CaseState.SUBMITTED)
            etags.require(request.etag, etags.etag(case["version"]))
            evidence = await store.evidence(unit.connection, case_id)
            hits = await store.hits(unit.connection, case_id)
            worked = {case["opened_by"], case["submitted_by"], *(row["recorded_by"] for row in evidence)}
            if unit.principal.subject in worked | {hit["disposed_by"] for hit in hits}:
                raise PermissionDenied(
                    "SECOND_PERSON_NEEDED", f"{request.name} must be decided by somebody who did nothing else in it"
                )
            risk, results = RiskLevel(case["risk_level"]), kyc.last_results(evidence)
            if request.approve and (refused := approval_refused(risk, results)):
                raise FailedPrecondition("APPROVAL_REFUSED", f"{request.name} cannot be approved: {refused}")
            reason = await kyc.seal(self._core, case["record_id"], DECISION, case_id, request.reason.encode())
            standard = await kyc.standard_of(unit.connection, case)
            changes = {
                "state": CaseState.APPROVED if request.approve else CaseState.REFUSED,
                "decided_by": unit.principal.subject,
                "decide_time": unit.now,
                "decision_reason": reason,
                "next_review_date": months_later(unit.now.date(), standard.review_months[risk]) if request.approve else None,
            }
            await store.update_case(unit.connection, case_id, changes)
            await kyc.keep_verified(unit, self._core, case, evidence, request.approve)
            decided = await store.get_case(unit.connection, case_id)
            version = await store.link_version(unit.connection, case["record_id"])
            unit.publish(published.kyc_decided(decided, version, unit.epoch))
            answer = await self._answer(unit, case_id)
            await self._core.audit.append(
                unit,
                Action.KYC,
                customers=[decided["customer_id"]] if decided else (),
                records=[case["record_id"]],
                reason_code="APPROVED" if request.approve else "REFUSED",
                resource=request.name,
            )
            return answer

        return await self._commands.run(request, handler)

    async def CancelKycCase(self, request: pb.CancelKycCaseRequest, context: Any) -> pb.KycCase:
        case_id = resource_id(request.name, "kycCases")

        async def handler(unit: UnitOfWork) -> pb.KycCase:
            await self._lock(unit, case_id, request.name, CaseState.OPEN, CaseState.SUBMITTED)
            await store.update_case(unit.connection, case_id, {"state": CaseState.CANCELLED})
            return await self._answer(unit, case_id)

        return await self._commands.run(request, handler)

    async def _lock(self, unit: UnitOfWork, case_id: UUID, name: str, *states: CaseState) -> Any:
        case = _own(await store.lock_case(unit.connection, case_id), unit.principal, name)
        if case["state"] not in states:
            wanted = " or ".join(state.name for state in states)
            raise FailedPrecondition("CASE_STATE", f"{name} is {CaseState(case['state']).name}; this needs {wanted}")
        return case

    async def _customer(self, unit: UnitOfWork, case: Any, name: str) -> kyc.Known:
        customer = await kyc.known(unit.connection, self._core, case["customer_id"], case["institution_id"])
        if customer is None:
            raise _no_case(name)
        return customer

    async def _answer(self, unit: UnitOfWork, case_id: UUID) -> pb.KycCase:
        return await self._whole(unit.connection, await store.get_case(unit.connection, case_id))

    async def _whole(self, connection: Any, case: Any) -> pb.KycCase:
        standard = await kyc.standard_of(connection, case)
        message = _case(case, standard)
        case_id, record_id = case["case_id"], case["record_id"]
        reason = await kyc.unseal(self._core, record_id, DECISION, case_id, case["decision_reason"])
        message.decision_reason = reason.decode()
        steps = {}
        for step in _checklist(standard, case):
            steps[step.step_id] = message.steps.add(step_id=step.step_id, instruction=step.instruction, waivable=step.waivable)
        for row in await store.evidence(connection, case_id):
            if row["step_id"] in steps:
                content = await kyc.unseal(self._core, record_id, EVIDENCE, row["evidence_id"], row["content"])
                evidence = pb.KycEvidence.FromString(content)
                evidence.record_time.CopyFrom(timestamp(row["record_time"]))
                steps[row["step_id"]].evidence.append(evidence)
                steps[row["step_id"]].result = row["result"]
        message.hits.extend(_hit(row) for row in await store.hits(connection, case_id))
        return message


def _institution(principal: Principal) -> str:
    return principal.institution or ""


def _own(case: Any, principal: Principal, name: str) -> Any:
    if case is None or case["institution_id"] != _institution(principal):
        raise _no_case(name)
    return case


def _no_case(name: str) -> NotFound:
    return NotFound("CASE_NOT_FOUND", f"{name} does not exist")


def _invalid(field: str, reason: str, rule: str) -> InvalidArgument:
    return InvalidArgument(reason, f"{field} {rule}", field_violations=[(field, rule)])


def _checklist(standard: Standard, case: Any) -> Any:
    return standard.checklist(case["party_kind"], RiskLevel(case["risk_level"]), case["product_codes"])


def _case(row: Any, standard: Standard) -> pb.KycCase:
    factors = [standard.factors[code] for code in row["factor_codes"]]
    return pb.KycCase(
        name=f"kycCases/{row['case_id']}",
        customer=f"customers/{row['customer_id']}",
        institution=f"institutions/{row['institution_id']}",
        trigger=row["trigger"],
        state=row["state"],
        product_codes=row["product_codes"],
        standard_version=row["standard_version"],
        risk_level=row["risk_level"],
        risk_factors=[
            pb.KycRiskFactor(code=factor.code, points=factor.points, description=factor.description) for factor in factors
        ],
        screen_time=timestamp(row["screen_time"]) if row["screen_time"] else None,
        open_time=timestamp(row["open_time"]),
        due_time=timestamp(row["due_time"]),
        decide_time=timestamp(row["decide_time"]) if row["decide_time"] else None,
        next_review_date=row["next_review_date"].isoformat() if row["next_review_date"] else "",
        etag=etags.etag(row["version"]),
    )


def _hit(row: Any) -> pb.ScreeningHit:
    return pb.ScreeningHit(
        name=f"kycCases/{row['case_id']}/hits/{row['hit_id']}",
        list_version=f"screeningLists/{row['list_id']}/versions/{row['list_version']}",
        entry_id=row["entry_id"],
        topic=Topic(row["topic"]).name,
        listed_name=row["listed_name"],
        score_percent=row["score_percent"],
        name_form=row["name_form"],
        birth_year_check=row["birth_year_check"],
        country_check=row["country_check"],
        disposition=row["disposition"],
        remembered=row["remembered"],
    )


def _standard(standard: Standard) -> pb.KycStandard:
    return pb.KycStandard(
        version=standard.version,
        steps=[
            pb.KycStandardStep(
                step_id=step.step_id,
                instruction=step.instruction,
                party_kinds=sorted(step.party_kinds),
                risk_levels=[level.name for level in sorted(step.risk_levels)],
                product_codes=sorted(step.products),
                waivable=step.waivable,
                verifies_attributes=[ProtoAttribute.ValueType(attribute) for attribute in sorted(step.verifies)],
                verification_method=VerificationMethod.ValueType(step.method),
            )
            for step in standard.steps
        ],
        risk_factors=[
            pb.KycRiskFactor(code=factor.code, points=factor.points, description=factor.description)
            for factor in standard.factors.values()
        ],
        review_periods=[
            pb.KycReviewPeriod(risk_level=int(level), months=months)  # type: ignore[arg-type]
            for level, months in standard.review_months.items()
        ],
    )
