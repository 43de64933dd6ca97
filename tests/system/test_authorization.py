"""Who may call what: a matrix made from the contracts, so that a new RPC without a row fails here.

Every RPC: no token 401, a kind that is not admitted 403, a scope that is missing 403, another institution's object 404, and its
own is not refused.
"""

import asyncio
import base64
import itertools
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import httpx
import pytest
from alliance import found, record
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from running import Platform

from concord.options.v1 import method_options_pb2 as options
from concord_local import tokens
from concord_local.api import Gateway, patiently
from concord_local.stack import AUDIENCE

pytestmark = pytest.mark.system
Json = dict[str, Any]

KINDS = ("channel", "partner", "staff", "operator")
CONSENT = {"purposeCode": "MATRIX", "attributes": ["ATTRIBUTE_PHONE"], "evidenceReference": "matrix"}
DECIDE_WHAT_WAS_SEEN = {"KycService.DecideKycCase", "SurvivorshipService.ActivatePolicy"}  # they need an ETag
EARN_RULE: Json = {"kind": "EARN_RULE_KIND_BASE", "points": "amount / 100", "caps": {"activityPointsMax": "10"}}
TIER_SCHEME: Json = {
    "basis": "TIER_BASIS_POINTS",
    "window": "TIER_WINDOW_CALENDAR_YEAR",
    "tiers": [{"tierId": "gold", "displayName": "Gold", "threshold": "1000", "keepThreshold": "800"}],
}
LIMIT: Json = {
    "scope": "LIMIT_SCOPE_MEMBER",
    "window": "LIMIT_WINDOW_DAY",
    "operations": ["LIMITED_OPERATION_TRANSFER"],
    "operationsMax": "5",
}
REWARD: Json = {"displayName": "r", "pricePoints": "1", "voucherDays": 1}
CHECKED = {options.OBJECT_CHECK_INSTITUTION, options.OBJECT_CHECK_CUSTOMER_LINK}


@dataclass(frozen=True)
class Method:
    """An RPC as the contracts describe it."""

    name: str
    verb: str
    template: str
    access: options.Access


def methods() -> list[Method]:
    content = (resources.files("concord") / "descriptors.binpb").read_bytes()
    found_methods = []
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        for service, method in ((s, m) for s in file.service for m in s.method):
            rule = method.options.Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern")
            found_methods.append(
                Method(
                    f"{service.name}.{method.name}",
                    verb.upper(),
                    getattr(rule, verb),
                    method.options.Extensions[options.access],
                )
            )
    return found_methods


METHODS = methods()


def related(now: str) -> Json:
    """A relationship between two records of the world."""
    return {
        "sourceRelationshipKey": "r-1",
        "observeTime": now,
        "kind": "RELATIONSHIP_KIND_PARENT",
        "fromSourceRecordKey": "c-2",
        "toSourceRecordKey": "c-3",
    }


