"""What evaluations share: the judged users' lists, what they went for, values per user.

Promises: whoever reaches into the holdout is refused; lists are the best k of the whole catalogue,
never a sample; rows follow the judged users, sorted by id.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import format_instant, to_utc
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.errors import GateError
from pipeline.evaluation.metrics import HIT_RATE, NDCG, RECALL, Truth, measure, ndcg
from pipeline.evaluation.slices import NEW_ITEMS, OLD_ITEMS, user_slices
from pipeline.models.contract import Scorer
from pipeline.models.topk import Lists, top_k

SLICE: Final = "slice."
"""Prefix of the columns of a slice."""

AT_ONCE: Final = 8192
"""Users looked at together: bounds the memory of factors and lists."""


def refuse_leaks(scorer: Scorer, history: History, split: Split) -> None:
    """Raise `GateError` when either knows something of the holdout, or they do not fit.

    A scorer may list items beside the history's: those that had no event yet.
    """
    for what, until in (("scorer", scorer.trained_until), ("history", history.end)):
        if to_utc(until) > split.cutoff:
            raise GateError(
                "evaluate.leak",
                f"the {what} reaches until {format_instant(until)}, into the holdout that starts "
                f"at {format_instant(split.cutoff)}: it must not be judged on it",
            )
    if not find(scorer.item_ids, history.item_ids)[1].all():
        raise GateError(
            "evaluate.other_catalogue",
            "the scorer and the history do not lie over the same catalogue",
        )


def rows_of(wanted: list[str], user_ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """``(n,)`` int64 rows of users that must be there; `GateError` when one is not."""
    order = np.argsort(user_ids)
    asked = np.asarray(wanted, dtype=np.str_)
    at = np.searchsorted(user_ids, asked, sorter=order)
    rows: NDArray[np.int64] = order[np.minimum(at, len(order) - 1)].astype(np.int64)
    missing = int(np.sum(user_ids[rows] != asked))
    if missing:
        raise GateError(
            "evaluate.users_without_history",
            f"{missing:,} judged users have no row in the training window",
        )
    return rows


def lists_of(scorer: Scorer, users: History, k: int, exclude: sp.csr_matrix | None) -> Lists:
    """Return the best `k` items of each user, in the order of `users`."""
    indptr = [np.zeros(1, np.int64)]
    items, scores = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for start in range(0, users.n_users, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, users.n_users))
        excluded = None if exclude is None else exclude[rows]
        part = top_k(scorer.score(users.take(rows)), k, exclude=excluded)
        indptr.append(part.indptr[1:] + indptr[-1][-1])
        items.append(part.item)
        scores.append(part.score)
    return Lists(np.concatenate(indptr), np.concatenate(items), np.concatenate(scores))


def judged_lists(
    scorer: Scorer, history: History, split: Split, k: int
) -> tuple[History, History, Lists, Truth]:
    """Return a scorer's lists for the users of a holdout, and their ground truth.

    Parameters
    ----------
    history
        The training window; the scorer's catalogue may hold items without an event beside its own.

    Returns
    -------
    tuple
        The history over the scorer's catalogue, its part of the judged users, their best `k` items
        and their ground truth over the same catalogue.

    Raises
    ------
    GateError
        As `refuse_leaks` and `rows_of`.
    """
    refuse_leaks(scorer, history, split)
    history = history.reindex_items(scorer.item_ids)
    judged = history.take(rows_of(split.users.to_list(), history.user_ids))
    lists = lists_of(scorer, judged, k, judged.seen if split.task == "discovery" else None)
    return history, judged, lists, truth_of(split.truth, judged.user_ids, history.item_ids)


def truth_of(frame: pl.DataFrame, user_ids: NDArray[np.str_], item_ids: NDArray[np.str_]) -> Truth:
    """Put the truth over a catalogue; `user_ids` are sorted, and so is the catalogue."""
    row = np.searchsorted(user_ids, np.asarray(frame[c.USER_ID].to_list(), dtype=np.str_))
    names = np.asarray(frame[c.ITEM_ID].to_list(), dtype=np.str_)
    column, known = find(item_ids, names)
    cells = sp.csr_matrix(
        (np.ones(known.sum(), np.float32), (row[known], column[known])),
        shape=(len(user_ids), len(item_ids)),
    )
    return Truth(cells, np.bincount(row, minlength=len(user_ids)).astype(np.int64))


def find(
    item_ids: NDArray[np.str_], names: NDArray[np.str_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Columns of some items in a sorted catalogue, and whether they are there at all."""
    column = np.minimum(np.searchsorted(item_ids, names), len(item_ids) - 1)
    return column, item_ids[column] == names


def reindex_columns(
    cells: sp.csr_matrix, from_ids: NDArray[np.str_], to_ids: NDArray[np.str_]
) -> sp.csr_matrix:
    """Write users × items over another sorted catalogue; items that it lacks are dropped."""
    column, known = find(to_ids, from_ids)
    picked = cells[:, known].tocoo()
    return sp.csr_matrix(
        (picked.data, (picked.row, column[known][picked.col])),
        shape=(cells.shape[0], len(to_ids)),
    )


def values_of(
    lists: Lists,
    truth: Truth,
    k: int,
    judged: History,
    new: NDArray[np.bool_],
    segments: pl.DataFrame | None,
) -> pl.DataFrame:
    """Write down what lists were worth, user by user and slice by slice.

    Parameters
    ----------
    lists, truth
        Rows as `judged`, both over one catalogue of ``n_items``.
    judged
        The judged users' part of the training window.
    new
        ``(n_items,)`` bool: items new to the catalogue.
    segments
        `user_id`, `segment`.

    Returns
    -------
    polars.DataFrame
        `user_id`, then float64 columns as `Evaluation.users` describes them.
    """
    overall = measure(lists, truth, k)
    old_cells = truth.only(~new, np.zeros_like(truth.size)).items
    of_old = np.diff(old_cells.indptr).astype(np.int64)
    # What no catalogue holds yet is newer than anything in it.
    of_new = truth.only(new, truth.size - of_old)
    columns = {name: overall[name, k] for name in (NDCG, RECALL, HIT_RATE)}
    for name, inside in user_slices(judged, segments).items():
        columns[SLICE + name] = np.where(inside, overall[NDCG, k], np.nan)
    columns[SLICE + NEW_ITEMS] = ndcg(lists, of_new, k)
    columns[SLICE + OLD_ITEMS] = ndcg(lists, Truth(old_cells, of_old), k)
    ids = pl.Series(c.USER_ID, judged.user_ids.tolist(), dtype=pl.String)
    return pl.DataFrame({c.USER_ID: ids, **columns}, nan_to_null=True)
