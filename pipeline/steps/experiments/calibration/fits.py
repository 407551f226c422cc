"""The fits of a calibration: what they stand on is pinned, and each is kept when it is done.

Promises: windows are built as a nightly run of the same as-of builds them; of a fit only values per
user are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline.base import AsOf, Interval, Progress, format_instant
from pipeline.data.matrix import History
from pipeline.data.split import UNDERPOWERED, Split, before
from pipeline.data.targets import Task
from pipeline.data.windows import WindowConfig, parted, window
from pipeline.errors import DataError
from pipeline.evaluation.calibrate import CUTOFFS, LEAST_CUTOFFS, REPLICATES
from pipeline.evaluation.seed_variance import ReplicateBlock, list_values
from pipeline.models.contract import Recipe
from pipeline.steps.experiments.learning_data import LearningData
from pipeline.stores.runs import Run
from pipeline.workspace.experiment_artifacts import CalibrationPlanFile
from pipeline.workspace.history import JUST_AFTER, LedgerHistory
from pipeline.workspace.memory import refuse_too_large
from pipeline.workspace.workspace import Workspace

_APART: Final = timedelta(days=28)
"""Between cut-offs, where the history is long enough: fits of a week later are much the same."""


def pinned(ws: Workspace, run: Run, as_of: AsOf, history: LedgerHistory) -> CalibrationPlanFile:
    """Pin versions, task, event weights and holdouts, once."""
    if not run.has(CalibrationPlanFile):
        with ws.pinning():
            plan = _plan(ws, as_of, history)
            with run.draft(CalibrationPlanFile.STEP) as draft:
                draft.write(plan)
    return run.read(CalibrationPlanFile)


def _plan(ws: Workspace, as_of: AsOf, history: LedgerHistory) -> CalibrationPlanFile:
    config, after = ws.config, as_of + JUST_AFTER
    versions = ws.current_versions()
    holdout_days = history.last_holdout_days(after)
    search = _HoldoutSearch(
        LearningData(ws, versions).events(as_of),
        config.windows,
        history.last_task(after),
        holdout_days,
    )
    parts = search.disjoint(as_of)
    return CalibrationPlanFile(
        as_of=as_of,
        versions=versions,
        task=parts[-1].task,
        holdout_days=holdout_days,
        weights=history.last_weights(after, config.features),
        k=config.recommend.length,
        holdouts=tuple(part.holdout for part in reversed(parts)),
    )


@dataclass(frozen=True)
class _HoldoutSearch:
    """Sets holdouts aside, each as a nightly run of its end does."""

    events: pl.DataFrame
    config: WindowConfig
    task: Task | None
    holdout_days: int | None

    def disjoint(self, as_of: datetime) -> list[Split]:
        """Return disjoint holdouts, newest first: 28 days apart, or touching if that gives more."""
        parts: list[Split] = []
        for apart in (_APART, timedelta(0)):
            candidates = self._apart(as_of, apart)
            parts = candidates if len(candidates) > len(parts) else parts
        if len(parts) < LEAST_CUTOFFS:
            raise DataError(
                "calibration.too_few_holdouts",
                f"{len(parts)} holdout{'' if len(parts) == 1 else 's'} with users enough before "
                f"as-of {format_instant(as_of)}; a calibration needs {LEAST_CUTOFFS}, so a longer "
                "history or a later as-of",
                where="events",
            )
        return parts

    def _apart(self, as_of: datetime, apart: timedelta) -> list[Split]:
        end, parts = as_of, list[Split]()
        while len(parts) < CUTOFFS:
            try:
                part = self.split(end)
            except DataError:  # nothing lies before its cutoff
                break
            if UNDERPOWERED in part.flags:
                break
            parts.append(part)
            end -= max(apart, part.holdout.length)
        return parts

    def split(self, end: datetime) -> Split:
        """Set aside the holdout that ends at an instant."""
        return parted(
            self.events.filter(before(end)),
            end,
            self.config,
            task=self.task,
            first=False,
            holdout_days=self.holdout_days,
        )


@dataclass(frozen=True)
class ReplicateFits:
    """The fits of one calibration: each salt on each cut-off, the oldest first."""

    ws: Workspace
    run: Run
    plan: CalibrationPlanFile
    name: str
    recipe: Recipe

    def all(self, elapsed: Callable[[], float], progress: Progress) -> list[ReplicateBlock]:
        """Do what is not done yet, and return the values of all."""
        report = _Countdown(len(self.plan.holdouts) * REPLICATES, elapsed, progress)
        for number, holdout in enumerate(self.plan.holdouts):
            missing = [
                replicate for replicate in range(REPLICATES) if not self._has(number, replicate)
            ]
            if not missing:
                continue
            part, history = self._window(holdout)
            refuse_too_large(self.name, self.recipe, history, self.ws.config.train)
            for replicate in missing:
                report.before(number * REPLICATES + replicate + 1)
                if self._still(number, replicate):
                    values = self._values(number, 0)
                else:
                    scorer = self.recipe.train(history, replicate=replicate)
                    upright, turned = list_values(scorer, history, part, self.plan.k)
                    values = {"ndcg": upright, "ndcg_reversed": turned}
                with self.run.draft(_folder(number, replicate)) as draft:
                    draft.arrays("values", values)
                    draft.rows = len(values["ndcg"])
                report.done += 1
        return [self._block(number, holdout) for number, holdout in enumerate(self.plan.holdouts)]

    def _has(self, number: int, replicate: int) -> bool:
        return self.run.committed(_folder(number, replicate)) is not None

    def _still(self, number: int, replicate: int) -> bool:
        """Return whether another fit would be the same once more: no seed of the oldest cut-off has
        changed any list, and neither has the second one here.
        """
        if number == 0 or replicate < 2:
            return False
        pairs = [(0, other) for other in range(1, REPLICATES)] + [(number, 1)]
        return all(self._same(at, other) for at, other in pairs)

    def _same(self, number: int, replicate: int) -> bool:
        first, other = self._values(number, 0), self._values(number, replicate)
        return all(np.array_equal(first[side], other[side]) for side in first)

    def _values(self, number: int, replicate: int) -> dict[str, np.ndarray[Any, Any]]:
        return self.run.arrays(_folder(number, replicate), "values")

    def _block(self, number: int, holdout: Interval) -> ReplicateBlock:
        values = [self._values(number, replicate) for replicate in range(REPLICATES)]
        return ReplicateBlock(
            holdout, *(np.stack([v[side] for v in values]) for side in ("ndcg", "ndcg_reversed"))
        )

    def _window(self, holdout: Interval) -> tuple[Split, History]:
        """Build a training window as a nightly run of the holdout's end would."""
        config, plan = self.ws.config, self.plan
        if plan.weights is not None:
            config = config.model_copy(update={"features": plan.weights})
        data = LearningData(self.ws, plan.versions)
        events = data.events(plan.as_of)
        items, users = data.catalogue(config.clean)
        search = _HoldoutSearch(events, config.windows, plan.task, plan.holdout_days)
        part = search.split(holdout.end)
        history, _ = window(events, part.cutoff, config.windows, items, users)
        return part, history


@dataclass
class _Countdown:
    """Reports which fit comes next, and about how long the rest takes."""

    total: int
    elapsed: Callable[[], float]
    progress: Progress
    done: int = 0

    def __post_init__(self) -> None:
        self._start = self.elapsed()

    def before(self, count: int) -> None:
        """Report the fit of this number."""
        left = ""
        if self.done:
            each = (self.elapsed() - self._start) / self.done
            left = f", about {_time(each * (self.total - count + 1))} left"
        self.progress(f"calibrate: fit {count} of {self.total}{left}")


def _folder(number: int, replicate: int) -> str:
    return f"fits/{number}-{replicate}"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
