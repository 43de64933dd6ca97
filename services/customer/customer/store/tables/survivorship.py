"""Survivorship policies, pins, and the quality of customers."""
