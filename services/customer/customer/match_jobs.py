"""Works off trainings and rematch runs: one at a time in the whole deployment, in a process of its own.

The service starts that process when something waits; it holds the lease of jobs, and ends with its work or with the service.
"""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from typing import Any

from chassis import leases, telemetry
from chassis.database import Database
from chassis.ids import new_id
from chassis.leases import Lease
from chassis.unit_of_work import Commands
from customer.candidates import evidence
from customer.config import Settings
from customer.core import Core
from customer.domain.blind_index import BlindIndex
from customer.domain.features import Features
from customer.domain.match_jobs import RunState
from customer.domain.match_model import Model
from customer.rematch import LeaseLost, Run
from customer.store import match_models, rematches
from customer.store.audit import AuditTrail
from customer.store.match_models import MatchModels, ModelRow
from customer.store.policies import Policies
from customer.store.records import by_ids
from customer.store.vault import Vault
from customer.store.viewers import Viewers

LEASE = "match jobs"
POLL_SECONDS = 1.0
RETRY_SECONDS = 2.0
RECORDS_AT_ONCE = 2_000
ATTEMPTS_MAX = 3
CONNECTIONS_MAX = 4
RUN_DIED = "DIED_AGAIN_AND_AGAIN"
# Not `-m`: modules must be themselves, not `__main__`.
_PROGRAM = "from customer.match_jobs import main; main()"

logger = logging.getLogger(__name__)


class MatchWorker:
    """Runs in the background of the service; `wake` is set when a job was asked for."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.wake.clear()
            async with self._database.connection() as connection:
                waiting = await rematches.waiting(connection)
            if waiting and await self._child() != 0:
                await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self.wake.wait()

    async def _child(self) -> int:
        """A process works until nothing waits; its exit status."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, stdin=subprocess.PIPE)
        assert process.stdin is not None
        try:
            # Over the pipe, because arguments and environments can be read by others. Its end is the service's end.
            process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


# ---- the process


def main() -> None:
    """Works until no job waits; its settings come in over standard input."""
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        settings = Settings.model_validate_json(stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    telemetry.setup("customer", settings)
    asyncio.run(_work(settings))


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


async def _work(settings: Settings) -> None:
    database = await Database.connect(settings.database_url, CONNECTIONS_MAX)
    vault = await Vault.connect(settings.customer_keys_url, settings.root_key)
    viewers = await Viewers.connect(database, settings.database_url, 1)
    models = MatchModels(database, settings.index_key)
    core = Core(database, viewers, BlindIndex(settings.index_key), vault, models, Policies(), AuditTrail(settings.root_key))
    lease = await leases.acquire(database, LEASE, f"{socket.gethostname()}/{os.getpid()}/{new_id()}")
    try:
        if lease is not None:
            await _hold(core, models, lease)
        else:
            await asyncio.sleep(POLL_SECONDS)  # another process works
    finally:
        for closing in (viewers, vault, database):
            await closing.close()


async def _hold(core: Core, models: MatchModels, lease: Lease) -> None:
    renewal = asyncio.create_task(_renew(core.database, lease))
    jobs = asyncio.create_task(_jobs(core, models, lease))
    try:
        await asyncio.wait({renewal, jobs}, return_when=asyncio.FIRST_COMPLETED)
        if jobs.done():
            await jobs
    finally:
        for task in (renewal, jobs):
            task.cancel()
        await asyncio.gather(renewal, jobs, return_exceptions=True)
        await leases.release(core.database, lease)


async def _renew(database: Database, lease: Lease) -> None:
    """Ends when somebody else took the lease."""
    while True:
        async with database.connection() as connection:
            if not await leases.renew(connection, lease):
                return
        await asyncio.sleep(leases.RENEW_SECONDS)


async def _jobs(core: Core, models: MatchModels, lease: Lease) -> None:
    commands = Commands(core.database)
    while True:
        await models.refresh()
        async with core.database.connection() as connection:
            training = await match_models.take_training(connection)
            row = None if training else await rematches.take(connection)
        if training is not None:
            await _train(core, models, training)
        elif row is not None:
            if row.attempts_count > ATTEMPTS_MAX:
                async with commands.unit() as unit:
                    await rematches.finished(unit.connection, row.rematch_id, RunState.FAILED, RUN_DIED, unit.now)
                continue
            async with core.database.connection() as connection:
                model = await models.load(connection, row.model_version)
            with contextlib.suppress(LeaseLost):
                await Run(core, commands, model, row, lease).work()
        else:
            return


# ---- trainings


async def _train(core: Core, models: MatchModels, row: ModelRow) -> None:
    """Trains on the platform's own records. A training that was killed begins anew."""
    if row.attempts_count > ATTEMPTS_MAX:
        async with core.database.connection() as connection:
            await match_models.failed(connection, row.version, RUN_DIED)
        return
    try:
        from customer.training.train import Options, TrainingError, train  # offline only: it brings Splink and DuckDB
    except ImportError:
        async with core.database.connection() as connection:
            await match_models.failed(connection, row.version, "TRAINING_NOT_INSTALLED")
        return
    features = await _features(core, row)
    options = Options(
        version=str(row.version),
        false_links_share_max=row.false_links_share_max,
        key=models.key,
        trained_from="records of the platform",
        random_pairs=min(1_000_000, max(100_000, 10 * len(features))),
    )
    loop = asyncio.get_running_loop()

    def progressed(share: float) -> None:
        asyncio.run_coroutine_threadsafe(_progress(core.database, row.version, 30 + int(69 * share)), loop)

    try:
        model: Model = await asyncio.to_thread(train, features, options, progressed)
    except TrainingError as error:
        logger.warning("match model %s was not trained: %s", row.version, error)
        async with core.database.connection() as connection:
            await match_models.failed(connection, row.version, "TOO_FEW_RECORDS")
        return
    async with core.database.connection() as connection:
        await match_models.trained(connection, row.version, model.to_json())


async def _features(core: Core, row: ModelRow) -> list[Features]:
    features: list[Features] = []
    async with core.database.connection() as connection:
        ids = await match_models.sample(connection, row.records_count_max)
        for start in range(0, len(ids), RECORDS_AT_ONCE):
            members: Any = await by_ids(connection, core.vault, ids[start : start + RECORDS_AT_ONCE], None)
            features += [evidence(member.party, member.source_system) for member in members]
            await match_models.progressed(connection, row.version, 30 * (start + len(members)) // max(len(ids), 1))
    return features


async def _progress(database: Database, version: int, percent: int) -> None:
    async with database.connection() as connection:
        await match_models.progressed(connection, version, percent)
