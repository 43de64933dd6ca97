"""The real process: `python -m echo_service …`."""

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.request
import uuid
from pathlib import Path

import asyncpg
import grpc
import pytest
from echo_service import contract as pb
from echo_service.service import ADDED, SERVICE

from chassis import migrations
from chassis.identity import METADATA_KEY
from chassis.testing import principal


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(settings, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parent),
        "CONCORD_DATABASE_URL": settings.database_url,
        "CONCORD_IDENTITY_KEYS": settings.identity_keys,
        "CONCORD_IDENTITY_PRIVATE_KEY": settings.identity_private_key,
        "CONCORD_TRACE_RATIO": "1",
    } | more


async def run(settings, *arguments: str, **more: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "echo_service", *arguments, env=environment(settings, **more), stdout=-1, stderr=-1
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
async def empty_url(postgres_server):
    connection = await asyncpg.connect(postgres_server.url())
    await connection.execute("CREATE DATABASE empty")
    yield postgres_server.url("empty")
    await connection.execute("DROP DATABASE empty WITH (FORCE)")
    await connection.close()


async def test_migrations_of_many_processes_run_once(settings, empty_url):
    fresh = settings.model_copy(update={"database_url": empty_url})
    status, _, error = await run(fresh, "serve")
    assert (status, "run `migrate` first" in error) == (1, True)
    assert (await run(fresh, "migrate", "--check"))[0] == 1
    results = await asyncio.gather(*(run(fresh, "migrate") for _ in range(4)))
    assert [status for status, _, _ in results] == [0] * 4, results
    assert (await run(fresh, "migrate", "--check"))[0] == 0
    connection = await asyncpg.connect(empty_url)
    assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
    assert await connection.fetchval("SELECT epoch FROM database_epoch") == 1
    assert (await run(fresh, "migrate", "--restored"))[0] == 0
    assert await connection.fetchval("SELECT epoch FROM database_epoch") == 2
    # Tables that differ from the program's are found.
    await connection.execute("ALTER TABLE counters ADD extra text")
    assert "extra" in (await run(fresh, "migrate", "--check"))[2]
    # A database that is ahead is served: a rolling upgrade migrates first.
    await connection.execute("UPDATE alembic_version SET version_num = 'of_the_future'")
    await migrations.require_current(SERVICE.migrations, empty_url)
    await connection.close()


async def test_a_service_serves_measures_logs_and_stops(settings, nats_server, tokens):
    metrics_port = free_port()
    grpc_address = f"127.0.0.1:{free_port()}"
    variables = environment(
        settings,
        CONCORD_NATS_URL=nats_server.url(),
        CONCORD_GRPC_LISTEN=grpc_address,
        CONCORD_METRICS_LISTEN=f"127.0.0.1:{metrics_port}",
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "echo_service", "serve", env=variables, stderr=-1)
    token = tokens.sign(principal(scopes=["echo.read"]))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with grpc.aio.insecure_channel(grpc_address) as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        stub = pb.Stub(channel)
        metadata = ((METADATA_KEY, token), ("traceparent", trace))
        await stub.Add(pb.AddRequest(request_id="1", counter="c", amount=1), timeout=10, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetEcho(pb.GetEchoRequest(behaviour="crash"), timeout=10, metadata=metadata)
        assert "0af7651916cd43dd8448eb211c80319c" in str(refused.value.details())

        def scrape():
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as answer:
                return answer.read().decode()

        applied = 'events_applied_total{consumer="echo/echo"} 2.0'
        async with asyncio.timeout(20):
            while applied not in (text := await asyncio.to_thread(scrape)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # polls the metrics
        line = f'rpc_server_duration_seconds_count{{rpc_grpc_status_code="OK",rpc_method="{pb.ECHO}/Add"}} 1.0'
        assert line in text
        assert "events_published_total" in text
        # A call in hand is finished after SIGTERM.
        slow = stub.Add(pb.AddRequest(request_id="2", counter="slow", amount=1), timeout=10, metadata=metadata)
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert (await slow).total == 1
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    lines = [json.loads(line) for line in err.decode().splitlines()]
    failure = next(line for line in lines if "failure" in line or "failed, trace" in line["message"])
    assert failure["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert failure["service"] == "echo"
    assert "4111" not in err.decode()
    assert "Anna" not in err.decode()
    connection = await asyncpg.connect(settings.database_url)
    held = await connection.fetchval("SELECT count(*) FROM leases WHERE expires_at > clock_timestamp()")
    await connection.close()
    assert held == 0  # given up, so that another relay leads at once


async def test_dead_letters_republish_and_rebuild_by_command(settings):
    connection = await asyncpg.connect(settings.database_url)
    await connection.execute("INSERT INTO counters VALUES ('c', 5, 3)")
    await connection.execute(
        "INSERT INTO dead_letters SELECT gen_random_uuid(), 'echo/echo', gen_random_uuid(), $1, a, '', now(), 'ValueError', 8,"
        " now() FROM (VALUES ('c'), ('poison')) AS v (a)",
        ADDED,
    )
    status, out, _ = await run(settings, "dead-letters", "list")
    assert (status, out.count("ValueError")) == (0, 2)
    status, out, err = await run(settings, "dead-letters", "replay")
    assert (status, out.count("\treplayed"), out.count("\tfailed: ValueError")) == (1, 1, 1), err
    assert await connection.fetchval("SELECT count(*) FROM dead_letters WHERE replayed_at IS NULL") == 1
    status, out, _ = await run(settings, "republish", "--to", "rating")
    assert (status, out) == (0, "1 events will be published by the running service\n")
    assert await connection.fetchval("SELECT target FROM outbox") == "rating"
    status, _, err = await run(settings, "republish")
    assert (status, "either --to SERVICE or --since INSTANT" in err) == (1, True)
    await connection.execute("INSERT INTO copies VALUES ('c', 5, 1, 3)")
    status, out, _ = await run(settings, "rebuild")
    assert (status, "python -m echo republish --to echo --run " in out) == (0, True)
    status, _, err = await run(settings, "republish", "--since", "2026-11-23T10:00:00+00:00", "--run", str(uuid.uuid4()))
    assert (status, "--run goes with --to" in err) == (1, True)
    status, _, err = await run(settings, "rebuild", "--resume")
    assert (status, "does not pause" in err) == (1, True)
    assert await connection.fetchval("SELECT count(*) FROM copies") == 0
    await connection.close()


async def test_what_the_operator_can_mend_is_one_line(settings, postgres_server):
    away = settings.model_copy(update={"database_url": f"postgresql://x:secret@127.0.0.1:{free_port()}/x"})
    wrong = settings.model_copy(update={"database_url": postgres_server.url(user="stranger", password="secret")})
    missing = settings.model_copy(update={"database_url": postgres_server.url("nowhere")})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        results = await asyncio.gather(
            run(away, "serve"), run(wrong, "serve"), run(missing, "migrate"), run(settings, "serve", CONCORD_GRPC_LISTEN=address)
        )
    lines = [error.splitlines()[-1] for _, _, error in results]
    assert [status for status, _, _ in results] == [1] * 4
    assert all(line.startswith("echo: CONCORD_DATABASE_URL: ") for line in lines[:3]), lines
    assert lines[3].startswith(f"echo: CONCORD_GRPC_LISTEN: cannot listen on {address}")
    assert not any("secret" in error or "Traceback" in error for _, _, error in results)
