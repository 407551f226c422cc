"""A window before the holdout, and those who judge recipes on it.

Promises: no window holds anything of the holdout; a window of a day earlier holds nothing of that
day, and stands for those alone who did nothing on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import format_instant, to_utc
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.errors import GateError
from pipeline.evaluation.holdout import find, rows_of, truth_of
from pipeline.evaluation.metrics import Truth

TUNING_USERS: Final = 1000
"""Users that judge a window: enough to tell recipes apart, few enough to try many."""
MIN_INACTIVE: Final = 30
"""Fewer who did nothing tell nothing of how much of a list stays."""
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class PreviousDay:
    """A window that ends earlier, for the judged who did nothing since.

    Attributes
    ----------
    history
        Ends before the window's.
    judged
        Their part of it.
    exclude
        What their lists leave out, ``None`` where they may repeat.
    rows
        ``(n,)`` int64 rows of the same people among the window's judged, rising.
    """

    history: History
    judged: History
    exclude: sp.csr_matrix | None
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """A training window, and those who judge it.

    Attributes
    ----------
    history
        Ends where the truth begins.
    judged
        Their part of `history`.
    truth
        What they went for.
    exclude
        What their lists leave out, ``None`` where they may repeat.
    previous_day
        The same window a night earlier; ``None`` where nobody asks how much of a list stays, or
        too few did nothing since.
    """

    history: History
    judged: History
    truth: Truth
    exclude: sp.csr_matrix | None
    previous_day: PreviousDay | None = None

    @classmethod
    def of(
        cls, history: History, split: Split, before: datetime, previous_day: History | None = None
    ) -> Window:
        """Take evenly spaced users of a split, by id; all of it must end by `before`.

        Parameters
        ----------
        previous_day
            The history as it was earlier.

        Raises
        ------
        GateError
            The truth reaches past `before`, or the history into the truth.
        """
        if split.holdout.end > to_utc(before) or to_utc(history.end) > split.cutoff:
            raise GateError(
                "tuning.window_overlaps",
                f"a window for tuning ends at {format_instant(split.holdout.end)} and learns until "
                f"{format_instant(history.end)}: it must not reach past {format_instant(before)}",
            )
        history = replace(history, cold_items=None)  # every recipe over one catalogue
        users = split.users.to_list()
        chosen = [users[at] for at in _spaced(len(users), TUNING_USERS)]
        judged = history.take(rows_of(chosen, history.user_ids))
        truth = truth_of(
            split.truth.filter(split.truth[c.USER_ID].is_in(chosen)),
            judged.user_ids,
            history.item_ids,
        )
        exclude = judged.seen if split.task == "discovery" else None
        window = cls(history, judged, truth, exclude)
        return (
            window
            if previous_day is None
            else replace(window, previous_day=_previous_day(window, previous_day))
        )

    def thinned(self, users: int) -> Window:
        """Return the same window with at most so many evenly spaced users."""
        rows = _spaced(self.judged.n_users, users)
        return Window(
            self.history,
            self.judged.take(rows),
            Truth(self.truth.items[rows], self.truth.size[rows]),
            None if self.exclude is None else self.exclude[rows],
            None if self.previous_day is None else _among(self.previous_day, rows),
        )


def _spaced(n: int, most: int) -> NDArray[np.int64]:
    """Return at most so many of n places, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))


def _previous_day(window: Window, history: History) -> PreviousDay | None:
    history, judged = replace(history, cold_items=None), window.judged
    since = (judged.end - history.end) / _DAY
    busy = np.bincount(judged.user[judged.age_days <= since], minlength=judged.n_users)
    row, known = find(history.user_ids, judged.user_ids)
    idle = np.flatnonzero(known & (busy == 0))
    if len(idle) < MIN_INACTIVE:
        return None
    then = history.take(row[idle])
    return PreviousDay(history, then, None if window.exclude is None else then.seen, idle)


def _among(previous_day: PreviousDay, rows: NDArray[np.int64]) -> PreviousDay | None:
    """Return an eve for some rows of its window's judged, rising, which become 0, 1, …"""
    at = np.flatnonzero(np.isin(previous_day.rows, rows))
    if len(at) < MIN_INACTIVE:
        return None
    return PreviousDay(
        previous_day.history,
        previous_day.judged.take(at),
        None if previous_day.exclude is None else previous_day.exclude[at],
        np.searchsorted(rows, previous_day.rows[at]),
    )
