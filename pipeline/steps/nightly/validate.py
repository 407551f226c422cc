"""Validates the pinned data; a failed check stops the run."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, Progress, format_instant, silent
from pipeline.data.features import volume
from pipeline.data.split import between
from pipeline.data.validate import JUDGED, Baseline, Validation, events_since
from pipeline.data.validate import validate as judge
from pipeline.errors import DataError
from pipeline.stores.runs import Ref
from pipeline.workspace.history import accepted_before
from pipeline.workspace.night import Night, open_night, read_pinned
from pipeline.workspace.workspace import Workspace


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
