"""Compares two model versions on the same users, holdout and metric.

Here: the command (`compare`), the paired comparisons (`paired`), and sample lists (`samples`).
Not here: the arithmetic of a comparison (`evaluation.compare`), and the page (`report.versions`).
"""
