from chassis.migrations import run_env
from echo_service.tables import metadata

run_env(metadata)
