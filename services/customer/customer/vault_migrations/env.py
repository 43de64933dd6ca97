"""Alembic's entry."""

from chassis.migrations import run_env
from customer.store.tables.vault import metadata

run_env(metadata)
