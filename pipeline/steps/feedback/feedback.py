"""One pass between two runs: ingest what has landed, fold it in, apply the retrain policy.

Guarantees: what is left to do is read from the lake, never from what the pass itself has just done,
so the next pass completes one that was killed anywhere.
"""

from __future__ import annotations

from pipeline.base import AsOf, Progress, silent
from pipeline.steps.feedback.foldin import foldin
from pipeline.steps.feedback.policy import policy
from pipeline.steps.feedback.results import FeedbackResult
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.workspace.workspace import Workspace


def feedback(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> FeedbackResult:
    """Ingest what has landed, refresh the lists of its users, decide whether to retrain.

    Files that were written within two seconds of `at`, or after it, wait for the next pass.
    """
    ingested = ingest_landed(ws, at, progress=progress)
    folded = foldin(ws, at, progress=progress)
    ruling = policy(ws, at, progress=progress)
    return FeedbackResult(
        **vars(ingested),
        events=ingested.new_events,
        users_refreshed=folded.users_refreshed,
        publication_id=folded.publication_id,
        foldin=folded,
        action=ruling.action.value,
        reason=ruling.reason,
    )
