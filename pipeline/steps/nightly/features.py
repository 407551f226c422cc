"""Cleans, splits and weights the events: training window, holdout and full window.

Guarantees: the training window ends at the cutoff, the full window at the as-of; both use the same
event weights, which are selected only if no earlier run with this config has selected them.
"""

from __future__ import annotations

import polars as pl

from pipeline.base import Progress
from pipeline.data.features import WEIGHED, FeaturesConfig
from pipeline.data.split import Split
from pipeline.data.targets import strongest_first
from pipeline.data.windows import WindowConfig, cleaned, parted, window, with_compact_ids
from pipeline.evaluation.earlier_windows import select_event_weights
from pipeline.workspace.artifacts import CleanFile, SplitFile, TablesFile, WeightsFile
from pipeline.workspace.night import Night
from pipeline.workspace.task_log import task_step


@task_step("features")
def features(night: Night, progress: Progress) -> str:
    """Write both windows, the holdout, and the cleaned tables of items and users.

    Parameters
    ----------
    night, progress
        The run, and a receiver of short texts; `task_step` passes both.

    Returns
    -------
    The result in one sentence.
    """
    events = with_compact_ids(night.events(*WEIGHED))
    items, items_report = cleaned("items", night.table("items"), night.config.clean.items)
    users, users_report = cleaned("users", night.table("users"), night.config.clean.users)
    weights = _weights(night, events, progress)
    config = night.config.model_copy(update={"features": weights}).windows
    split = _split(night, events, config)
    train, cleaned_train = window(events, split.cutoff, config, items, users)
    full, cleaned_full = window(events, night.as_of, config, items, users)
    with night.run.draft("features") as draft:
        draft.arrays("train", train.arrays())
        draft.arrays("full", full.arrays())
        draft.frame("truth", split.truth)
        draft.frame("targets", split.targets)
        if split.ratings is not None:
            draft.frame("ratings", split.ratings)
        draft.frame("items", items)
        draft.frame("users", users)
        draft.write(WeightsFile(weights))
        draft.write(SplitFile.of(split))
        draft.write(
            CleanFile(
                train=cleaned_train, full=cleaned_full, items=items_report, users=users_report
            )
        )
        draft.write(TablesFile(events=events.height, items=items.height, users=users.height))
        draft.rows = len(train.item)
    return (
        f"{events.height:,} events of {full.n_users:,} users, holdout of {split.holdout_days} days"
    )


def _weights(night: Night, events: pl.DataFrame, progress: Progress) -> FeaturesConfig:
    """Return the event weights of an earlier run, else select them on earlier windows."""
    pinned, config = night.snapshot, night.config
    # Selected once per config: other weights each night would change all lists.
    if pinned.weights is not None:
        return pinned.weights
    split = _split(night, events, config.windows)
    return select_event_weights(events, split, config.windows, config.recommend.length, progress)


def _split(night: Night, events: pl.DataFrame, config: WindowConfig) -> Split:
    return parted(
        events,
        night.as_of,
        config,
        first=night.champion is None,
        pinned=night.snapshot.pinned,
        # As configured, whatever weights this run selects.
        strength=strongest_first(night.snapshot.config.features.weights),
    )
