"""Consents, the audit trail, restriction and erasure."""
