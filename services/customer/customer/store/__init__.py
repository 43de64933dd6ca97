"""Tables and repositories: all SQL of this service."""
