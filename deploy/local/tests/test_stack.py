"""What the platform consists of, and what each program is told."""

import json
import os
import socket
from pathlib import Path

import pytest

from concord_local import stack as stacks
from concord_local import state as states
from concord_local import system
from concord_local.stack import DATABASES, SERVICES, Stack

OURS = {variable: f"postgresql://u:p@db.example:5432/{database}" for database, variable in DATABASES.items()}


@pytest.fixture
def stack(state):
    return Stack(state, {"PATH": os.environ["PATH"]}).load()


def test_servers_then_migrations_then_services_then_the_gateway(stack):
    names = [[program.name for program in stage] for stage in stack.stages()]
    assert names[0] == ["postgres", "nats"]
    assert names[1] == [f"{service}-migrate" for service in SERVICES]
    assert names[2] == [*SERVICES, "issuer"]
    assert names[3] == ["gateway"]
    assert all(program.once for program in stack.stages()[1])


def test_a_service_is_told_its_own_database_and_where_the_others_are(stack):
    told = stack.environment("loyalty")
    assert told["CONCORD_DATABASE_URL"].startswith("postgresql://loyalty:")
    assert told["CONCORD_DATABASE_URL"].endswith("/loyalty")
    assert told["CONCORD_NATS_URL"].startswith("nats://loyalty:")
    assert told["CONCORD_GRPC_LISTEN"] == told["CONCORD_TARGET_LOYALTY"]
    targets = {told[f"CONCORD_TARGET_{service.upper()}"] for service in SERVICES}
    assert len(targets) == 5
    assert told["CONCORD_IDENTITY_PRIVATE_KEY"].endswith("keys/loyalty.json")
    secrets_of_others = [password for name, password in stack.passwords.items() if not name.endswith("-loyalty")]
    assert not any(secret in " ".join(told.values()) for secret in secrets_of_others)


def test_only_the_customer_master_is_told_of_the_key_store(stack):
    told = stack.environment("customer")
    assert told["CONCORD_CUSTOMER_KEYS_URL"].startswith("postgresql://customer_keys:")
    assert told["CONCORD_CUSTOMER_ROOT_KEY"].endswith("keys/customer-root.hex")
    assert not any(name.startswith("CONCORD_CUSTOMER_") for name in stack.environment("loyalty"))


def test_a_command_beside_the_service_listens_nowhere(stack):
    told = stack.environment("loyalty", serves=False)
    assert not {"CONCORD_GRPC_LISTEN", "CONCORD_METRICS_LISTEN"} & set(told)
    assert told["CONCORD_DATABASE_URL"] == stack.environment("loyalty")["CONCORD_DATABASE_URL"]


def test_the_gateway_is_told_of_no_database(stack):
    told = stack.environment("gateway")
    assert told["CONCORD_HTTP_LISTEN"] == "127.0.0.1:8080"
    assert "CONCORD_DATABASE_URL" not in told
    assert "CONCORD_NATS_URL" not in told
    stack.write_files()
    trusted = json.loads(stack.state.issuers.read_text())
    assert trusted[0]["issuer"] == stack.issuer_url
    assert trusted[0]["institutions"] == ["*"]


