"""Compares two model versions on the same users, holdout and metric."""
