"""Recipes measured on windows before the holdout: what tuning may look at, and nothing else.

Promises: no window holds anything of the holdout; equal windows give equal answers; a recipe that
cannot be trained is worse than any that can. (`models.tuning.Trials` says what is asked.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import Progress, format_instant, silent, to_utc
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.errors import GateError, NightjarError
from pipeline.evaluation.holdout import lists_of, rows_of, truth_of
from pipeline.evaluation.metrics import Truth, ndcg
from pipeline.models.contract import Recipe, Scorer
from pipeline.models.topk import Lists, pair_scores, top_k
from pipeline.models.tuning import Pool

USERS = 1000
"""Users that judge a window: enough to tell recipes apart, few enough to try many."""
CANDIDATES = 100
"""Items that each part of a blend proposes to a user."""
POOLED = 500
"""Users whose candidates weigh the parts: each mixture ranks all of them anew."""
LEAST = 0.003
"""A recipe must be better by this share."""


@dataclass(frozen=True)
class Window:
    """A training window, and those who judge it.

    Attributes
    ----------
    history
        Ends where the truth begins.
    judged
        Their part of `history`.
    truth
        What they went for.
    exclude
        What their lists leave out, ``None`` where they may repeat.
    """

    history: History
    judged: History
    truth: Truth
    exclude: sp.csr_matrix | None

    @classmethod
    def of(cls, history: History, split: Split, before: datetime) -> Window:
        """Take evenly spaced users of a split, by id; all of it must end by `before`.

        Raises
        ------
        GateError
            The truth reaches past `before`, or the history into the truth.
        """
        if split.holdout.end > to_utc(before) or to_utc(history.end) > split.cutoff:
            raise GateError(
                f"a window for tuning ends at {format_instant(split.holdout.end)} and learns until "
                f"{format_instant(history.end)}: it must not reach past {format_instant(before)}"
            )
        history = replace(history, other_items=None)  # every recipe over one catalogue
        users = split.users.to_list()
        picked = np.unique(np.linspace(0, len(users) - 1, min(USERS, len(users))).astype(int))
        chosen = [users[at] for at in picked]
        judged = history.rows(rows_of(chosen, history.user_ids))
        truth = truth_of(
            split.truth.filter(split.truth[c.USER_ID].is_in(chosen)),
            judged.user_ids,
            history.item_ids,
        )
        return cls(history, judged, truth, judged.seen if split.policy == "discovery" else None)

    def thinned(self, users: int) -> Window:
        """Return the same window with at most so many evenly spaced users."""
        n = self.judged.n_users
        rows = np.unique(np.linspace(0, n - 1, min(users, n)).astype(int))
        return Window(
            self.history,
            self.judged.rows(rows),
            Truth(self.truth.items[rows], self.truth.size[rows]),
            None if self.exclude is None else self.exclude[rows],
        )


@dataclass
class EarlierWindows:
    """Measures recipes by the lists they give; see `models.tuning.Trials`.

    Attributes
    ----------
    windows
        Newest first.
    k
        Length of the lists.
    refuse
        Raises `ResourceError` for a recipe that is too large for a window; it is not trained then.
    """

    windows: Sequence[Window]
    k: int
    progress: Progress = silent
    refuse: Callable[[Recipe, History], None] = lambda recipe, history: None
    _values: dict[tuple[str, int], float] = field(default_factory=dict)
    _scorers: dict[tuple[str, int], Scorer] = field(default_factory=dict)

    @property
    def discovery(self) -> bool:
        """Whether lists leave out what their user had before."""
        return any(window.exclude is not None for window in self.windows)

    def better(self, recipe: Recipe, than: Recipe) -> bool:
        """Compare window by window, the newest first, and stop where it is not ahead."""
        ours: list[float] = []
        theirs: list[float] = []
        for at in range(len(self.windows)):
            theirs.append(self.value(than, at))
            try:
                ours.append(self.value(recipe, at))
            except NightjarError as error:
                self.progress(f"left out: {error.sentence}")
                return False
            if sum(ours) <= sum(theirs):
                break
        wins = sum(a > b for a, b in zip(ours, theirs, strict=True))
        found = (
            len(ours) == len(self.windows)
            and sum(ours) > sum(theirs) * (1 + LEAST)
            and wins * 2 > len(ours)
        )
        self._forget(than if found else recipe)
        return found

    def value(self, recipe: Recipe, at: int) -> float:
        """Return the mean NDCG of a recipe's lists on one window."""
        key = (recipe.hash, at)
        if key not in self._values:
            window = self.windows[at]
            lists = lists_of(self._trained(recipe, at), window.judged, self.k, window.exclude)
            self._values[key] = float(np.nanmean(ndcg(lists, window.truth, self.k)))
        return self._values[key]

    def pools(self, recipes: Mapping[str, Recipe], newest: int | None = None) -> Sequence[Pool]:
        """Let each recipe propose candidates, and ask all of them what they think of each.

        Scorers are kept where only the newest windows are asked for: more will be asked of them.
        """
        pools = []
        for at, whole in enumerate(self.windows[:newest]):
            window = whole.thinned(POOLED)
            scores = {n: self._trained(r, at).score(window.judged) for n, r in recipes.items()}
            parts = [_listed(top_k(one, CANDIDATES), window) for one in scores.values()]
            if window.exclude is not None:
                parts += [
                    _listed(top_k(one, CANDIDATES, exclude=window.exclude), window)
                    for one in scores.values()
                ]
            user, item = np.divmod(np.unique(np.concatenate(parts)), window.history.n_items)
            pools.append(
                Pool(
                    user=user,
                    item=item,
                    scores={n: pair_scores(one, user, item) for n, one in scores.items()},
                    history=window.history,
                    value=_Value(user, item, window, self.k),
                )
            )
            if newest is None:
                for recipe in recipes.values():
                    self._scorers.pop((recipe.hash, at), None)
        return pools

    def _trained(self, recipe: Recipe, at: int) -> Scorer:
        key = (recipe.hash, at)
        if key not in self._scorers:
            self.refuse(recipe, self.windows[at].history)
            self._scorers[key] = recipe.train(self.windows[at].history)
        return self._scorers[key]

    def _forget(self, recipe: Recipe) -> None:
        for at in range(len(self.windows)):
            self._scorers.pop((recipe.hash, at), None)


