"""The fits of a calibration: what they stand on is pinned, and each is kept when it is done.

Promises: windows are built as a night of the same as-of builds them; of a fit only values per user
are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, Progress, format_instant, parse_instant
from pipeline.data.features import FeaturesConfig
from pipeline.data.matrix import History
from pipeline.data.split import UNDERPOWERED, Split, before
from pipeline.data.windows import cleaned, parted, window
from pipeline.errors import DataError
from pipeline.evaluation.calibrate import CUTOFFS, LEAST_CUTOFFS, SALTS
from pipeline.evaluation.seed_variance import SaltedBlock, list_values
from pipeline.models.contract import Recipe
from pipeline.stores.runs import Run
from pipeline.workspace.config import Config, dump
from pipeline.workspace.history import last_block_days, last_policy, last_weights
from pipeline.workspace.memory import refuse_too_large
from pipeline.workspace.workspace import Workspace

PLAN: Final = "plan"
_APART: Final = timedelta(days=28)
"""Between cut-offs, where the history is long enough: fits of a week later are much the same."""
_TABLES: Final = ("events", "items", "users")


def pinned(ws: Workspace, run: Run, as_of: datetime) -> dict[str, Any]:
    """Pin versions, task, weights of events and holdouts, once."""
    if run.committed(PLAN) is None:
        _pin(ws, run, as_of)
    found: dict[str, Any] = run.json(PLAN, PLAN)
    return found


def _pin(ws: Workspace, run: Run, as_of: datetime) -> None:
    with ws.pinning():
        entries, after = ws.ledger.entries(), as_of + timedelta(microseconds=1)
        plan: dict[str, Any] = {
            "as_of": format_instant(as_of),
            "versions": {table: ws.lake.version(table) for table in _TABLES},
            "policy": last_policy(entries, after),
            "block_days": last_block_days(entries, after),
            "weights": last_weights(entries, after, dump(ws.config)["features"]),
            "k": ws.config.recommend.length,
        }
        parts = _holdouts(_events(ws, plan), as_of, ws.config, plan)
        plan["policy"] = parts[-1].policy
        plan["holdouts"] = [
            [format_instant(part.holdout.start), format_instant(part.holdout.end)]
            for part in reversed(parts)
        ]
        with run.draft(PLAN) as draft:
            draft.json(PLAN, plan)


def _events(ws: Workspace, plan: Mapping[str, Any]) -> pl.DataFrame:
    columns = [c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP]
    return _read(ws, plan, "events", columns, before(parse_instant(plan["as_of"])))


def _read(
    ws: Workspace,
    plan: Mapping[str, Any],
    table: str,
    columns: Sequence[str] | None = None,
    where: pl.Expr | None = None,
) -> pl.DataFrame:
    version = plan["versions"][table]
    if version is None:
        return ws.lake.empty(table, columns)
    return ws.lake.read(table, version=version, columns=columns, where=where)


def _holdouts(
    events: pl.DataFrame, as_of: datetime, config: Config, plan: Mapping[str, Any]
) -> list[Split]:
    """Return disjoint holdouts, newest first: 28 days apart, or touching where that gives more."""
    found: list[Split] = []
    for apart in (_APART, timedelta(0)):
        parts = _apart(events, as_of, config, plan, apart)
        found = parts if len(parts) > len(found) else found
    if len(found) < LEAST_CUTOFFS:
        raise DataError(
            f"{len(found)} holdout{'' if len(found) == 1 else 's'} with users enough before "
            f"as-of {format_instant(as_of)}; a calibration needs {LEAST_CUTOFFS}, so a longer "
            "history or a later as-of",
            where="events",
        )
    return found


def _apart(
    events: pl.DataFrame,
    as_of: datetime,
    config: Config,
    plan: Mapping[str, Any],
    apart: timedelta,
) -> list[Split]:
    end, found = as_of, list[Split]()
    while len(found) < CUTOFFS:
        try:
            part = _part(events, end, config, plan)
        except DataError:  # nothing lies before its cutoff
            break
        if UNDERPOWERED in part.flags:
            break
        found.append(part)
        end -= max(apart, part.holdout.length)
    return found


def _part(events: pl.DataFrame, end: datetime, config: Config, plan: Mapping[str, Any]) -> Split:
    past = events.filter(before(end))
    days = plan["block_days"]
    return parted(past, end, config.windows, policy=plan["policy"], first=False, block_days=days)


@dataclass(frozen=True)
class Fits:
    """The fits of one calibration: each salt on each cut-off, the oldest first."""

    ws: Workspace
    run: Run
    plan: Mapping[str, Any]
    name: str
    recipe: Recipe

    def all(self, elapsed: Callable[[], float], progress: Progress) -> list[SaltedBlock]:
        """Do what is not done yet, and return the values of all."""
        holdouts = [Interval(*(parse_instant(x) for x in one)) for one in self.plan["holdouts"]]
        total = len(holdouts) * SALTS
        begun, done = elapsed(), 0
        for number, holdout in enumerate(holdouts):
            missing = [salt for salt in range(SALTS) if not self._has(number, salt)]
            if not missing:
                continue
            part, history = self._window(holdout)
            refuse_too_large(self.name, self.recipe, history, self.ws.config.train)
            for salt in missing:
                count, left = number * SALTS + salt + 1, ""
                if done:
                    left = f", about {_time((elapsed() - begun) / done * (total - count + 1))} left"
                progress(f"calibrate: fit {count} of {total}{left}")
                if self._still(number, salt):
                    values = self._values(number, 0)
                else:
                    scorer = self.recipe.train(history, salt=salt)
                    upright, turned = list_values(scorer, history, part, self.plan["k"])
                    values = {"upright": upright, "turned": turned}
                with self.run.draft(_folder(number, salt)) as draft:
                    draft.arrays("values", values)
                    draft.rows = len(values["upright"])
                done += 1
        return [self._block(number, holdout) for number, holdout in enumerate(holdouts)]

    def _has(self, number: int, salt: int) -> bool:
        return self.run.committed(_folder(number, salt)) is not None

    def _still(self, number: int, salt: int) -> bool:
        """Say whether another fit would be the same once more: no salt of the oldest cut-off has
        changed anybody's lists, and neither has the second one here.
        """
        if number == 0 or salt < 2:
            return False
        pairs = [(0, other) for other in range(1, SALTS)] + [(number, 1)]
        return all(self._same(at, other) for at, other in pairs)

    def _same(self, number: int, salt: int) -> bool:
        ours, theirs = self._values(number, 0), self._values(number, salt)
        return all(np.array_equal(ours[side], theirs[side]) for side in ours)

    def _values(self, number: int, salt: int) -> dict[str, np.ndarray[Any, Any]]:
        return self.run.arrays(_folder(number, salt), "values")

    def _block(self, number: int, holdout: Interval) -> SaltedBlock:
        values = [self._values(number, salt) for salt in range(SALTS)]
        return SaltedBlock(
            holdout, *(np.stack([v[side] for v in values]) for side in ("upright", "turned"))
        )

    def _window(self, holdout: Interval) -> tuple[Split, History]:
        """Build a training window as a night of the holdout's end would."""
        config, plan = self.ws.config, self.plan
        if plan["weights"] is not None:
            weights = FeaturesConfig.model_validate(plan["weights"])
            config = config.model_copy(update={"features": weights})
        events = _events(self.ws, plan)
        items, _ = cleaned("items", _read(self.ws, plan, "items"), config.clean.items)
        users, _ = cleaned("users", _read(self.ws, plan, "users"), config.clean.users)
        part = _part(events, holdout.end, config, plan)
        history, _ = window(events, part.cutoff, config.windows, items, users)
        return part, history


def _folder(number: int, salt: int) -> str:
    return f"fits/{number}-{salt}"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
