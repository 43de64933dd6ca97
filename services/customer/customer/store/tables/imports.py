"""Bulk imports: files, staging, rejected rows."""
