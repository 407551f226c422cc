"""Recipes measured on windows before the holdout, for tuning (`models.tuning.Trials`).

Guarantees: no window reaches into the holdout; equal windows give equal results; a recipe that
cannot be trained is not better than any other.
"""

from __future__ import annotations

import math
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
from pipeline.models.tuning import ACCEPTANCE, CandidatePool, utility

POOLED: Final = 500
"""Number of users whose candidates weigh the parts of a blend: each mixture ranks all of them."""


@dataclass
class EarlierWindows:
    """Measures recipes by their lists; see `models.tuning.Trials`.

    Attributes
    ----------
    windows
        Newest first.
    k
        Length of the lists.
    progress
        Receives a line for each recipe that is left out.
    refuse
        Raises `ResourceError` for a recipe that is too large for a window; it is not trained then.
    budget
        CPU seconds that all trainings may take, by `Recipe.cpu_seconds`. The newest window is
        always used.
    spent
        CPU seconds of the trainings so far, by the same estimate.
    """

    windows: Sequence[Window]
    k: int
    progress: Progress = silent
    refuse: Callable[[Recipe, History], None] = lambda recipe, history: None
    budget: float = math.inf
    spent: float = 0.0
    _values: dict[tuple[str, int], float] = field(default_factory=dict)
    _stability: dict[str, float] = field(default_factory=dict)
    _scorers: dict[tuple[str, int, bool], Scorer] = field(default_factory=dict)

    @property
    def discovery(self) -> bool:
        """True if lists leave out items that their user had before."""
        return any(window.exclude is not None for window in self.windows)

    def better(self, recipe: Recipe, than: Recipe) -> bool:
        """Compare two recipes window by window, newest first; stop where `recipe` gains too little.

        Parameters
        ----------
        recipe, than
            The new recipe, and the best one so far.

        Returns
        -------
        bool
            True if `ACCEPTANCE` accepts the utilities of `recipe` on all windows. False for a trial
            that the budget leaves out.
        """
        if not self._affords(recipe):
            return False
        values: list[float] = []
        reference_values: list[float] = []
        for at in range(len(self.windows)):
            reference_values.append(self.utility(than, at))
            # A gain that is too small so far would have to be larger on the windows that are left.
            enough = (1.0 + ACCEPTANCE.min_gain) * sum(reference_values)
            try:
                most = utility(self.value(recipe, at), self._most_stable(than))
                if sum(values) + most <= enough:
                    break
                values.append(self.utility(recipe, at))
            except NightjarError as error:
                self.progress(f"left out: {error.sentence}")
                break
            if sum(values) <= enough:
                break
        accepted = len(values) == len(self.windows) and ACCEPTANCE.accepts(values, reference_values)
        self.release(than if accepted else recipe)
        return accepted

    def _affords(self, recipe: Recipe) -> bool:
        """Return True if the budget has room for a trial; half of it is kept for `pools`."""
        days = [(at, day) for at in range(len(self.windows)) for day in self._days(at)]
        needed = sum(self._cost(recipe, at, day) for at, day in days)
        if self.spent + needed <= self.budget / 2:
            return True
        self.progress(
            f"left out: {recipe.family} with {recipe.summary}: {self.spent / 60:.1f} of "
            f"{self.budget / 60:g} CPU minutes are used by estimate, and half are kept for the "
            "weights of parts; raise train.search_budget"
        )
        return False

    def value(self, recipe: Recipe, at: int) -> float:
        """Return the mean NDCG of a recipe's lists on one window.

        Parameters
        ----------
        recipe, at
            A recipe, and the position of the window.

        Returns
        -------
        float
            In [0, 1]; computed once.
        """
        key = (recipe.hash, at)
        if key not in self._values:
            window = self.windows[at]
            lists = window.lists(self._trained(recipe, at), self.k)
            self._values[key] = float(np.nanmean(ndcg(lists, window.truth, self.k)))
        return self._values[key]

    def utility(self, recipe: Recipe, at: int) -> float:
        """Return the utility of a recipe on one window, see `models.tuning.utility`.

        Parameters
        ----------
        recipe, at
            A recipe, and the position of the window.

        Returns
        -------
        float
            NDCG combined with stability.
        """
        return utility(self.value(recipe, at), self.stability(recipe))

    def stability(self, recipe: Recipe) -> float:
        """Return the share of list entries kept overnight; 1 without a previous day."""
        if recipe.hash not in self._stability:
            kept = [
                self._kept(recipe, at, window.previous_day)
                for at, window in enumerate(self.windows)
                if window.previous_day is not None
            ]
            self._stability[recipe.hash] = float(np.mean(kept)) if kept else 1.0
        return self._stability[recipe.hash]

    def _most_stable(self, than: Recipe) -> float:
        """Return the stability above which no trial is expected: half of what a recipe lacks."""
        return (1.0 + self.stability(than)) / 2

    def _kept(self, recipe: Recipe, at: int, previous_day: PreviousDay) -> float:
        window = self.windows[at]
        # The same users on both days, none of whom had an event in between.
        now = window.take(previous_day.rows).lists(self._trained(recipe, at), self.k)
        earlier = previous_day.lists(self._trained(recipe, at, previous_day), self.k)
        column, present = find(window.history.item_ids, previous_day.history.item_ids)
        n_items = window.history.n_items
        entries = pairs(earlier.row, column[earlier.item], n_items)
        stays = present[earlier.item] & np.isin(entries, pairs(now.row, now.item, n_items))
        return float(stays.mean()) if len(stays) else 1.0

    def pools(
        self, recipes: Mapping[str, Recipe], newest: int | None = None
    ) -> Sequence[CandidatePool]:
        """Collect the candidates of several recipes on each window, with all their scores.

        Parameters
        ----------
        recipes
            Parts of a blend, by name.
        newest
            Number of windows, newest first; all by default.

        Returns
        -------
        Sequence
            A pool per window.
        """
        # A call for the newest windows keeps its scorers, because most are used again; a call for
        # all windows first releases those of other recipes.
        if newest is None:
            needed = {recipe.hash for recipe in recipes.values()}
            self._scorers = {key: x for key, x in self._scorers.items() if key[0] in needed}
        pools = []
        for at, full in enumerate(self.windows[:newest]):
            days = [(recipe, day) for recipe in recipes.values() for day in self._days(at)]
            cost = sum(self._cost(recipe, at, day) for recipe, day in days)
            if at and self.spent + cost > self.budget:
                self.progress(
                    f"left out: {len(self.windows) - at} of {len(self.windows)} windows for the "
                    f"weights of parts: {self.spent / 60:.1f} of {self.budget / 60:g} CPU minutes "
                    "are used by estimate; raise train.search_budget"
                )
                break
            window = full.thinned(POOLED)
            parts = {name: self._trained(recipe, at) for name, recipe in recipes.items()}
            earlier: dict[str, Scorer] = {}
            if (day := window.previous_day) is not None:
                earlier = {name: self._trained(x, at, day) for name, x in recipes.items()}
            pools.append(pooled(window, parts, earlier, self.k))
            for recipe in recipes.values() if newest is None else ():
                self.release(recipe, at)
        return pools

    def _days(self, at: int) -> list[PreviousDay | None]:
        """Return the days of a window on which recipes are trained, ``None`` for the window."""
        day = self.windows[at].previous_day
        return [None] if day is None else [None, day]

    def _history(self, at: int, previous_day: PreviousDay | None) -> History:
        return self.windows[at].history if previous_day is None else previous_day.history

    def _cost(self, recipe: Recipe, at: int, previous_day: PreviousDay | None) -> float:
        """Return the estimated CPU seconds of a training, 0 if its scorer is there."""
        if (recipe.hash, at, previous_day is not None) in self._scorers:
            return 0.0
        return recipe.cpu_seconds(self._history(at, previous_day))

    def _trained(self, recipe: Recipe, at: int, previous_day: PreviousDay | None = None) -> Scorer:
        """Return the scorer of a window, or of its previous day."""
        key = (recipe.hash, at, previous_day is not None)
        if key not in self._scorers:
            history = self._history(at, previous_day)
            self.refuse(recipe, history)
            self.spent += recipe.cpu_seconds(history)
            # Of the users a thousand are evaluated at most.
            self._scorers[key] = recipe.train_items(history)
        return self._scorers[key]

    def release(self, recipe: Recipe, at: int | None = None) -> None:
        """Release the scorers of a recipe on one window, or on all; values stay.

        Parameters
        ----------
        recipe, at
            A recipe, and the position of the window; ``None`` for all.
        """
        for key in [key for key in self._scorers if key[0] == recipe.hash]:
            if at in (None, key[1]):
                del self._scorers[key]
