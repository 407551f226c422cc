"""Backtest: past days replayed once for each retrain schedule, to compare the schedules.

At each as-of, the events since the last one are ingested and compared with the lists that were
live. Then the schedule decides whether a nightly run starts. If none starts, or it publishes
nothing, users with new events get new lists by fold-in. Before its first publication, each schedule
starts a nightly run at every as-of.

Guarantees:

* Each schedule has a sandbox of its own; the workspace only gets the folder of the backtest.
* A day reads no event at or after its as-of, and none that was ingested later unless arrival times
  are not known (`[snapshot] known_by`).
* The data that all schedules read are pinned by the first call.
* Each day is stored when it is complete, so the same call resumes an interrupted backtest with the
  same decisions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from pipeline.base import AsOf, Progress, compact_instant, format_instant, plain, silent
from pipeline.errors import ConfigError
from pipeline.report.backtest import summary, text, title
from pipeline.report.backtest_figure import figure
from pipeline.steps.experiments.backtest.days import RetrainSchedule, days_of
from pipeline.steps.experiments.backtest.sandbox import BacktestSandbox, sandbox_config
from pipeline.steps.nightly.known import catalogue_at, known_at
from pipeline.stores.batches import MERGED
from pipeline.stores.runs import Run, Runs
from pipeline.workspace.artifacts import Known, Versions
from pipeline.workspace.config import dump, short_digest
from pipeline.workspace.experiment_artifacts import BacktestPlanFile, DayFile, DeliveredCatalogue
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

FOLDER: Final = "backtests"
FIGURE: Final = "backtest.svg"
_LONGEST: Final = timedelta(days=28)
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1)}


@dataclass(frozen=True)
class Backtested:
    """Result of a backtest.

    Attributes
    ----------
    folder
        Folder of the figure and the sandboxes.
    plan
        Pinned inputs.
    days
        Schedule -> its days, in order.
    """

    folder: Path
    plan: BacktestPlanFile
    days: Mapping[str, tuple[DayFile, ...]]

    def plain(self) -> dict[str, Any]:
        """Return a row for each schedule, and its days, as plain JSON."""
        pinned = self.plan.plain()
        return {
            "backtest": self.folder.name,
            **{name: pinned[name] for name in ("from", "to", "every_hours", "plant_shift")},
            "rows": [plain(row) for row in summary(self.days, self.plan.plant_shift)],
            "known_by": self.plan.known.by,
            "known_by_reason": self.plan.known.reason,
            "days": {name: [day.plain() for day in days] for name, days in self.days.items()},
            "figure": str(self.folder / FIGURE),
        }

    def text(self) -> str:
        """Return the result as a table, and the path of the figure."""
        table = text(self.days, self.plan.plant_shift)
        known = f"data known by {self.plan.known.text}"
        return f"{table}\n\n{known}\nfigure: {self.folder / FIGURE}"


def parse_every(value: str) -> timedelta:
    """Read a step such as ``1d`` or ``12h``; `ConfigError` for any other."""
    match = re.fullmatch(r"([0-9]{1,3})([hd])", value.strip())
    every = int(match[1]) * _UNITS[match[2]] if match else timedelta(0)
    if not timedelta(0) < every <= _LONGEST:
        raise ConfigError(
            "backtest.invalid_step",
            f"the step {value!r} is not a time from 1h to 28d; write it as 12h or 1d",
        )
    return every


def parse_schedules(value: str) -> tuple[RetrainSchedule, ...]:
    """Read comma-separated schedules; `ConfigError` for an unknown name or an empty list."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names or not set(names) <= set(RetrainSchedule):
        allowed = ", ".join(RetrainSchedule)
        raise ConfigError(
            "backtest.unknown_schedule",
            f"the schedules {value!r} are not valid; name one or more of {allowed}",
        )
    return tuple(RetrainSchedule(name) for name in dict.fromkeys(names))


