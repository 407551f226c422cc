"""Searches hyperparameters within a budget, on windows that end before any holdout."""
