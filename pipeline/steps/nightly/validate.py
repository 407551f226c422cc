"""Validates the pinned data; a failed check stops the run.

Guarantees: the checks are committed before a failed one raises, and a repeated call raises again.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, Progress, format_instant
from pipeline.data.features import volume
from pipeline.data.split import between
from pipeline.data.validate.judge import Baseline, Validation, events_since
from pipeline.data.validate.judge import validate as run_checks
from pipeline.data.validate.returns import DAYS
from pipeline.data.validate.rules import JUDGED
from pipeline.data.validate.usual_shares import COLUMNS
from pipeline.errors import DataError
from pipeline.report.wording import DELIVER
from pipeline.steps.reporting.index_page import draw_reports
from pipeline.workspace.artifacts import ValidationFile
from pipeline.workspace.night import Night
from pipeline.workspace.task_log import task_step


def _refuse_failed(night: Night) -> None:
    failed = night.run.read(ValidationFile).failed
    if failed:
        draw_reports(night)  # no later task does
        problems, next_step = "; ".join(check.sentence for check in failed), DELIVER
        raise DataError(
            "validate.failed",
            f"{problems}; {next_step}",
            where=f"the data of {format_instant(night.as_of)}",
        )


@task_step("validate", check=_refuse_failed)
def validate(night: Night, progress: Progress) -> str:
    """Check the pinned data; a failed check stops the run.

    Parameters
    ----------
    night, progress
        The run, and a receiver of short texts; `task_step` passes both.

    Returns
    -------
    The result in one sentence.

    Raises
    ------
    DataError
        `validate.failed`: a check failed.
    """
    result = _validation(night, progress)
    file = ValidationFile(
        passed=result.passed,
        as_of=result.as_of,
        rows=result.rows,
        checks=result.checks,
        baseline=result.baseline,
        great_expectations=json.loads(result.suite),
    )
    with night.run.draft("validate") as draft:
        draft.write(file)
        draft.rows = len(file.checks)
    return f"{len(file.checks) - len(file.failed)} of {len(file.checks)} checks passed"


def _validation(night: Night, progress: Progress) -> Validation:
    config = night.config.validate_
    # The checks read the events of the last days only (`validate.suite_days`).
    since = events_since(night.as_of, config)
    accepted, quarantined = _rows_ingested(night.table("batches"), since)
    events = night.table("events", columns=JUDGED, where=between(Interval(since, night.as_of)))
    recent = Interval(night.as_of - timedelta(days=DAYS), night.as_of)
    return run_checks(
        events,
        night.table("items"),
        as_of=night.as_of,
        kinds=night.config.ingest.kinds,
        accepted=accepted,
        quarantined=quarantined,
        baseline=_baseline(night),
        config=config,
        counted=volume(events, night.config.features),
        active=night.table("events", columns=COLUMNS, where=between(recent)),
        blocked=[
            entry.decision.block
            for entry in night.history.decisions_before(night.as_of)
            if entry.kind == "block"
        ],
        progress=progress,
    )


def _baseline(night: Night) -> Baseline | None:
    """Return the baseline that the champion's run measured; None without a champion."""
    last = night.history.champion(night.as_of)
    return None if last is None else night.ws.runs.open(last.run_id).read(ValidationFile).baseline


def _rows_ingested(batches: pl.DataFrame, since: datetime) -> tuple[int, int]:
    """Count the accepted and the quarantined rows of event files ingested since an instant."""
    done = batches.filter(
        (batches[c.STATUS] == c.BatchStatus.DONE.value)
        & (batches[c.TABLE] == "events")
        & (batches[c.INGESTED_AT] >= since)
    )
    return int(done[c.ACCEPTED].sum()), int(done[c.QUARANTINED].sum())
