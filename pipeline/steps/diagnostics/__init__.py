"""Measurements that decide nothing: list churn, fold-in parity, live quality, training cost.

Here: steps that measure and write a figure for pages, metrics and history.
Not here: what a gate or a policy decides by (`nightly`, `feedback`).
"""