@dataclass
class World:
    """Objects of one bank, by which the other's reach is tried."""

    platform: Platform
    gateway: Gateway
    bank: str
    shop: str
    stranger: str
    customer: str
    account: str
    campaign: str
    operation: str
    message: str
    program: str
    other: str = "x"
    other_record: str = "x"
    rejection: str = "x"
    review_item: str = "x"
    relationship: str = "x"
    third: str = "x"
    consent: str = "x"
    restriction: str = "x"
    bulk_import: str = "x"
    kyc_case: str = "x"
    kyc_hit: str = "x"
    listed: str = "x"
    listed_record: str = "x"
    agreement: str = "x"
    rate: str = "x"
    quote: str = "x"
    earn_rule: str = "x"
    tier_scheme: str = "x"
    limit: str = "x"
    reward: str = "x"
    voucher: str = "x"
    adjustment: str = "x"
    earning: str = "x"
    hold: str = "x"
    settlement: str = "x"
    item_sequence: int = 1
    dispute: str = "x"
    reconciliation: str = "x"
    client: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)  # one: making it takes longer than a request

    def token(self, kind: str, institution: str | None, *scopes: str, subject: str = "matrix") -> str:
        """A token of any shape."""
        stack = self.platform.stack
        key = tokens.signing_key(stack.state.private_key("issuer"))
        caller = tokens.Caller(kind, "matrix", subject, institution, tuple(scopes))
        return tokens.access_token(key, stack.issuer_url, AUDIENCE, caller)

    async def call(self, method: Method, token: str | None, path: str, body: Json | None) -> httpx.Response:
        """One request, without retries."""
        headers = {"Idempotency-Key": uuid.uuid4().hex} if method.verb != "GET" else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if method.name in DECIDE_WHAT_WAS_SEEN:
            headers["If-Match"] = '"x"'
        address = f"{self.gateway.url}{path}"
        return await self.client.request(method.verb, address, headers=headers, json=body if method.verb != "GET" else None)

    def request(self, method: Method) -> tuple[str, Json | None]:
        """A request that names this bank's objects. A method with an object check and no row here is a failure."""
        institution, now = f"institutions/{self.bank}", "2026-01-01T00:00:00Z"
        source = f"{institution}/sourceSystems/core"
        person = record("matrix", now)["sourceRecord"]
        money = {"currencyCode": "CZK", "minorUnits": "-100"}
        activity = {
            "sourceSystem": source,
            "sourceActivityKey": uuid.uuid4().hex,
            "sourceRecordKey": "c-1",
            "detail": {"occurredAt": now, "transaction": {"amount": money}},
        }
        holding = {
            "sourceHoldingKey": "h",
            "observeTime": now,
            "kind": "HOLDING_KIND_DEPOSIT",
            "openDate": "2026-01-01",
            "holders": [{"sourceRecordKey": "c-1", "role": "HOLDER_ROLE_OWNER"}],
        }
        rule = {
            "currencyCode": "CZK",
            "direction": "EARN_DIRECTION_SPENT",
            "pointsNumerator": "1",
            "pointsDenominator": "100",
            "pointsMax": "10",
            "effectiveTime": now,
        }
        permission = {
            "customer": self.customer,
            "channel": "CHANNEL_SMS",
            "purpose": "CONTACT_PURPOSE_SALES",
            "state": "PERMISSION_STATE_DENIED",
            "stateTime": now,
        }
        draft = {"displayName": "m", "offer": f"{institution}/offers/first", "channel": "CHANNEL_INBOX"}
        offer = {"displayName": "o", "title": "t", "body": "b"}
        contact = {
            "direction": "CONTACT_DIRECTION_INBOUND",
            "channel": "CHANNEL_PHONE",
            "purpose": "CONTACT_PURPOSE_SERVICE",
            "contactTime": now,
        }
        touch = f"{self.campaign}/waves/1/touches/{uuid.uuid4()}"
        reserve = {
            "channel": "CHANNEL_INBOX",
            "purpose": "CONTACT_PURPOSE_MARKETING",
            "contactMessage": {"title": "t", "body": "b"},
            "items": [{"touch": touch, "customer": self.customer}],
        }
        redeem = {"program": f"programs/{self.program}", "amountPoints": "1", "institution": f"institutions/{self.shop}"}
        cap = {"contactCaps": [{"contactsMax": 9, "windowHours": 24}]}
        program = {"institution": institution, "displayName": "p"}
        agreed = {
            "priceNumerator": "3",
            "priceDenominator": "4",
            "netDebitCapMinorUnits": "1000",
            "cutOffTime": "23:00",
            "timeZone": "UTC",
        }
        agreement = {
            "issuer": institution,
            "partner": f"institutions/{self.shop}",
            "basis": "AGREEMENT_BASIS_AT_REDEMPTION",
            "currencyCode": "CZK",
            "funding": "AGREEMENT_FUNDING_CREDIT",
            "terms": agreed,
        }
        points = f"programs/{self.program}"
        rate = {"fromProgram": points, "toProgram": f"{points}-b", "numerator": "1", "denominator": "2"}
        quote = {"institution": institution, "targetProgram": points, "amountPoints": "1"}
        new_id = f"m-{uuid.uuid4().hex[:8]}"
        why = {"reasonCode": "MATRIX"}
        rows: dict[str, tuple[str, Json | None]] = {
            "InstitutionService.CreateSourceSystem": (
                f"{institution}/sourceSystems?source_system_id={new_id}",
                {"displayName": "s", "defaultRank": 9},
            ),
            "InstitutionService.GetSourceSystem": (source, None),
            "InstitutionService.ListSourceSystems": (f"{institution}/sourceSystems", None),
            "InstitutionService.UpdateSourceSystem": (f"{source}?update_mask=displayName", {"displayName": "core"}),
            "IntakeService.IngestRecord": (f"{source}/records:ingest", {"sourceRecord": person}),
            "IntakeService.BatchIngestRecords": (f"{source}/records:batchIngest", {"sourceRecords": [person]}),
            "IntakeService.LookupRecords": (f"{source}/records:lookup", {"sourceRecordKeys": ["c-1"]}),
            "IntakeService.BatchUpsertHoldings": (f"{source}/holdings:batchUpsert", {"sourceHoldings": [holding]}),
            "IntakeService.RecordActivities": ("activities:record", {"activities": [activity]}),
            "ImportService.CreateImport": (f"{source}/imports", {"format": "IMPORT_FORMAT_CSV"}),
            "ImportService.UploadImportPart": (f"{self.bulk_import}:uploadPart", {"partNumber": 1, "content": "Ym8="}),
            "ImportService.StartImport": (f"{self.bulk_import}:start", {"partsCount": 1}),
            "ImportService.GetImport": (self.bulk_import, None),
            "ImportService.ListImports": (f"{source}/imports", None),
            "ImportService.CancelImport": (f"{self.bulk_import}:cancel", {}),
            "ImportService.ListImportRejections": (f"{self.bulk_import}/rejections", None),
            "ImportService.DownloadImportRejections": (f"{self.bulk_import}/rejections:download", None),
            "CustomerService.GetCustomer": (self.customer, None),
            "CustomerService.ListHoldings": (f"{self.customer}/holdings", None),
            "RecordService.ListRecords": (f"{self.customer}/records", None),
            "RecordService.GetRecord": (self.other_record, None),
            "RecordService.ListRecordStates": (f"{self.other_record}/states", None),
            "RecordService.ListLinkHistory": (f"{self.customer}/linkHistory", None),
            "RelationshipService.BatchUpsertRelationships": (
                f"{source}/relationships:batchUpsert",
                {"sourceRelationships": [related(now)]},
            ),
            "RelationshipService.ListRelationships": (f"{self.customer}/relationships", None),
            "RelationshipService.ConfirmRelationship": (f"{self.relationship}:confirm", {}),
            "RelationshipService.RejectRelationship": (f"{self.relationship}:reject", {}),
            "RelationshipService.InferHousehold": (f"{self.customer}:inferHousehold", {"institution": institution}),
            "StaffService.CreateDepartment": (
                f"{institution}/departments",
                {"departmentId": new_id, "department": {"displayName": "d"}},
            ),
            "StaffService.ListDepartments": (f"{institution}/departments", None),
            "StaffService.PutStaffMember": (
                f"{institution}/staff/ann",
                {"department": f"{institution}/departments/retail", "active": True},
            ),
            "StaffService.ListStaffMembers": (f"{institution}/staff", None),
            "StaffService.BatchAssignCustomers": (
                f"{institution}/staff/ann/assignments:batchAssign",
                {"customers": [self.customer], "role": "ASSIGNMENT_ROLE_PRIMARY"},
            ),
            "StaffService.BatchUnassignCustomers": (
                f"{institution}/staff/ann/assignments:batchUnassign",
                {"customers": [self.customer]},
            ),
            "StaffService.TransferPortfolio": (
                f"{institution}/staff/ann/assignments:transfer",
                {"toStaffMember": f"{institution}/staff/bob"},
            ),
            "StaffService.ListPortfolio": (f"{institution}/staff/ann/assignments", None),
            "StaffService.ListAssignments": (f"{self.customer}/assignments", None),
            "LinkService.MergeCustomers": ("customers:merge", {"customers": [self.customer, self.other], **why}),
            "LinkService.UnmergeCustomer": (f"{self.other}:unmerge", why),
            "LinkService.RelinkRecord": (f"{self.other_record}:relink", {"customer": self.customer, **why}),
            "LinkService.RejectMatch": ("matchRejections:reject", {"left": self.customer, "right": self.other, **why}),
            "LinkService.WithdrawMatchRejection": (f"{self.rejection}:withdraw", {}),
            "LinkService.ListMatchRejections": (f"{self.customer}/matchRejections", None),
            "LinkService.ListMerges": (f"{self.customer}/merges", None),
            "KycService.OpenKycCase": (f"{self.customer}/kycCases", {}),
            "KycService.GetKycCase": (self.kyc_case, None),
            "KycService.RecordKycEvidence": (
                f"{self.kyc_case}:recordEvidence",
                {"stepId": "purpose", "evidence": {"result": "KYC_STEP_RESULT_PASSED"}},
            ),
            "KycService.ScreenKycCase": (f"{self.kyc_case}:screen", {}),
            "KycService.DisposeScreeningHit": (
                f"{self.kyc_hit}:dispose",
                {"disposition": "HIT_DISPOSITION_FALSE_POSITIVE", "reason": "matrix"},
            ),
            "KycService.SubmitKycCase": (f"{self.kyc_case}:submit", {}),
            "KycService.DecideKycCase": (f"{self.kyc_case}:decide", {"approve": False, "reason": "matrix"}),
            "KycService.CancelKycCase": (f"{self.kyc_case}:cancel", {}),
            "SurvivorshipService.PinValue": (
                f"{self.listed}:pinValue",
                {"attribute": "ATTRIBUTE_NAME", "record": self.listed_record, "reason": "matrix"},
            ),
            "SurvivorshipService.UnpinValue": (
                f"{self.listed}:unpinValue",
                {"attribute": "ATTRIBUTE_NAME", "reason": "matrix"},
            ),
            "SurvivorshipService.ListPins": (f"{self.listed}/pins", None),
            "QualityService.GetQuality": (f"{self.listed}/quality", None),
            "SharingConsentService.GrantSharingConsent": (f"{self.customer}/sharingConsents", CONSENT),
            "SharingConsentService.RevokeSharingConsent": (f"{self.consent}:revoke", why),
            "SharingConsentService.ListSharingConsents": (f"{self.customer}/sharingConsents", None),
            "PrivacyService.RevealCustomer": (f"{self.customer}:reveal", {"reasonText": "matrix", **why}),
            "PrivacyService.ExportCustomer": (f"{self.customer}:export", why),
            "PrivacyService.EraseCustomer": (f"{self.customer}:erase", {"legalBasisCode": "DATA_SUBJECT_REQUEST"}),
            "PrivacyService.RestrictCustomer": (f"{self.third}:restrict", why),
            "PrivacyService.LiftRestriction": (f"{self.restriction}:lift", why),
            "PrivacyService.ListRestrictions": (f"{self.third}/restrictions", None),
            "ReviewService.GetReviewItem": (self.review_item, None),
            "ReviewService.ClaimReviewItem": (f"{self.review_item}:claim", {}),
            "ReviewService.ReleaseReviewItem": (f"{self.review_item}:release", {"claimNumber": "9"}),
            "ReviewService.DecideReviewItem": (
                f"{self.review_item}:decide",
                {"claimNumber": "9", "decision": "REVIEW_DECISION_ACKNOWLEDGE", **why},
            ),
            "ReviewService.UndoDecision": (f"{self.review_item}:undo", why),
            "RatingService.GetRating": (f"{self.customer}/ratings/alliance", None),
            "RatingService.ListRatings": (f"{self.customer}/ratings", None),
            "RatingService.ListRatingHistory": (f"{self.customer}/ratings/alliance/history", None),
            "RatingService.ExplainRating": (f"{self.customer}/ratings/alliance:explain", None),
            "CampaignService.CreateCampaign": (f"{institution}/campaigns", draft),
            "CampaignService.GetCampaign": (self.campaign, None),
            "CampaignService.ListCampaigns": (f"{institution}/campaigns", None),
            "CampaignService.UpdateCampaign": (f"{self.campaign}?update_mask=displayName", {"displayName": "n"}),
            "CampaignService.PreviewAudience": (f"{self.campaign}:previewAudience", None),
            "CampaignService.LaunchCampaign": (f"{self.campaign}:launch", {}),
            "CampaignService.GetCampaignMetrics": (f"{self.campaign}:metrics", None),
            "CampaignService.ListTouches": (f"{self.campaign}/waves/1/touches", None),
            "OfferService.CreateOffer": (f"{institution}/offers?offer_id={new_id}", offer),
            "OfferService.GetOffer": (f"{institution}/offers/first", None),
            "OfferService.ListOffers": (f"{institution}/offers", None),
            "ContactService.RecordContact": (f"{self.customer}/contacts:record", contact),
            "ContactService.ListContacts": (f"{self.customer}/contacts", None),
            "ContactService.ListInboxMessages": (f"{self.customer}/inboxMessages", None),
            "ContactService.ReadInboxMessage": (f"{self.message}:read", {}),
            "PermissionService.BatchSetPermissions": (f"{institution}/permissions:batchSet", {"permissions": [permission]}),
            "PermissionService.ListPermissions": (f"{self.customer}/permissions", None),
            "ContactPolicyService.CreateContactPolicyVersion": (f"contactPolicies/{self.bank}/versions", cap),
            "ContactPolicyService.ListContactPolicyVersions": (f"contactPolicies/{self.bank}/versions", None),
            "ReservationService.ReserveContacts": (f"{institution}/reservations:reserve", reserve),
            "ProgramService.CreateProgram": (f"programs?program_id={new_id}", program),
            "ProgramService.UpdateProgram": (f"{points}?update_mask=displayName", {"displayName": "p"}),
            "ProgramService.CreateExpiryPolicyVersion": (f"{points}/expiryPolicyVersions", {"kind": "EXPIRY_KIND_NEVER"}),
            "ExchangeService.CreateAgreement": ("agreements", agreement),
            "ExchangeService.GetAgreement": (self.agreement, None),
            "ExchangeService.GetAgreementExposure": (f"{self.agreement}/exposure", None),
            "ExchangeService.ListAgreementVersions": (f"{self.agreement}/versions", None),
            "ExchangeService.AmendAgreement": (f"{self.agreement}:amend", {"terms": agreed}),
            "ExchangeService.SubmitAgreement": (f"{self.agreement}:submit", {}),
            "ExchangeService.ApproveAgreement": (f"{self.agreement}:approve", {"institution": institution}),
            "ExchangeService.SuspendAgreement": (f"{self.agreement}:suspend", {}),
            "ExchangeService.ResumeAgreement": (f"{self.agreement}:resume", {}),
            "ExchangeService.EndAgreement": (f"{self.agreement}:end", {}),
            "ExchangeService.AddAgreementPack": (f"{self.agreement}/packs", {"minorUnits": "1"}),
            "ExchangeService.ListAgreementPacks": (f"{self.agreement}/packs", None),
            "ExchangeService.CreateRate": ("rates", rate),
            "ExchangeService.ApproveRate": (f"{self.rate}:approve", {}),
            "ExchangeService.WithdrawRate": (f"{self.rate}:withdraw", {}),
            "ExchangeService.CreateQuote": (f"{self.account}:quote", quote),
            "ExchangeService.GetQuote": (self.quote, None),
            "EarnRuleService.DraftEarnRule": (f"programs/{self.program}/earnRules/{new_id}:draft", EARN_RULE),
            "EarnRuleService.ApproveEarnRule": (f"{self.earn_rule}:approve", {}),
            "EarnRuleService.WithdrawEarnRule": (f"{self.earn_rule}:withdraw", {}),
            "EarnRuleService.EndEarnRule": (f"{self.earn_rule}:end", {}),
            "EarnRuleService.GetEarnRule": (self.earn_rule, None),
            "EarnRuleService.ListEarnRules": (f"programs/{self.program}/earnRules", None),
            "EarnRuleService.SimulateEarnRules": (f"programs/{self.program}/earnRules:simulate", {"activities": [{}]}),
            "TierService.DraftTierScheme": (f"programs/{self.program}/tierSchemes:draft", TIER_SCHEME),
            "TierService.ApproveTierScheme": (f"{self.tier_scheme}:approve", {}),
            "TierService.GetTierScheme": (self.tier_scheme, None),
            "TierService.ListTierSchemes": (f"programs/{self.program}/tierSchemes", None),
            "TierService.ListAccountTiers": (f"{self.account}/tiers", None),
            "LimitService.CreateLimit": ("limits", LIMIT | {"program": f"programs/{self.program}"}),
            "LimitService.ApproveLimit": (f"{self.limit}:approve", {}),
            "LimitService.EndLimit": (f"{self.limit}:end", {}),
            "LimitService.GetLimit": (self.limit, None),
            "RewardService.CreateReward": (
                "rewards",
                REWARD | {"institution": institution, "priceProgram": f"programs/{self.program}"},
            ),
            "RewardService.UpdateReward": (f"{self.reward}?update_mask=displayName", {"displayName": "r"}),
            "RewardService.ChangeRewardStock": (f"{self.reward}:changeStock", {"change": "1"}),
            "RewardService.GetReward": (self.reward, None),
            "RewardService.RedeemReward": (f"{self.account}:redeemReward", {"reward": self.reward}),
            "RewardService.CancelVoucher": (f"{self.voucher}:cancel", {}),
            "RewardService.GetVoucher": (self.voucher, None),
            "RewardService.ListVouchers": (f"{self.account}/vouchers", None),
            **self.settling(),
            "ProgramService.CreateEarnRuleVersion": (f"programs/{self.program}/earnRules/{new_id}/versions", rule),
            "ProgramService.ListEarnRuleVersions": (f"programs/{self.program}/earnRules/-/versions", None),
            "AccountService.OpenAccount": ("accounts:open", {"customer": self.customer}),
            "AccountService.GetAccount": (self.account, None),
            "AccountService.GetCustomerAccount": (f"{self.customer}/account", None),
            "AccountService.LinkInstitution": (f"{self.account}/links", {"institution": institution}),
            "AccountService.UnlinkInstitution": (f"{self.account}/links/{self.bank}:unlink", {}),
            "AccountService.FreezeAccount": (f"{self.account}:freeze", why),
            "AccountService.UnfreezeAccount": (f"{self.account}:unfreeze", why),
            "AccountService.CloseAccount": (f"{self.account}:close", {}),
            "AdjustmentService.CreateAdjustment": (
                f"{self.account}/adjustments",
                {"program": points, "changePoints": "1", **why},
            ),
            "AdjustmentService.GetAdjustment": (self.adjustment, None),
            "AdjustmentService.ListAdjustments": (f"{institution}/adjustments", None),
            "AdjustmentService.ApproveAdjustment": (f"{self.adjustment}:approve", {}),
            "AdjustmentService.RejectAdjustment": (f"{self.adjustment}:reject", {}),
            "PoolService.CreatePool": (f"{self.account}/pools", {}),
            "PoolService.GetPool": (f"{self.account}/pool", None),
            "PoolService.InviteToPool": (f"{self.account}:inviteToPool", {"member": self.account}),
            "PoolService.JoinPool": (f"{self.account}:joinPool", {"pool": f"pools/{uuid.UUID(int=0)}"}),
            "PoolService.LeavePool": (f"{self.account}:leavePool", {}),
            "AccountService.ListLots": (f"{self.account}/lots", None),
            "AccountService.ListStatementLines": (f"{self.account}/statement", None),
            "AccountService.SummarizeStatement": (f"{self.account}/statement:summarize", None),
            "AccountService.DownloadStatement": (f"{self.account}/statement:download", None),
            "LedgerService.RedeemPoints": (f"{self.account}:redeem", redeem),
            "LedgerService.GetOperation": (self.operation, None),
            "LedgerService.ListOperations": (f"{self.account}/operations", None),
            "LedgerService.EarnPoints": (f"{self.account}:earn", redeem | {"institution": institution}),
            "LedgerService.ConfirmEarning": (f"{self.earning}:confirm", {}),
            "LedgerService.CancelEarning": (f"{self.earning}:cancel", {}),
            "LedgerService.ClawBackEarning": (f"{self.earning}:clawback", {"amountPoints": "1"}),
            "LedgerService.ReverseOperation": (f"{self.earning}:reverse", {}),
            "LedgerService.HoldPoints": (f"{self.account}:hold", redeem),
            "LedgerService.GetHold": (self.hold, None),
            "LedgerService.CaptureHold": (f"{self.hold}:capture", {"amountUnits": "1"}),
            "LedgerService.VoidHold": (f"{self.hold}:void", {}),
            "LedgerService.RefundOperation": (f"{self.operation}:refund", {"amountUnits": "1"}),
            "LedgerService.TransferPoints": (
                f"{self.account}:transfer",
                {"toAccount": self.account, "program": redeem["program"], "amountPoints": "1"},
            ),
            "LedgerService.ExchangePoints": (
                f"{self.account}:exchange",
                {"program": redeem["program"], "amountPoints": "1", "toProgram": f"programs/{self.program}-b"},
            ),
        }
        path, body = rows[method.name]
        return f"/v1/{path}", body

    def settling(self) -> dict[str, tuple[str, Json | None]]:
        """The rows of settlement and liability."""
        institution, disputed = f"institutions/{self.bank}", {"sequence": str(self.item_sequence), "reasonCode": "MATRIX"}
        part = {"partNumber": 1, "content": base64.b64encode(b"operation,points,amount\n").decode()}
        return {
            "SettlementService.ListSettlements": (f"{institution}/settlements", None),
            "SettlementService.GetSettlement": (self.settlement, None),
            "SettlementService.ConfirmSettlement": (f"{self.settlement}:confirm", {}),
            "SettlementService.AcknowledgePayment": (f"{self.settlement}:acknowledgePayment", {"payer": institution}),
            "SettlementService.ListSettlementItems": (f"{self.settlement}/items", None),
            "SettlementService.GetSettlementFile": (f"{self.settlement}/file", None),
            "SettlementService.DownloadSettlementFile": (f"{self.settlement}/file:download", None),
            "ReconciliationService.CreateReconciliation": (f"{self.settlement}/reconciliations", {}),
            "ReconciliationService.UploadReconciliationPart": (f"{self.reconciliation}:uploadPart", part),
            "ReconciliationService.CompareReconciliation": (f"{self.reconciliation}:compare", {"partsCount": 1}),
            "ReconciliationService.GetReconciliation": (self.reconciliation, None),
            "ReconciliationService.ListReconciliationRows": (f"{self.reconciliation}/rows", None),
            "ReconciliationService.DownloadReconciliationRows": (f"{self.reconciliation}/rows:download", None),
            "DisputeService.OpenDispute": (f"{self.settlement}/disputes", {"dispute": disputed}),
            "DisputeService.GetDispute": (self.dispute, None),
            "DisputeService.ListDisputes": (f"{institution}/disputes", None),
            "DisputeService.ProposeDisputeResolution": (f"{self.dispute}:propose", {"resolutionCode": "MATRIX"}),
            "DisputeService.ResolveDispute": (f"{self.dispute}:resolve", {"approve": True}),
            "DisputeService.WithdrawDispute": (f"{self.dispute}:withdraw", {}),
            "LiabilityService.ReportLiabilities": (f"{institution}/liabilities", None),
            "LiabilityService.ReportRevenue": (f"{institution}/reports/revenue?program=programs/{self.program}", None),
            "LiabilityService.ReportPoints": (f"{institution}/reports/points", None),
            "LiabilityService.DownloadPointsReport": (f"{institution}/reports/points:download", None),
        }


