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
from pipeline.data.split import between
from pipeline.monitoring.distance import Histogram

WINDOW: Final = "window"
PERSON: Final = "person"
"""A user in a window: the same user in another one is another person."""
CELL: Final = "cell"
COUNT: Final = "count"
_ALL, _SHARE, _SQUARE = "all", "share", "square"
MOST_PEOPLE: Final = 20_000
"""People of a window whose events are looked at."""
_DAY_US, _WEEK = 86_400_000_000, 7
_PRIME, _SPREAD = 1_000_003, 2_654_435_761
_GRAIN: Final = 1 << 32
"""Shares are summed as whole numbers of this fraction: exactly, whatever the order of the rows."""


@dataclass(frozen=True)
class DriftWindows:
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
        at = np.arange(self.count)
        first = self.count if since is None else (self.end - since) // timedelta(days=1)
        return (at >= self.recent) & (at < first)

    @property
    def folds(self) -> NDArray[np.int64]:
        """``(count,)`` the week of each reference window, -1 for what is judged."""
        at = np.arange(self.count)
        return np.where(at < self.recent, -1, (at - self.recent) // _WEEK)


def cut(events: pl.DataFrame, windows: DriftWindows, most: int) -> pl.DataFrame:
    """Keep what counts of the events, and say in which window it lies and of which person it is.

    Parameters
    ----------
    events
        `user_id`, `timestamp` and whatever else.
    most
        Events of one person in one window that count: the earliest.
    """
    age = (windows.end - pl.col(c.TIMESTAMP)).dt.total_microseconds() - 1
    rows = events.filter(between(windows.span))
    rows = rows.with_columns((age // _DAY_US).cast(pl.Int64).alias(WINDOW))
    user = pl.col(c.USER_ID).cast(pl.Categorical).to_physical().cast(pl.Int64)
    rows = rows.with_columns((user * windows.count + pl.col(WINDOW)).alias(PERSON))
    busy = rows.group_by(PERSON).len().filter(pl.col("len") > most)
    if busy.is_empty():
        return rows
    order = [c.TIMESTAMP, *(x for x in (c.ITEM_ID, c.KIND, c.VALUE) if x in rows.columns)]
    few = rows.join(busy, on=PERSON, how="semi").sort(order)
    few = few.filter(pl.int_range(pl.len()).over(PERSON) < most)
    return pl.concat([rows.join(busy, on=PERSON, how="anti"), few])


def sample_users(rows: pl.DataFrame, most: int = MOST_PEOPLE) -> pl.DataFrame:
    """Keep all that a few people did, where a window has more than so many.

    They are chosen by when they came, as if by lot, so that neither names nor the order of rows
    have a say; chance in a poll of so many is far below the floor of what counts.
    """
    came = rows.group_by(WINDOW, PERSON).agg(pl.col(c.TIMESTAMP).min().dt.timestamp("us"))
    if not (came.group_by(WINDOW).len()["len"] > most).any():
        return rows
    lot = pl.col(c.TIMESTAMP) % _PRIME * _SPREAD % _GRAIN
    chosen = came.filter(lot.rank("min").over(WINDOW) <= most)
    return rows.join(chosen, on=PERSON, how="semi")


def counted(rows: pl.DataFrame, cell: pl.Expr, weight: pl.Expr | None = None) -> pl.DataFrame:
    """Count each person's events by cell; `weight` is a whole number, an aggregate."""
    cells = rows.group_by(WINDOW, PERSON, cell.cast(pl.Int64).alias(CELL))
    return cells.agg((pl.len() if weight is None else weight).cast(pl.Int64).alias(COUNT))


def rebin(
    counts: pl.DataFrame,
    windows: DriftWindows,
    reference: NDArray[np.bool_],
    make: Callable[[NDArray[np.float64]], NDArray[np.int64]] | None = None,
) -> Histogram:
    """Sum each person's shares of the cells.

    Parameters
    ----------
    counts
        Result of `counted`; cells are numbered from 0 on.
    make
        Makes coarser cells: totals of the given ones in the reference -> the new cell of each. It
        is asked once for each fold, with the totals of the others, and once for what is judged,
        with those of all.
    """
    counts = counts.with_columns(pl.col(COUNT).sum().over(PERSON).alias(_ALL))
    fine, squares, people = _grids(counts, windows.count)
    folds, n = windows.folds, fine.shape[1]
    cells, against = np.tile(np.arange(n), (windows.count, 1)), np.zeros(windows.count)
    expected = np.zeros_like(fine)
    for fold in np.unique(folds):
        others, here = reference & (folds != fold), folds == fold
        totals = fine[others].sum(axis=0)
        if make is not None:
            cells[here] = make(totals)
        against[here] = people[others].sum()
        mean = np.bincount(cells[here][0], totals) / max(float(people[others].sum()), 1.0)
        # Of a few cells there may be made more: a tenth of all shares may hold none of them.
        expected = _wide(expected, max(expected.shape[1], len(mean)))
        expected[here, : len(mean)] = mean
    if make is None:
        return Histogram(fine, squares, people, expected, against)
    made = cells[counts[WINDOW].to_numpy(), counts[CELL].to_numpy()]
    coarse = counts.with_columns(pl.Series(CELL, made)).group_by(WINDOW, PERSON, CELL)
    sums, squares, _ = _grids(coarse.agg(pl.col(COUNT).sum(), pl.col(_ALL).first()), windows.count)
    width = int(cells.max()) + 1
    return Histogram(
        _wide(sums, width), _wide(squares, width), people, _wide(expected, width), against
    )


def _grids(counts: pl.DataFrame, windows: int) -> tuple[NDArray[np.float64], ...]:
    """Return sums of shares and of their squares by window and cell, and people by window."""
    share = pl.col(COUNT) / pl.col(_ALL)
    grouped = counts.group_by(WINDOW, CELL).agg(
        (share * _GRAIN).round().cast(pl.Int64).sum().alias(_SHARE),
        (share.pow(2) * _GRAIN).round().cast(pl.Int64).sum().alias(_SQUARE),
    )
    at = grouped[WINDOW].to_numpy(), grouped[CELL].to_numpy()
    grids = [np.zeros((windows, int(at[1].max(initial=0)) + 1)) for _ in range(2)]
    for grid, name in zip(grids, (_SHARE, _SQUARE), strict=True):
        grid[at] = grouped[name].to_numpy() / _GRAIN
    people = np.zeros(windows)
    heads = counts.group_by(WINDOW).agg(pl.col(PERSON).n_unique().alias(COUNT))
    people[heads[WINDOW].to_numpy()] = heads[COUNT].to_numpy()
    return (*grids, people)


def _wide(grid: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Cut or fill a grid to a number of cells."""
    grid = grid[:, :width]
    return np.pad(grid, ((0, 0), (0, width - grid.shape[1])))
