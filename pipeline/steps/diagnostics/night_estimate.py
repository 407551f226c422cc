"""Estimated time and memory of the tasks of a nightly run, from counts and before it starts.

Guarantees: equal counts give equal estimates, because no clock is read; a run of which a task other
than a training does not fit into memory raises before anything is written.

The memory of a training is that of `Recipe.peak_bytes`; the other figures were measured with
`benchmarks/scale.py` (docs/SPEED.md) and are good to a factor of about two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.errors import ResourceError
from pipeline.models.contract import Recipe
from pipeline.workspace.artifacts import train_step
from pipeline.workspace.memory import TrainConfig, free_memory, limit_of, size

HEAVY_TASK_SECONDS: Final = 7200
"""Time after which Airflow ends a task that trains or evaluates."""
_PROGRAM: Final = 300 << 20
"""Bytes of a process with its libraries."""
_WINDOW_BYTES: Final = 20
"""Bytes of an event in a window."""
_SELECTION_FITS: Final = 11
"""Fits of the whole recipe that the selection of hyperparameters costs, within its budget."""
_LIST_BYTES: Final = 6000
"""Bytes of the list of a user while lists are made."""


@dataclass(frozen=True)
class TaskEstimate:
    """Estimated cost of a task; `trains` is True where the exact need is checked later again."""

    task: str
    cpu_seconds: float
    bytes: int
    trains: bool = False

    def text(self) -> str:
        """Return the estimate in words."""
        return f"{self.task} about {self.cpu_seconds / 60:,.1f} CPU minutes and {size(self.bytes)}"


def estimate_night(
    recipes: Mapping[str, Recipe],
    config: TrainConfig,
    *,
    first: bool,
    events: int,
    users: int,
    items: int,
) -> tuple[TaskEstimate, ...]:
    """Estimate the tasks of a nightly run that grow with its data.

    Parameters
    ----------
    recipes
        Recipes of the run by name.
    config
        Budget of a selection of hyperparameters, to which the fit of the selected recipe is added.
    first
        True if the run selects the weights of events, for which it trains ten small models.
    events, users, items
        Numbers of each in the window, at least 1.

    Returns
    -------
    tuple
        Estimates in the order of the tasks.
    """
    window = _window(events, users, items)
    pairs, held = users * items, _PROGRAM + events * _WINDOW_BYTES
    fits = {name: recipe.cpu_seconds(window) for name, recipe in recipes.items()}
    peaks = {name: held + recipe.peak_bytes(window) for name, recipe in recipes.items()}
    largest = max(recipe.fitted_bytes(window) for recipe in recipes.values())
    trains = (
        TaskEstimate(
            train_step(name),
            fits[name]
            + recipe.has_free_params * min(_SELECTION_FITS * fits[name], 60 * config.search_budget),
            peaks[name],
            trains=True,
        )
        for name, recipe in recipes.items()
    )
    listed = held + 3 * largest + users * _LIST_BYTES
    return (
        TaskEstimate("validate", 5 + events * 2e-6, _PROGRAM + events * 30),
        TaskEstimate("features", 3 + events * (30e-6 if first else 4e-6), _PROGRAM + events * 150),
        *trains,
        TaskEstimate("evaluate", 3 + pairs * len(recipes) * 4e-9, held + 3 * largest),
        TaskEstimate("refit", max(fits.values()), max(peaks.values()), trains=True),
        TaskEstimate("recommend", 1 + pairs * 12e-9, listed),
    )


def refuse_night(
    estimates: Iterable[TaskEstimate], config: TrainConfig, progress: Progress
) -> None:
    """Report the estimates, and raise if a task other than a training does not fit into memory.

    Parameters
    ----------
    estimates
        Result of `estimate_night`.
    config
        Limit of trainings; other tasks may take the free memory.
    progress
        Receives a line with all estimates, and one for each task that is too large or too long.

    Raises
    ------
    ResourceError
        `memory.night_too_large`.
    """
    tasks = list(estimates)
    table = "; ".join(task.text() for task in tasks)
    progress(f"estimates: {table}")
    for line in _too_long(tasks):
        progress(line)
    free, train = free_memory(), limit_of(config)
    for task in tasks:
        limit = train + _PROGRAM if task.trains else free
        if task.bytes <= limit:
            continue
        need = f"{task.task} needs about {size(task.bytes)} of memory, and {size(limit)} are free"
        if not task.trains:
            raise ResourceError(
                "memory.night_too_large",
                f"{need}; estimates of all tasks: {table}; end other programs, use a machine with "
                "more memory, or start a workspace with fewer events",
            )
        # The window may have fewer cells than these counts allow, so the task itself refuses.
        progress(f"{need}: end other programs, or configure smaller recipes")


def _too_long(tasks: Iterable[TaskEstimate]) -> Iterator[str]:
    for task in tasks:
        if task.cpu_seconds > HEAVY_TASK_SECONDS:
            yield (
                f"{task.task} takes about {task.cpu_seconds / 3600:,.1f} CPU hours; Airflow ends it"
                f" after {HEAVY_TASK_SECONDS // 3600} hours: configure fewer or smaller recipes, "
                "use more cores, or start it with `nightjar nightly`"
            )


def _window(events: int, users: int, items: int) -> History:
    """Return a window with these counts; no real one has more cells."""
    return History(
        user_ids=np.broadcast_to(np.str_(""), users),
        item_ids=np.broadcast_to(np.str_(""), items),
        indptr=np.linspace(0, events, users + 1).astype(np.int64),
        item=np.arange(events, dtype=np.int32) % np.int32(items),
        timestamp_us=np.broadcast_to(np.int64(0), events),
        weight=np.broadcast_to(np.float32(1), events),
        end=datetime(1970, 1, 2, tzinfo=UTC),
    )
