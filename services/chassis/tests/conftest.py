import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from echo_service.service import SERVICE

from chassis.command_line import ServiceDefinition


@pytest.fixture(scope="session")
def service() -> ServiceDefinition:
    definition: ServiceDefinition = SERVICE
    return definition
