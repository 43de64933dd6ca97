"""The launchers: real servers, killed and started again."""

import asyncio
import os
import signal
import subprocess
import sys

import asyncpg
import nats as nats_client
import pytest
from nats.js.errors import NotFoundError

from concord_local import nats, postgres, system


@pytest.fixture
def server(folder):
    made = postgres.Postgres(folder / "pg")
    yield made
    made.stop()


async def test_committed_rows_survive_a_kill_while_a_backend_computes(server, eventually):
    server.start()
    connection = await asyncpg.connect(server.url())
    await connection.execute("create table kept (id int); insert into kept values (1)")
    busy = await asyncpg.connect(server.url())
    computing = asyncio.create_task(busy.execute("select count(*) from generate_series(1, 1e12)"))
    await asyncio.sleep(0.2)
    before = system.working_in(server.data)
    server.kill()
    assert system.working_in(server.data), "the computing backend outlives its postmaster; else this test shows nothing"
    server.start()
    assert not set(before) & set(system.working_in(server.data))
    connection = await asyncpg.connect(server.url())
    assert await connection.fetchval("select count(*) from kept") == 1
    await connection.close()
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await computing
    busy.terminate()


async def test_it_asks_for_a_password_and_tells_no_data_in_its_log(server):
    server.start()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.url(password="wrong"))
    connection = await asyncpg.connect(server.url())
    await connection.execute("create table person (phone text primary key); insert into person values ('+8613800000000')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("insert into person values ('+8613800000000')")
    await connection.close()
    log = server.log.read_text()
    assert "duplicate key" in log
    assert "13800000000" not in log


def test_two_starts_in_one_directory(server, folder):
    server.start()
    with pytest.raises(system.Trouble, match="another process runs postgres"):
        postgres.Postgres(folder / "pg").start()
    assert server.is_ready(server.pid)


def test_a_stale_pid_file_that_names_a_living_process_is_no_obstacle(server):
    server.start()
    server.stop()
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n")
    server.start()
    assert server.is_ready(server.pid)


def test_a_directory_that_the_account_cannot_enter_is_refused_in_one_line(folder):
    if os.geteuid() != 0:
        pytest.skip("only root runs PostgreSQL as another account")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(system.Trouble, match=r"cannot enter .* set CONCORD_STATE"):
        postgres.Postgres(closed / "pg").start()


def test_binaries_that_the_account_cannot_reach_are_copied(folder, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root runs PostgreSQL as another account")
    made = postgres.Postgres(folder / "pg", postgres.FAST_AND_FORGETFUL)
    works = made._works
    monkeypatch.setattr(made, "_works", lambda install: install != postgres.wheel() and works(install))
    made.start()
    try:
        assert made.install.is_relative_to(folder)
        assert made.is_ready(made.pid or 0)
    finally:
        made.stop()


def test_the_server_dies_with_the_process_that_started_it(folder, eventually):
    code = "import sys, time; from pathlib import Path; from concord_local import postgres\n"
    code += "server = postgres.Postgres(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(folder / "pg")], stdout=subprocess.PIPE, text=True) as owner:
        pid = int(owner.stdout.readline())
        assert pid in system.working_in(folder / "pg/data")
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: not system.working_in(folder / "pg/data"))


@pytest.fixture
def two_services(folder):
    made = nats.NatsServer(folder / "nats", ("customer", "loyalty"), sync_always=True)
    made.start()
    yield made
    made.stop()


async def test_a_service_publishes_its_own_subjects_only(two_services):
    refused = asyncio.Event()

    async def on_error(error):
        if "permissions violation" in str(error).lower():
            refused.set()

    client = await nats_client.connect(two_services.url("loyalty"), error_cb=on_error)
    stream = client.jetstream()
    await stream.add_stream(name="LOYALTY", subjects=["concord.loyalty.>"])
    await stream.publish("concord.loyalty.v1.points.earned", b"1")
    await client.publish("concord.customer.v1.customer.created", b"1")
    await client.flush()
    await asyncio.wait_for(refused.wait(), 5)
    await client.close()


async def test_no_service_deletes_a_stream(two_services):
    client = await nats_client.connect(two_services.url("loyalty"), error_cb=ignore)
    stream = client.jetstream(timeout=0.5)
    await stream.add_stream(name="LOYALTY", subjects=["concord.loyalty.>"])
    for destroy in (stream.delete_stream, stream.purge_stream):
        with pytest.raises(TimeoutError):  # the server refuses the subject and does not answer
            await destroy("LOYALTY")
    assert (await stream.stream_info("LOYALTY")).config.name == "LOYALTY"
    await client.close()


async def ignore(_error):
    """The client tells of refusals here; the test sees them by their effect."""


async def test_acknowledged_messages_survive_a_kill(two_services):
    client = await nats_client.connect(two_services.url("loyalty"))
    stream = client.jetstream()
    await stream.add_stream(name="LOYALTY", subjects=["concord.loyalty.>"])
    for number in range(50):
        await stream.publish("concord.loyalty.v1.points.earned", str(number).encode())
    await client.close()
    two_services.kill()
    two_services.start()
    client = await nats_client.connect(two_services.url("loyalty"))
    assert (await client.jetstream().stream_info("LOYALTY")).state.messages == 50
    await client.close()


async def test_a_temporary_server_has_jetstream_and_leaves_nothing():
    with nats.temporary() as server:
        client = await nats_client.connect(server.url())
        with pytest.raises(NotFoundError):
            await client.jetstream().stream_info("NONE")
        await client.close()
        assert server.state_dir.exists()
    assert not server.state_dir.exists()


def test_generated_passwords_are_plain_words_for_nats():
    assert all(nats.password().startswith("p") for _ in range(100))


def test_two_nats_servers_on_one_store(two_services, folder):
    with pytest.raises(system.Trouble, match="another process runs nats"):
        nats.NatsServer(folder / "nats").start()
