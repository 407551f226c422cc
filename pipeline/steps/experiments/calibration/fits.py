"""Fits of a calibration: replicates of one recipe on disjoint holdouts, and one fit of each other.

Guarantees: windows are built as a nightly run of the same as-of builds them; each fit is stored
when it is done, as values per user only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl

from pipeline.base import AsOf, Interval, Progress, format_instant
from pipeline.data.matrix import History
from pipeline.data.split import UNDERPOWERED, PinnedTask, Split, before
from pipeline.data.windows import WindowConfig, parted, window
from pipeline.errors import DataError, NightjarError
from pipeline.evaluation.calibrate import CUTOFFS, LEAST_CUTOFFS, REPLICATES
from pipeline.evaluation.seed_variance import ReplicateBlock, list_values
from pipeline.models.contract import Recipe
from pipeline.steps.experiments.learning_data import LearningData
from pipeline.stores.runs import Run
from pipeline.workspace.experiment_artifacts import CalibrationPlanFile
from pipeline.workspace.history import JUST_AFTER, LedgerHistory
from pipeline.workspace.ledger import Champion
from pipeline.workspace.memory import refuse_too_large
from pipeline.workspace.workspace import Workspace

Splitter: TypeAlias = Callable[[datetime], Split]
"""Sets the holdout aside that ends at an instant."""

_SIDES: Final = ("ndcg", "ndcg_reversed")
_OTHER: Final = "recipe."
"""Prefix of a recipe's array: NumPy reserves the name ``file``."""
_APART: Final = timedelta(days=28)
"""Between cutoffs, where the history is long enough: fits of a week later are much the same."""


def pinned(ws: Workspace, run: Run, as_of: AsOf, history: LedgerHistory) -> CalibrationPlanFile:
    """Return the plan of a calibration; the first call pins versions and holdouts.

    Parameters
    ----------
    run
        Files of the calibration.
    history
        Task, event weights and holdout length are those of the runs up to `as_of`.

    Raises
    ------
    DataError
        `calibration.too_few_holdouts`.
    """
    if not run.has(CalibrationPlanFile):
        with ws.pinning():
            # Looked up and stored under one lock: `gc` deletes no version in between.
            plan = _plan(ws, as_of, history)
            with run.draft(CalibrationPlanFile.STEP) as draft:
                draft.write(plan)
    return run.read(CalibrationPlanFile)


def _plan(ws: Workspace, as_of: AsOf, history: LedgerHistory) -> CalibrationPlanFile:
    config, after = ws.config, as_of + JUST_AFTER
    versions, pinned = ws.current_versions(), history.pinned(after, config.split.min_users)
    events = LearningData(ws, versions).events(as_of)
    split = _splitter(events, config.windows, pinned)
    # `max` keeps the first of two equally long ones: holdouts that lie apart.
    splits = max(_disjoint(split, as_of, _APART), _disjoint(split, as_of, timedelta(0)), key=len)
    if len(splits) < LEAST_CUTOFFS:
        raise DataError(
            "calibration.too_few_holdouts",
            f"holdouts with enough users before as-of {format_instant(as_of)}: {len(splits)}; a "
            f"calibration needs {LEAST_CUTOFFS}: ingest earlier events, or give a later as-of",
            where="events",
        )
    return CalibrationPlanFile(
        as_of=as_of,
        versions=versions,
        task=splits[-1].task,
        pinned=pinned,
        weights=history.last_weights(after, config.features),
        k=config.recommend.length,
        holdouts=tuple(part.holdout for part in reversed(splits)),
    )


def _splitter(events: pl.DataFrame, config: WindowConfig, pinned: PinnedTask) -> Splitter:
    """Return a function that splits as a nightly run of the holdout's end does."""

    def split(end: datetime) -> Split:
        past = events.filter(before(end))
        return parted(past, end, config, first=False, pinned=pinned)

    return split


def _disjoint(split: Splitter, end: datetime, apart: timedelta) -> list[Split]:
    """Return disjoint holdouts, newest first, whose ends lie at least `apart` from each other."""
    splits: list[Split] = []
    while len(splits) < CUTOFFS:
        try:
            part = split(end)
        except DataError:  # no event before its cutoff
            break
        if UNDERPOWERED in part.flags:
            break
        splits.append(part)
        # E-values are multiplied over blocks, which therefore must not overlap.
        end -= max(apart, part.holdout.length)
    return splits


