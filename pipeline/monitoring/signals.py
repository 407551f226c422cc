"""Signals of drift in events and catalogue: the z-score of each signal's days.

Guarantees: neither the order of rows nor pseudonyms change a digit; a property that the data lack
(one kind only, no prices) gives no signal.

* ``data.volume``: log of the number of events, against the same weekdays of the reference
* ``data.kinds``, ``data.values``, ``data.prices``: mix of kinds; deciles of values and of prices
* ``data.new_users``, ``data.new_items``: events of users, or on items, without an earlier event
* ``data.missing.…``: events without value, price, categories; a retrain does not help these
* ``taste.popularity``: deciles of popularity; ``taste.items``: the most popular items one by one
* ``taste.categories``: categories one by one; an item of several counts in equal parts

Prices and categories are the newest of the catalogue, so a signal is a change of the items that
users choose, not of an item's price.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.data.cluster_robust import per_user_cap
from pipeline.monitoring.distance import NINTH, Histogram, pooled_score, robust, scores
from pipeline.monitoring.drift_windows import (
    CELL,
    COUNT,
    MIN_POOLED,
    USER_WINDOW,
    WINDOW,
    DriftWindows,
    counted,
    cut,
    pool,
    rebin,
    sample_users,
)
from pipeline.monitoring.verdicts import DriftConfig, Measured
from pipeline.number_text import share

BINS: Final = 10
"""Number of bins of values, prices and popularity."""
VOLUME_FLOOR: Final = 0.05
"""In the logarithm of a day's events: with a threshold of 4, ± 20 % is never drift."""
_NEW_USER, _NEW_ITEM = "new_user", "new_item"
_WHOLE: Final = 720_720
"""Weight of an event on an item with several categories: divisible by 1 to 16."""
_CELL: Final = pl.col(CELL)
_Make = Callable[[NDArray[np.float64]], NDArray[np.int64]]


@dataclass(frozen=True)
class Known:
    """Ids of users and items with an event before the oldest window."""

    users: pl.Series
    items: pl.Series


