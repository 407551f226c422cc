"""Names of metrics in MLflow: headline metrics first, all others in folders.

*Compare* of MLflow sorts names character by character, and its charts make a section of each
folder. Names of headline metrics begin with a digit, so they are above the folders.

Guarantees: only headline metrics are outside the folders `attribution/`, `churn/`, `cost/`,
`drift/` and `slice/`; metrics have no bounds but those of lifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.evaluation.evaluate import NDCG, metric_name

OVER_FIRST: Final = "1 lift over version 1 pct"
OVER_BEFORE: Final = "2 lift over version before pct"
OVER_BASELINE: Final = "3 lift over baseline pct"
USERS: Final = "5 users"
DAYS: Final = "6 days"
MINUTES: Final = "7 minutes"
ENDS: Final = ("", " low", " high")
"""Endings of a lift and of the bounds of its 95 % interval."""
_FOLDERS: Final = {
    "answers": "attribution/answers",
    "clean": "drift/clean",
    "foldin": "churn/foldin",
    "live": "attribution/live",
    "refresh": "attribution/refresh",
}
"""First part of a name -> its place; other first parts are folders themselves."""
_LOW, _HIGH = "_lo", "_hi"


def level_name(k: int) -> str:
    """Return the name of the mean NDCG of lists of length `k`."""
    return f"4 {metric_name(NDCG, k)}"


def columns_of_runs(k: int) -> tuple[str, ...]:
    """Return the columns of the table of runs for lists of length `k`.

    The lift over version 1 comes first: lifts over the baseline of two runs are of other days, so
    the larger one does not belong to the better version.
    """
    lifts = (f"{name}{end}" for name in (OVER_FIRST, OVER_BEFORE) for end in ENDS)
    return *lifts, OVER_BASELINE, level_name(k), USERS, DAYS, MINUTES


def lift_metrics(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    """Return a lift as headline metrics in percent, with one decimal.

    Parameters
    ----------
    name
        `OVER_FIRST`, `OVER_BEFORE` or `OVER_BASELINE`.
    interval
        The lift, and the ends of its interval, as shares.
    """
    return {f"{name}{end}": round(100 * x, 1) for end, x in zip(ENDS, interval, strict=True)}


def in_folders(metrics: Mapping[str, float], default: str) -> dict[str, float]:
    """Return metrics under their names in MLflow, without bounds.

    Parameters
    ----------
    metrics
        By dotted name: ``drift.taste.items``, ``slice.cold.ndcg_at_20``, ``recall_at_20_lo``.
    default
        Place of names without a dot: ``cost/``, or ``slice/all.``.
    """
    return {
        _place(name, default): value
        for name, value in metrics.items()
        if not name.endswith((_LOW, _HIGH))
    }


def bounds(metrics: Mapping[str, float], default: str) -> dict[str, tuple[float, float]]:
    """Return the bounds of metrics by their names in MLflow.

    Parameters
    ----------
    metrics, default
        As for `in_folders`.
    """
    return {
        _place(name, default): (metrics[f"{name}{_LOW}"], metrics[f"{name}{_HIGH}"])
        for name in metrics
        if f"{name}{_LOW}" in metrics and f"{name}{_HIGH}" in metrics
    }


def _place(name: str, default: str) -> str:
    first, dot, rest = name.partition(".")
    if not dot:
        return f"{default}{name}"
    return f"{_FOLDERS[first]}.{rest}" if first in _FOLDERS else f"{first}/{rest}"
