"""The tables of loyalty, one module for each of its areas."""

from loyalty.store.tables import accounts, earning, exchange, ledger, rewards, settlement
from loyalty.store.tables.base import metadata

__all__ = ["accounts", "earning", "exchange", "ledger", "metadata", "rewards", "settlement"]
