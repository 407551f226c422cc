"""One pass between two nightly runs: ingest new files, fold them in, apply the retrain policy.

Guarantees: each part reads its work from the lake, never from the results of the part before, so
the next pass completes one that was killed at any point.
"""

from __future__ import annotations

from pipeline.base import AsOf, Progress, silent
from pipeline.steps.feedback.foldin import foldin
from pipeline.steps.feedback.policy import policy
from pipeline.steps.feedback.results import FeedbackResult
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.workspace.workspace import Workspace


def feedback(
    ws: Workspace, at: AsOf, *, by_hand: bool = True, progress: Progress = silent
) -> FeedbackResult:
    """Ingest new files, refresh the lists of users with new events, and apply the policy.

    Parameters
    ----------
    ws
        Workspace.
    at
        Instant of the pass. Files written after it, or less than two seconds before it, wait for
        the next pass.
    by_hand
        Whether a user named the instant; otherwise it comes from the clock or a schedule.
    progress
        Receives short texts.

    Returns
    -------
    Results of the three parts.

    Raises
    ------
    NightjarError
        As raised by `ingest_landed` and `foldin`.
    """
    ingested = ingest_landed(ws, at, by_hand=by_hand, progress=progress)
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


def is_idle(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> bool:
    """Return whether a pass without new files has nothing to do, after completing the fold-in.

    Parameters
    ----------
    ws, at, progress
        As for `feedback`.

    Returns
    -------
    False if an earlier pass left events without lists, or a retrain is to be requested.
    """
    if foldin(ws, at, progress=progress).users_refreshed:
        return False
    return ws.config.schedule.mode == "nightly" or not policy(ws, at, progress=progress).wanted
