"""Scorer and holdout -> decision.

Here: metrics per user (`metrics`; `metrics_kernel` is their compiled part), the comparison of two
recipes on the same users, and the gate: pure functions of frozen inputs that fail closed.
Not here: training (`models`), storage (`stores`), figures (`report`).
To add a metric: define it in `metrics` or `beyond_accuracy`, and test it on a worked example.
"""
