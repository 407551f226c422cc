"""The night's next steps: judge the pinned data, turn it into windows."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from pipeline import columns as c
from pipeline.base import (
    Interval,
    Progress,
    format_instant,
    silent,
)
from pipeline.data.features import FeaturesConfig, volume
from pipeline.data.split import between
from pipeline.data.validate import JUDGED, Baseline, Validation, events_since
from pipeline.data.validate import validate as judge
from pipeline.errors import DataError
from pipeline.steps.champion import accepted_before
from pipeline.steps.night import Night, open_night, read_events, read_pinned
from pipeline.steps.run import Workspace
from pipeline.steps.settle import weighed
from pipeline.steps.windows import cleaned, parted, windows
from pipeline.stores.runs import Ref


def validate(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Judge the pinned data; a failed check raises `DataError` and stops the night."""
    night = open_night(ws, run_id)
    if night.run.committed("validate") is None:
        progress("validate")
        result = _judge(ws, night, progress)
        with night.run.draft("validate") as draft:
            draft.json("validation", result.to_dict())
            draft.rows = len(result.checks)
    record = night.run.json("validate", "validation")
    failed = [check for check in record["checks"] if not check["passed"]]
    if failed:
        raise DataError(
            "; ".join(f"{check['name']}: {check['sentence']}" for check in failed),
            where=f"the data of {format_instant(night.as_of)}",
        )
    return night.run.ref("validate")


def _judge(ws: Workspace, night: Night, progress: Progress) -> Validation:
    config = night.config.validate_
    since = events_since(night.as_of, config)
    taken, quarantined = _rows_taken(read_pinned(ws, night, "batches"), since)
    accepted = accepted_before(ws.ledger.entries(), night.as_of)
    baseline = None
    if accepted:
        record = ws.runs.open(accepted[-1].run_id).json("validate", "validation")
        baseline = Baseline.from_json(record["baseline"])
    events = read_pinned(
        ws, night, "events", columns=JUDGED, where=between(Interval(since, night.as_of))
    )
    return judge(
        events,
        read_pinned(ws, night, "items"),
        as_of=night.as_of,
        kinds=night.config.ingest.kinds,
        accepted=taken,
        quarantined=quarantined,
        baseline=baseline,
        config=config,
        counted=volume(events, night.config.features),
        progress=progress,
    )


def _rows_taken(batches: pl.DataFrame, since: datetime) -> tuple[int, int]:
    """Sum what the files of events brought since an instant: accepted, quarantined."""
    done = batches.filter(
        (batches[c.STATUS] == c.BatchStatus.DONE.value)
        & (batches[c.TABLE] == "events")
        & (batches[c.INGESTED_AT] >= since)
    )
    return int(done[c.ACCEPTED].sum()), int(done[c.QUARANTINED].sum())


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
        parts = parted(events, night.as_of, config, **task)
        weights = weighed(events, parts, config, progress).model_dump(mode="json")
    config = config.model_copy(update={"features": FeaturesConfig.model_validate(weights)})
    made = windows(
        events,
        night.as_of,
        config,
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
