"""The night's next steps: judge the pinned data, turn it into windows."""

from __future__ import annotations

from pipeline import columns as c
from pipeline.base import (
    Progress,
    silent,
)
from pipeline.data.features import FeaturesConfig
from pipeline.data.windows import cleaned, parted, windows
from pipeline.evaluation.earlier_windows import weighed
from pipeline.stores.runs import Ref
from pipeline.workspace.night import open_night, read_events, read_pinned
from pipeline.workspace.workspace import Workspace


def features(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Clean, split and weigh the events: the training window, the holdout, the full window."""
    night = open_night(ws, run_id)
    if (ref := night.run.committed("features")) is not None:
        return ref
    progress("features")
    events = read_events(ws, night, c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP)
    tables = {
        "items": cleaned("items", read_pinned(ws, night, "items"), night.config.clean.items),
        "users": cleaned("users", read_pinned(ws, night, "users"), night.config.clean.users),
    }
    task = {
        "policy": night.facts["policy"],
        "first": night.champion is None,
        "block_days": night.facts["block_days"],
    }
    config = night.config
    weights = night.facts["weights"]
    if weights is None:
        parts = parted(events, night.as_of, config.windows, **task)
        weights = weighed(
            events, parts, config.windows, config.recommend.length, progress
        ).model_dump(mode="json")
    config = config.model_copy(update={"features": FeaturesConfig.model_validate(weights)})
    made = windows(
        events,
        night.as_of,
        config.windows,
        **task,
        items=tables["items"][0],
        users=tables["users"][0],
    )
    reports = {table: report for table, (_, report) in tables.items()}
    with night.run.draft("features") as draft:
        draft.arrays("train", made.train.arrays())
        draft.arrays("full", made.full.arrays())
        draft.frame("truth", made.split.truth)
        if made.split.ratings is not None:
            draft.frame("ratings", made.split.ratings)
        draft.json("weights", weights)
        draft.json("split", made.split.to_dict())
        draft.json("clean", {**made.cleaning, **reports})
        draft.json(
            "tables", {"events": events.height, **{t: f.height for t, (f, _) in tables.items()}}
        )
        for table, (frame, _) in tables.items():
            draft.frame(table, frame)
        draft.rows = len(made.train.item)
    return night.run.ref("features")
