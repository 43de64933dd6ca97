"""Match models, rematch runs and rejected pairs."""
