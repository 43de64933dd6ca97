"""Relationships, staff and portfolios."""
