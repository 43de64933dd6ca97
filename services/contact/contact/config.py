"""Settings of contact."""

from chassis import config


class Settings(config.Settings):
    """What every service is told; contact needs nothing more."""