@pytest.fixture(scope="module")
async def world(platform: Platform) -> AsyncIterator[World]:
    mark = uuid.uuid4().hex[:8]
    bank, shop, program, stranger = f"bank-{mark}", f"shop-{mark}", f"points-{mark}", f"other-{mark}"
    async with platform.gateway() as gateway:
        await found(gateway, bank, shop, program)
        body: Json = {"displayName": "o", "kind": "INSTITUTION_KIND_BANK", "timeZone": "UTC", "countryCode": "CZ"}
        await gateway.post("/v1/institutions", gateway.token("operator"), body, institution_id=stranger)
        channel, staff = gateway.token("channel", bank), gateway.token("staff", bank)
        source = f"institutions/{bank}/sourceSystems/core"
        ingested = await gateway.post(f"/v1/{source}/records:ingest", channel, record("c-1", "2026-01-01T00:00:00Z"))
        customer = ingested["customer"]
        body = {"customer": customer, "institutions": [f"institutions/{bank}"]}
        account = (await patiently(lambda: gateway.post("/v1/accounts:open", channel, body)))["name"]
        spent = {
            "sourceSystem": source,
            "sourceActivityKey": "a-1",
            "sourceRecordKey": "c-1",
            "detail": {
                "occurredAt": "2026-07-01T10:00:00Z",
                "transaction": {"amount": {"currencyCode": "CZK", "minorUnits": "-99900"}, "category": "grocery"},
            },
        }
        await gateway.post("/v1/activities:record", channel, {"activities": [spent]})
        permission = {
            "customer": customer,
            "channel": "CHANNEL_INBOX",
            "purpose": "CONTACT_PURPOSE_MARKETING",
            "state": "PERMISSION_STATE_GRANTED",
            "stateTime": "2026-01-01T00:00:00Z",
        }
        await gateway.post(f"/v1/institutions/{bank}/permissions:batchSet", channel, {"permissions": [permission]})
        offer = {"displayName": "o", "title": "t", "body": "b"}
        await gateway.post(f"/v1/institutions/{bank}/offers", staff, offer, offer_id="first")
        await platform.until_settled()
        draft = {"displayName": "c", "offer": f"institutions/{bank}/offers/first", "channel": "CHANNEL_INBOX"}
        campaign = (await gateway.post(f"/v1/institutions/{bank}/campaigns", staff, draft))["name"]
        await gateway.post(f"/v1/{campaign}:launch", staff, {})
        redeem = {"program": f"programs/{program}", "amountPoints": "5", "institution": f"institutions/{shop}"}
        operation = (await gateway.post(f"/v1/{account}:redeem", channel, redeem))["name"]
        await platform.until_settled()
        inbox = await patiently(lambda: gateway.get(f"/v1/{customer}/inboxMessages", channel))
        message = inbox["inboxMessages"][0]["name"]
        wrong = {"scheme": "IDENTIFIER_SCHEME_NATIONAL_ID", "countryCode": "CZ", "value": "701213/0016"}
        doubtful = [record(f"c-{n}", "2026-01-01T00:00:00Z", birthDate=f"19{n}0-01-01", identifiers=[wrong]) for n in (2, 3)]
        other, third = [await gateway.post(f"/v1/{source}/records:ingest", channel, one) for one in doubtful]
        body = {"left": customer, "right": third["customer"], "reasonCode": "MATRIX"}
        rejection = (await gateway.post("/v1/matchRejections:reject", staff, body))["name"]
        review_item = (await gateway.get("/v1/reviewItems", staff))["reviewItems"][0]["name"]
        body = {"sourceRelationships": [related("2026-01-01T00:00:00Z")]}
        stated = await gateway.post(f"/v1/{source}/relationships:batchUpsert", staff, body)
        relationship = stated["results"][0]["relationship"]
        body = {"departmentId": "retail", "department": {"displayName": "Retail"}}
        await gateway.post(f"/v1/institutions/{bank}/departments", staff, body)
        for one in ("ann", "bob"):
            body = {"department": f"institutions/{bank}/departments/retail", "active": True}
            await gateway.put(f"/v1/institutions/{bank}/staff/{one}", staff, body)
        # What a contract needs is not erased: with an open holding the customer stays for the other rows.
        held = {"sourceHoldingKey": "open", "observeTime": "2026-01-01T00:00:00Z", "kind": "HOLDING_KIND_DEPOSIT"}
        held |= {"openDate": "2026-01-01", "holders": [{"sourceRecordKey": "c-1", "role": "HOLDER_ROLE_OWNER"}]}  # type: ignore[dict-item]
        await gateway.post(f"/v1/{source}/holdings:batchUpsert", channel, {"sourceHoldings": [held]})
        consent = (await gateway.post(f"/v1/{customer}/sharingConsents", staff, CONSENT))["name"]
        body = {"reasonCode": "MATRIX"}
        restriction = (await gateway.post(f"/v1/{third['customer']}:restrict", staff, body))["name"]
        body = {"format": "IMPORT_FORMAT_CSV"}
        bulk_import = (await gateway.post(f"/v1/{source}/imports", channel, body))["name"]
        kyc = await screened(gateway, bank, mark)
        made = World(
            platform, gateway, bank, shop, stranger, customer, account, campaign, operation, message, program,
            other["customer"], other["record"], rejection, review_item, relationship, third["customer"],
            consent, restriction, bulk_import, *kyc,
        )  # fmt: skip
        made.agreement, made.rate, made.quote = await exchanging(made)
        made.earning, made.hold = await holding(made)
        path, asked = made.request(next(one for one in METHODS if one.name == "AdjustmentService.CreateAdjustment"))
        made.adjustment = (await gateway.post(path, staff, asked or {}))["name"]
        made.settlement, made.item_sequence, made.dispute, made.reconciliation = await settled(made, mark)
        made.earn_rule, made.tier_scheme, made.limit, made.reward, made.voucher = await rewarding(made)
        yield made
        await made.client.aclose()


