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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.base import (
    Interval,
    Progress,
    compact_instant,
    format_instant,
    parse_instant,
    silent,
    to_utc,
)
from pipeline.data.features import FeaturesConfig
from pipeline.data.split import before
from pipeline.data.windows import cleaned, parted
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.earlier_windows import earlier, weighed
from pipeline.evaluation.trials import EarlierWindows
from pipeline.evaluation.tuning_window import Window
from pipeline.models.contract import Recipe
from pipeline.models.search import Axis, axes, standing
from pipeline.models.selection import select_hyperparameters
from pipeline.steps.experiments.tuning.report import FOLDER, write_files
from pipeline.steps.experiments.tuning.search import Search
from pipeline.steps.experiments.tuning.study import Found, conclude, measured, recipe_of, value_of
from pipeline.stores.studies.store import Studies
from pipeline.stores.studies.study import Study
from pipeline.stores.studies.trial import COMPLETE
from pipeline.workspace.config import Config, dump
from pipeline.workspace.history import (
    accepted_before,
    last_block_days,
    last_judged,
    last_policy,
    last_weights,
    recalled,
)
from pipeline.workspace.memory import refusal
from pipeline.workspace.workspace import Workspace

LOCK = "tune"
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DECISIVE: Final = ("clean", "features", "split", "recommend")
"""Sections of the config that what a window says of a recipe depends on."""
_TABLES: Final = ("events", "items", "users")
_ELITE = 3
"""Trials of the last study that the next one tries first."""


def parse_budget(text: str) -> float:
    """Read a budget such as ``90s``, ``20m`` or ``1h`` as seconds; `ConfigError` for any other."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smh])", text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"the budget {text!r} is no time to search in; write it as 90s, 20m, 1h")
    return seconds


def default_as_of(ws: Workspace, now: datetime) -> datetime:
    """Return the as-of of the newest night that came to a decision, `now` before the first one."""
    last = last_judged(ws.ledger.entries(), now)
    return now if last is None else last[0]


def tune(
    ws: Workspace,
    as_of: datetime,
    *,
    budget: float,
    elapsed: Callable[[], float],
    recipe: str | None = None,
    progress: Progress = silent,
) -> Found:
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
        raise ConfigError(f"a budget of {budget:g} seconds is no time to search in")
    as_of = to_utc(as_of)
    with ws.lake.lock(LOCK), Studies(ws.home / FOLDER) as studies:
        name, asked = _start(ws, as_of, recipe, progress)
        study_id = _identity(ws.config, as_of, asked)
        study = studies.find(study_id)
        if study is None:
            with ws.pinning():
                pinned = _pin(ws, as_of, name)
                ground = _ground(ws, pinned, progress)
                study = _begin(studies, study_id, pinned, asked, ground, progress)
        else:
            ground = _ground(ws, study.facts, progress)
        search = Search(study, ground.windows, ground.config, budget, elapsed, progress)
        search.run()
        found = conclude(ws, study, ground.windows, search.measure, progress)
        if found.status != "unfinished":
            write_files(ws, study, found)
    return found


def _start(
    ws: Workspace, as_of: datetime, name: str | None, progress: Progress
) -> tuple[str, Recipe]:
    """Return the recipe to begin with, as a night right after `as_of` would find it."""
    entries, after = ws.ledger.entries(), _after(as_of)
    configured = recalled(ws.config.recipes, entries, after)
    accepted = accepted_before(entries, after)
    champion = {x.name: x.recipe for x in accepted[-1:]}
    if name is None:
        for name, recipe in [*champion.items(), *configured.items()]:
            if axes(recipe) and recipe.capabilities.baseline is None:
                for other in champion.keys() - {name}:
                    progress(f"{other}, the champion, has nothing to tune: {name} is tuned instead")
                return name, recipe
        raise ConfigError("no configured recipe has a field that can be tuned")
    known = champion | configured
    if name not in known:
        raise ConfigError(f"no recipe is called {name!r}; there are {', '.join(known)}")
    if not axes(known[name]):
        raise ConfigError(f"{name} has no field that can be tuned")
    return name, known[name]


def _identity(config: Config, as_of: datetime, asked: Recipe) -> str:
    """Name the study: the same call finds it again, whatever the lake has taken in since."""
    sections = dump(config)
    decisive = {section: sections[section] for section in _DECISIVE}
    return (
        f"{compact_instant(as_of)}-{asked.model_dump()['family']}-"
        f"{_sum({'as_of': format_instant(as_of), 'asked': asked.hash, 'config': decisive})}"
    )


def _pin(ws: Workspace, as_of: datetime, name: str) -> dict[str, Any]:
    """Pin what the study sees: versions of the lake, and where its windows end."""
    # The longest holdout that any night may take: one that grows must not meet a window.
    longest = max(
        ws.config.split.block_days,
        last_block_days(ws.ledger.entries(), _after(as_of)) or 0,
        *ws.config.split.block_choices,
    )
    return {
        "as_of": format_instant(as_of),
        "until": format_instant(as_of - timedelta(days=longest)),
        "versions": {table: ws.lake.version(table) for table in _TABLES},
        "name": name,
    }


@dataclass(frozen=True)
class _Ground:
    """What trials stand on: the windows, newest first, and the config that made them."""

    windows: list[Window]
    config: Config
    task: dict[str, Any]


def _ground(ws: Workspace, pinned: Mapping[str, Any], progress: Progress) -> _Ground:
    """Build the windows; task and weights of events are the nights', else chosen like theirs."""
    config, entries = ws.config, ws.ledger.entries()
    as_of, until = parse_instant(pinned["as_of"]), parse_instant(pinned["until"])
    policy = pinned["task"]["policy"] if "task" in pinned else last_policy(entries, _after(as_of))
    columns = [c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP]
    events = _read(ws, pinned, "events", columns, before(until))
    try:
        found = parted(events, until, config.windows, policy=policy, first=False, block_days=None)
    except DataError:
        raise _too_short(pinned) from None
    tonight = replace(found, holdout=Interval(until, as_of))
    weights = pinned.get("weights")
    if weights is None:
        weights = last_weights(entries, _after(as_of), dump(config)["features"])
    if weights is None:
        weights = weighed(
            events, tonight, config.windows, config.recommend.length, progress
        ).model_dump(mode="json")
    config = config.model_copy(update={"features": FeaturesConfig.model_validate(weights)})
    items, _ = cleaned("items", _read(ws, pinned, "items"), config.clean.items)
    users, _ = cleaned("users", _read(ws, pinned, "users"), config.clean.users)
    windows = list(earlier(events, until, config.windows, tonight.policy, items, users))
    if not windows:
        raise _too_short(pinned)
    task = {
        "policy": tonight.policy,
        "target_kinds": list(tonight.target_kinds),
        "k": config.recommend.length,
    }
    return _Ground(windows, config, task)


