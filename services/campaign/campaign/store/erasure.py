"""Forgets persons who are erased."""

import uuid
from collections.abc import Collection

from campaign.domain.touch import SETTLED_CONTACT_STATES
from chassis.database import Connection

ERASED = "ERASED"
"""Why a touch was refused that had a slot when its customer was erased."""


async def erase(connection: Connection, record_ids: Collection[uuid.UUID], customer_ids: Collection[uuid.UUID]) -> None:
    """Deletes what is known of records and customers; touches and balances stay as numbers, nobody's.

    Lock the records' links before.
    """
    records, customers = list(record_ids), list(customer_ids)
    await connection.execute("DELETE FROM permissions WHERE record_id = ANY($1::uuid[])", records)
    await connection.execute(_FORGET_TOUCHES, records, ERASED, list(SETTLED_CONTACT_STATES))
    for table in ("profiles", "profile_ratings", "loyalty_accounts"):
        await connection.execute(f"DELETE FROM {table} WHERE customer_id = ANY($1::uuid[])", customers)
    # A wave that came as far as a customer who is gone stands just before, which is the same place.
    await connection.execute(
        "UPDATE waves SET cursor_customer_id = place.before FROM unnest($1::uuid[], $2::uuid[]) AS place (customer_id, before)"
        " WHERE cursor_customer_id = place.customer_id",
        customers, [uuid.UUID(int=customer_id.int - 1) for customer_id in customers],
    )  # fmt: skip


# Contact deletes its slot and says no more of it: a campaign must not wait for that touch.
_FORGET_TOUCHES = """
WITH last AS (
    SELECT t.campaign_id, t.wave, t.touch_id, s.state FROM touches t LEFT JOIN contact_states s USING (touch_id)
    WHERE t.record_id = ANY($1::uuid[])
), forgotten AS (
    DELETE FROM contact_states USING last WHERE contact_states.touch_id = last.touch_id
)
UPDATE touches t SET record_id = NULL, next_free_time = NULL, last_contact_state = last.state,
    refused_reason = CASE WHEN last.state = ANY($3::text[]) THEN t.refused_reason ELSE coalesce(t.refused_reason, $2) END
FROM last WHERE (t.campaign_id, t.wave, t.touch_id) = (last.campaign_id, last.wave, last.touch_id)
"""
