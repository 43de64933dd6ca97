"""Checks for `make check` that need a running server: `python -m concord_local.checks alembic`."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from concord_local import postgres, system
from concord_local.stack import SERVICES
from concord_local.state import State

CHECK_SECONDS_MAX = 120.0


def alembic() -> int:
    """The number of services whose migrations do not make the tables their code declares. Uses a throw-away PostgreSQL."""
    with postgres.temporary() as server, tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder))
        state.make()
        state.make_keys(SERVICES)
        psql = [str(server.install / "bin/psql"), "-qX", "-d", server.url(), "-v", "ON_ERROR_STOP=1"]
        for database in (*SERVICES, "customer_keys"):
            subprocess.run([*psql, "-c", f"create database {database}"], check=True)
        with ThreadPoolExecutor() as pool:
            outcomes = list(pool.map(lambda service: _check(service, server, state), SERVICES))
    for service, problem in zip(SERVICES, outcomes, strict=True):
        print(f"{service}: {problem or 'the migrations make the tables that the code declares'}")
    return sum(1 for problem in outcomes if problem)


def _check(service: str, server: postgres.Postgres, state: State) -> str:
    """What is wrong with a service's migrations, or an empty text."""
    if importlib.util.find_spec(f"{service}.__main__") is None:
        return f"has no {service}/__main__.py"
    told = {"CONCORD_DATABASE_URL": server.url(service), "CONCORD_IDENTITY_KEYS": str(state.identities)}
    told["CONCORD_IDENTITY_PRIVATE_KEY"] = str(state.private_key(service))
    told["CONCORD_CUSTOMER_INDEX_KEY"] = str(state.index_key)
    told["CONCORD_CUSTOMER_ROOT_KEY"] = str(state.root_key)
    told["CONCORD_CUSTOMER_KEYS_URL"] = server.url("customer_keys")
    for arguments in (["migrate"], ["migrate", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", service, *arguments],
            capture_output=True,
            check=False,
            cwd=state.folder,
            env={**os.environ, **told},
            timeout=CHECK_SECONDS_MAX,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            return f"`python -m {service} {' '.join(arguments)}` ended with {done.returncode}:\n{said}"
    return ""


CHECKS = {"alembic": alembic}


def main() -> None:
    """Runs the check named on the command line; exit status 1 when it finds something."""
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit(f"usage: python -m concord_local.checks {'|'.join(CHECKS)}")
    try:
        sys.exit(1 if CHECKS[sys.argv[1]]() else 0)
    except system.Trouble as why:
        sys.exit(str(why))


if __name__ == "__main__":
    main()
