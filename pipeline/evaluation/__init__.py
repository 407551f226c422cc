"""Scorer and holdout -> decision.

Here: metrics per user, the comparison of two recipes on the same people, and the gate: pure
functions over frozen inputs that fail closed.
Not here: training (`models`), storage (`stores`), figures (`report`).
"""
