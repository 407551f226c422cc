"""Trains a version again from its pinned data and explains any difference.

Here: the command (`reproduce`), and the causes of a difference (`causes`).
Not here: training itself (`nightly`), and the record of a run's environment
(`workspace.provenance`).
"""
