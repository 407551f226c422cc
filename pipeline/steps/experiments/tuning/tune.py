"""A longer search for hyper-parameters, within a budget, on windows that end before any holdout.

Promises: nothing at or after `until` is read, and no night with a later as-of can have a holdout
that begins before it; the search begins with the recipe as it stands, so what it finds is never
worse there; the same call goes on with the study that an earlier one began, on the data it pinned;
what is found is a candidate, and the gate decides.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from pipeline.base import AsOf, Interval, Progress, compact_instant, format_instant, silent
from pipeline.data.features import FeaturesConfig
from pipeline.data.windows import parted
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.earlier_windows import earlier_windows, select_event_weights
from pipeline.evaluation.trials import EarlierWindows
from pipeline.evaluation.tuning_window import Window
from pipeline.models.contract import Recipe
from pipeline.models.search import Axis, axes, current_values
from pipeline.models.selection import select_hyperparameters
from pipeline.steps.experiments.learning_data import LearningData
from pipeline.steps.experiments.tuning.report import FOLDER, write_files
from pipeline.steps.experiments.tuning.search import Search
from pipeline.steps.experiments.tuning.study import (
    TuningResult,
    conclude,
    facts_of,
    measured,
    recipe_of,
    value_of,
)
from pipeline.stores.studies.store import Studies
from pipeline.stores.studies.study import Study
from pipeline.stores.studies.trial import COMPLETE
from pipeline.workspace.config import Config, dump
from pipeline.workspace.experiment_artifacts import StudyFacts
from pipeline.workspace.history import JUST_AFTER, LedgerHistory
from pipeline.workspace.ledger import ComparisonKey
from pipeline.workspace.memory import refusal
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

LOCK = "tune"
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DECISIVE: Final = ("clean", "features", "split", "recommend")
"""Sections of the config that what a window says of a recipe depends on."""
_ELITE = 3
"""Trials of the last study that the next one tries first."""


def parse_budget(text: str) -> float:
    """Read a budget such as ``90s``, ``20m`` or ``1h`` as seconds; `ConfigError` for any other."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smh])", text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise ConfigError(
            "tuning.invalid_budget",
            f"the budget {text!r} is no time to search in; write it as 90s, 20m, 1h",
        )
    return seconds


def default_as_of(ws: Workspace, now: AsOf) -> AsOf:
    """Return the as-of of the newest run that came to a decision, `now` before the first one."""
    last = LedgerHistory.of(ws.ledger).last_decision(now)
    return now if last is None else AsOf(last.as_of)


def tune(
    ws: Workspace,
    as_of: AsOf,
    *,
    budget: float,
    elapsed: Callable[[], float],
    recipe: str | None = None,
    progress: Progress = silent,
) -> TuningResult:
    """Search for better hyper-parameters, or go on with it.

    Parameters
    ----------
    as_of
        A night with a later one judges what is found.
    budget
        Seconds that this call may take; it is looked at between two trainings. Choosing the
        mixture of a blend comes after it, and may take as long as two more trials.
    elapsed
        Seconds since the call began.
    recipe
        Name of the recipe to begin with; ``None``: the champion's, else the first that learns.

    Raises
    ------
    ConfigError
        A budget of nothing, a recipe that is not there or has nothing to tune.
    DataError
        No window that enough people judge lies before `until`.
    ResourceError
        Optuna is not installed, or the recipe as it stands cannot be trained here.
    """
    if not budget > 0:
        raise ConfigError(
            "tuning.invalid_budget", f"a budget of {budget:g} seconds is no time to search in"
        )
    history = LedgerHistory.of(ws.ledger)
    with (
        ws.lake.lock(LOCK),
        Studies(ws.home / FOLDER) as studies,
        task_log("tune", as_of, progress=progress) as log,
    ):
        name, first = _start(ws.config, history, as_of, recipe, log.progress)
        study_id = _identity(ws.config, as_of, first)
        study = studies.find(study_id)
        if study is None:
            with ws.pinning():
                pinned = _pin(ws, history, as_of, name)
                ground = _ground(ws, history, pinned, log.progress)
                study = _begin(studies, study_id, ground, first, log.progress)
        else:
            ground = _ground(ws, history, _Pinned.of(facts_of(study)), log.progress)
        search = Search(study, ground.windows, ground.config, budget, elapsed, log.progress)
        search.run()
        result = conclude(ws, study, ground.windows, search.measure, log.progress)
        if result.status != "unfinished":
            write_files(ws, study, result)
        log.rows, log.result = sum(result.trials.values()), result.sentence
    return result


def _start(
    config: Config, history: LedgerHistory, as_of: AsOf, name: str | None, progress: Progress
) -> tuple[str, Recipe]:
    """Return the recipe to begin with, as a nightly run right after `as_of` would find it."""
    after = as_of + JUST_AFTER
    configured = history.selected_recipes(config.recipes, after)
    live = history.champion(after)
    champion: dict[str, Recipe] = {} if live is None else {live.name: live.recipe}
    if name is None:
        for name, recipe in [*champion.items(), *configured.items()]:
            if axes(recipe) and recipe.capabilities.baseline is None:
                for other in champion.keys() - {name}:
                    progress(f"{other}, the champion, has nothing to tune: {name} is tuned instead")
                return name, recipe
        raise ConfigError(
            "tuning.nothing_to_tune", "no configured recipe has a field that can be tuned"
        )
    recipes = champion | configured
    if name not in recipes:
        raise ConfigError(
            "recipe.unknown", f"no recipe is called {name!r}; there are {', '.join(recipes)}"
        )
    if not axes(recipes[name]):
        raise ConfigError("tuning.nothing_to_tune", f"{name} has no field that can be tuned")
    return name, recipes[name]


