"""Recipes measured on windows before the holdout: what tuning may look at, and nothing else.

Promises: no window holds anything of the holdout; equal windows give equal answers; a recipe that
cannot be trained is no better than any. (`models.tuning.Trials` says what is asked.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import NightjarError
from pipeline.evaluation.blend_pool import pairs, pooled
from pipeline.evaluation.holdout import find
from pipeline.evaluation.metrics import ndcg
from pipeline.evaluation.tuning_window import PreviousDay, Window
from pipeline.models.contract import Recipe, Scorer
from pipeline.models.tuning import CandidatePool, utility

POOLED: Final = 500
"""Users whose candidates weigh the parts: each mixture ranks all of them anew."""
LEAST: Final = 0.003
"""A recipe must be better by this share."""


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
    _stability: dict[str, float] = field(default_factory=dict)
    _scorers: dict[tuple[str, int, bool], Scorer] = field(default_factory=dict)

    @property
    def discovery(self) -> bool:
        """Whether lists leave out what their user had before."""
        return any(window.exclude is not None for window in self.windows)

    def better(self, recipe: Recipe, than: Recipe) -> bool:
        """Compare window by window, the newest first, and stop where it is not ahead."""
        values: list[float] = []
        reference_values: list[float] = []
        for at in range(len(self.windows)):
            reference_values.append(self.utility(than, at))
            try:
                most = self.value(recipe, at)  # as if its lists stayed as they were
                ahead = sum(values) + most > sum(reference_values)
                values.append(self.utility(recipe, at) if ahead else most)
            except NightjarError as error:
                self.progress(f"left out: {error.sentence}")
                self._drop_scorers(recipe)
                return False
            if sum(values) <= sum(reference_values):
                break
        wins = sum(a > b for a, b in zip(values, reference_values, strict=True))
        pairs = (
            len(values) == len(self.windows)
            and sum(values) > sum(reference_values) * (1 + LEAST)
            and wins * 2 > len(values)
        )
        self._drop_scorers(than if pairs else recipe)
        return pairs

    def value(self, recipe: Recipe, at: int) -> float:
        """Return the mean NDCG of a recipe's lists on one window."""
        key = (recipe.hash, at)
        if key not in self._values:
            window = self.windows[at]
            lists = window.lists(self._trained(recipe, at), self.k)
            self._values[key] = float(np.nanmean(ndcg(lists, window.truth, self.k)))
        return self._values[key]

    def utility(self, recipe: Recipe, at: int) -> float:
        """Return what a recipe's lists are worth on one window, see `models.tuning.utility`."""
        return utility(self.value(recipe, at), self.stability(recipe))

    def stability(self, recipe: Recipe) -> float:
        """Return how much of its lists stays overnight, 1 where no window has an eve."""
        if recipe.hash not in self._stability:
            kept = [
                self._kept(recipe, at, window.previous_day)
                for at, window in enumerate(self.windows)
                if window.previous_day is not None
            ]
            self._stability[recipe.hash] = float(np.mean(kept)) if kept else 1.0
        return self._stability[recipe.hash]

    def _kept(self, recipe: Recipe, at: int, previous_day: PreviousDay) -> float:
        window = self.windows[at]
        now = window.take(previous_day.rows).lists(self._trained(recipe, at), self.k)
        then = previous_day.lists(self._trained(recipe, at, previous_day), self.k)
        column, known = find(window.history.item_ids, previous_day.history.item_ids)
        n_items = window.history.n_items
        entries = pairs(then.row, column[then.item], n_items)
        stays = known[then.item] & np.isin(entries, pairs(now.row, now.item, n_items))
        return float(stays.mean()) if len(stays) else 1.0

    def pools(
        self, recipes: Mapping[str, Recipe], newest: int | None = None
    ) -> Sequence[CandidatePool]:
        """Let each recipe propose candidates, and ask all of them what they think of each.

        Scorers are kept where only the newest windows are asked for: more will be asked of most.
        Where all are, those of other recipes are let go first.
        """
        if newest is None:
            asked = {recipe.hash for recipe in recipes.values()}
            self._scorers = {key: one for key, one in self._scorers.items() if key[0] in asked}
        pools = []
        for at, whole in enumerate(self.windows[:newest]):
            window = whole.thinned(POOLED)
            parts = {name: self._trained(recipe, at) for name, recipe in recipes.items()}
            earlier: dict[str, Scorer] = {}
            if (day := window.previous_day) is not None:
                earlier = {name: self._trained(x, at, day) for name, x in recipes.items()}
            pools.append(pooled(window, parts, earlier, self.k))
            for recipe in recipes.values() if newest is None else ():
                self._drop_scorers(recipe, at)
        return pools

    def _trained(self, recipe: Recipe, at: int, previous_day: PreviousDay | None = None) -> Scorer:
        """Return the scorer of a window, or of its eve."""
        key = (recipe.hash, at, previous_day is not None)
        if key not in self._scorers:
            history = self.windows[at].history if previous_day is None else previous_day.history
            self.refuse(recipe, history)
            self._scorers[key] = recipe.train(history)
        return self._scorers[key]

    def _drop_scorers(self, recipe: Recipe, at: int | None = None) -> None:
        """Let go of the scorers of a window, or of all."""
        for key in [key for key in self._scorers if key[0] == recipe.hash]:
            if at in (None, key[1]):
                del self._scorers[key]
