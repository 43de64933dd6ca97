"""Where alembic finds the tables."""

from chassis.migrations import run_env
from rating.store.tables import metadata

run_env(metadata)
