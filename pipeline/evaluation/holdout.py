"""Shared steps of evaluations: lists and ground truth of a holdout's users, and values per user.

Guarantees: a scorer or history that reaches into the holdout is rejected; lists are the best k of
the whole catalogue, never a sample; rows follow the evaluated users, sorted by id.
"""

from __future__ import annotations

from dataclasses import replace
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
"""Prefix of the columns of slices."""

UNANSWERED: Final = "ndcg_without_answers"
"""Column of the NDCG on targets that do not answer a shown list."""

AT_ONCE: Final = 8192
"""Number of users scored together: bounds the memory of factors and lists."""


def refuse_leaks(scorer: Scorer, history: History, split: Split) -> None:
    """Reject a scorer or history that reaches into the holdout, or that do not fit together.

    Parameters
    ----------
    scorer
        Must have all items of the history; may have further ones, without events.
    history
        The training window.
    split
        Has the cutoff.

    Raises
    ------
    GateError
        `evaluate.leak`: training or history ends after the cutoff. `evaluate.other_catalogue`: the
        scorer lacks items of the history.
    """
    for name, until in (("scorer", scorer.trained_until), ("history", history.end)):
        if to_utc(until) > split.cutoff:
            raise GateError(
                "evaluate.leak",
                f"the {name} ends at {format_instant(until)}, after the start of the holdout at "
                f"{format_instant(split.cutoff)}; evaluate it on a later holdout",
            )
    absent = int(np.sum(~find(scorer.item_ids, history.item_ids)[1]))
    if absent:
        raise GateError(
            "evaluate.other_catalogue",
            f"the catalogue of the scorer lacks {absent:,} items of the history; train it again on "
            "this window",
        )


