"""Training window, full window and holdout of one as-of instant.

Guarantees: each window is cleaned with statistics of its own events; no event at or after the end
of a window is used; the holdout is split from the events as stored, before cleaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from pipeline import columns as c
from pipeline.data.clean.policies import CleanConfig, ColumnTreatment
from pipeline.data.clean.treat import CleanReport, apply, learn
from pipeline.data.feature_encoding import add_features
from pipeline.data.features import FeaturesConfig, cap_events, weigh
from pipeline.data.matrix import History, build_history
from pipeline.data.split import PinnedTask, Split, SplitConfig, before, split
from pipeline.data.targets import strongest_first

_WHERE = "clean.events"


@dataclass(frozen=True)
class WindowConfig:
    """Settings that determine the content of a window."""

    clean: CleanConfig
    features: FeaturesConfig
    split: SplitConfig


def with_compact_ids(events: pl.DataFrame) -> pl.DataFrame:
    """Return events whose ids and kinds are categories: 1 to 4 bytes, where text takes at least 16.

    The categories are sorted, so they are ordered like text.
    """
    texts = (c.USER_ID, c.ITEM_ID, c.KIND)
    return events.with_columns(pl.col(x).cast(pl.Enum(events[x].unique().sort())) for x in texts)


def cleaned(
    table: str, rows: pl.DataFrame, policies: Mapping[str, ColumnTreatment]
) -> tuple[pl.DataFrame, CleanReport]:
    """Clean the table of items or users.

    Parameters
    ----------
    table
        `items` or `users`, for errors.
    rows
        The table as stored.
    policies
        Column → policy, from the config's `clean.<table>`.

    Returns
    -------
    The cleaned rows in their order, and the counts of changes.
    """
    return apply(rows, learn(rows, policies, where=f"clean.{table}"))


def parted(
    events: pl.DataFrame,
    as_of: datetime,
    config: WindowConfig,
    *,
    first: bool,
    pinned: PinnedTask,
    strength: Sequence[str] | None = None,
) -> Split:
    """Separate the holdout of one as-of instant from its training window.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `kind`, `value`, `timestamp`; rows at or after `as_of` are ignored.
    as_of
        End of the holdout.
    config
        Settings of the split, and the rating threshold.
    first
        True without a champion: the longest possible holdout is used.
    pinned
        Choices of earlier runs: an inferred task is kept, so that it does not change under a
        champion.
    strength
        Kinds that may become the target, the strongest first; by default by the config's weights.

    Returns
    -------
    Training interval, holdout, task and ground truth.

    Raises
    ------
    DataError
        `split.no_event`, `split.history_too_short`.
    ConfigError
        `split.no_target_kind`.
    """
    return split(
        events,
        as_of,
        config.split,
        first=first,
        pinned=pinned,
        strength=strength or strongest_first(config.features.weights),
        rating_threshold=config.features.rating_threshold,
    )


def window(
    events: pl.DataFrame,
    end: datetime,
    config: WindowConfig,
    items: pl.DataFrame | None,
    users: pl.DataFrame | None,
) -> tuple[History, CleanReport]:
    """Build the window of all events before an instant: cleaned, weighted, with features.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `kind`, `value`, `timestamp`; rows at or after `end` are ignored.
    end
        Exclusive end of the window.
    config
        Settings of cleaning and weights.
    items, users
        Cleaned tables as in the lake; ``None``: no features.

    Returns
    -------
    The window, and the counts of cleaning.

    Raises
    ------
    DataError
        `data.no_event`, `features.unknown_kind`, `features.repeated_id`, `features.not_finite`,
        `features.vector_length`, `clean.no_values`.
    """
    weighted, report = _weighed_before(events, end, config)
    return add_features(build_history(weighted, end), items, users), report


def _weighed_before(
    events: pl.DataFrame, end: datetime, config: WindowConfig
) -> tuple[pl.DataFrame, CleanReport]:
    """Clean and weight the events before an instant; the copies in between end with this call."""
    # Filtered before anything is computed, so that no later event reaches the statistics.
    past = events.filter(before(end))
    rows, report = apply(past, learn(past, config.clean.events, where=_WHERE))
    return _weighed(rows, config), report


def weigh_users(events: pl.DataFrame, whole: pl.DataFrame, config: WindowConfig) -> pl.DataFrame:
    """Clean and weight the events of a few users as `window` does for all users.

    Parameters
    ----------
    events
        Events of these users up to any instant. Kinds without a weight in the config, such as
        kinds added after training, are left out.
    whole
        Events of the whole window, from which the cleaning statistics are computed.
    config
        Settings of the live model's run.

    Returns
    -------
    Weighted events as returned by `weigh`.
    """
    # `weigh` would refuse kinds that the live model's config does not have.
    weighted = events.filter(events[c.KIND].is_in(list(config.features.weights)))
    rows, _ = apply(weighted, learn(whole, config.clean.events, where=_WHERE))
    return _weighed(rows, config)


def _weighed(events: pl.DataFrame, config: WindowConfig) -> pl.DataFrame:
    return weigh(cap_events(events, config.features), config.features)