@dataclass(frozen=True)
class Signals:
    """Events cut into windows, see `of`.

    Attributes
    ----------
    rows
        Events of the sampled users, with price and categories of their items, and with a column
        each that is True for the first window of a new user or item.
    events
        ``(windows,)`` float64 number of events, of all users.
    since
        The first event ever, if none is before the windows.
    """

    rows: pl.DataFrame
    events: NDArray[np.float64]
    since: datetime | None
    reference_resets: Mapping[str, datetime]
    windows: DriftWindows
    config: DriftConfig

    @classmethod
    def of(
        cls,
        events: pl.DataFrame,
        items: pl.DataFrame,
        known: Known,
        restarts: Mapping[str, datetime],
        windows: DriftWindows,
        config: DriftConfig,
    ) -> Signals:
        """Cut events into windows.

        Parameters
        ----------
        events, items, known, restarts, config
            As in `drift.drift`.
        windows
            Scored and reference days.

        Returns
        -------
        Signals
            Of the events within the windows.
        """
        whole = cut(events, windows, config.max_events)
        rows = sample_users(whole)
        for column, new, before in (
            (c.USER_ID, _NEW_USER, known.users),
            (c.ITEM_ID, _NEW_ITEM, known.items),
        ):
            first = whole.group_by(column).agg(pl.col(WINDOW).max().alias(new))
            # New: without an event before the windows, and in the window of its first one.
            fresh = ~pl.col(column).is_in(pl.lit(before).implode())
            rows = rows.join(first, on=column, how="left")
            rows = rows.with_columns((fresh & (pl.col(new) == pl.col(WINDOW))).alias(new))
        catalogue = items.select(c.ITEM_ID, c.PRICE, c.CATEGORIES).unique(c.ITEM_ID)
        rows = rows.join(catalogue, on=c.ITEM_ID, how="left")
        first_event = None if len(known.users) else whole[c.TIMESTAMP].min()
        since = first_event if isinstance(first_event, datetime) else None
        return cls(rows, _volumes(whole, windows), since, restarts, windows, config)

    def measured(self) -> Iterator[Measured]:
        """Yield every signal that the data have."""
        rows = self.rows
        yield self._volume()
        yield from self._mix("data.kinds", counted(_numbered(rows, c.KIND), _CELL))
        yield from self._mix("data.values", counted(self._tenths(c.VALUE), _CELL))
        yield from self._mix("data.prices", counted(self._tenths(c.PRICE), _CELL))
        yield from self._share("data.new_users", pl.col(_NEW_USER))
        yield from self._share("data.new_items", pl.col(_NEW_ITEM))
        uncategorised = pl.col(c.CATEGORIES).list.len().fill_null(0) == 0
        missing = {name: pl.col(name).is_null() for name in (c.VALUE, c.PRICE)}
        for name, holds in (missing | {c.CATEGORIES: uncategorised}).items():
            yield from self._share(f"data.missing.{name}", holds, retrain_helps=False)
        items = counted(_numbered(rows, c.ITEM_ID), _CELL)
        yield from self._mix("taste.popularity", items, popularity)
        yield from self._mix("taste.items", items, self._leading)
        parts = rows.filter(~uncategorised).select(WINDOW, USER_WINDOW, c.CATEGORIES)
        # Integer weights, so that sums are exact in any order.
        parts = parts.with_columns((_WHOLE // pl.col(c.CATEGORIES).list.len()).alias(COUNT))
        parts = _numbered(parts.explode(c.CATEGORIES), c.CATEGORIES)
        categories = counted(parts, _CELL, pl.col(COUNT).sum())
        yield from self._mix("taste.categories", categories, self._leading)

    def _reference(self, name: str) -> NDArray[np.bool_]:
        """Return the windows of the reference; days before the first event ever do not count."""
        starts = [x for x in (self.reference_resets.get(name), self.since) if x is not None]
        return self.windows.reference(max(starts, default=None))

    def _share(
        self, name: str, holds: pl.Expr, *, retrain_helps: bool = True
    ) -> Iterator[Measured]:
        """Measure the share of events for which something holds, if it is neither none nor all."""
        for measured in self._mix(name, counted(self.rows, holds), detailed=True):
            yield replace(measured, retrain_helps=retrain_helps)

    def _mix(
        self, name: str, counts: pl.DataFrame, make: _Make | None = None, *, detailed: bool = False
    ) -> Iterator[Measured]:
        """Measure a distribution over numbered cells, if there are at least two."""
        if counts[CELL].n_unique() < 2:
            return
        reference = self._reference(name)
        cells = rebin(counts, self.windows, reference, make)
        reference &= cells.users > 0
        days = int(reference.sum())
        n = self.windows.recent
        z = scores(cells, reference)[:n] if days > 1 else np.zeros(0)
        pooled = pool(cells, self.windows, reference)
        together = math.nan if pooled is None else pooled_score(pooled, cells, reference, n)
        yield Measured(name, z.tolist(), days, _detail(cells) if detailed else "", together)

    def _volume(self) -> Measured:
        name, at, counts = "data.volume", np.arange(self.windows.count), self.events
        reference = self._reference(name) & (counts > 0)
        if not reference.any():
            return Measured(name, (), 0)
        with np.errstate(divide="ignore"):
            level = np.where(counts > 0, np.log(counts), np.nan)
        # The median of all days serves a weekday without a reference day.
        usual = np.full(len(at), np.median(level[reference]))
        for day in range(7):
            same = reference & (at % 7 == day)
            if same.any():
                usual[at % 7 == day] = np.median(level[same])
        rest = level - usual
        # About four days per weekday: they are closer to their own median than a new day is.
        spread = robust(rest[reference])[1] * math.sqrt(4 / 3)
        n = self.windows.recent
        z = rest[:n] / math.hypot(spread, VOLUME_FLOOR)
        note = f" ({counts[0]:,.0f} events, usually {math.exp(usual[0]):,.0f})"
        # A retrain does not help against missing events.
        days, helps = int(reference.sum()), bool(z[0] > 0)
        together = self._volume_together(rest, reference, spread)
        return Measured(name, z.tolist(), days, note, together, worse=0, retrain_helps=helps)

    def _volume_together(
        self, rest: NDArray[np.float64], reference: NDArray[np.bool_], spread: float
    ) -> float:
        """Return the z-score of the mean over the scored days; NaN as for `pool`."""
        n, runs = self.windows.recent, self.windows.runs(reference)
        if n == 1 or np.isnan(rest[:n]).any() or len(runs) < MIN_POOLED:
            return math.nan
        usual = np.abs([rest[at : at + n].mean() for at in runs])
        between = robust(np.concatenate((usual, -usual)))[1]
        # A week in five may be busier without being drift.
        between = max(between, float(np.quantile(usual, 0.8)) / NINTH)
        between = max(between * math.sqrt(4 / 3), spread / math.sqrt(n))
        return float(rest[:n].mean()) / math.hypot(between, VOLUME_FLOOR)

    def _tenths(self, column: str) -> pl.DataFrame:
        """Number each finite value by its decile in the reference."""
        finite = self.rows.filter(pl.col(column).is_finite()).select(WINDOW, USER_WINDOW, column)
        before = finite.filter(pl.col(WINDOW) >= self.windows.recent)[column].to_numpy()
        if not len(before):
            return finite.clear().with_columns(pl.lit(0).alias(CELL))
        # Bins of the reference alone: scored days must not move them.
        edges = np.unique(np.quantile(before, np.arange(1, BINS) / BINS, method="lower"))
        # "left": a value equal to an edge is below it, so that a very common value has one cell.
        cell = np.searchsorted(edges, finite[column].to_numpy(), side="left")
        return finite.with_columns(pl.Series(CELL, cell))

    def _leading(self, totals: NDArray[np.float64]) -> NDArray[np.int64]:
        """Give each of the largest cells a cell of its own, and one to all others together."""
        cells = np.full(len(totals), min(self.config.top_categories, len(totals)))
        largest = np.argsort(-totals, kind="stable")[: self.config.top_categories]
        cells[largest] = np.arange(len(largest))
        return cells


def _volumes(rows: pl.DataFrame, windows: DriftWindows) -> NDArray[np.float64]:
    """Count ``(windows,)`` events, at most `per_user_cap` of one user and window."""
    by_user = rows.group_by(WINDOW, USER_WINDOW).len()
    window, events = (by_user[name].to_numpy().astype(np.int64) for name in (WINDOW, "len"))
    # Without a cap the events of one user could look like volume.
    most = per_user_cap(window, events)
    by_day = by_user.group_by(WINDOW).agg(pl.col("len").clip(upper_bound=most).sum())
    counts = np.zeros(windows.count)
    counts[by_day[WINDOW].to_numpy()] = by_day["len"].to_numpy()
    return counts


def popularity(totals: NDArray[np.float64]) -> NDArray[np.int64]:
    """Assign items to deciles of all shares, most popular first; unseen items to a last cell."""
    order = np.argsort(-totals, kind="stable")
    above = np.cumsum(totals[order]) - totals[order]
    cells = np.empty(len(totals), np.int64)
    # The floor of 1e-300 avoids 0 / 0 in a reference without events.
    cells[order] = np.minimum(above / max(totals.sum(), 1e-300) * BINS, BINS - 1).astype(np.int64)
    cells[totals == 0] = BINS
    return cells


def _numbered(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """Number a column's names alphabetically, so that of equally large cells the first leads."""
    present = rows.filter(pl.col(column).is_not_null())
    names = present[column].unique().sort()
    kept = [x for x in (WINDOW, USER_WINDOW, COUNT) if x in rows.columns]
    # The physical codes of an Enum follow the order of its names.
    cell = pl.col(column).cast(pl.Enum(names)).to_physical().alias(CELL)
    return present.select(*kept, cell)


def _detail(cells: Histogram) -> str:
    """Return the latest day's share and its expectation as a text."""
    if not cells.users[0]:
        return ""
    now = cells.sums[0, 1] / cells.users[0]
    return f" ({share(now)}, usually {share(cells.expected[0, 1])})"
