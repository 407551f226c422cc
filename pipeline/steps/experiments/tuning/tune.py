"""Tuning: search hyperparameters within a budget, on windows that end before any holdout.

Guarantees:

* No event at or after `until` is read, and no run with a later as-of has a holdout that begins
  before `until`.
* The search begins with the recipe as it is, so the best trial is never worse on these windows.
* The same call resumes the study that an earlier one began, on the data that it pinned.
* The result is a candidate; the gate decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from pipeline.base import AsOf, Interval, Progress, compact_instant, format_instant, silent
from pipeline.data.split import PinnedTask
from pipeline.data.windows import parted
from pipeline.errors import ConfigError, DataError, nearest
from pipeline.evaluation.earlier_windows import earlier_windows, select_event_weights
from pipeline.evaluation.trials import EarlierWindows
from pipeline.evaluation.tuning_window import Window
from pipeline.models.contract import Recipe
from pipeline.models.search import axes, current_values
from pipeline.models.selection import select_hyperparameters
from pipeline.steps.experiments.learning_data import LearningData, data_sections
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
from pipeline.workspace.artifacts import SplitFile
from pipeline.workspace.config import Config, short_digest
from pipeline.workspace.experiment_artifacts import StudyFacts
from pipeline.workspace.history import JUST_AFTER, LedgerHistory
from pipeline.workspace.ledger import ComparisonKey
from pipeline.workspace.memory import refusal
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

LOCK = "tune"
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_ELITE = 3
"""Trials of the previous study that a new one tries first."""


def parse_budget(text: str) -> float:
    """Read a budget such as ``90s``, ``20m`` or ``1h`` as seconds; `ConfigError` for any other."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smh])", text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    return _checked_budget(seconds, repr(text))


def _checked_budget(seconds: float, text: str) -> float:
    if not seconds > 0:
        raise ConfigError(
            "tuning.invalid_budget",
            f"the budget {text} is not a time above 0; write it as 90s, 20m or 1h",
        )
    return seconds


def default_as_of(ws: Workspace, now: AsOf) -> AsOf:
    """Return the as-of of the newest decision.

    Parameters
    ----------
    now
        Later decisions do not count; returned if there is none before.
    """
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
    """Search for better hyperparameters, or resume the search.

    Parameters
    ----------
    as_of
        The next run with a later as-of evaluates the candidate.
    budget
        Seconds for this call, checked between two trainings. The mixture of a blend is chosen
        after the budget, which may take as long as two more trials.
    elapsed
        Seconds since the call began.
    recipe
        Name of the recipe to begin with. ``None``: the champion's, else the first configured
        recipe that can be tuned and is not a baseline.

    Raises
    ------
    ConfigError
        `tuning.invalid_budget`, `recipe.unknown`, or `tuning.nothing_to_tune`.
    DataError
        `tuning.history_too_short`: no window with enough users ends before `until`.
    ResourceError
        `extra.optuna_missing`, or the recipe to begin with cannot be trained here.
    """
    _checked_budget(budget, f"{budget:g}")
    history = LedgerHistory.of(ws.ledger)
    with (
        ws.lake.lock(LOCK),
        Studies(ws.home / FOLDER) as studies,
        task_log("tune", as_of, progress=progress) as log,
    ):
        name, first = _first_recipe(ws.config, history, as_of, recipe, log.progress)
        study_id = _study_id(ws.config, as_of, first)
        study = studies.find(study_id)
        if study is None:
            with ws.pinning():
                # Looked up and stored under one lock: `gc` deletes no version in between.
                data = LearningData(ws, ws.current_versions())
                span = Interval(_end_of_windows(ws.config, history, as_of), as_of)
                ground = _ground(data, history, span, None, log.progress)
                facts = _facts(ground, name, first, log.progress)
                study = _begin(studies, study_id, facts, log.progress)
        else:
            facts = facts_of(study)
            data = LearningData(ws, facts.versions)
            # Pins, task and weights of the first call: newer data would make trials incomparable.
            span = Interval(facts.until, facts.as_of)
            ground = _ground(data, history, span, facts, log.progress)
        trials = _trials(ground, log.progress)
        Search(study, trials, budget, elapsed, log.progress).run()
        result = conclude(ws, study, trials, log.progress)
        if result.status != "unfinished":
            write_files(ws, study, result)
        log.rows, log.result = sum(result.trials.values()), result.sentence
    return result


def _first_recipe(
    config: Config, history: LedgerHistory, as_of: AsOf, name: str | None, progress: Progress
) -> tuple[str, Recipe]:
    """Return the recipe to begin with, as a nightly run right after `as_of` would find it."""
    after = as_of + JUST_AFTER
    configured = history.selected_recipes(config.recipes, after)
    live = history.champion(after)
    champion: dict[str, Recipe] = {} if live is None else {live.name: live.recipe}
    if name is None:
        for first, recipe in [*champion.items(), *configured.items()]:
            if axes(recipe) and recipe.capabilities.baseline is None:
                for other in champion.keys() - {first}:
                    progress(f"champion {other} has no field to tune; {first} is tuned instead")
                return first, recipe
        raise ConfigError(
            "tuning.nothing_to_tune",
            "no configured recipe has a field to tune; configure one in nightjar.toml",
        )
    recipes = champion | configured
    if name not in recipes:
        allowed = ", ".join(recipes) + nearest(name, recipes)
        raise ConfigError("recipe.unknown", f"unknown recipe {name!r}; name one of {allowed}")
    if not axes(recipes[name]):
        raise ConfigError(
            "tuning.nothing_to_tune", f"{name} has no field to tune; name another recipe"
        )
    return name, recipes[name]


