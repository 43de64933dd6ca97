"""Typed settings from `CONCORD_…` environment variables."""

import sys
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "CONCORD_"
EXIT_STATUS_BAD_SETTINGS = 2
S = TypeVar("S", bound="Settings")


class Settings(BaseSettings):
    """What every service is told. A service adds fields in a subclass; a field's description says what would be right."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    database_url: str = Field(pattern=r"^postgres(ql)?://", description="postgresql://user:password@host:port/database")
    database_connections_max: int = Field(10, ge=2, le=200, description="connections of this process, 2 to 200")
    nats_url: str = Field("nats://127.0.0.1:4222", description="nats://user:password@host:port, several divided by commas")
    nats_replicas: int = Field(1, ge=1, le=5, description="copies of each stream: 1 on one machine, 3 on a cluster")
    stream_bytes_max: int = Field(1 << 30, ge=1 << 20, description="bytes a stream may hold, at least 1048576")
    grpc_listen: str = Field("127.0.0.1:0", pattern=r"^.+:\d+$", description="host:port to serve gRPC on")
    metrics_listen: str | None = Field(None, pattern=r"^.+:\d+$", description="host:port to serve Prometheus metrics on")
    identity_keys: str = Field(description="JSON Web Key Set of the issuers' public keys, or the path of a file with it")
    identity_private_key: str | None = Field(
        None, description="JSON Web Key (Ed25519) of this service, or the path of a file with it"
    )
    drain_seconds: float = Field(0, ge=0, le=60, description="seconds between not-serving and stopping, 5 on Kubernetes")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR")
    trace_ratio: float = Field(0.05, ge=0, le=1, description="share of traces begun here that are kept, 0 to 1")
    target_customer: str | None = Field(None, description="host:port of the customer service")
    target_rating: str | None = Field(None, description="host:port of the rating service")
    target_campaign: str | None = Field(None, description="host:port of the campaign service")
    target_contact: str | None = Field(None, description="host:port of the contact service")
    target_loyalty: str | None = Field(None, description="host:port of the loyalty service")


def load(settings_class: type[S]) -> S:
    """The settings from the environment; a wrong one ends the process with a line that names the variable."""
    try:
        return settings_class()
    except ValidationError as error:
        for problem in error.errors():
            field = str(problem["loc"][0])
            wrong = "is missing" if problem["type"] == "missing" else f"is wrong: {problem['msg']}"
            right = settings_class.model_fields[field].description or "see the service's README"
            sys.stderr.write(f"{PREFIX}{field.upper()} {wrong}. Set it to {right}.\n")
        raise SystemExit(EXIT_STATUS_BAD_SETTINGS) from None


def text_or_file(value: str) -> str:
    """A secret given as JSON text, or as the path of a file that holds it."""
    return value if value.lstrip().startswith("{") else Path(value).read_text(encoding="utf-8")
