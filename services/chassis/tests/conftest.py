import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from echo_service.service import SERVICE  # noqa: E402 - found by the line above

from chassis.command_line import ServiceDefinition  # noqa: E402


@pytest.fixture(scope="session")
def service() -> ServiceDefinition:
    return SERVICE
