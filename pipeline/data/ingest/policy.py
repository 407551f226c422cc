"""When new data ask for a retrain between two nights."""

from __future__ import annotations

from datetime import datetime, timedelta

from pipeline.base import format_instant
from pipeline.data.ingest.config import IngestConfig


def retrain_reason(
    new_events: int, judged_as_of: datetime | None, at: datetime, config: IngestConfig
) -> tuple[bool, str]:
    """Return whether a retrain is wanted, and why or why not in one sentence.

    Parameters
    ----------
    new_events
        Events taken in since the live model's as-of (all, where no night was judged yet).
    judged_as_of
        As-of of the last night that came to a decision.
    """
    since = (
        "no night was judged yet"
        if judged_as_of is None
        else f"since {format_instant(judged_as_of)}"
    )
    told = f"{new_events:,} new events ({since}); {config.retrain_after_events:,} are enough"
    if new_events < config.retrain_after_events:
        return False, f"no retrain: {told}"
    pause = timedelta(hours=config.retrain_after_hours)
    if judged_as_of is not None and at - judged_as_of < pause:
        return False, f"no retrain yet: {told}, but {config.retrain_after_hours} hours must pass"
    return True, f"retrain wanted: {told}"