async def holding(world: World) -> tuple[str, str]:
    """Points that the customer earned, and points that are held for the shop."""
    channel = world.gateway.token("channel", world.bank)
    asked = {"program": f"programs/{world.program}", "amountPoints": "9", "institution": f"institutions/{world.bank}"}
    earning = (await world.gateway.post(f"/v1/{world.account}:earn", channel, asked))["name"]
    asked |= {"amountPoints": "3", "institution": f"institutions/{world.shop}"}
    return earning, (await world.gateway.post(f"/v1/{world.account}:hold", channel, asked))["name"]


async def exchanging(world: World) -> tuple[str, str, str]:
    """An agreement of the bank, drafted; a published rate between two programmes of its own; a quote of its customer."""
    staff = world.gateway.token("staff", world.bank)
    body = {"institution": f"institutions/{world.bank}", "displayName": "b"}
    await world.gateway.post("/v1/programs", staff, body, program_id=f"{world.program}-b")
    names = []
    for method in ("CreateAgreement", "CreateRate"):
        path, asked = world.request(next(one for one in METHODS if one.name == f"ExchangeService.{method}"))
        names.append((await world.gateway.post(path, staff, asked or {}))["name"])
    await world.gateway.post(f"/v1/{names[1]}:approve", world.token("staff", world.bank, "points.admin"), {})
    quote_id, account_id = uuid.uuid4(), world.account.split("/")[1]
    # By hand, so that it is there whatever points the customer has.
    world.platform.run(
        "psql", "loyalty", "-c", "INSERT INTO quotes (quote_id, account_id, institution_id, target_program_id, amount_units,"
        f" lines, reference, create_time, expire_time) VALUES ('{quote_id}', '{account_id}', '{world.bank}', '{world.program}',"
        " 1, '[]', '', now(), now())",
    )  # fmt: skip
    return names[0], names[1], f"quotes/{quote_id}"


