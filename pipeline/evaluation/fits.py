"""Several fits of one recipe as one evaluation.

Promises: each person's value is the mean over the fits, so the luck of one training seed counts
1/S; people and columns are those of the first fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline import columns as c
from pipeline.errors import GateError
from pipeline.evaluation.evaluate import Evaluation


def averaged(found: Sequence[Evaluation]) -> Evaluation:
    """Return the mean of evaluations of one recipe's fits on one holdout.

    The ends of an interval are means of ends, too: they speak of people, not of seeds.

    Raises
    ------
    GateError
        The fits were judged by different people.
    """
    first = found[0]
    if len(found) == 1:
        return first
    if any(not one.users[c.USER_ID].equals(first.users[c.USER_ID]) for one in found):
        raise GateError("fits of one recipe were judged by different people")
    columns = [name for name in first.users.columns if name != c.USER_ID]
    users = first.users.select(
        c.USER_ID,
        *(sum((one.users[name] for one in found[1:]), first.users[name]) / len(found)
          for name in columns),
    )  # fmt: skip
    metrics = {
        name: sum(one.metrics[name] for one in found) / len(found)
        for name in first.metrics
        if all(name in one.metrics for one in found)
    }
    coverage = sum(one.coverage for one in found) / len(found)
    return replace(first, users=users, metrics=metrics, coverage=coverage)
