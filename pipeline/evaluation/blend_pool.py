"""What the parts of a blend say of all that any of them would list, for one window.

Promises: lists made of a pool find as much, and keep as much of those of the eve, as the same lists
do on the window, where no scores tie; so what a part would have listed on the eve is in it too.
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
"""Items that each part of a blend proposes to a user."""


def pooled(
    window: Window, parts: Mapping[str, Scorer], previous_day: Mapping[str, Scorer], k: int
) -> CandidatePool:
    """Let each part propose candidates, and ask all of them what they think of each.

    Parameters
    ----------
    parts
        Scorers trained on the window, by name.
    previous_day
        Of the same recipes, trained on its eve; not looked at where it has none.
    k
        Length of the lists.
    """
    n_items = window.history.n_items
    part_scores = {name: scorer.score(window.judged) for name, scorer in parts.items()}
    keys = [pairs(x.row, x.item, n_items) for x in _proposed(part_scores, window)]
    then = {}
    if (day := window.previous_day) is not None:
        then = {name: scorer.score(day.judged) for name, scorer in previous_day.items()}
        column, known = find(window.history.item_ids, day.history.item_ids)
        for lists in _proposed(then, day):
            key = pairs(day.rows[lists.row], column[lists.item], n_items)
            keys.append(key[known[lists.item]])
    user, item = np.divmod(np.unique(np.concatenate(keys)), n_items)
    scores = {name: pair_scores(one, user, item) for name, one in part_scores.items()}
    board = _Board(user, item, window, k)
    return CandidatePool(
        user=user,
        part_scores=PartScores(window.history, item, scores),
        value=board.value,
        stability=None if day is None else _stability_check(user, item, window, day, then, board),
    )


def _proposed(parts: Mapping[str, Scores], window: TrainingWindow) -> Iterator[Lists]:
    """Yield each part's best items, which scale it, and the best ones that lists may hold."""
    for scores in parts.values():
        yield top_k(scores, CANDIDATES)
        if window.exclude is not None:
            yield top_k(scores, CANDIDATES, exclude=window.exclude)


def _stability_check(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    window: Window,
    previous_day: PreviousDay,
    then: Mapping[str, Scores],
    board: _Board,
) -> StabilityCheck:
    row = np.full(window.judged.n_users, -1)
    row[previous_day.rows] = np.arange(len(previous_day.rows))
    column, known = find(previous_day.history.item_ids, window.history.item_ids)
    column = np.where(known, column, -1)[item]
    asked = (row[user] >= 0) & (column >= 0)

    def scored(one: Scores) -> NDArray[np.float32]:
        kept_scores = np.zeros(len(user), np.float32)
        kept_scores[asked] = pair_scores(one, row[user[asked]], column[asked])
        return kept_scores

    def kept(scores: NDArray[np.float32], earlier: NDArray[np.float32]) -> float:
        now = board.listed(scores)[previous_day.rows]
        had = board.listed(np.where(asked, earlier, np.float32(-np.inf)))[previous_day.rows]
        entries = np.count_nonzero(had)
        return float(np.count_nonzero(now & had) / entries) if entries else 1.0

    scores = {name: scored(one) for name, one in then.items()}
    return StabilityCheck(PartScores(previous_day.history, column, scores), kept)


class _Board:
    """The pairs that lists may hold, a row a user: what scores of the pairs would list."""

    def __init__(
        self, user: NDArray[np.int64], item: NDArray[np.int64], window: Window, k: int
    ) -> None:
        n_users, n_items = window.truth.items.shape
        key = pairs(user, item, n_items)
        self._open = np.ones(len(key), np.bool_)
        if window.exclude is not None:
            self._open = ~np.isin(key, _keys(window.exclude))
        user, item, key = (of[self._open] for of in (user, item, key))
        self._cell = (user, np.arange(len(user)) - np.searchsorted(user, user))
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
        """Return mean NDCG and coverage of the lists that scores of the pairs make."""
        best, there = self._best(scores)
        gain = np.take_along_axis(self._hit, best, axis=1) & there
        ndcg = float(np.nanmean((gain @ self._discount[: self._k]) / self._ideal))
        shown = np.take_along_axis(self._items, best, axis=1)[there]
        return ndcg, np.count_nonzero(np.bincount(shown, minlength=1)) / self._n_items

    def listed(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which places of each row would be in its list; -inf never is."""
        best, there = self._best(scores)
        chosen = np.zeros(self._items.shape, np.bool_)
        np.put_along_axis(chosen, best, there, axis=1)
        return chosen

    def _best(self, scores: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """``(n_users, k)`` places, best first, and whether there is anything."""
        board = np.full(self._items.shape, np.inf, np.float32)
        board[self._cell] = -scores[self._open]
        best = np.argpartition(board, self._k - 1, axis=1)[:, : self._k]
        best = np.take_along_axis(
            best, np.argsort(np.take_along_axis(board, best, axis=1), axis=1), axis=1
        )
        return best, np.isfinite(np.take_along_axis(board, best, axis=1))


def _keys(cells: sp.csr_matrix) -> NDArray[np.int64]:
    """Return each stored cell as one number."""
    entries = cells.tocoo()
    return pairs(entries.row, entries.col, cells.shape[1])


def pairs(
    row: NDArray[np.integer[Any]], item: NDArray[np.integer[Any]], n_items: int
) -> NDArray[np.int64]:
    """Return pairs as one number each: row · items + item, which may be beyond what int32 holds."""
    return row.astype(np.int64) * n_items + item