async def settled(world: World, mark: str) -> tuple[str, int, str, str]:
    """A closed settlement of the bank with a partner: two items, one of them disputed by the partner; a reconciliation."""
    gateway, partner = world.gateway, f"cafe-{mark}"
    operator, staff, channel = gateway.token("operator"), gateway.token("staff", world.bank), gateway.token("channel", world.bank)
    body: Json = {"displayName": "c", "kind": "INSTITUTION_KIND_RETAILER", "timeZone": "UTC", "countryCode": "CZ"}
    await gateway.post("/v1/institutions", operator, body, institution_id=partner)
    await world.platform.until_settled()
    _, agreed = world.request(next(one for one in METHODS if one.name == "ExchangeService.CreateAgreement"))
    body = {**(agreed or {}), "partner": f"institutions/{partner}", "currencyCode": "XTS"}
    agreement = (await gateway.post("/v1/agreements", staff, body))["name"]
    await gateway.post(f"/v1/{agreement}:submit", staff, {})
    for side in (world.bank, partner):
        await gateway.post(f"/v1/{agreement}:approve", world.token("staff", side, "points.admin", subject=f"eve-{side}"), {})
    for _ in range(2):
        body = {"program": f"programs/{world.program}", "amountPoints": "4", "institution": f"institutions/{partner}"}
        await gateway.post(f"/v1/{world.account}:redeem", channel, body)
    opened: list[Json] = []
    while not opened:
        await asyncio.sleep(0.2)
        listed = await gateway.get("/v1/institutions/-/settlements?currency_code=XTS&state=SETTLEMENT_STATE_OPEN", operator)
        opened = listed.get("settlements", [])
    closed = (await gateway.post(f"/v1/{opened[0]['name']}:close", operator, {}))["name"]
    name, theirs = (closed.replace("/-/", f"/{side}/") for side in (world.bank, partner))
    items = (await gateway.get(f"/v1/{name}/items", staff))["settlementItems"]
    disputed = {"dispute": {"sequence": items[0]["sequence"], "reasonCode": "MATRIX"}}
    dispute = (await gateway.post(f"/v1/{theirs}/disputes", gateway.token("staff", partner), disputed))["name"]
    reconciliation = (await gateway.post(f"/v1/{name}/reconciliations", staff, {}))["name"]
    return name, int(items[1]["sequence"]), dispute.replace(partner, world.bank), reconciliation


