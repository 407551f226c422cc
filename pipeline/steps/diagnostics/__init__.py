"""Measurements that no decision reads: list churn, fold-in parity, live quality, training cost.

Here: measuring, and writing the result for pages, metrics and history.
Not here: evidence for a decision of the gate or the policy (`nightly`, `feedback`).
To add one: a module that writes an artefact, called by the step that has its inputs.
"""
