"""One pass over what people did: take it in, fold it in, then say whether a retrain is wanted.

Promises: what there is to do is read from the lake, never from what the pass itself has just done,
so a pass that was killed anywhere is made good by the next one.
"""

from __future__ import annotations

from datetime import datetime

from pipeline.base import Progress, silent, to_utc
from pipeline.data.ingest import retrain_reason
from pipeline.failpoints import failpoint
from pipeline.steps.champion import last_judged
from pipeline.steps.foldin import foldin
from pipeline.steps.ingest import ingest_landed
from pipeline.steps.outcomes import FeedbackResult
from pipeline.steps.run import Workspace
from pipeline.stores.batches import Batches


def feedback(ws: Workspace, at: datetime, *, progress: Progress = silent) -> FeedbackResult:
    """Take in what has landed, refresh the lists of who did it, say whether a retrain is wanted.

    Files that were written within two seconds of `at`, or after it, wait for the next pass.
    """
    taken = ingest_landed(ws, at, progress=progress)
    folded = foldin(ws, at, progress=progress)
    failpoint("before_asset")
    wanted, reason = policy(ws, at)
    return FeedbackResult(
        taken.outcomes, taken.lake_version, folded, wanted, reason, backlog=taken.backlog
    )


def policy(ws: Workspace, at: datetime) -> tuple[bool, str]:
    """Count what the last judged night did not see, whatever it decided: a keep is an answer."""
    judged = last_judged(ws.ledger.entries(), to_utc(at))
    if judged is None:
        events, as_of = Batches(ws.lake).accepted_since(None), None
    else:
        as_of, run_id = judged
        pinned = ws.runs.open(run_id).json("snapshot", "snapshot")["versions"]["batches"]
        events = Batches(ws.lake).accepted_since(pinned)
    return retrain_reason(events, as_of, to_utc(at), ws.config.ingest)
