"""Campaigns: their states, and what a draft must be."""

from dataclasses import dataclass
from enum import StrEnum

from campaign.domain import audience
from campaign.domain.audience import Rule, Violation
from campaign.domain.texts import is_plain

CONNECTED_CHANNELS = ("INBOX",)


class CampaignState(StrEnum):
    """Where a campaign stands."""

    DRAFT = "DRAFT"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"


class WaveState(StrEnum):
    """Where a wave stands."""

    PLANNING = "PLANNING"
    PLANNED = "PLANNED"


@dataclass(frozen=True, slots=True)
class Draft:
    """What can be written in a campaign until it is launched. `channel` is a code such as `INBOX`."""

    display_name: str
    offer: str
    channel: str
    rule: Rule


def offer_prefix(institution_id: str) -> str:
    """How the names of an institution's offers begin."""
    return f"institutions/{institution_id}/offers/"


def violations(draft: Draft, institution_id: str) -> list[Violation]:
    """What is wrong with a draft of this institution."""
    found: list[Violation] = []
    if not draft.display_name.strip() or not is_plain(draft.display_name):
        found.append(("display_name", "must be a name of one line"))
    if not draft.offer.removeprefix(offer_prefix(institution_id)) or not draft.offer.startswith(offer_prefix(institution_id)):
        found.append(("offer", f"must be an offer of the campaign's institution: {offer_prefix(institution_id)}{{offer}}"))
    if draft.channel not in CONNECTED_CHANNELS:
        connected = " or ".join(f"CHANNEL_{channel}" for channel in CONNECTED_CHANNELS)
        found.append(("channel", f"must be a connected channel: {connected}"))
    found += [(f"audience_rule.{path}", text) for path, text in audience.violations(draft.rule, institution_id)]
    return found
