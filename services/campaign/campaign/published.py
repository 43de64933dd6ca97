"""The events that campaign publishes."""

import uuid
from datetime import datetime

from chassis.outbox import Event
from concord.campaign.v1.campaign_events_pb2 import CampaignLaunched, TouchPlanned
from concord.common.v1.channel_pb2 import Channel

TOUCH_PLANNED = "concord.campaign.v1.touch.planned"
CAMPAIGN_LAUNCHED = "concord.campaign.v1.campaign.launched"


def campaign_launched(campaign_id: uuid.UUID, institution_id: str, launch_time: datetime) -> Event:
    """A campaign was launched: a fact, with the campaign's id."""
    return Event(
        CAMPAIGN_LAUNCHED,
        aggregate_id=str(campaign_id),
        event_id=campaign_id,
        occurred_at=launch_time,
        message=CampaignLaunched(
            campaign_id=str(campaign_id), institution_id=institution_id, launch_time_seconds=int(launch_time.timestamp())
        ),
    )


def touch_planned(
    touch_id: uuid.UUID,
    campaign_id: uuid.UUID,
    wave: int,
    institution_id: str,
    record_id: uuid.UUID,
    customer_id: uuid.UUID | None,
    channel: str,
    create_time: datetime,
) -> Event:
    """A touch holds a slot: a fact, with the touch's id."""
    return Event(
        TOUCH_PLANNED,
        aggregate_id=str(touch_id),
        event_id=touch_id,
        occurred_at=create_time,
        message=TouchPlanned(
            touch_id=str(touch_id),
            campaign_id=str(campaign_id),
            wave=wave,
            institution_id=institution_id,
            record_id=str(record_id),
            customer_id=str(customer_id or ""),
            channel=Channel.Value(f"CHANNEL_{channel}"),
        ),
    )
