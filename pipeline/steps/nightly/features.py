"""Cleans, splits and weights the events: training window, holdout and full window."""

from __future__ import annotations

import polars as pl

from pipeline.base import Progress
from pipeline.data.features import WEIGHED, FeaturesConfig
from pipeline.data.windows import cleaned, parted, windows
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
    events = night.events(*WEIGHED)
    items, items_report = cleaned("items", night.table("items"), night.config.clean.items)
    users, users_report = cleaned("users", night.table("users"), night.config.clean.users)
    weights = _weights(night, events, progress)
    made = windows(
        events,
        night.as_of,
        night.config.model_copy(update={"features": weights}).windows,
        task=night.snapshot.task,
        first=night.champion is None,
        holdout_days=night.snapshot.holdout_days,
        items=items,
        users=users,
    )
    with night.run.draft("features") as draft:
        draft.arrays("train", made.train.arrays())
        draft.arrays("full", made.full.arrays())
        draft.frame("truth", made.split.truth)
        if made.split.ratings is not None:
            draft.frame("ratings", made.split.ratings)
        draft.frame("items", items)
        draft.frame("users", users)
        draft.write(WeightsFile(weights))
        draft.write(SplitFile.of(made.split))
        draft.write(CleanFile(**made.cleaning, items=items_report, users=users_report))
        draft.write(TablesFile(events=events.height, items=items.height, users=users.height))
        draft.rows = len(made.train.item)
    return (
        f"{events.height:,} events of {made.full.n_users:,} users, "
        f"holdout of {made.split.holdout_days} days"
    )


def _weights(night: Night, events: pl.DataFrame, progress: Progress) -> FeaturesConfig:
    """Return the event weights of an earlier run, else select them on earlier windows."""
    pinned, config = night.snapshot, night.config
    # Selected once per config: other weights each night would change all lists.
    if pinned.weights is not None:
        return pinned.weights
    split = parted(
        events,
        night.as_of,
        config.windows,
        task=pinned.task,
        first=night.champion is None,
        holdout_days=pinned.holdout_days,
    )
    return select_event_weights(events, split, config.windows, config.recommend.length, progress)
