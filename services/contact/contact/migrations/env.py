"""Run by alembic; see `chassis.migrations`."""

from chassis.migrations import run_env
from contact.store.tables import metadata

run_env(metadata)
