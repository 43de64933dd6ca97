"""Settings of loyalty."""

from pydantic import Field

from chassis import config


class Settings(config.Settings):
    """What loyalty is told beside what every service is told."""

    invariants_every_seconds: float = Field(60.0, gt=0, description="seconds between two checks of the ledger, above 0")
    expiry_notice_days: tuple[int, ...] = Field(
        (30, 7), description="how many days before their end members' points are told of, as a JSON array"
    )
    sweep_every_seconds: float = Field(5.0, gt=0, description="seconds between two sweeps of holds and lots, above 0")
