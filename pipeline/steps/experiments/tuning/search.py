"""Search: the trials of a study, one after the other, until the budget ends.

Guarantees: a trial is trained, and refused for lack of memory, as in a nightly run; one that the
end of the budget interrupts is repeated by the next call; no recipe is measured twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

from pipeline.base import Progress
from pipeline.errors import NightjarError
from pipeline.evaluation.trials import EarlierWindows
from pipeline.models.contract import Recipe
from pipeline.number_text import change
from pipeline.steps.experiments.tuning.study import lift_over, measured, recipe_of
from pipeline.stores.studies.study import Study
from pipeline.stores.studies.trial import COMPLETE, FAILED, PRUNED, Asked, Trial

_STUCK = 25
"""Number of measured proposals in a row after which the search ends: no new recipe is left."""


@dataclass
class Search:
    """Trials of one call.

    Attributes
    ----------
    trials
        Measures recipes by NDCG; a trial may be stopped after the newest window.
    budget, elapsed
        Seconds of the call, and a function that returns the seconds since its begin.
    """

    study: Study
    trials: EarlierWindows
    budget: float
    elapsed: Callable[[], float]
    progress: Progress
    _measured: dict[str, Trial] = field(default_factory=dict)

    def run(self) -> None:
        """Try recipes until the budget ends, or the proposals repeat."""
        self._measured = {recipe_of(self.study, t).hash: t for t in measured(self.study)}
        stuck = 0
        while self.elapsed() < self.budget and stuck < _STUCK:
            # The grid of the axes maps different proposals to one recipe.
            asked = self.study.ask()
            recipe = recipe_of(self.study, asked)
            same = self._measured.get(recipe.hash)
            if same is None or asked.start:
                stuck = 0
                self._try(asked, recipe)
            else:
                stuck += 1
                self._repeat(asked, same)

    def _try(self, asked: Asked, recipe: Recipe) -> None:
        began = self.elapsed()
        try:
            state, values = self._values(asked, recipe)
        except NightjarError as error:
            if asked.start:
                self.study.set_aside(asked)
                # Without a measured start no trial can be compared, so the error ends the call.
                raise
            self.progress(f"trial {asked.number}: left out: {error.sentence}")
            self._end(asked, recipe, FAILED, {"failure": error.sentence})
            return
        if state is None:
            self.study.set_aside(asked)
            return
        self._end(asked, recipe, state, {"windows": values, "seconds": self.elapsed() - began})
        self._report(asked, state, values)

    def _values(self, asked: Asked, recipe: Recipe) -> tuple[str | None, list[float]]:
        """Return a trial's state and values; the state is None where the budget ended within."""
        values: list[float] = []
        for at in range(len(self.trials.windows)):
            if self.elapsed() >= self.budget:
                return None, values
            values.append(self.trials.value(recipe, at))
            self.trials.release(recipe)
            goes_on = self.study.report(asked, at + 1, float(np.mean(values)))
            # After the last window there is nothing left to save.
            if not goes_on and at + 1 < len(self.trials.windows):
                return PRUNED, values
        return COMPLETE, values

    def _repeat(self, asked: Asked, same: Trial) -> None:
        """End a proposal that rounds to a measured recipe, with the values of that one."""
        values = same.notes.get("windows", [])
        for step in range(1, len(values) + 1):
            self.study.report(asked, step, float(np.mean(values[:step])))
        self._finish(asked, same.state, {"same_as": same.number, "windows": values})

    def _end(self, asked: Asked, recipe: Recipe, state: str, notes: Mapping[str, Any]) -> None:
        self._finish(asked, state, notes)
        self._measured[recipe.hash] = Trial(asked.number, state, asked.values, asked.start, notes)

    def _finish(self, asked: Asked, state: str, notes: Mapping[str, Any]) -> None:
        value = float(np.mean(notes["windows"])) if state == COMPLETE else None
        self.study.finish(asked, state, notes, value)

    def _report(self, asked: Asked, state: str, values: Sequence[float]) -> None:
        # Pruned trials have values on fewer windows, so their means are not comparable.
        done = [trial for trial in self._measured.values() if trial.state == COMPLETE]
        start: list[float] = next((t.notes["windows"] for t in done if t.start), [])
        best: list[float] = max((t.notes["windows"] for t in done), key=np.mean, default=[])
        stopped = f", stopped after window {len(values)}" if state == PRUNED else ""
        left = timedelta(seconds=round(max(0.0, self.budget - self.elapsed())))
        self.progress(
            f"trial {asked.number}: {_values_text(values, start)}{stopped}, "
            f"best {_values_text(best, start)}, {left} left"
        )


def _values_text(values: Sequence[float], start: Sequence[float]) -> str:
    """Write values as a change from the start, where that was measured and is not 0."""
    lift = lift_over(values, start)
    if lift is None or values is start:
        return f"{np.mean(values):.4f}" if values else "none yet"
    return change(lift)
