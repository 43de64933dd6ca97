"""The tables of the customer master, one module for each of its areas."""

from customer.store.tables import core, imports, kyc, matching, parties, privacy, reviews, survivorship

metadata = core.metadata

__all__ = ["core", "imports", "kyc", "matching", "metadata", "parties", "privacy", "reviews", "survivorship"]
