"""Facts folded from events, scorecards, the six degrees, levels and lifecycle of every customer."""