def rows_of(wanted: list[str], user_ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the rows of users in a history.

    Parameters
    ----------
    wanted
        Users, in the order of the result.
    user_ids
        ``(n_users,)`` str, in any order.

    Returns
    -------
    ``(n,)`` int64

    Raises
    ------
    GateError
        `evaluate.users_without_history`: a user is missing.
    """
    order = np.argsort(user_ids)
    users = np.asarray(wanted, dtype=np.str_)
    at = np.searchsorted(user_ids, users, sorter=order)
    # `searchsorted` returns the length for ids above all others: clip, then compare.
    rows: NDArray[np.int64] = order[np.minimum(at, len(order) - 1)].astype(np.int64)
    missing = int(np.sum(user_ids[rows] != users))
    if missing:
        raise GateError(
            "evaluate.users_without_history",
            f"{missing:,} users of the holdout have no row in the training window; this is a "
            "defect of Nightjar, report it with the run folder",
        )
    return rows


def with_empty_rows(history: History, wanted: list[str]) -> History:
    """Select users of a history; a user without a row gets an empty one.

    Parameters
    ----------
    history
        A window.
    wanted
        Users, in the order of the result.

    Returns
    -------
    History
        One row per user.
    """
    users = np.asarray(wanted, dtype=np.str_)
    present = np.isin(users, history.user_ids)
    known = history.take(rows_of(users[present].tolist(), history.user_ids))
    if present.all():
        return known
    counts = np.zeros(len(users), np.int64)
    counts[present] = np.diff(known.indptr)
    features = history.user_features
    if features is not None:
        rows = np.full(len(users), -1)
        rows[present] = np.arange(present.sum())
        features = known.user_features.rows(rows) if known.user_features is not None else None
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return replace(known, user_ids=users, indptr=indptr, user_features=features)


def with_rows_of(lists: Lists, others: Lists | None, rows: NDArray[np.int64]) -> Lists:
    """Replace some lists by others.

    Parameters
    ----------
    lists
        One list per user.
    others
        Lists of the same users; None: empty lists.
    rows
        Users whose list is replaced.

    Returns
    -------
    Lists
        In the same order of users.
    """
    if others is None:
        others = Lists(np.zeros_like(lists.indptr), lists.item[:0], lists.score[:0])
    replaced = np.zeros(len(lists.indptr) - 1, np.bool_)
    replaced[rows] = True
    own, new = np.diff(lists.indptr), np.diff(others.indptr)
    counts = np.where(replaced, new, own)
    from_new = np.repeat(replaced, counts)
    item, score = np.zeros(counts.sum(), np.int32), np.zeros(counts.sum(), np.float32)
    kept, taken = np.repeat(~replaced, own), np.repeat(replaced, new)
    item[~from_new], item[from_new] = lists.item[kept], others.item[taken]
    score[~from_new], score[from_new] = lists.score[kept], others.score[taken]
    return Lists(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), item, score)


def lists_of(scorer: Scorer, users: History, k: int, exclude: sp.csr_matrix | None) -> Lists:
    """Return the best `k` items of each user.

    Parameters
    ----------
    scorer
        Over the catalogue of `users`.
    users
        Histories of the users.
    k
        Length of the lists.
    exclude
        ``(n_users, n_items)`` CSR of items that lists leave out; None if they may repeat items.

    Returns
    -------
    Lists
        In the order of `users`.
    """
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
    scorer
        Trained before the cutoff.
    history
        The training window; the scorer's catalogue may have further items, without events.
    split
        The holdout with its users and ground truth.
    k
        Length of the lists.

    Returns
    -------
    tuple
        All over the scorer's catalogue: the history, the history of the evaluated users only, their
        lists, and their ground truth.

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
    """Return the ground truth of users over a catalogue.

    Parameters
    ----------
    frame
        `user_id`, `item_id` of the target items, without duplicates.
    user_ids, item_ids
        ``(n_users,)`` and ``(n_items,)`` str, sorted.

    Returns
    -------
    Truth
        An item outside the catalogue counts in `size` but has no cell.
    """
    row = np.searchsorted(user_ids, np.asarray(frame[c.USER_ID].to_list(), dtype=np.str_))
    names = np.asarray(frame[c.ITEM_ID].to_list(), dtype=np.str_)
    column, present = find(item_ids, names)
    cells = sp.csr_matrix(
        (np.ones(present.sum(), np.float32), (row[present], column[present])),
        shape=(len(user_ids), len(item_ids)),
    )
    # No list can contain an item outside the catalogue, but it was a target all the same.
    return Truth(cells, np.bincount(row, minlength=len(user_ids)).astype(np.int64))


def find(
    item_ids: NDArray[np.str_], names: NDArray[np.str_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the columns of items in a sorted catalogue.

    Parameters
    ----------
    item_ids
        ``(n_items,)`` str, sorted.
    names
        ``(n,)`` str, in any order.

    Returns
    -------
    tuple
        ``(n,)`` int64 columns, meaningless if absent, and ``(n,)`` bool, True if present.
    """
    # `searchsorted` returns the length for names above all ids: clip, then compare.
    column = np.minimum(np.searchsorted(item_ids, names), len(item_ids) - 1)
    return column, item_ids[column] == names


def reindex_columns(
    cells: sp.csr_matrix, from_ids: NDArray[np.str_], to_ids: NDArray[np.str_]
) -> sp.csr_matrix:
    """Write users × items over another catalogue; items that it lacks are dropped.

    Parameters
    ----------
    cells
        ``(n_users, len(from_ids))`` CSR.
    from_ids, to_ids
        The present and the new catalogue, sorted.

    Returns
    -------
    ``(n_users, len(to_ids))`` CSR
    """
    column, present = find(to_ids, from_ids)
    picked = cells[:, present].tocoo()
    return sp.csr_matrix(
        (picked.data, (picked.row, column[present][picked.col])),
        shape=(cells.shape[0], len(to_ids)),
    )


def without(cells: sp.csr_matrix, others: sp.csr_matrix) -> sp.csr_matrix:
    """Remove the cells that another matrix has.

    Parameters
    ----------
    cells, others
        CSR of one shape; the values of `others` do not matter.

    Returns
    -------
    CSR of the same shape
    """
    rest = (cells - cells.multiply(others.sign())).tocsr()
    rest.eliminate_zeros()
    return rest


def values_of(
    lists: Lists,
    truth: Truth,
    k: int,
    judged: History,
    new: NDArray[np.bool_],
    segments: pl.DataFrame | None,
    unanswered: Truth | None = None,
) -> pl.DataFrame:
    """Return the values of lists per user and slice.

    Parameters
    ----------
    lists, truth
        Rows as `judged`, both over one catalogue of ``n_items``.
    k
        Depth of the metrics.
    judged
        The evaluated users' part of the training window.
    new
        ``(n_items,)`` bool: items new to the catalogue.
    segments
        `user_id`, `segment`.
    unanswered
        The part of the ground truth that does not answer a shown list, for the column `UNANSWERED`.

    Returns
    -------
    polars.DataFrame
        `user_id`, then float64 columns as described at `Evaluation.users`.
    """
    overall = measure(lists, truth, k)
    old_cells = truth.only(~new, np.zeros_like(truth.size)).items
    of_old = np.diff(old_cells.indptr).astype(np.int64)
    # A target item outside the catalogue counts as new: it had no event before the cutoff.
    of_new = truth.only(new, truth.size - of_old)
    columns = {name: overall[name, k] for name in (NDCG, RECALL, HIT_RATE)}
    if unanswered is not None:
        columns[UNANSWERED] = ndcg(lists, unanswered, k)
    for name, inside in user_slices(judged, segments).items():
        columns[SLICE + name] = np.where(inside, overall[NDCG, k], np.nan)
    columns[SLICE + NEW_ITEMS] = ndcg(lists, of_new, k)
    columns[SLICE + OLD_ITEMS] = ndcg(lists, Truth(old_cells, of_old), k)
    ids = pl.Series(c.USER_ID, judged.user_ids.tolist(), dtype=pl.String)
    return pl.DataFrame({c.USER_ID: ids, **columns}, nan_to_null=True)
