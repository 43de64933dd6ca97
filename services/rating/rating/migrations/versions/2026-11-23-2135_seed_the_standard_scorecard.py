"""Seed the standard scorecard: version 1, active."""

import json

import sqlalchemy as sa
from alembic import op

revision = "202611232135"
down_revision = "202611232134"
branch_labels = None
depends_on = None

# Starting values by judgement, not calibrated on any bank's data; contribution in fen. Change them by writing version 2.
CONTENT = {
    "loyalty": {
        "tenure_weight": 0.4,
        "tenure_years_scale": 3.0,
        "products_weight": 0.3,
        "products_max": 5,
        "steadiness_weight": 0.3,
    },
    "contribution": {"points": [[-100_000, 0], [0, 10], [100_000, 30], [500_000, 60], [2_000_000, 90], [10_000_000, 100]]},
    "credit": {"points": [[0, 100], [1_000, 95], [10_000, 80], [50_000, 50], [200_000, 15], [1_000_000, 0]]},
    "completeness_weights": [
        ["ATTRIBUTE_NAME", 2],
        ["ATTRIBUTE_IDENTIFIER", 2],
        ["ATTRIBUTE_BIRTH_DATE", 1.5],
        ["ATTRIBUTE_PHONE", 1.5],
        ["ATTRIBUTE_EMAIL", 1],
        ["ATTRIBUTE_ADDRESS", 1],
        ["ATTRIBUTE_LANGUAGE", 0.5],
        ["ATTRIBUTE_OCCUPATION", 0.5],
    ],
    "freshness_half_life_days": 730,
    "level_thresholds": [  # platinum, gold, silver over loyalty (1), contribution (3) and credit (4)
        {"level": 4, "minimums": [[1, 70], [3, 75], [4, 60]]},
        {"level": 3, "minimums": [[1, 50], [3, 50]]},
        {"level": 2, "minimums": [[1, 30]]},
    ],
    "reference_currency_code": "CNY",
}


def upgrade() -> None:
    """Writes the version and makes it the one that rates."""
    statement = sa.text(
        "WITH written AS (INSERT INTO scorecard_versions (scorecard_id, version, content, created_at)"
        " VALUES ('standard', 1, CAST(:content AS jsonb), now()))"
        " INSERT INTO active_scorecard (singleton, scorecard_id, version, activated_at) VALUES (1, 'standard', 1, now())"
    )
    op.get_bind().execute(statement, {"content": json.dumps(CONTENT)})
