"""Settings of campaign."""

from pydantic import Field

from chassis import config


class Settings(config.Settings):
    """What campaign is told, from `CONCORD_…` variables. `target_contact` is needed to serve."""

    wave_page_customers_max: int = Field(1000, ge=1, le=2000, description="customers examined in one step of a wave, 1 to 2000")
