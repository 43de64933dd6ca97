"""Match models: trained, approved by a second person, in force from an instant on."""

import asyncio
import hashlib
import hmac
import logging
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from chassis import clock
from chassis.database import Connection, Database
from customer.domain.match_jobs import ModelState
from customer.domain.match_model import Model, default_model

REFRESH_SECONDS = 2.0
ATTEMPTS_MAX = 3
SHIPPED = 0
"""The version that stands for the model of the package."""
_TERMS = b"concord customer match terms"

logger = logging.getLogger(__name__)


class ModelRow(NamedTuple):
    """A model as it is kept."""

    version: int
    state: int
    content: str | None
    false_links_share_max: float
    records_count_max: int
    progress_percent: int
    attempts_count: int
    error_reason: str
    created_by: str
    approved_by: str | None
    create_time: datetime
    effective_time: datetime | None


def terms_key(index_key: bytes) -> bytes:
    """The platform's key of term frequencies."""
    return hmac.digest(index_key, _TERMS, hashlib.sha256)


class MatchModels:
    """The model in force, remembered. One for each process; `run` keeps it fresh."""

    def __init__(self, database: Database, index_key: bytes) -> None:
        self._database = database
        self.key = terms_key(index_key)
        self._version = SHIPPED
        self._model = default_model()

    def current(self) -> Model:
        """The model to decide with."""
        return self._model

    @property
    def version(self) -> int:
        """Which one that is."""
        return self._version

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Looks for another model in force."""
        async with self._database.connection() as connection:
            version = await in_force(connection, clock.now())
            if version != self._version:
                self._model = await self.load(connection, version)
                self._version = version
                logger.info("match model %s is in force", self._model.version)

    async def load(self, connection: Connection, version: int) -> Model:
        """A trained model, ready to score.

        Raises:
            LookupError: when there is none of this version.
        """
        if version == SHIPPED:
            return default_model()
        row = await get(connection, version)
        if row is None or row.content is None:
            raise LookupError(f"there is no trained match model {version}")
        return Model.from_json(row.content, self.key)


async def in_force(connection: Connection, now: datetime) -> int:
    """The version in force; the shipped one when none was ever activated."""
    version: int | None = await connection.fetchval(
        "SELECT version FROM match_models WHERE effective_time <= $1 ORDER BY effective_time DESC, version DESC LIMIT 1", now
    )
    return SHIPPED if version is None else version


async def insert(connection: Connection, share_max: float, records_max: int, created_by: str, now: datetime) -> int:
    """Keeps a new model, in training until it has its content; returns its version."""
    version: int = await connection.fetchval(
        "INSERT INTO match_models (state, false_links_share_max, records_count_max, progress_percent, attempts_count,"
        " error_reason, created_by, create_time) VALUES ($1, $2, $3, 0, 0, '', $4, $5) RETURNING version",
        ModelState.TRAINING, share_max, records_max, created_by, now,
    )  # fmt: skip
    return version


async def get(connection: Connection, version: int, *, lock: bool = False) -> ModelRow | None:
    """A model."""
    row = await connection.fetchrow(f"{_SELECT} WHERE version = $1" + (" FOR UPDATE" if lock else ""), version)
    return ModelRow(*row) if row else None


async def page(connection: Connection, before: int | None, limit: int) -> list[ModelRow]:
    """Models, newest first."""
    rows = await connection.fetch(
        f"{_SELECT} WHERE $1::int IS NULL OR version < $1 ORDER BY version DESC LIMIT $2", before, limit
    )
    return [ModelRow(*row) for row in rows]


async def trained(connection: Connection, version: int, content: str) -> None:
    """A model has its content; one that another process trained meanwhile keeps the other's."""
    await connection.execute(
        "UPDATE match_models SET state = $2, content = $3, progress_percent = 100 WHERE version = $1 AND state = $4",
        version, ModelState.TRAINED, content, ModelState.TRAINING,
    )  # fmt: skip


async def failed(connection: Connection, version: int, reason: str) -> None:
    """A training came to nothing."""
    await connection.execute(
        "UPDATE match_models SET state = $2, error_reason = $3 WHERE version = $1 AND state = $4",
        version, ModelState.FAILED, reason, ModelState.TRAINING,
    )  # fmt: skip


async def progressed(connection: Connection, version: int, percent: int) -> None:
    """A training goes on. What is told late is no step back, and changes nothing of a training that is over."""
    await connection.execute(
        "UPDATE match_models SET progress_percent = greatest(progress_percent, $2) WHERE version = $1 AND state = $3",
        version, percent, ModelState.TRAINING,
    )  # fmt: skip


async def activate(connection: Connection, version: int, approved_by: str, effective_time: datetime) -> None:
    """A model is in force from an instant on."""
    await connection.execute(
        "UPDATE match_models SET approved_by = $2, effective_time = $3 WHERE version = $1", version, approved_by, effective_time
    )


async def take_training(connection: Connection) -> ModelRow | None:
    """The next training to do, counted as attempted; None for none. The caller holds the lease of jobs."""
    row = await connection.fetchrow(
        "UPDATE match_models SET attempts_count = attempts_count + 1, progress_percent = 0"
        " WHERE version = (SELECT min(version) FROM match_models WHERE state = 1) RETURNING " + _COLUMNS
    )
    return ModelRow(*row) if row else None


async def sample(connection: Connection, records_max: int) -> list[UUID]:
    """Ids of records to train on, evenly drawn."""
    rows = await connection.fetch(
        "SELECT record_id FROM records ORDER BY hashtextextended(record_id::text, 0) LIMIT $1", records_max
    )
    return [row[0] for row in rows]


_COLUMNS = (
    "version, state, content, false_links_share_max, records_count_max, progress_percent, attempts_count, error_reason,"
    " created_by, approved_by, create_time, effective_time"
)
_SELECT = f"SELECT {_COLUMNS} FROM match_models"