def test_the_callers_settings_are_passed_on_but_ours_win(state):
    given = {"CONCORD_LOG_LEVEL": "DEBUG", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector", "CONCORD_GRPC_LISTEN": "0.0.0.0:1"}
    told = Stack(state, {**given, "SECRET": "x", "CONCORD_STATE": "y"}).load().environment("rating")
    assert told["CONCORD_LOG_LEVEL"] == "DEBUG"
    assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector"
    assert told["CONCORD_GRPC_LISTEN"].startswith("127.0.0.1:")
    assert not {"SECRET", "CONCORD_STATE"} & set(told)


def test_external_servers_are_used_instead_of_own_ones(state):
    stack = Stack(state, {**OURS, "CONCORD_NATS_URL": "nats://n.example:4222"}).load()
    assert stack.stages()[0] == []
    told = stack.environment("contact")
    assert told["CONCORD_DATABASE_URL"] == "postgresql://u:p@db.example:5432/contact"
    assert told["CONCORD_NATS_URL"] == "nats://n.example:4222"
    assert "CONCORD_LOYALTY_DATABASE_URL" not in told


def test_some_of_the_six_databases_are_refused_with_the_missing_ones(state):
    given = {name: url for name, url in OURS.items() if "RATING" not in name}
    with pytest.raises(system.Trouble, match="set CONCORD_RATING_DATABASE_URL too"):
        Stack(state, given)


def test_a_wrong_database_address_names_its_variable_and_not_its_password(state):
    with pytest.raises(system.Trouble, match="CONCORD_RATING_DATABASE_URL is not the address") as why:
        Stack(state, {**OURS, "CONCORD_RATING_DATABASE_URL": "mysql://u:secret@h/d"})
    assert "secret" not in str(why.value)


@pytest.mark.parametrize("listen", ["8080", "localhost", "127.0.0.1:x", "127.0.0.1:70000"])
def test_a_wrong_listen_address_says_what_would_be_right(state, listen):
    with pytest.raises(system.Trouble, match=r"CONCORD_HTTP_LISTEN is .*right would be 127\.0\.0\.1:8080"):
        Stack(state, {"CONCORD_HTTP_LISTEN": listen})


def test_a_taken_port_is_refused_with_what_to_do(state):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(system.Trouble, match=f"127.0.0.1:{port} is taken: .*CONCORD_HTTP_LISTEN=127.0.0.1:{port + 1}"):
            Stack(state, {"CONCORD_HTTP_LISTEN": f"127.0.0.1:{port}"}).refuse_impossible()


def test_a_full_disk_is_refused_with_what_to_do(state, monkeypatch):
    monkeypatch.setattr(system, "free_bytes", lambda _folder: 5 << 20)
    with pytest.raises(system.Trouble, match=r"only 5 MB are free in .*CONCORD_STATE"):
        Stack(state, {"CONCORD_HTTP_LISTEN": f"127.0.0.1:{system.free_port()}"}).refuse_impossible()


def test_ports_and_passwords_stay_and_only_a_taken_port_changes(state):
    before = Stack(state, {}).load()
    with socket.create_server(("127.0.0.1", before.ports["rating-grpc"])):
        after = Stack(state, {}).load(anew=True)
    assert after.passwords == before.passwords
    assert {name for name in before.ports if before.ports[name] != after.ports[name]} == {"rating-grpc"}
    assert len(set(after.ports.values())) == len(after.ports)


def test_keys_stay_and_secrets_are_private(stack):
    stack.write_files()
    before = stack.state.identities.read_text()
    stack.write_files()
    assert stack.state.identities.read_text() == before
    kids = [key["kid"] for key in json.loads(before)["keys"]]
    assert kids == list(stacks.SIGNERS)
    assert not any("d" in key for key in json.loads(before)["keys"])
    for path in (stack.state.private_key("loyalty"), stack.state.folder / "passwords.json"):
        assert path.stat().st_mode & 0o077 == 0


def test_psql_is_given_its_password_in_the_environment(stack):
    command, environment = stack.psql("loyalty")
    assert environment["PGPASSWORD"] == stack.passwords["postgres-loyalty"]
    assert environment["PGPASSWORD"] not in " ".join(command)


def test_the_state_folder_by_variable_or_beside_the_project(tmp_path):
    assert states.directory({"CONCORD_STATE": str(tmp_path)}) == tmp_path
    chosen = states.directory({})
    assert chosen == states.project() / ".concord" or chosen.parent == Path("/var/lib/concord")


def test_a_project_below_a_private_folder_keeps_its_state_elsewhere(monkeypatch, folder):
    if os.geteuid() != 0:
        pytest.skip("only root runs PostgreSQL as another account")
    (folder / "home").mkdir(mode=0o700)
    monkeypatch.setattr(states, "project", lambda: folder / "home/concord")
    assert states.directory({}).parent == Path("/var/lib/concord")
