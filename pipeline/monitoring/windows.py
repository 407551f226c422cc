"""Events -> windows of whole days, and each person's shares of what they did in one.

Promises: of one person's events in a window only the first few count, so a flood is no crowd; a
window without anybody has no shares and no verdict.

Windows are counted back from `end`: 0 is the latest; the first `recent` of them are judged, the
others are the reference. A *fold* is a week of the reference; what is judged is in none.
::

    reference                                recent   end
    [ fold 3 ][ fold 2 ][ fold 1 ][ fold 0 ][2 1 0]    |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.monitoring.distance import Cells

WINDOW: Final = "window"
CELL: Final = "cell"
PERSON: Final = "person"
SHARE: Final = "share"
_DAY_US, _WEEK = 86_400_000_000, 7


@dataclass(frozen=True)
class Windows:
    """How time is cut: `recent` days that are judged, then `days` of reference."""

    end: datetime
    recent: int
    days: int

    @property
    def count(self) -> int:
        """How many there are."""
        return self.recent + self.days

    @property
    def span(self) -> Interval:
        """From the oldest one's start to the latest one's end."""
        return Interval(self.end - timedelta(days=self.count), self.end)

    def start(self, window: int) -> datetime:
        """Return where a window begins."""
        return self.end - timedelta(days=window + 1)

    def reference(self, since: datetime | None) -> NDArray[np.bool_]:
        """``(count,)`` which windows are the reference: those that begin at `since` or later."""
        return np.array(
            [
                at >= self.recent and (since is None or self.start(at) >= since)
                for at in range(self.count)
            ]
        )

    @property
    def folds(self) -> NDArray[np.int64]:
        """``(count,)`` the week of each reference window, -1 for what is judged."""
        at = np.arange(self.count)
        return np.where(at < self.recent, -1, (at - self.recent) // _WEEK)


def cut(events: pl.DataFrame, windows: Windows, most: int) -> pl.DataFrame:
    """Keep what counts of the events, and say in which window it lies.

    Parameters
    ----------
    events
        `user_id`, `timestamp` and whatever else.
    most
        Events of one person in one window that count: the earliest.
    """
    inside = pl.col(c.TIMESTAMP).is_between(windows.span.start, windows.end, closed="left")
    age = (windows.end - pl.col(c.TIMESTAMP)).dt.total_microseconds() - 1
    order = [c.TIMESTAMP, *(x for x in (c.ITEM_ID, c.KIND, c.VALUE) if x in events.columns)]
    return (
        events.filter(inside)
        .with_columns((age // _DAY_US).cast(pl.Int32).alias(WINDOW))
        .sort(order)
        .filter(pl.int_range(pl.len()).over(WINDOW, c.USER_ID) < most)
        .with_columns(pl.struct(WINDOW, c.USER_ID).rank("dense").alias(PERSON))
    )


def shares(rows: pl.DataFrame, cell: pl.Expr, weight: pl.Expr | None = None) -> pl.DataFrame:
    """Return each person's shares of the cells, a row a window, person and cell."""
    keys = [WINDOW, PERSON, cell.alias(CELL)]
    counted = rows.group_by(keys, maintain_order=True)
    counts = counted.agg((pl.len() if weight is None else weight).alias(SHARE))
    return counts.with_columns(pl.col(SHARE) / pl.col(SHARE).sum().over(PERSON))


def made_cells(
    found: pl.DataFrame,
    windows: Windows,
    reference: NDArray[np.bool_],
    make: Callable[[NDArray[np.float64]], NDArray[np.int64]],
) -> Cells:
    """Sum the shares of cells, which may be made of finer ones by their totals in the reference.

    Parameters
    ----------
    found
        `shares` of fine cells, numbered from 0 on.
    make
        Totals of the fine cells -> the cell of each. It is asked once for each fold, with the
        totals of the others, and once for what is judged, with those of all.
    """
    found = found.sort(PERSON, CELL)
    fine, people = _totals(found, windows.count)
    folds = windows.folds
    parts, expected, against = [], {}, np.zeros(windows.count)
    for fold in np.unique(folds[reference | (folds < 0)]):
        others, here = reference & (folds != fold), np.flatnonzero(folds == fold)
        totals = fine[others].sum(axis=0)
        cells = make(totals)
        mine = found.filter(pl.col(WINDOW).is_in(here))
        parts.append(mine.with_columns(pl.Series(CELL, cells[mine[CELL].to_numpy()])))
        against[here] = people[others].sum()
        expected[fold] = np.bincount(cells, totals) / max(float(people[others].sum()), 1.0)
    by_person = pl.concat(parts).group_by(WINDOW, PERSON, CELL, maintain_order=True)
    made = by_person.agg(pl.col(SHARE).sum())
    sums = _grid(made, pl.col(SHARE).sum(), windows.count)
    squares = _grid(made, pl.col(SHARE).pow(2).sum(), windows.count)
    width = max(sums.shape[1], *(len(x) for x in expected.values()))
    mean = np.zeros((windows.count, width))
    for fold, values in expected.items():
        mean[folds == fold, : len(values)] = values
    return Cells(_wide(sums, width), _wide(squares, width), people, mean, against)


def _totals(found: pl.DataFrame, windows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sums of shares by window and cell, and people by window."""
    people = np.zeros(windows)
    heads = found.group_by(WINDOW).agg(pl.col(PERSON).n_unique().alias(SHARE))
    people[heads[WINDOW].to_numpy()] = heads[SHARE].to_numpy()
    return _grid(found, pl.col(SHARE).sum(), windows), people


def _grid(found: pl.DataFrame, what: pl.Expr, windows: int) -> NDArray[np.float64]:
    # By value, not by person: no digit may hang on pseudonyms.
    grouped = found.sort(CELL, SHARE).group_by(WINDOW, CELL, maintain_order=True).agg(what)
    cells = grouped[CELL].to_numpy()
    grid = np.zeros((windows, int(cells.max(initial=0)) + 1))
    grid[grouped[WINDOW].to_numpy(), cells] = grouped[SHARE].to_numpy()
    return grid


def _wide(grid: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    return np.pad(grid, ((0, 0), (0, width - grid.shape[1])))