def _study_id(config: Config, as_of: AsOf, recipe: Recipe) -> str:
    """Name the study: the same call finds it again, whatever was ingested since."""
    # The hash of the recipe before its open fields are selected: that takes place only once.
    facts = {"as_of": format_instant(as_of), "asked": recipe.hash, "config": data_sections(config)}
    return f"{compact_instant(as_of)}-{recipe.family}-{short_digest(facts)}"


def _end_of_windows(config: Config, history: LedgerHistory, as_of: AsOf) -> AsOf:
    """Return the instant by which all windows must end."""
    # That is the start of the longest holdout that a run may choose for this as-of: the holdout may
    # become longer, and must not overlap a window on which hyperparameters were tuned.
    longest = max(
        config.split.holdout_days,
        history.pinned(as_of + JUST_AFTER, config.split.min_users).holdout_days or 0,
        *config.split.holdout_days_options,
    )
    return AsOf(as_of - timedelta(days=longest))


@dataclass(frozen=True)
class _Ground:
    """Data of a study: the windows, newest first, and the config that built them."""

    data: LearningData
    span: Interval
    windows: list[Window]
    config: Config
    task: ComparisonKey


def _ground(
    data: LearningData,
    history: LedgerHistory,
    span: Interval,
    begun: StudyFacts | None,
    progress: Progress,
) -> _Ground:
    """Build the windows; a new study takes task and event weights as a nightly run does."""
    config, until, after = data.ws.config, span.start, span.end + JUST_AFTER
    pinned = history.pinned(after, config.split.min_users)
    if begun is not None:
        pinned = PinnedTask(begun.task.task, begun.task.target_kinds)
    # Tuning windows have the shortest length with enough users, whatever that of a run is.
    pinned = replace(pinned, holdout_days=None, shorter=())
    events = data.events(until)
    try:
        part = parted(events, until, config.windows, first=False, pinned=pinned)
    except DataError:
        raise _too_short(until) from None
    # Event weights are selected on windows before `until`, too.
    tonight = replace(part, holdout=span)
    k = config.recommend.length
    weights = history.last_weights(after, config.features) if begun is None else begun.weights
    if weights is None:
        weights = select_event_weights(events, tonight, config.windows, k, progress)
    config = config.model_copy(update={"features": weights})
    items, users = data.catalogue(config.clean)
    windows = list(earlier_windows(events, until, config.windows, tonight.pinned, items, users))
    if not windows:
        raise _too_short(until)
    key = SplitFile.of(tonight).comparison_key(config)
    return _Ground(data, span, windows, config, key)


def _too_short(until: datetime) -> DataError:
    return DataError(
        "tuning.history_too_short",
        f"no window with enough users ends before {format_instant(until)}, the start of the "
        "longest holdout; tune with a longer history or a later as-of",
        where="events",
    )


def _facts(ground: _Ground, name: str, recipe: Recipe, progress: Progress) -> StudyFacts:
    """Select the fields that the recipe leaves open, and return the facts of a new study."""
    trials = _trials(ground, progress)
    trials.refuse(recipe, ground.windows[0].history)  # before any training
    start = select_hyperparameters(recipe, trials, progress)
    movable = axes(start)
    if not movable:
        raise ConfigError(
            "tuning.nothing_to_tune",
            f"{name} has no field to tune in this task; name another recipe",
        )
    task = ground.task.model_dump(mode="json")
    return StudyFacts(
        as_of=ground.span.end,
        until=ground.span.start,
        versions=ground.data.versions,
        name=name,
        # Studies of one key have the same axes and task, so one can begin with trials of another.
        key=short_digest({"family": start.family, "fields": sorted(movable), "task": task}),
        task=ground.task,
        weights=ground.config.features,
        start=start,
    )


def _trials(ground: _Ground, progress: Progress) -> EarlierWindows:
    """Return what measures recipes in a nightly run, without a limit of its time."""
    refuse = refusal(ground.config.train)
    return EarlierWindows(ground.windows, ground.task.k, progress, refuse)


def _begin(studies: Studies, study_id: str, facts: StudyFacts, progress: Progress) -> Study:
    """Begin a study: the start is tried first, then the best trials of the previous study."""
    movable = axes(facts.start)
    last = studies.last(facts.key, study_id)
    best: list[dict[str, float]] = []
    if last is not None:
        trials = [trial for trial in measured(last) if trial.state == COMPLETE]
        ranked = sorted(trials, key=value_of, reverse=True)
        values = [current_values(recipe_of(last, trial), movable) for trial in ranked]
        # A value outside of its span today is left out, and with it the trial.
        best = [trial for trial in values if trial.keys() == movable.keys()][:_ELITE]
        if best:
            progress(f"begins with the best trials of {last.study_id}")
    plain = facts.model_dump(mode="json", by_alias=True, exclude={"axes"})
    return studies.begin(study_id, plain, movable, current_values(facts.start, movable), best)
