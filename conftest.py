"""For every test: where temporary files lie, and which tests run in one process."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

MEMORY = Path("/dev/shm")
FREE_BYTES_MIN = 4 << 30


def _in_memory() -> bool:
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(MEMORY)
    # The launchers of servers may put copies of programs there.
    return found.f_bavail * found.f_frsize >= FREE_BYTES_MIN and not found.f_flag & os.ST_NOEXEC


# In memory where there is room: making a database on disk costs ten times as much.
if "TMPDIR" not in os.environ and _in_memory():
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # what was found before


class OnePlatform(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of the whole platform run one after another in one process, which begins with them: a second would only be slower."""

    def _split_scope(self, nodeid: str) -> str:
        return "platform" if nodeid.startswith(("tests/system/", "tests/faults/")) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> OnePlatform:
    """What `pytest -n 2` asks (the marks of --dist loadgroup do nothing with this version of pytest)."""
    return OnePlatform(config, log)
