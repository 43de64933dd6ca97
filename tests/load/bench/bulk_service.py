"""Bulk imports of the customer master in a process of its own: the service's worker with its processes, without sockets.

Told by lines of JSON which file to load. It uploads through the servicer, starts the import, and watches memory until the end.
"""

import asyncio
import cProfile
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.intake_service import Intake
from bench.processes import resident_bytes, with_children
from chassis import bus, config, migrations, server
from chassis.relay import Relay
from chassis.testing import acting_as, principal
from concord.customer.v1 import import_service_pb2 as pb
from customer.config import Settings
from customer.rpc.import_service import ImportServicer
from customer.wiring import SERVICE, build

SOURCE = "institutions/bench-bank/sourceSystems/core"
METHOD = "/concord.customer.v1.ImportService/"
PART_BYTES = 3 << 20
POLL_SECONDS = 0.2
ENDED = (pb.IMPORT_STATE_SUCCEEDED, pb.IMPORT_STATE_FAILED, pb.IMPORT_STATE_CANCELLED)

Json = dict[str, Any]


async def load(servicer: ImportServicer, path: Path) -> Json:
    """Loads a file; answers seconds, what became of the rows, and the most memory of any process."""
    caller = principal(institution="bench-bank", scopes=["record.write", "customer.read"])
    run = f"{path.name}-{time.time_ns()}"
    with acting_as(caller, METHOD + "CreateImport"):
        wanted = pb.BulkImport(format=pb.IMPORT_FORMAT_CSV, default_country_code="CN")
        made = await servicer.CreateImport(pb.CreateImportRequest(parent=SOURCE, bulk_import=wanted, request_id=run), None)
    began = time.perf_counter()
    count = 0
    with path.open("rb") as file, acting_as(caller, METHOD + "UploadImportPart"):
        while content := file.read(PART_BYTES):
            count += 1
            part = pb.UploadImportPartRequest(name=made.name, part_number=count, content=content, request_id=f"{run}-{count}")
            await servicer.UploadImportPart(part, None)
    uploaded = time.perf_counter()
    with acting_as(caller, METHOD + "StartImport"):
        await servicer.StartImport(pb.StartImportRequest(name=made.name, parts_count=count, request_id=run), None)
    peaks: dict[int, int] = {}
    with acting_as(caller, METHOD + "GetImport"):
        while (got := await servicer.GetImport(pb.GetImportRequest(name=made.name), None)).state not in ENDED:
            for pid in with_children(os.getpid()):
                peaks[pid] = resident_bytes(pid, peak=True)
            await asyncio.sleep(POLL_SECONDS)
    ended = time.perf_counter()
    return {
        "state": pb.ImportState.Name(got.state),
        "rows": got.rows_read_count,
        "created": got.created_count,
        "rejected": got.rejected_count,
        "upload_seconds": uploaded - began,
        "load_seconds": ended - uploaded,
        "peak_bytes": sorted(peaks.values(), reverse=True),
    }


async def drain(application: server.Application) -> float:
    """Relays what the load left in the outbox; answers seconds."""
    connected, stopping = await bus.connect(application.settings, "customer"), asyncio.Event()
    relay = asyncio.create_task(
        Relay("customer", application.database, application.commands.outbox_wake).run(connected, stopping)
    )
    began = time.perf_counter()
    async with application.database.connection() as connection:
        while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL)"):  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
    took = time.perf_counter() - began
    stopping.set()
    await relay
    await connected.client.close()
    return took


async def serve(settings: Settings) -> None:
    """Makes the databases' tables and loads one file a line until the input ends."""
    await migrations.migrate(SERVICE.migrations, settings.database_url)
    for further in SERVICE.further_databases:
        await migrations.migrate(further.migrations, getattr(settings, further.setting))
    application = await build(settings)
    await Intake(application).found()
    servicer = next(one for _, one in application.servicers if isinstance(one, ImportServicer))
    worker = asyncio.create_task(servicer._worker.run())
    server.spare_the_collector()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        order = json.loads(line)
        profile = cProfile.Profile() if order.get("profile") else None
        if profile:
            profile.enable()
        answer = await load(servicer, Path(order["file"]))
        if order.get("drain"):
            answer["drain_seconds"] = await drain(application)
        if profile:
            profile.disable()
            profile.dump_stats(order["profile"])
        print(json.dumps(answer), flush=True)
    worker.cancel()


if __name__ == "__main__":
    uvloop.run(serve(config.load(Settings)))