@dataclass(frozen=True)
class _Course:
    """Instants of a backtest: first and last as-of, step, and the planted shift."""

    begin: AsOf
    end: AsOf
    every: timedelta
    plant: AsOf | None

    def __post_init__(self) -> None:
        if self.end < self.begin + self.every:
            raise ConfigError(
                "backtest.span_too_short",
                f"no step of {self.hours:g} hours fits between {format_instant(self.begin)} and "
                f"{format_instant(self.end)}, and a backtest needs at least two as-ofs; choose a "
                "shorter step or a later end",
            )
        if self.plant is not None and not self.begin < self.plant < self.end:
            raise ConfigError(
                "backtest.shift_outside",
                f"--plant-shift {format_instant(self.plant)} is outside the backtest; choose an "
                f"instant between {format_instant(self.begin)} and {format_instant(self.end)}",
            )

    @property
    def hours(self) -> float:
        """Hours from one as-of to the next."""
        return self.every / _UNITS["h"]

    @property
    def instants(self) -> list[AsOf]:
        """All as-ofs, in order."""
        # The last as-of lies before `end` unless `end` is a whole number of steps after `begin`.
        count = (self.end - self.begin) // self.every
        return [AsOf(self.begin + step * self.every) for step in range(count + 1)]

    def folder(self, ws: Workspace) -> str:
        """Name the folder after the arguments, so that an equal call resumes the backtest."""
        # Schedules are not part of the name: a later call may add one to the same backtest.
        facts = [
            dump(sandbox_config(ws.config)),
            ws.config.snapshot.known_by,
            format_instant(self.end),
            self.every.total_seconds(),
            None if self.plant is None else format_instant(self.plant),
        ]
        return f"{compact_instant(self.begin)}-{short_digest(facts)}"


def backtest(
    ws: Workspace,
    begin: AsOf,
    end: AsOf,
    *,
    every: timedelta,
    schedules: Sequence[RetrainSchedule],
    plant: AsOf | None = None,
    progress: Progress = silent,
) -> Backtested:
    """Replay past days once for each schedule, or resume the replay.

    Parameters
    ----------
    begin, end
        The first as-of, and the latest possible one.
    every
        Time from one as-of to the next.
    schedules
        Replayed in this order.
    plant
        Begin of a synthetic shift of taste (see `data.synthetic_shift`), or None.

    Raises
    ------
    ConfigError
        `backtest.span_too_short`, or `backtest.shift_outside`.
    DataError
        `data.no_event`: no event lies before the first as-of.
    """
    course = _Course(begin, end, every, plant)
    folder = ws.home / FOLDER / course.folder(ws)
    # A second call at the same time would write to the same sandboxes.
    with ws.lake.lock("backtest"), task_log("backtest", end, progress=progress) as log:
        run = Runs(folder).open(BacktestPlanFile.STEP)
        if run.has(BacktestPlanFile):
            progress(f"resuming the backtest in {folder}")
        plan = _plan(ws, run, course)
        days: dict[str, tuple[DayFile, ...]] = {}
        for schedule in schedules:
            box = BacktestSandbox(ws, plan, folder / schedule)
            days[schedule] = tuple(days_of(box, schedule, course.instants, log.progress))
        (folder / FIGURE).write_bytes(figure(days, plant))
        log.rows, log.result = sum(map(len, days.values())), title(days)
    return Backtested(folder, plan, days)


def _plan(ws: Workspace, run: Run, course: _Course) -> BacktestPlanFile:
    """Return the plan; the first call pins the data of all schedules."""
    if not run.has(BacktestPlanFile):
        # Looked up and stored under one lock: `gc` deletes no version in between.
        with ws.pinning(), run.draft(BacktestPlanFile.STEP) as draft:
            config, versions = sandbox_config(ws.config), ws.current_versions()
            by = ws.config.snapshot.known_by or "as_of"
            known, _ = known_at(ws, course.begin, by, versions)
            draft.write(
                BacktestPlanFile(
                    start=course.begin,
                    end=course.end,
                    every_hours=course.hours,
                    plant_shift=course.plant,
                    versions=versions,
                    known=known,
                    catalogues=_catalogues(ws, course, known, versions),
                    config=config,
                )
            )
    return run.read(BacktestPlanFile)


def _catalogues(
    ws: Workspace, course: _Course, known: Known, versions: Versions
) -> tuple[DeliveredCatalogue, ...]:
    """Return the versions of items and users that are new at each as-of."""
    if known.by == "now":
        first = {table: versions[table] for table in MERGED}
        return (DeliveredCatalogue(at=course.begin, versions=first),)
    delivered, last = [], dict[str, int | None]()
    for at in course.instants:
        here = catalogue_at(ws, at)
        new = {table: version for table, version in here.items() if version != last.get(table)}
        if new:
            delivered.append(DeliveredCatalogue(at=at, versions=new))
        last = here
    return tuple(delivered)
