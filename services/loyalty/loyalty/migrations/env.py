"""Alembic's entry."""

from chassis.migrations import run_env
from loyalty.store.tables import metadata

run_env(metadata)