def _identity(config: Config, as_of: AsOf, recipe: Recipe) -> str:
    """Name the study: the same call finds it again, whatever was ingested since."""
    sections = dump(config)
    decisive = {section: sections[section] for section in _DECISIVE}
    digest = _sum({"as_of": format_instant(as_of), "asked": recipe.hash, "config": decisive})
    return f"{compact_instant(as_of)}-{recipe.family}-{digest}"


@dataclass(frozen=True)
class _Pinned:
    """What a study sees: versions of the lake, and where its windows end.

    Attributes
    ----------
    task, weights
        Of a study that was begun; None for a new one, which takes those of the nightly runs.
    """

    as_of: AsOf
    until: AsOf
    versions: Mapping[str, int | None]
    name: str
    task: ComparisonKey | None = None
    weights: FeaturesConfig | None = None

    @classmethod
    def of(cls, facts: StudyFacts) -> _Pinned:
        """Return what a study pinned when it was begun."""
        return cls(
            AsOf(facts.as_of),
            AsOf(facts.until),
            facts.versions,
            facts.name,
            facts.task,
            facts.weights,
        )

    @property
    def too_short(self) -> DataError:
        """The error where no window lies before `until`."""
        return DataError(
            "tuning.history_too_short",
            f"no window that enough people judge lies before {format_instant(self.until)}, where "
            "the longest holdout may begin; tuning needs a longer history, or an as-of nearer to "
            "it",
            where="events",
        )


def _pin(ws: Workspace, history: LedgerHistory, as_of: AsOf, name: str) -> _Pinned:
    # The longest holdout that any run may take: one that grows must not meet a window.
    longest = max(
        ws.config.split.holdout_days,
        history.last_holdout_days(as_of + JUST_AFTER) or 0,
        *ws.config.split.holdout_days_options,
    )
    until = AsOf(as_of - timedelta(days=longest))
    return _Pinned(as_of, until, ws.current_versions(), name)


@dataclass(frozen=True)
class _Ground:
    """What trials stand on: the windows, newest first, and the config that made them."""

    pinned: _Pinned
    windows: list[Window]
    config: Config
    task: ComparisonKey


def _ground(ws: Workspace, history: LedgerHistory, pinned: _Pinned, progress: Progress) -> _Ground:
    """Build the windows; task and event weights are the runs', else chosen like theirs."""
    config, until, after = ws.config, pinned.until, pinned.as_of + JUST_AFTER
    policy = history.last_task(after) if pinned.task is None else pinned.task.task
    data = LearningData(ws, pinned.versions)
    events = data.events(until)
    try:
        part = parted(events, until, config.windows, task=policy, first=False, holdout_days=None)
    except DataError:
        raise pinned.too_short from None
    tonight = replace(part, holdout=Interval(until, pinned.as_of))
    weights = pinned.weights or history.last_weights(after, config.features)
    if weights is None:
        weights = select_event_weights(
            events, tonight, config.windows, config.recommend.length, progress
        )
    config = config.model_copy(update={"features": weights})
    items, users = data.catalogue(config.clean)
    windows = list(earlier_windows(events, until, config.windows, tonight.task, items, users))
    if not windows:
        raise pinned.too_short
    task = ComparisonKey(
        task=tonight.task, target_kinds=tonight.target_kinds, k=config.recommend.length
    )
    return _Ground(pinned, windows, config, task)


def _begin(
    studies: Studies, study_id: str, ground: _Ground, recipe: Recipe, progress: Progress
) -> Study:
    pinned = ground.pinned
    refuse = refusal(ground.config.train)
    refuse(recipe, ground.windows[0].history)  # before any of it is tried
    start = select_hyperparameters(
        recipe, EarlierWindows(ground.windows, ground.task.k, progress, refuse), progress
    )
    movable = axes(start)
    if not movable:
        raise ConfigError(
            "tuning.nothing_to_tune", f"{pinned.name} has no field that can be tuned in this task"
        )
    task = ground.task.model_dump(mode="json")
    facts = StudyFacts(
        as_of=pinned.as_of,
        until=pinned.until,
        versions=pinned.versions,
        name=pinned.name,
        key=_sum({"family": start.family, "fields": sorted(movable), "task": task}),
        task=ground.task,
        weights=ground.config.features,
        start=start,
    )
    last = studies.last(facts.key, study_id)
    elite = [] if last is None else _elite(last, movable)
    if last is not None and elite:
        progress(f"begins with the best of {last.study_id}")
    plain = facts.model_dump(mode="json", by_alias=True, exclude={"axes"})
    return studies.begin(study_id, plain, movable, current_values(start, movable), elite)


def _elite(last: Study, among: Mapping[str, Axis]) -> list[dict[str, float]]:
    """Return where the best trials of a study stand, as far as they lie in today's spans."""
    done = sorted((t for t in measured(last) if t.state == COMPLETE), key=value_of, reverse=True)
    stand = [current_values(recipe_of(last, trial), among) for trial in done]
    return [values for values in stand if values.keys() == among.keys()][:_ELITE]


def _sum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