def _read(
    ws: Workspace,
    pinned: Mapping[str, Any],
    table: str,
    columns: Sequence[str] | None = None,
    where: pl.Expr | None = None,
) -> pl.DataFrame:
    version = pinned["versions"][table]
    if version is None:
        return ws.lake.empty(table, columns)
    return ws.lake.read(table, version=version, columns=columns, where=where)


def _after(as_of: datetime) -> datetime:
    """Return the instant right after `as_of`: what a night of `as_of` decided is known there."""
    return as_of + timedelta(microseconds=1)


def _too_short(pinned: Mapping[str, Any]) -> DataError:
    return DataError(
        f"no window that enough people judge lies before {pinned['until']}, where the longest "
        "holdout may begin; tuning needs a longer history, or an as-of nearer to it",
        where="events",
    )


def _begin(
    studies: Studies,
    study_id: str,
    pinned: Mapping[str, Any],
    asked: Recipe,
    ground: _Ground,
    progress: Progress,
) -> Study:
    refuse = refusal(ground.config.train)
    refuse(asked, ground.windows[0].history)  # before any of it is tried
    start = select_hyperparameters(
        asked, EarlierWindows(ground.windows, ground.task["k"], progress, refuse), progress
    )
    movable = axes(start)
    if not movable:
        raise ConfigError(f"{pinned['name']} has no field that can be tuned in this task")
    family = start.family
    facts = {
        **pinned,
        "key": _sum({"family": family, "fields": sorted(movable), "task": ground.task}),
        "task": ground.task,
        "weights": ground.config.features.model_dump(mode="json"),
        "start": start.model_dump(mode="json"),
    }
    last = studies.last(facts["key"], study_id)
    elite = [] if last is None else _elite(last, movable)
    if last is not None and elite:
        progress(f"begins with the best of {last.study_id}")
    return studies.begin(study_id, facts, movable, standing(start, movable), elite)


def _elite(last: Study, among: Mapping[str, Axis]) -> list[dict[str, float]]:
    """Return where the best trials of a study stand, as far as they lie in today's spans."""
    done = sorted((t for t in measured(last) if t.state == COMPLETE), key=value_of, reverse=True)
    stand = [standing(recipe_of(last, trial), among) for trial in done]
    return [values for values in stand if values.keys() == among.keys()][:_ELITE]


def _sum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
