"""A small service for the chassis's tests."""
