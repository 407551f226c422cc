"""Evaluation of a scorer on a holdout: values per user, means with intervals, slices.

Guarantees: a scorer, or a history, that reaches into the holdout is rejected; lists are the best k
of the whole catalogue under the task of the holdout, never a sample; equal inputs give equal
values. Definitions of the metrics: `evaluation.metrics` (accuracy), `evaluation.beyond_accuracy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.evaluation.beyond_accuracy import catalogue_values, coverage, user_values
from pipeline.evaluation.holdout import (
    SLICE,
    judged_lists,
    lists_of,
    refuse_leaks,
    reindex_columns,
    rows_of,
    truth_of,
    values_of,
    with_empty_rows,
    with_rows_of,
    without,
)
from pipeline.evaluation.intervals import means
from pipeline.evaluation.metrics import NDCG, Truth, measure
from pipeline.evaluation.ratings import rating_errors
from pipeline.evaluation.slices import new_items
from pipeline.models.contract import Scorer
from pipeline.models.topk import Lists

USERS: Final = "users"
"""Name of the number of users, overall and per slice."""

SHORT: Final = 10
"""Every metric is also reported at this depth, at which other systems are often reported."""

__all__ = ["NDCG", "SLICE", "USERS", "Evaluation", "evaluate", "evaluate_stored", "metric_name"]


@dataclass(frozen=True)
class Evaluation:
    """Result of a scorer on a holdout.

    Attributes
    ----------
    users
        One row per evaluated user, sorted by `user_id`: `ndcg`, `recall`, `hit_rate`, and one
        column ``slice.<name>`` per slice: the user's NDCG in it, null for users outside it.
    coverage
        Share of the catalogue in the lists of the evaluated users.
    metrics
        By name (`metric_name`), at `k` and at `SHORT`: means over users of each metric, the bounds
        of their 95 % bootstrap intervals as ``_lo`` and ``_hi``, `coverage` and `gini`; at `k` the
        NDCG of each slice, and its number of users. A metric without any user is left out; without
        categories `diversity` is left out. For a scorer that predicts ratings, if the holdout has
        ratings: `rmse`, `mae`, and `ratings`, their number.
    """

    users: pl.DataFrame
    coverage: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class StoredComparison:
    """Two scorers on the same users and ground truth: frames as `Evaluation.users`."""

    tonight: pl.DataFrame
    stored: pl.DataFrame


def metric_name(metric: str, k: int, slice_name: str | None = None) -> str:
    """Return the name of a metric in files and in MLflow.

    Parameters
    ----------
    metric, k
        Metric and depth.
    slice_name
        Slice without its prefix.

    Returns
    -------
    str
        ``ndcg_at_20``, ``slice.cold.ndcg_at_20``.
    """
    return f"{SLICE}{slice_name}.{metric}_at_{k}" if slice_name else f"{metric}_at_{k}"


def evaluate(
    scorer: Scorer,
    history: History,
    split: Split,
    *,
    k: int,
    segments: pl.DataFrame | None = None,
    categories: pl.DataFrame | None = None,
    answered: pl.DataFrame | None = None,
) -> Evaluation:
    """Evaluate a scorer on the users of a holdout.

    Parameters
    ----------
    scorer
        Trained before the cutoff.
    history
        The training window; the scorer's catalogue may have items without events besides its own.
    split
        The holdout with its users and ground truth.
    k
        Length of the lists, ≥ 1.
    segments
        `user_id`, `segment` of the table of users, for further slices.
    categories
        `item_id`, `categories` of the table of items, for `diversity`.
    answered
        `user_id`, `item_id` of the target items that answer a shown list, for `UNANSWERED`.

    Returns
    -------
    Evaluation
        Values per user, and metrics.

    Raises
    ------
    GateError
        `evaluate.leak`: the scorer or the history reaches into the holdout.
        `evaluate.other_catalogue`, `evaluate.users_without_history`: the scorer
        belongs to another training window.
    """
    history, judged, lists, truth = judged_lists(scorer, history, split, max(k, SHORT))
    unanswered = None
    if answered is not None:
        rest = split.truth.join(answered, on=[c.USER_ID, c.ITEM_ID], how="anti")
        unanswered = truth_of(rest, judged.user_ids, history.item_ids)
    users = values_of(lists, truth, k, judged, new_items(history), segments, unanswered)
    covered = coverage(lists, history.n_items, k)
    # Keep this order of columns: users are sorted by it before the bootstrap draws them.
    depths = tuple(dict.fromkeys((k, SHORT)))
    values = measure(lists, truth, *depths)
    values |= user_values(lists, truth, judged.seen, history, categories, depths)
    metrics = {
        metric_name(*key): value
        for key, value in catalogue_values(lists, history.n_items, depths).items()
    }
    metrics |= _of_users(users, {metric_name(*key): x for key, x in values.items()}, k)
    if scorer.capabilities.ratings and split.ratings is not None:
        metrics |= rating_errors(scorer, history, split.ratings)
    return Evaluation(users, covered, metrics)


def evaluate_stored(
    stored: Scorer,
    stored_history: History,
    tonight: Scorer,
    history: History,
    split: Split,
    *,
    k: int,
    fallback: Scorer | None = None,
    segments: pl.DataFrame | None = None,
    answered: pl.DataFrame | None = None,
) -> StoredComparison:
    """Evaluate tonight's scorer and one of an earlier run on the same users and ground truth.

    Tonight's data may be damaged, so they do not choose the users or the targets: evaluated are
    users of the stored window, with target items that either catalogue has. Each scorer uses its
    own history; users whose history is lost tonight get tonight's fallback list, as they would
    live. For *discovery*, an item that a user has in either window is removed from both lists and
    from the ground truth: otherwise the stored scorer would fill its list with items that the user
    has had since.

    Parameters
    ----------
    stored, stored_history
        The stored scorer, and the window that it was trained on.
    tonight, history
        Tonight's scorer, and its training window, which defines the slices.
    split
        The holdout with its targets.
    k
        Length of the lists, ≥ 1.
    fallback
        Tonight's scorer of the fallback list; without it, users without a history get no list.
    segments, answered
        As in `evaluate`.

    Returns
    -------
    StoredComparison
        Values per user of both scorers, in the same order of users.

    Raises
    ------
    GateError
        As `evaluate`, for either scorer.
    """
    refuse_leaks(stored, stored_history, split)
    refuse_leaks(tonight, history, split)
    stored_history = stored_history.reindex_items(stored.item_ids)
    history = history.reindex_items(tonight.item_ids)
    catalogue = np.union1d(history.item_ids, stored_history.item_ids)
    targets = split.targets.filter(
        pl.col(c.USER_ID).is_in(stored_history.user_ids.tolist())
        & pl.col(c.ITEM_ID).is_in(catalogue.tolist())
    )
    users = targets[c.USER_ID].unique().sort().to_list()
    new = with_empty_rows(history, users)
    old = stored_history.take(rows_of(users, stored_history.user_ids))
    truth = truth_of(targets, new.user_ids, catalogue).items
    seen = None
    if split.task == "discovery":
        seen = reindex_columns(new.seen, new.item_ids, catalogue)
        seen = seen + reindex_columns(old.seen, old.item_ids, catalogue)
        truth = without(truth, seen)
        # Users without a remaining target item have no NDCG.
        rows = np.flatnonzero(np.diff(truth.indptr))
        truth, new, old, seen = truth[rows], new.take(rows), old.take(rows), seen[rows]
    remaining = Truth(truth, np.diff(truth.indptr).astype(np.int64))
    unanswered = None
    if answered is not None:
        answers = targets.join(answered, on=[c.USER_ID, c.ITEM_ID], how="semi")
        unanswered = _without_pairs(remaining, answers, new.user_ids, catalogue)
    recent_items = np.isin(catalogue, history.item_ids[new_items(history)])
    lost = np.flatnonzero(~np.isin(new.user_ids, history.user_ids))

    def lists(scorer: Scorer, users: History) -> Lists:
        exclude = None if seen is None else reindex_columns(seen, catalogue, users.item_ids)
        best = lists_of(scorer, users, k, exclude)
        column = np.searchsorted(catalogue, users.item_ids).astype(np.int32)
        # Each scorer has a catalogue of its own; the ground truth is over both.
        return Lists(best.indptr, column[best.item], best.score)

    own = lists(tonight, new)
    if len(lost):
        everyone = None
        if fallback is not None:
            everyone = lists(fallback, new.reindex_items(fallback.item_ids))
        own = with_rows_of(own, everyone, lost)
    return StoredComparison(
        *(
            values_of(shown, remaining, k, new, recent_items, segments, unanswered)
            for shown in (own, lists(stored, old))
        )
    )


def _without_pairs(
    truth: Truth, pairs: pl.DataFrame, user_ids: NDArray[np.str_], item_ids: NDArray[np.str_]
) -> Truth:
    """Remove pairs from a ground truth over its users and items; other users are ignored."""
    own = pairs.filter(pl.col(c.USER_ID).is_in(user_ids.tolist()))
    rest = without(truth.items, truth_of(own, user_ids, item_ids).items)
    return Truth(rest, np.diff(rest.indptr).astype(np.int64))


def _of_users(
    users: pl.DataFrame, values: dict[str, NDArray[np.float64]], k: int
) -> dict[str, float]:
    """Return means, bounds of their intervals and numbers of users, also of slices, by name."""
    slices = [column for column in users.columns if column.startswith(SLICE)]
    inside = {metric_name(NDCG, k, column.removeprefix(SLICE)): column for column in slices}
    values = values | {
        name: users[column].fill_null(float("nan")).to_numpy() for name, column in inside.items()
    }
    # In one call, so that all columns share the draws.
    intervals = means(np.column_stack(list(values.values())))
    metrics: dict[str, Any] = {USERS: users.height}
    for at, name in enumerate(values):
        if name in inside:
            metrics[f"{inside[name]}.{USERS}"] = intervals.count[at]
        if intervals.count[at]:
            metrics |= {name: intervals.mean[at], f"{name}_lo": intervals.low[at]}
            metrics[f"{name}_hi"] = intervals.high[at]
    return {name: float(value) for name, value in metrics.items()}