async def rewarding(world: World) -> tuple[str, ...]:
    """An earn rule, tiers and a limit of the bank, drafted; a reward of its, on sale; a voucher of its customer."""
    staff, channel = world.gateway.token("staff", world.bank), world.gateway.token("channel", world.bank)
    names = []
    for method in (
        "EarnRuleService.DraftEarnRule", "TierService.DraftTierScheme", "LimitService.CreateLimit", "RewardService.CreateReward",
    ):  # fmt: skip
        path, asked = world.request(next(one for one in METHODS if one.name == method))
        names.append((await world.gateway.post(path, staff, asked or {}))["name"])
    on_sale = await world.call(
        Method("", "PATCH", "", options.Access()), staff, f"/v1/{names[3]}?update_mask=state", {"state": "REWARD_STATE_ACTIVE"}
    )
    assert on_sale.status_code == 200, on_sale.text
    bought = await world.gateway.post(f"/v1/{world.account}:redeemReward", channel, {"reward": names[3]})
    return *names, bought["voucher"]["name"]


async def screened(gateway: Gateway, bank: str, mark: str) -> tuple[str, str, str, str]:
    """A KYC case of the bank, with a hit; whose it is, and the record."""
    operator, staff = gateway.token("operator"), gateway.token("staff", bank)
    name = f"Listed {mark}"
    versions = f"/v1/screeningLists/matrix-{mark}/versions"
    await gateway.post(versions, operator, {"version": "1", "topic": "SCREENING_TOPIC_ADVERSE"})
    await gateway.post(f"{versions}/1:addEntries", operator, {"entries": [{"entryId": "1", "names": [name]}]})
    await gateway.post(f"{versions}/1:activate", operator, {})
    source = f"/v1/institutions/{bank}/sourceSystems/core/records:ingest"
    person = record("c-listed", "2026-01-01T00:00:00Z", partyName={"fullName": name})
    listed = await gateway.post(source, gateway.token("channel", bank), person)
    customer = listed["customer"]
    case = (await gateway.post(f"/v1/{customer}/kycCases", staff, {}))["name"]
    hits = (await gateway.post(f"/v1/{case}:screen", staff, {}))["hits"]
    return case, hits[0]["name"], customer, listed["record"]


