"""What a broken rule of a contract is told as: the field, and what would be right; never a value of the request."""

import pytest

from chassis import rules
from concord.customer.v1 import activity_pb2, customer_service_pb2, institution_service_pb2, intake_service_pb2
from concord.loyalty.v1 import program_service_pb2

SECRET = "Ünïque-secret"


@pytest.mark.parametrize(
    ("request_", "field", "right"),
    [
        (
            institution_service_pb2.CreateInstitutionRequest(institution=institution_service_pb2.Institution()),
            "institution.kind",
            "must be one of INSTITUTION_KIND_BANK, INSTITUTION_KIND_BROKER",
        ),
        (
            institution_service_pb2.CreateInstitutionRequest(institution_id=SECRET),
            "institution_id",
            "must match ^[a-z][a-z0-9-]{1,38}[a-z0-9]$",
        ),
        (institution_service_pb2.CreateInstitutionRequest(), "institution", "is required"),
        (customer_service_pb2.SearchCustomersRequest(), "", "must have exactly one of identifier, phone, email, person_name"),
        (
            intake_service_pb2.RecordActivitiesRequest(
                activities=[intake_service_pb2.SourceActivity(detail=activity_pb2.ActivityDetail())]
            ),
            "activities[0].detail",
            "must have exactly one of transaction, balance",
        ),
        (
            program_service_pb2.CreateEarnRuleVersionRequest(
                earn_rule_version=program_service_pb2.EarnRuleVersion(categories=["a", SECRET])
            ),
            "earn_rule_version.categories[1]",
            "must match ^[a-z0-9-]{1,40}$",
        ),
        (
            program_service_pb2.CreateEarnRuleVersionRequest(
                earn_rule_version=program_service_pb2.EarnRuleVersion(points_max=-1)
            ),
            "earn_rule_version.points_max",
            "must be greater than or equal to 1",
        ),
    ],
)
def test_a_broken_rule_says_what_would_be_right(request_, field, right):
    broken = dict(rules.broken(request_))
    assert broken[field].startswith(right)
    assert SECRET not in str(broken)
