"""Windows before the holdout, on which hyperparameters and event weights are selected.

Guarantees: each window, with the days of its target items, ends before the holdout starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import tee
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.canonical_users import canonicalise_user_ids
from pipeline.data.features import FeaturesConfig
from pipeline.data.matrix import History
from pipeline.data.split import UNDERPOWERED, PinnedTask, Split, before
from pipeline.data.windows import WindowConfig, parted, window
from pipeline.errors import DataError
from pipeline.evaluation.trials import EarlierWindows
from pipeline.evaluation.tuning_window import Window
from pipeline.models.als import Als
from pipeline.models.tuning import ACCEPTANCE

WINDOWS: Final = 3
"""Number of disjoint windows before the holdout; a choice must be better on most of them."""


TUNING_MODEL: Final = Als(factors=32, iterations=5)
"""Recipe whose lists decide between event weights."""


_DAY: Final = timedelta(days=1)


WEIGHT_OPTIONS: Final[Mapping[str, Mapping[str, float]]] = {
    "equal weights": {**dict.fromkeys(c.Kind, 1.0), c.Kind.RETURN: -1.0},
    "steep weights": {
        c.Kind.VIEW: 1.0,
        c.Kind.CLICK: 2.0,
        c.Kind.ADD_TO_CART: 5.0,
        c.Kind.RATING: 5.0,
        c.Kind.PURCHASE: 15.0,
        c.Kind.RETURN: -15.0,
    },
}
"""Weights of kinds that are tried besides the configured ones."""


def earlier_windows(
    events: pl.DataFrame,
    until: datetime,
    config: WindowConfig,
    pinned: PinnedTask,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    *,
    with_stability: bool = True,
) -> Iterator[Window]:
    """Yield the windows before an instant, newest first, while enough users can be evaluated.

    Users have the ids of `canonicalise_user_ids`, so that no selection depends on pseudonyms.

    Parameters
    ----------
    events
        Rows of `columns.EVENTS`.
    until
        End of the newest window, UTC.
    config
        Split, features and cleaning.
    pinned
        Task and target kinds.
    items, users
        Tables of items and users, for features.
    with_stability
        Add to the newest window the history of a day earlier, which stability is measured with.
        Only the newest window gets it, because stability depends little on the window.

    Yields
    ------
    Window
        Disjoint windows, at most `WINDOWS`.
    """
    events, users = canonicalise_user_ids(events, users)
    return _windows(events, until, config, pinned, items, users, with_stability=with_stability)


def _windows(
    events: pl.DataFrame,
    until: datetime,
    config: WindowConfig,
    pinned: PinnedTask,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    *,
    with_stability: bool = False,
) -> Iterator[Window]:
    """Yield the windows of events with canonical users."""
    end = until
    for _ in range(WINDOWS):
        try:
            part = parted(events, end, config, first=False, pinned=pinned)
        except DataError:  # no event before its cutoff
            return
        if UNDERPOWERED in part.flags:
            return
        previous_day: History | None = None
        if with_stability and end == until:
            with suppress(DataError):  # no event lies before the previous day
                previous_day, _ = window(events, part.cutoff - _DAY, config, items, users)
        # No name for the history: while this generator waits, it would stay in memory.
        yield Window.of(
            window(events, part.cutoff, config, items, users)[0], part, until, previous_day
        )
        previous_day, end = None, end - part.holdout_days * _DAY


def select_event_weights(
    events: pl.DataFrame, tonight: Split, config: WindowConfig, k: int, progress: Progress
) -> FeaturesConfig:
    """Select the weights of kinds, then f(value), by the lists of `TUNING_MODEL`.

    Without a second kind, or a second value, there is nothing to select.

    Parameters
    ----------
    events
        Rows of `columns.EVENTS`.
    tonight
        The split; only events before its cutoff count.
    config
        Its features are the starting point.
    k
        Length of the lists.
    progress
        Receives a line per option.

    Returns
    -------
    FeaturesConfig
        The configured one, or the best option that is clearly better on earlier windows.
    """
    best = config.features
    if not best.infer:
        return best
    kind = pl.col(c.KIND)
    counted = before(tonight.cutoff) & (kind != c.Kind.RETURN.value)
    kinds, values = events.select(
        kind.filter(counted).n_unique(),
        pl.col(c.VALUE).filter(counted & (kind != c.Kind.RATING.value)).n_unique(),
    ).row(0)
    options: list[tuple[str, dict[str, Any]]] = []
    if kinds > 1:
        options += [
            (label, {"weights": {**best.weights, **option}})
            for label, option in WEIGHT_OPTIONS.items()
        ]
    if values > 1:
        options.append(("log2(1 + value)", {"value": "log"}))
    if not options:
        return best

    canonical, _ = canonicalise_user_ids(events)

    def value(earlier: Window) -> float:
        return EarlierWindows([earlier], k, progress).value(TUNING_MODEL, 0)

    def values_of(features: FeaturesConfig) -> Iterator[float]:
        chosen = replace(config, features=features)
        # Only NDCG is compared, so a second training for stability is not needed.
        # `map` keeps no window while the next value waits for a comparison, as a loop would.
        return map(value, _windows(canonical, tonight.cutoff, chosen, tonight.pinned))

    best_values = values_of(best)
    for label, update in options:
        progress(f"weights of events: {label}")
        trial = best.model_copy(update=update)
        # A value costs a training: `tee` computes it once, when a comparison first needs it.
        old, best_values = tee(best_values)
        new, new_values = tee(values_of(trial))
        if _clearly_ahead(new, old):
            best, best_values = trial, new_values
    return best


def _clearly_ahead(new: Iterable[float], old: Iterable[float]) -> bool:
    """Compare window by window, newest first, and stop if the new values are not ahead."""
    new_values: list[float] = []
    old_values: list[float] = []
    for new_value, old_value in zip(new, old, strict=True):
        new_values.append(new_value)
        old_values.append(old_value)
        if sum(new_values) <= sum(old_values):
            return False
    return ACCEPTANCE.accepts(new_values, old_values)
