"""Alembic's entry."""

from chassis.migrations import run_env
from customer.store.tables import metadata

run_env(metadata)
