"""One pass over what people did: take it in, fold it in, then say whether a retrain is wanted.

Promises: what there is to do is read from the lake, never from what the pass itself has just done,
so a pass that was killed anywhere is made good by the next one.
"""

from __future__ import annotations

from datetime import datetime

from pipeline.base import Progress, silent
from pipeline.steps.feedback.foldin import foldin
from pipeline.steps.feedback.policy import policy
from pipeline.steps.feedback.results import FeedbackResult
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.workspace.workspace import Workspace


def feedback(ws: Workspace, at: datetime, *, progress: Progress = silent) -> FeedbackResult:
    """Take in what has landed, refresh the lists of who did it, say whether a retrain is wanted.

    Files that were written within two seconds of `at`, or after it, wait for the next pass.
    """
    taken = ingest_landed(ws, at, progress=progress)
    folded = foldin(ws, at, progress=progress)
    ruling = policy(ws, at, progress=progress)
    return FeedbackResult(
        taken.outcomes,
        taken.lake_version,
        folded,
        ruling.verdict.value,
        ruling.reason,
        backlog=taken.backlog,
        younger=taken.younger,
    )
