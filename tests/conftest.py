"""The platform that the system and fault tests share: starting one takes seconds."""

from collections.abc import Iterator

import pytest
from running import Platform, running_platform


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The whole platform, started once; tests use institutions of their own."""
    with running_platform() as started:
        yield started
