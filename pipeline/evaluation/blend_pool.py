"""Candidates of a blend's parts on one window, with the score of every part for each.

Guarantees: if no scores tie, lists from a pool have the NDCG and the stability of the same lists
over the whole catalogue; therefore the pool also holds the items that a part would have listed on
the previous day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.evaluation.holdout import find
from pipeline.evaluation.tuning_window import PreviousDay, TrainingWindow, Window
from pipeline.models.contract import Scorer, Scores
from pipeline.models.topk import Lists, pair_scores, top_k
from pipeline.models.tuning import CandidatePool, PartScores, StabilityCheck

CANDIDATES: Final = 100
"""Number of items that each part of a blend proposes to a user."""


def pooled(
    window: Window, parts: Mapping[str, Scorer], earlier_parts: Mapping[str, Scorer], k: int
) -> CandidatePool:
    """Collect the candidates of all parts, and score each one by every part.

    Parameters
    ----------
    window
        Evaluated users, and their previous day if there is one.
    parts, earlier_parts
        Scorers by name, trained on the window and on its previous day.
    k
        Length of the lists.

    Returns
    -------
    CandidatePool
        User and item of each candidate, its scores, and functions from scores to NDCG, coverage and
        stability.
    """
    n_items = window.history.n_items
    part_scores = {name: scorer.score(window.judged) for name, scorer in parts.items()}
    keys = [pairs(x.row, x.item, n_items) for x in _proposed(part_scores, window)]
    earlier_scores = {}
    if (previous := window.previous_day) is not None:
        earlier_scores = {name: x.score(previous.judged) for name, x in earlier_parts.items()}
        column, present = find(window.history.item_ids, previous.history.item_ids)
        for lists in _proposed(earlier_scores, previous):
            # The catalogues differ: items of the previous day that the window lacks are left out.
            key = pairs(previous.rows[lists.row], column[lists.item], n_items)
            keys.append(key[present[lists.item]])
    user, item = np.divmod(np.unique(np.concatenate(keys)), n_items)
    scores = {name: pair_scores(part, user, item) for name, part in part_scores.items()}
    candidates = _CandidateLists(user, item, window, k)
    stability = None
    if previous is not None:
        stability = _stability_check(user, item, window, previous, earlier_scores, candidates)
    return CandidatePool(
        user=user,
        part_scores=PartScores(window.history, item, scores),
        value=candidates.value,
        stability=stability,
    )


def _proposed(parts: Mapping[str, Scores], window: TrainingWindow) -> Iterator[Lists]:
    """Yield each part's best items, by which it is scaled, and the best that lists may hold."""
    for scores in parts.values():
        yield top_k(scores, CANDIDATES)
        if window.exclude is not None:
            yield top_k(scores, CANDIDATES, exclude=window.exclude)


def _stability_check(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    window: Window,
    previous_day: PreviousDay,
    earlier_scores: Mapping[str, Scores],
    candidates: _CandidateLists,
) -> StabilityCheck:
    row = np.full(window.judged.n_users, -1)
    row[previous_day.rows] = np.arange(len(previous_day.rows))
    column, present = find(previous_day.history.item_ids, window.history.item_ids)
    column = np.where(present, column, -1)[item]
    shared = (row[user] >= 0) & (column >= 0)

    def scored(part: Scores) -> NDArray[np.float32]:
        kept_scores = np.zeros(len(user), np.float32)
        kept_scores[shared] = pair_scores(part, row[user[shared]], column[shared])
        return kept_scores

    def kept(scores: NDArray[np.float32], earlier: NDArray[np.float32]) -> float:
        # Items that the previous day did not have cannot have been listed on it.
        now = candidates.listed(scores)[previous_day.rows]
        known = np.where(shared, earlier, np.float32(-np.inf))
        before = candidates.listed(known)[previous_day.rows]
        entries = np.count_nonzero(before)
        return float(np.count_nonzero(now & before) / entries) if entries else 1.0

    scores = {name: scored(part) for name, part in earlier_scores.items()}
    return StabilityCheck(PartScores(previous_day.history, column, scores), kept)


class _CandidateLists:
    """Candidates in rows of users: turns scores of the candidates into lists."""

    def __init__(
        self, user: NDArray[np.int64], item: NDArray[np.int64], window: Window, k: int
    ) -> None:
        n_users, n_items = window.truth.items.shape
        key = pairs(user, item, n_items)
        # Excluded pairs stay in the pool, because they scale a part, but never in a list.
        self._open = np.ones(len(key), np.bool_)
        if window.exclude is not None:
            self._open = ~np.isin(key, _keys(window.exclude))
        user, item, key = (of[self._open] for of in (user, item, key))
        self._cell = (user, np.arange(len(user)) - np.searchsorted(user, user))
        # Pairs are sorted by user: a pair's place is its distance from the first one of its user.
        shape = (n_users, int(self._cell[1].max(initial=0)) + 1)
        self._items = np.zeros(shape, np.int64)
        self._items[self._cell] = item
        self._hit = np.zeros(shape, np.bool_)
        self._hit[self._cell] = np.isin(key, _keys(window.truth.items))
        self._k, self._n_items = min(k, shape[1]), n_items
        self._discount = 1.0 / np.log2(np.arange(2, k + 2))
        ideal = np.concatenate([[np.nan], np.cumsum(self._discount)])
        self._ideal = ideal[np.minimum(window.truth.size, k)]

    def value(self, scores: NDArray[np.float32]) -> tuple[float, float]:
        """Return mean NDCG and coverage of the lists that the scores give."""
        best, there = self._best(scores)
        gain = np.take_along_axis(self._hit, best, axis=1) & there
        ndcg = float(np.nanmean((gain @ self._discount[: self._k]) / self._ideal))
        shown = np.take_along_axis(self._items, best, axis=1)[there]
        return ndcg, np.count_nonzero(np.bincount(shown, minlength=1)) / self._n_items

    def listed(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return the places of each row that its list holds; a score of -inf is never listed."""
        best, there = self._best(scores)
        chosen = np.zeros(self._items.shape, np.bool_)
        np.put_along_axis(chosen, best, there, axis=1)
        return chosen

    def _best(self, scores: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return ``(n_users, k)`` places, best first, and False where a row has too few."""
        negated = np.full(self._items.shape, np.inf, np.float32)
        negated[self._cell] = -scores[self._open]
        # Partition before sorting: k is small against the number of candidates, and each trial of
        # the mixture ranks all of them.
        best = np.argpartition(negated, self._k - 1, axis=1)[:, : self._k]
        best = np.take_along_axis(
            best, np.argsort(np.take_along_axis(negated, best, axis=1), axis=1), axis=1
        )
        return best, np.isfinite(np.take_along_axis(negated, best, axis=1))


def _keys(cells: sp.csr_matrix) -> NDArray[np.int64]:
    """Return each stored cell as one number."""
    entries = cells.tocoo()
    return pairs(entries.row, entries.col, cells.shape[1])


def pairs(
    row: NDArray[np.integer[Any]], item: NDArray[np.integer[Any]], n_items: int
) -> NDArray[np.int64]:
    """Return each pair of row and item as one number, row · n_items + item.

    Parameters
    ----------
    row, item
        ``(n,)`` integers.
    n_items
        Size of the catalogue.

    Returns
    -------
    ``(n,)`` int64, because the product may exceed int32.
    """
    return row.astype(np.int64) * n_items + item
