"""A state folder that PostgreSQL's account can enter, which pytest's own tmp_path is not for root."""

import shutil
import tempfile
import time
from pathlib import Path

import pytest

from concord_local import system
from concord_local.state import State


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="concord-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def state(folder):
    made = State(folder / "state")
    made.make()
    return made


@pytest.fixture
def eventually():
    """Asks again and again until the answer is true, and returns it; fails after some seconds."""

    def ask(question, seconds=15.0):
        deadline = time.monotonic() + seconds
        while not (answer := question()):
            assert time.monotonic() < deadline, f"not so after {seconds} s"
            time.sleep(0.02)
        return answer

    return ask


@pytest.fixture
def left(state):
    """The processes that still work in the state folder's run folders, or in PostgreSQL's data."""

    def pids():
        places = [*(state.folder / "run").iterdir(), state.folder / "postgres/data"]
        return [pid for place in places for pid in system.working_in(place)]

    return pids
