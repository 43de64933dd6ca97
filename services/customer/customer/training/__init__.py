"""Offline: training match models. Nothing that serves requests imports this; Splink and DuckDB come with the extra `training`."""
