"""Settings of rating."""

from pydantic import Field

from chassis import config


class Settings(config.Settings):
    """Settings of rating."""

    rerate_delay_ms: int = Field(
        1000,
        ge=0,
        le=600_000,
        description="milliseconds for which a customer's new facts are gathered before it is rated again, 0 to 600000",
    )
    rerate_paused: bool = Field(False, description="true or false; true keeps folding facts but rates nobody")
