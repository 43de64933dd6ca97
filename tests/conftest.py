"""The platform that the system and fault tests share: starting one takes seconds."""

from collections.abc import Iterator

import pytest
from running import Platform, running_platform


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests that need the platform run in one process: two platforms would only be slower."""
    for item in items:
        if "platform" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("platform"))


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The whole platform, started once; tests use institutions of their own."""
    with running_platform() as started:
        yield started
