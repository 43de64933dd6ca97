"""Settings of loyalty."""

from pydantic import Field

from chassis import config


class Settings(config.Settings):
    """What loyalty is told beside what every service is told."""

    invariants_every_seconds: float = Field(60.0, gt=0, description="seconds between two checks of the ledger, above 0")
    sweep_every_seconds: float = Field(5.0, gt=0, description="seconds between two sweeps of holds and lots, above 0")