def _listed(lists: Lists, window: Window) -> NDArray[np.int64]:
    """Return each entry as one number: row · items + item."""
    return lists.row.astype(np.int64) * window.history.n_items + lists.item


class _Value:
    """Mean NDCG and coverage of the lists that scores of pairs make."""

    def __init__(
        self, user: NDArray[np.int64], item: NDArray[np.int64], window: Window, k: int
    ) -> None:
        n_users, n_items = window.truth.items.shape
        key = user * n_items + item
        self._listed = np.ones(len(key), np.bool_)
        if window.exclude is not None:
            self._listed = ~np.isin(key, _keys(window.exclude))
        user, item, key = (of[self._listed] for of in (user, item, key))
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

    def __call__(self, scores: NDArray[np.float32]) -> tuple[float, float]:
        board = np.full(self._items.shape, np.inf, np.float32)
        board[self._cell] = -scores[self._listed]
        best = np.argpartition(board, self._k - 1, axis=1)[:, : self._k]
        best = np.take_along_axis(
            best, np.argsort(np.take_along_axis(board, best, axis=1), axis=1), axis=1
        )
        there = np.isfinite(np.take_along_axis(board, best, axis=1))
        gain = np.take_along_axis(self._hit, best, axis=1) & there
        found = float(np.nanmean((gain @ self._discount[: self._k]) / self._ideal))
        shown = np.take_along_axis(self._items, best, axis=1)[there]
        return found, np.count_nonzero(np.bincount(shown, minlength=1)) / self._n_items


def _keys(cells: sp.csr_matrix) -> NDArray[np.int64]:
    """Return each stored cell as one number: row · columns + column."""
    rows = np.repeat(np.arange(cells.shape[0], dtype=np.int64), np.diff(cells.indptr))
    keys: NDArray[np.int64] = rows * cells.shape[1] + cells.indices
    return keys
