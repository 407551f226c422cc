"""What a retrain is worth on these data: past days lived through again, once for each policy.

Promises: each policy lives in a sandbox of its own and nothing live moves; a day knows no event
after its instant; days come in order, each is written down when it is over, so the same call goes
on where an earlier one was stopped, with the same decisions; what is read is pinned when it begins.

On each as-of the day before is delivered, then scored against the lists that were live in it. Then
the policy says what follows: a whole night, or the lists of who did something are folded in; they
are as well where a night put nothing before people. Until something is live, all policies run
nights.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pipeline.base import (
    Progress,
    compact_instant,
    format_instant,
    parse_instant,
    silent,
    to_utc,
)
from pipeline.errors import ConfigError
from pipeline.report.backtest import Day, summary, text
from pipeline.report.backtest_figure import figure
from pipeline.steps.experiments.backtest.days import Policy, days_of
from pipeline.steps.experiments.backtest.sandbox import Sandbox, sandbox_config
from pipeline.stores.runs import Run, Runs
from pipeline.workspace.config import dump
from pipeline.workspace.workspace import Workspace

FOLDER: Final = "backtests"
FIGURE: Final = "backtest.svg"
PLAN: Final = "plan"
_TABLES: Final = ("events", "items", "users")
_LONGEST: Final = timedelta(days=28)
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1)}


@dataclass(frozen=True)
class Backtested:
    """What the policies came to.

    Attributes
    ----------
    folder
        Where the figure and the sandboxes lie.
    facts
        From when to when, how often, what was planted, as it was pinned.
    days
        Policy -> its days, in order.
    """

    folder: Path
    facts: Mapping[str, Any]
    days: Mapping[str, tuple[Day, ...]]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: a row a policy, and its days."""
        return {
            "backtest": self.folder.name,
            **{name: self.facts[name] for name in ("from", "to", "every_hours", "plant_shift")},
            "rows": [row.to_dict() for row in summary(self.days, self._plant)],
            "days": {name: [day.to_dict() for day in days] for name, days in self.days.items()},
            "figure": str(self.folder / FIGURE),
        }

    def text(self) -> str:
        """As a table, and where the figure is."""
        return f"{text(self.days, self._plant)}\n\nfigure: {self.folder / FIGURE}"

    @property
    def _plant(self) -> datetime | None:
        planted = self.facts["plant_shift"]
        return None if planted is None else parse_instant(planted)


def parse_every(words: str) -> timedelta:
    """Read a step such as ``1d`` or ``12h``; `ConfigError` for any other."""
    match = re.fullmatch(r"([0-9]{1,3})([hd])", words.strip())
    every = int(match[1]) * _UNITS[match[2]] if match else timedelta(0)
    if not timedelta(0) < every <= _LONGEST:
        raise ConfigError(f"{words!r} is no step of a backtest; write it as 12h or 1d, at most 28d")
    return every


def parse_policies(words: str) -> tuple[Policy, ...]:
    """Read names that commas part; `ConfigError` for one that is none, or for none at all."""
    names = [name.strip() for name in words.split(",") if name.strip()]
    unknown = [name for name in names if name not in set(Policy)]
    if unknown or not names:
        told = f"{unknown[0]!r} is no policy" if unknown else "no policy is named"
        raise ConfigError(f"{told}; there are {', '.join(Policy)}")
    return tuple(dict.fromkeys(Policy(name) for name in names))


def backtest(
    ws: Workspace,
    begin: datetime,
    end: datetime,
    *,
    every: timedelta,
    policies: Sequence[Policy],
    plant: datetime | None = None,
    progress: Progress = silent,
) -> Backtested:
    """Live through past days once for each policy, or go on with it.

    Parameters
    ----------
    begin, end
        The first as-of, and the last one that may be; UTC.
    plant
        From when on taste is another one (see `data.planted`).

    Raises
    ------
    ConfigError
        The span holds no step, or the shift would be planted outside of it.
    DataError
        No event lies before the first as-of.
    """
    begin, end = to_utc(begin), to_utc(end)
    plant = None if plant is None else to_utc(plant)
    _check(begin, end, every, plant)
    folder = ws.home / FOLDER / _name(ws, begin, end, every, plant)
    with ws.lake.lock("backtest"):
        run = Runs(folder).open(PLAN)
        if run.committed(PLAN) is not None:
            progress(f"days lived before, and what they read, are kept in {folder}")
        plan = _plan(ws, run, begin, end, every, plant)
        days: dict[str, tuple[Day, ...]] = {}
        for policy in policies:
            box = Sandbox(ws, plan["versions"], folder / policy, plan["config"], plant)
            days[policy] = tuple(days_of(box, policy, begin, end, every, progress))
        (folder / FIGURE).write_bytes(figure(days, plant))
    return Backtested(folder, plan, days)


def _check(begin: datetime, end: datetime, every: timedelta, plant: datetime | None) -> None:
    if end < begin + every:
        raise ConfigError(
            f"from {format_instant(begin)} to {format_instant(end)} there is no step of "
            f"{every / _UNITS['h']:g} hours: a backtest needs two as-ofs at least"
        )
    if plant is not None and not begin < plant < end:
        raise ConfigError(
            f"a shift at {format_instant(plant)} is outside of the backtest: plant it between "
            f"{format_instant(begin)} and {format_instant(end)}"
        )


def _name(
    ws: Workspace, begin: datetime, end: datetime, every: timedelta, plant: datetime | None
) -> str:
    """Name the backtest that the same call finds again, whatever is taken in meanwhile."""
    facts = [
        dump(sandbox_config(ws.config)),
        format_instant(end),
        every.total_seconds(),
        None if plant is None else format_instant(plant),
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return f"{compact_instant(begin)}-{digest}"


def _plan(
    ws: Workspace,
    run: Run,
    begin: datetime,
    end: datetime,
    every: timedelta,
    plant: datetime | None,
) -> dict[str, Any]:
    """Pin, once, what all policies live through."""
    if run.committed(PLAN) is None:
        with ws.pinning(), run.draft(PLAN) as draft:
            draft.json(
                PLAN,
                {
                    "from": format_instant(begin),
                    "to": format_instant(end),
                    "every_hours": every / _UNITS["h"],
                    "plant_shift": None if plant is None else format_instant(plant),
                    "versions": {table: ws.lake.version(table) for table in _TABLES},
                    "config": dump(sandbox_config(ws.config)),
                },
            )
    plan: dict[str, Any] = run.json(PLAN, PLAN)
    return plan
