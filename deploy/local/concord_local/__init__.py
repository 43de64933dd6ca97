"""The whole platform on one machine: the `concord` command."""
