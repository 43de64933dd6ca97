"""`concord up` with real servers and dummy services: what runs, what is restarted, and that nothing is left behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap

import asyncpg
import pytest

from concord_local import nats, postgres, system
from concord_local.stack import DATABASES, SERVICES, Stack

# `python -m customer` in a program's run folder finds these first.
SERVICE = """
    import os, sys
    from concurrent.futures import ThreadPoolExecutor
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    if sys.argv[1] == "rebuild":
        again = "republish --to rating --run 7-a"
        print(f"emptied. Now run: python -m customer {again}; python -m loyalty {again}")
    if sys.argv[1] != "serve":
        print(*sys.argv[1:], "of", os.environ["CONCORD_DATABASE_URL"].rpartition("/")[2])
        sys.exit(0)
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(os.environ["CONCORD_GRPC_LISTEN"])
    server.start()
    server.wait_for_termination()
"""
GATEWAY = """
    import http.server, os
    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()
    host, port = os.environ["CONCORD_HTTP_LISTEN"].split(":")
    http.server.HTTPServer((host, int(port)), Ready).serve_forever()
"""


@pytest.fixture
def concord(state):
    """Runs the command on a state folder whose services are dummies; what runs is stopped at the end."""
    dummies = {"gateway": ("gateway", GATEWAY)}
    for service in SERVICES:
        dummies[service] = dummies[f"{service}-migrate"] = (service, SERVICE)
    for program, (module, code) in dummies.items():
        package = state.run_folder(program) / module
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(textwrap.dedent(code))
    told = {**os.environ, "CONCORD_STATE": str(state.folder), "CONCORD_HTTP_LISTEN": f"127.0.0.1:{system.free_port()}"}

    def run(*arguments, wait=True, **more):
        command = [sys.executable, "-m", "concord_local", *arguments]
        if not wait:
            return subprocess.Popen(command, env={**told, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return subprocess.run(command, env={**told, **more}, capture_output=True, text=True, check=False)

    yield run
    run("down")


def pids(state):
    return {row["name"]: row["pid"] for row in state.status()["programs"] if row["pid"]}


def test_up_status_and_down(concord, state, left):
    started = concord("up", "--detach")
    assert started.returncode == 0, started.stdout + started.stderr
    assert "Concord is ready" in started.stdout
    status = concord("status", COLUMNS="200")
    assert status.returncode == 0, status.stdout
    assert all(name in status.stdout for name in ("postgres", "nats", *SERVICES, "issuer", "gateway"))
    again = concord("up")
    assert "runs already" in again.stdout
    assert again.returncode == 0
    query = concord("psql", "loyalty", "-Atc", "select current_user || '@' || current_database()")
    assert query.stdout.strip() == "loyalty@loyalty"
    assert concord("logs", "postgres").stdout
    assert concord("down").returncode == 0
    assert not left()
    assert concord("status").returncode == 3
    assert concord("up", "--detach").returncode == 0, "and a second time, on the same data"


def test_a_rebuild_asks_the_owners_to_publish_again(concord, state):
    for service in ("rating", "customer", "loyalty"):  # commands run in the state folder
        (state.folder / service).symlink_to(state.run_folder(service) / service)
    rebuilt = concord("rebuild", "rating")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "republish --to rating --run 7-a of customer" in rebuilt.stdout
    assert "republish --to rating --run 7-a of loyalty" in rebuilt.stdout
    assert concord("dead-letters", "loyalty").stdout.strip() == "dead-letters list of loyalty"
    assert concord("dead-letters", "loyalty", "replay", "7").stdout.strip() == "dead-letters replay 7 of loyalty"


def test_no_role_may_enter_anothers_database(concord, state):
    assert concord("up", "-d").returncode == 0
    stack = Stack(state, {}).load()
    password = stack.passwords["postgres-rating"]

    async def enter():
        await asyncpg.connect(stack.postgres.url("loyalty", "rating", password))

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        asyncio.run(enter())


def test_whatever_is_killed_comes_back(concord, state, eventually):
    assert concord("up", "-d").returncode == 0
    killed = pids(state)
    victims = ("rating", "postgres", "nats", "gateway", "issuer")
    for name in victims:
        os.kill(killed[name], signal.SIGKILL)

    def back():
        rows = {row["name"]: row for row in state.status()["programs"]}
        return all(rows[name]["state"] == "ready" and rows[name]["pid"] not in (None, killed[name]) for name in victims)

    eventually(back)
    assert concord("status").returncode == 0
    assert all(row["restarts"] == (row["name"] in victims) for row in state.status()["programs"])


def test_a_killed_supervisor_takes_all_along_and_the_next_start_works(concord, state, left, eventually):
    assert concord("up", "-d").returncode == 0
    os.kill(state.status()["pid"], signal.SIGKILL)
    eventually(lambda: not left())
    assert concord("status").returncode == 3
    assert concord("up", "-d").returncode == 0
    assert concord("status").returncode == 0


def test_two_starts_at_once_are_one(concord, state):
    both = [concord("up", "-d", wait=False) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 0], said
    assert sum("Concord is ready" in text for text in said) == 1
    assert sum("runs already" in text for text in said) == 1
    assert len(set(pids(state).values())) == len(pids(state)) == 9


def test_ctrl_c_in_the_foreground_stops_everything(concord, state, left):
    with concord("up", wait=False) as process:
        assert any("Ctrl-C" in line for line in process.stdout)
        assert left()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not left()


def test_a_killed_foreground_command_stops_everything(concord, left, eventually):
    with concord("up", wait=False) as process:
        assert any("Ctrl-C" in line for line in process.stdout)
        process.kill()
    eventually(lambda: not left(), 30)


def test_a_failing_migration_is_named_and_nothing_stays(concord, state, left):
    code = "import sys; print('the table is wrong'); sys.exit(1)"
    (state.run_folder("contact-migrate") / "contact/__main__.py").write_text(code)
    failed = concord("up", "-d")
    assert failed.returncode == 1
    assert "contact-migrate ended with 1 before it was ready: the table is wrong" in failed.stderr
    assert not left()


def test_a_taken_port_is_one_line(concord):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = concord("up", "-d", CONCORD_HTTP_LISTEN=listen)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"Error: {listen} is taken")
    assert len(failed.stderr.strip().splitlines()) == 1


def test_servers_that_are_there_already_are_used(concord, state):
    with postgres.temporary() as database, nats.temporary() as bus:
        theirs = {variable: database.url("postgres") for variable in DATABASES.values()}
        theirs["CONCORD_NATS_URL"] = bus.url()
        started = concord("up", "-d", **theirs)
        assert started.returncode == 0, started.stderr
        assert set(pids(state)) == {*SERVICES, "issuer", "gateway"}
        query = concord("psql", "loyalty", "-Atc", "select current_user", **theirs)
        assert query.stdout.strip() == "postgres"
        assert concord("down").returncode == 0
        assert database.is_ready(database.pid or 0), "they go on when Concord stops"
    assert not (state.folder / "postgres").exists()
