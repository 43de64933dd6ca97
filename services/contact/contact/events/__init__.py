"""What this service publishes and what it folds."""
