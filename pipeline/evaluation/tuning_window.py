"""A window before the holdout, and the users by whose lists recipes are compared on it.

Guarantees: no window reaches into the holdout; the previous day of a window has no event of the
window's last day, and only users without events on that day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import format_instant, to_utc
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.errors import GateError
from pipeline.evaluation.holdout import find, lists_of, rows_of, truth_of
from pipeline.evaluation.metrics import Truth
from pipeline.models.contract import Scorer
from pipeline.models.topk import Lists

TUNING_USERS: Final = 1000
"""Number of users of a window: enough to distinguish recipes, few enough to try many."""
MIN_INACTIVE: Final = 30
"""Minimum number of users without events on the last day; with fewer, no stability."""
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class TrainingWindow:
    """A training window and the users whose lists are evaluated on it.

    Attributes
    ----------
    history
        Events that recipes train on.
    judged
        The evaluated users' part of `history`.
    exclude
        Items that their lists leave out, ``(n_users, n_items)``; ``None`` if lists may repeat.
    """

    history: History
    judged: History
    exclude: sp.csr_matrix | None

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the same window with some of the evaluated users, by ascending row numbers."""
        exclude = None if self.exclude is None else self.exclude[rows]
        return replace(self, judged=self.judged.take(rows), exclude=exclude)

    def lists(self, scorer: Scorer, k: int) -> Lists:
        """Return the best items of each evaluated user.

        Parameters
        ----------
        scorer
            Over the catalogue of `history`.
        k
            Length of the lists.

        Returns
        -------
        Lists
            In the order of `judged`.
        """
        return lists_of(scorer, self.judged, k, self.exclude)


@dataclass(frozen=True)
class PreviousDay(TrainingWindow):
    """A window as it was a day earlier, for the evaluated users without events since.

    Attributes
    ----------
    rows
        ``(n,)`` int64 rows of the same users in the window's `judged`, ascending.
    """

    rows: NDArray[np.int64]

    def among(self, rows: NDArray[np.int64]) -> PreviousDay | None:
        """Return the previous day of some rows of its window; ``None`` if too few users remain."""
        at = np.flatnonzero(np.isin(self.rows, rows))
        if len(at) < MIN_INACTIVE:
            return None
        return replace(self.take(at), rows=np.searchsorted(rows, self.rows[at]))


@dataclass(frozen=True)
class Window(TrainingWindow):
    """A training window whose lists are compared with the ground truth after it.

    Attributes
    ----------
    truth
        Target items of the evaluated users, from the end of `history` on.
    previous_day
        The same window a day earlier; ``None`` if stability is not measured on this window, or too
        few users have no event since.
    """

    truth: Truth
    previous_day: PreviousDay | None = None

    @classmethod
    def of(
        cls, history: History, split: Split, before: datetime, previous_day: History | None = None
    ) -> Window:
        """Build a window from evenly spaced users of a split, by id.

        Parameters
        ----------
        history
            Training window of the split.
        split
            Users and ground truth.
        before
            Instant by which all of it must end.
        previous_day
            The history as it was a day earlier.

        Returns
        -------
        Window
            Of at most `TUNING_USERS` users.

        Raises
        ------
        GateError
            `tuning.window_overlaps`: the ground truth ends after `before`, or the history reaches
            into it.
        """
        if split.holdout.end > to_utc(before) or to_utc(history.end) > split.cutoff:
            raise GateError(
                "tuning.window_overlaps",
                f"a tuning window ends at {format_instant(split.holdout.end)} and trains until "
                f"{format_instant(history.end)}: it must not reach past {format_instant(before)}; "
                "this is a defect of Nightjar: report it",
            )
        history = replace(history, cold_items=None)  # all recipes over one catalogue
        # Evenly spaced by id instead of random: the same users for every recipe and every rerun.
        users = split.users.to_list()
        chosen = [users[at] for at in _spaced(len(users), TUNING_USERS)]
        judged = history.take(rows_of(chosen, history.user_ids))
        truth = truth_of(
            split.truth.filter(split.truth[c.USER_ID].is_in(chosen)),
            judged.user_ids,
            history.item_ids,
        )
        exclude = judged.seen if split.task == "discovery" else None
        window = cls(history, judged, exclude, truth)
        if previous_day is None:
            return window
        return replace(window, previous_day=_previous_day(window, previous_day))

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the same window with some of the evaluated users, by ascending row numbers."""
        return replace(
            super().take(rows),
            truth=Truth(self.truth.items[rows], self.truth.size[rows]),
            previous_day=None if self.previous_day is None else self.previous_day.among(rows),
        )

    def thinned(self, users: int) -> Window:
        """Return the same window with at most `users` evenly spaced users."""
        return self.take(_spaced(self.judged.n_users, users))


def _spaced(n: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of n positions, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))


def _previous_day(window: Window, history: History) -> PreviousDay | None:
    history, judged = replace(history, cold_items=None), window.judged
    since = (judged.end - history.end) / _DAY
    # Lists of active users change because of their new events, which is not instability.
    active = np.bincount(judged.user[judged.age_days <= since], minlength=judged.n_users)
    row, present = find(history.user_ids, judged.user_ids)
    inactive = np.flatnonzero(present & (active == 0))
    if len(inactive) < MIN_INACTIVE:
        return None
    earlier = history.take(row[inactive])
    return PreviousDay(history, earlier, None if window.exclude is None else earlier.seen, inactive)
