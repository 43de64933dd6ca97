"""The platform that the system and fault tests share: starting one takes seconds."""

from collections.abc import Iterator

import pytest
from running import Platform, running_platform


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """Who leaves much behind comes later: thousands of imported customers, and last what was made at random."""
    return 2 if item.path.name == "test_schemathesis.py" else 1 if item.get_closest_marker("faults") else 0


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The whole platform, started once; tests use institutions of their own."""
    with running_platform() as started:
        yield started
