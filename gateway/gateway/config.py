"""Settings of the gateway."""

from pydantic import Field

from chassis import config


class Settings(config.Settings):
    """What the gateway is told. It keeps no data, so it has no database."""

    database_url: str = Field("", description="nothing: the gateway has no database")
    http_listen: str = Field("127.0.0.1:8080", pattern=r"^.+:\d+$", description="host:port to serve HTTP on")
    gateway_issuers: str = Field(
        description="a JSON list of trusted token issuers, or the path of a file with it: see gateway/README.md"
    )
    target_customer: str = Field(description="host:port of the customer service")
    target_rating: str = Field(description="host:port of the rating service")
    target_campaign: str = Field(description="host:port of the campaign service")
    target_contact: str = Field(description="host:port of the contact service")
    target_loyalty: str = Field(description="host:port of the loyalty service")
    requests_in_flight_max: int = Field(512, ge=1, le=100_000, description="requests served at once, 1 to 100000")
    rate_requests_per_second: float = Field(1000, gt=0, le=1e6, description="requests a second of one client, above 0")
    rate_burst_requests: int = Field(2000, ge=1, le=10_000_000, description="requests of one client at once, at least 1")
    drain_seconds: float = Field(0, ge=0, le=300, description="seconds between saying not ready and taking no more, 0 to 300")

    def target(self, owner: str) -> str:
        """Where the service is that serves the proto packages `concord.<owner>.v1`."""
        return str(getattr(self, f"target_{owner}"))