@dataclass(frozen=True)
class ReplicateFits:
    """Fits of one calibration: each replicate on each cutoff, the oldest cutoff first."""

    ws: Workspace
    run: Run
    plan: CalibrationPlanFile
    champion: Champion
    others: Mapping[str, Recipe]

    def all(self, elapsed: Callable[[], float], progress: Progress) -> list[ReplicateBlock]:
        """Train the missing fits, and return the values of all.

        Parameters
        ----------
        elapsed
            Seconds since the call began.

        Raises
        ------
        ResourceError
            `memory.recipe_too_large`.
        """
        total, done, began = len(self.plan.holdouts) * REPLICATES, 0, elapsed()
        for number, holdout in enumerate(self.plan.holdouts):
            folders = {replicate: _folder(number, replicate) for replicate in range(REPLICATES)}
            missing = [r for r, folder in folders.items() if self.run.committed(folder) is None]
            if not missing and self.run.committed(_others(number)) is not None:
                continue
            part, history = self._window(holdout)
            # Checked once per holdout: the estimate depends on the window, not on the replicate.
            name, recipe = self.champion.name, self.champion.recipe
            refuse_too_large(name, recipe, history, self.ws.config.train)
            # Only fits of this call count for the time left: stored ones take none.
            for replicate in missing:
                count = number * REPLICATES + replicate + 1
                seconds = round((elapsed() - began) / max(done, 1) * (total - count + 1))
                left = f", about {timedelta(seconds=seconds)} left" if done else ""
                progress(f"calibrate: fit {count} of {total}{left}")
                if self._copies_first_fit(number, replicate):
                    values = self._values(number, 0)
                else:
                    scorer = recipe.train(history, replicate=replicate)
                    values = dict(
                        zip(_SIDES, list_values(scorer, history, part, self.plan.k), strict=True)
                    )
                with self.run.draft(folders[replicate]) as draft:
                    draft.arrays("values", values)
                    draft.rows = len(values["ndcg"])
                done += 1
            self._fit_others(number, part, history, progress)
        return [self._block(number, holdout) for number, holdout in enumerate(self.plan.holdouts)]

    def _fit_others(self, number: int, part: Split, history: History, progress: Progress) -> None:
        """Train each other recipe once; one that cannot be trained is left out."""
        fitted: dict[str, np.ndarray[Any, Any]] = {}
        for name, recipe in self.others.items():
            progress(f"calibrate: {name} at cutoff {number + 1} of {len(self.plan.holdouts)}")
            try:
                refuse_too_large(name, recipe, history, self.ws.config.train)
                scorer = recipe.train(history, replicate=0)
            except NightjarError as error:
                progress(f"{name} is left out: {error.sentence}")
                continue
            fitted[_OTHER + name], _ = list_values(scorer, history, part, self.plan.k)
        with self.run.draft(_others(number)) as draft:
            draft.arrays("values", fitted)
            draft.rows = part.n_users

    def _copies_first_fit(self, number: int, replicate: int) -> bool:
        """Return True if the seed has no effect, so that this fit need not be trained."""
        # The evidence: on the oldest cutoff all replicates have equal values, and on this one the
        # first two.
        if number == 0 or replicate < 2:
            return False
        pairs = [(0, other) for other in range(1, REPLICATES)] + [(number, 1)]
        return all(self._same(at, other) for at, other in pairs)

    def _same(self, number: int, replicate: int) -> bool:
        first, other = self._values(number, 0), self._values(number, replicate)
        return all(np.array_equal(first[side], other[side]) for side in _SIDES)

    def _values(self, number: int, replicate: int) -> dict[str, np.ndarray[Any, Any]]:
        return self.run.arrays(_folder(number, replicate), "values")

    def _block(self, number: int, holdout: Interval) -> ReplicateBlock:
        values = [self._values(number, replicate) for replicate in range(REPLICATES)]
        upright, turned = (np.stack([v[side] for v in values]) for side in _SIDES)
        others = {
            name.removeprefix(_OTHER): ndcg
            for name, ndcg in self.run.arrays(_others(number), "values").items()
        }
        return ReplicateBlock(holdout, upright, turned, others)

    def _window(self, holdout: Interval) -> tuple[Split, History]:
        """Build a training window as a nightly run of the holdout's end would."""
        config, plan = self.ws.config, self.plan
        if plan.weights is not None:
            config = config.model_copy(update={"features": plan.weights})
        data = LearningData(self.ws, plan.versions)
        events = data.events(plan.as_of)
        items, users = data.catalogue(config.clean)
        part = _splitter(events, config.windows, plan.pinned)(holdout.end)
        history, _ = window(events, part.cutoff, config.windows, items, users)
        return part, history


def _folder(number: int, replicate: int) -> str:
    return f"fits/{number}-{replicate}"


def _others(number: int) -> str:
    return f"fits/{number}-others"
