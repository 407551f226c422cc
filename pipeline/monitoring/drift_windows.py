"""Windows of whole days before an instant, and each user's distribution of events in one.

Guarantees: of one user's events in a window only the first `most` count, so that many events of
one user do not look like many users; a window without users has no distribution and no status.

Windows are counted back from `end`: 0 is the latest; the first `recent` of them are scored, the
others are the reference. A *fold* is a week of the reference; a scored window is in none.
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
USER_WINDOW: Final = "user_window"
"""A user in a window: the same user in another window has another number."""
CELL: Final = "cell"
COUNT: Final = "count"
_ALL, _SHARE, _SQUARE = "all", "share", "square"
MAX_USERS: Final = 20_000
"""Maximum number of users of a window whose events are read."""
MIN_POOLED: Final = 4
"""Minimum number of runs of days in the reference of the scored days together: one a week."""
_DAY_US, _WEEK = 86_400_000_000, 7
_PRIME, _SPREAD = 1_000_003, 2_654_435_761
_GRAIN: Final = 1 << 32
"""Shares are summed as integer multiples of 1/`_GRAIN`: exactly, whatever the order of the rows."""


@dataclass(frozen=True)
class DriftWindows:
    """Days before `end`: `recent` scored ones, then `days` of reference."""

    end: datetime
    recent: int
    days: int

    @property
    def count(self) -> int:
        """Number of windows."""
        return self.recent + self.days

    @property
    def span(self) -> Interval:
        """Start of the oldest window to the end of the latest."""
        return Interval(self.end - timedelta(days=self.count), self.end)

    def start(self, window: int) -> datetime:
        """Return the start of a window."""
        return self.end - timedelta(days=window + 1)

    def reference(self, since: datetime | None) -> NDArray[np.bool_]:
        """Return ``(count,)`` bool: reference windows that start at `since` or later."""
        at = np.arange(self.count)
        first = self.count if since is None else (self.end - since) // timedelta(days=1)
        return (at >= self.recent) & (at < first)

    def runs(self, usable: NDArray[np.bool_], *, of_one_fold: bool = False) -> list[int]:
        """Return the starts of `recent` consecutive usable reference windows.

        Parameters
        ----------
        usable
            ``(count,)`` bool.
        of_one_fold
            Leave out those that lie in two folds.
        """
        n, folds = self.recent, self.folds
        return [
            at
            for at in range(n, self.count - n + 1)
            if usable[at : at + n].all() and not (of_one_fold and folds[at] != folds[at + n - 1])
        ]

    @property
    def folds(self) -> NDArray[np.int64]:
        """``(count,)`` int64 week of each reference window, -1 for a scored one."""
        at = np.arange(self.count)
        return np.where(at < self.recent, -1, (at - self.recent) // _WEEK)


def cut(events: pl.DataFrame, windows: DriftWindows, most: int) -> pl.DataFrame:
    """Select the events that count, and add the window and user-in-window of each.

    Parameters
    ----------
    events
        `user_id`, `timestamp` and further columns.
    windows
        Windows; events outside them are left out.
    most
        Number of events of one user in one window that count: the earliest.

    Returns
    -------
    polars.DataFrame
        With `window` and `user_window`, int64, in any order.
    """
    # Minus one microsecond: windows are half-open, and an event at their start is inside.
    age = (windows.end - pl.col(c.TIMESTAMP)).dt.total_microseconds() - 1
    rows = events.filter(between(windows.span))
    rows = rows.with_columns((age // _DAY_US).cast(pl.Int64).alias(WINDOW))
    # Any numbering of users will do: it only separates them.
    user = pl.col(c.USER_ID).cast(pl.Categorical).to_physical().cast(pl.Int64)
    rows = rows.with_columns((user * windows.count + pl.col(WINDOW)).alias(USER_WINDOW))
    busy = rows.group_by(USER_WINDOW).len().filter(pl.col("len") > most)
    if busy.is_empty():
        return rows
    # Equal times are ordered by content, so that the order of rows has no effect.
    order = [c.TIMESTAMP, *(x for x in (c.ITEM_ID, c.KIND, c.VALUE) if x in rows.columns)]
    few = rows.join(busy, on=USER_WINDOW, how="semi").sort(order)
    few = few.filter(pl.int_range(pl.len()).over(USER_WINDOW) < most)
    return pl.concat([rows.join(busy, on=USER_WINDOW, how="anti"), few])


def sample_users(rows: pl.DataFrame, most: int = MAX_USERS) -> pl.DataFrame:
    """Keep all events of a sample of users, if a window has too many.

    Users are drawn by the instant of their first event, as a hash, so that neither pseudonyms nor
    the order of rows have an effect. The sampling error is far below the floor of the distance.

    Parameters
    ----------
    rows
        From `cut`.
    most
        Maximum number of users of a window.

    Returns
    -------
    polars.DataFrame
        Rows of the sampled users.
    """
    came = rows.group_by(WINDOW, USER_WINDOW).agg(pl.col(c.TIMESTAMP).min().dt.timestamp("us"))
    if not (came.group_by(WINDOW).len()["len"] > most).any():
        return rows
    lot = pl.col(c.TIMESTAMP) % _PRIME * _SPREAD % _GRAIN
    # Rank `min`: users with the same instant stay or go together.
    chosen = came.filter(lot.rank("min").over(WINDOW) <= most)
    return rows.join(chosen, on=USER_WINDOW, how="semi")


def counted(rows: pl.DataFrame, cell: pl.Expr, weight: pl.Expr | None = None) -> pl.DataFrame:
    """Count each user's events by cell.

    Parameters
    ----------
    rows
        From `cut`.
    cell
        Integer or boolean expression.
    weight
        Integer aggregate to sum instead of counting rows.

    Returns
    -------
    polars.DataFrame
        `window`, `user_window`, `cell`, `count`, int64.
    """
    cells = rows.group_by(WINDOW, USER_WINDOW, cell.cast(pl.Int64).alias(CELL))
    return cells.agg((pl.len() if weight is None else weight).cast(pl.Int64).alias(COUNT))


def rebin(
    counts: pl.DataFrame,
    windows: DriftWindows,
    reference: NDArray[np.bool_],
    make: Callable[[NDArray[np.float64]], NDArray[np.int64]] | None = None,
) -> Histogram:
    """Sum each user's shares of the cells, and the shares that the reference makes expected.

    Parameters
    ----------
    counts
        Result of `counted`; cells are numbered from 0.
    windows
        Windows of `counts`.
    reference
        ``(windows,)`` bool: windows of the reference.
    make
        Makes coarser cells: totals of the cells in the reference -> the new cell of each. It is
        called once per fold, with the totals of the other folds, and once for the scored windows,
        with those of all.

    Returns
    -------
    Histogram
        Over the coarser cells, if any.
    """
    counts = counts.with_columns(pl.col(COUNT).sum().over(USER_WINDOW).alias(_ALL))
    fine, squares, users = _grids(counts, windows.count)
    folds, n = windows.folds, fine.shape[1]
    cells, against = np.tile(np.arange(n), (windows.count, 1)), np.zeros(windows.count)
    expected = np.zeros_like(fine)
    for fold in np.unique(folds):
        # Scored windows have fold -1, so that all reference windows are their others.
        others, here = reference & (folds != fold), folds == fold
        totals = fine[others].sum(axis=0)
        if make is not None:
            cells[here] = make(totals)
        against[here] = users[others].sum()
        mean = np.bincount(cells[here][0], totals) / max(float(users[others].sum()), 1.0)
        # The new cells may be more than the old ones: a decile may have no item.
        expected = _wide(expected, max(expected.shape[1], len(mean)))
        expected[here, : len(mean)] = mean
    if make is None:
        return Histogram(fine, squares, users, expected, against)
    made = cells[counts[WINDOW].to_numpy(), counts[CELL].to_numpy()]
    coarse = counts.with_columns(pl.Series(CELL, made)).group_by(WINDOW, USER_WINDOW, CELL)
    sums, squares, _ = _grids(coarse.agg(pl.col(COUNT).sum(), pl.col(_ALL).first()), windows.count)
    width = int(cells.max()) + 1
    return Histogram(
        _wide(sums, width), _wide(squares, width), users, _wide(expected, width), against
    )


def pool(cells: Histogram, windows: DriftWindows, reference: NDArray[np.bool_]) -> Histogram | None:
    """Sum the scored days, and as many consecutive days of each reference week.

    Parameters
    ----------
    cells
        Result of `rebin`: windows of one fold have the same cells.
    windows
        Windows of `cells`.
    reference
        ``(windows,)`` bool: windows of the reference.

    Returns
    -------
    Histogram or None
        The first row is the scored days together, the others are the reference. None for one
        scored day, for a scored day without users, and with a reference of fewer than
        `MIN_POOLED`.
    """
    n = windows.recent
    starts = [0, *windows.runs(reference, of_one_fold=True)]
    # A closed day is left out: it changes the mix of weekdays.
    if n == 1 or not (cells.users[:n] > 0).all() or len(starts) <= MIN_POOLED:
        return None
    sums, squares, users = (
        np.array([grid[at : at + n].sum(axis=0) for at in starts])
        for grid in (cells.sums, cells.squares, cells.users)
    )
    return Histogram(sums, squares, users, cells.expected[starts], cells.against[starts])


def _grids(counts: pl.DataFrame, windows: int) -> tuple[NDArray[np.float64], ...]:
    """Return sums of shares and of their squares by window and cell, and users by window."""
    share = pl.col(COUNT) / pl.col(_ALL)
    grouped = counts.group_by(WINDOW, CELL).agg(
        (share * _GRAIN).round().cast(pl.Int64).sum().alias(_SHARE),
        (share.pow(2) * _GRAIN).round().cast(pl.Int64).sum().alias(_SQUARE),
    )
    at = grouped[WINDOW].to_numpy(), grouped[CELL].to_numpy()
    grids = [np.zeros((windows, int(at[1].max(initial=0)) + 1)) for _ in range(2)]
    for grid, name in zip(grids, (_SHARE, _SQUARE), strict=True):
        grid[at] = grouped[name].to_numpy() / _GRAIN
    users = np.zeros(windows)
    heads = counts.group_by(WINDOW).agg(pl.col(USER_WINDOW).n_unique().alias(COUNT))
    users[heads[WINDOW].to_numpy()] = heads[COUNT].to_numpy()
    return (*grids, users)


def _wide(grid: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Cut or pad a grid to a number of cells."""
    grid = grid[:, :width]
    return np.pad(grid, ((0, 0), (0, width - grid.shape[1])))