def test_every_method_with_an_object_check_has_a_row() -> None:
    world = World(*itertools.repeat(None, 3), *itertools.repeat("x", 8))  # type: ignore[arg-type]
    for method in METHODS:
        if method.access.object_check in CHECKED:
            world.request(method)


def any_path(method: Method, world: World) -> tuple[str, Json | None]:
    """The row of a method, or its template where it names nobody's object."""
    try:
        return world.request(method)
    except KeyError:
        return method.template.replace("=", "/").split("{")[0] if "{" not in method.template else _sample(method.template), {}


def _sample(template: str) -> str:
    """A path of a template whose variables name nobody's object."""
    samples = {
        "institutions/*": "institutions/some-bank",
        "programs/*": "programs/some-points",
        "scorecards/*": "scorecards/standard",
        "rates/*": f"rates/{uuid.uuid4()}",
    }
    path = template.replace("{name=", "").replace("{parent=", "").replace("}", "").replace("versions/*", "versions/1")
    for pattern, sample in samples.items():
        path = path.replace(pattern, sample)
    return path


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_without_a_token_or_with_a_wrong_one_nobody_comes_in(world: World, method: Method) -> None:
    path, body = any_path(method, world)
    assert (await world.call(method, None, path, body)).status_code == 401
    assert (await world.call(method, "not.a.token", path, body)).status_code == 401
    admitted = {options.PrincipalKind.Name(kind).removeprefix("PRINCIPAL_KIND_").lower() for kind in method.access.kinds}
    for kind in KINDS:
        institution = None if kind == "operator" else world.bank
        scopes = tuple(method.access.scopes) if kind not in admitted else ("nothing.at-all",)
        answer = await world.call(method, world.token(kind, institution, *scopes), path, body)
        assert answer.status_code == 403, (kind, scopes, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "method",
    [m for m in METHODS if m.access.object_check in CHECKED],
    ids=lambda m: m.name,
)
async def test_another_institutions_object_is_not_there(world: World, method: Method) -> None:
    path, body = world.request(method)
    kinds = [options.PrincipalKind.Name(kind).removeprefix("PRINCIPAL_KIND_").lower() for kind in method.access.kinds]
    for kind in kinds:
        if kind in ("channel", "staff"):
            theirs = await world.call(method, world.token(kind, world.stranger, *method.access.scopes), path, body)
            assert theirs.status_code == 404, (kind, theirs.text)
            assert world.bank not in theirs.json().get("title", "")
    for kind in kinds:
        if kind in ("channel", "staff", "operator"):
            institution = None if kind == "operator" else world.bank
            ours = await world.call(method, world.token(kind, institution, *method.access.scopes), path, body)
            assert ours.status_code in (200, 409), (kind, ours.text)  # 409: a campaign that is launched already


async def test_a_token_bound_to_one_customer_reaches_no_other(world: World, platform: Platform) -> None:
    channel = world.gateway.token("channel", world.bank)
    source = f"/v1/institutions/{world.bank}/sourceSystems/core/records:ingest"
    other = (await world.gateway.post(source, channel, record(uuid.uuid4().hex, "2026-01-01T00:00:00Z")))["customer"]
    await platform.until_settled()
    bound = world.gateway.token("channel", world.bank, world.customer.removeprefix("customers/"))
    get = Method("", "GET", "", options.Access())
    for path in ("", "/holdings", "/ratings/alliance", "/contacts", "/inboxMessages", "/permissions"):
        mine = await world.call(get, bound, f"/v1/{world.customer}{path}", None)
        assert mine.status_code == 200, (path, mine.text)
        theirs = await world.call(get, bound, f"/v1/{other}{path}", None)
        assert theirs.status_code == 404, (path, theirs.text)
