"""Alembic migrations of the key store, a database of its own."""
