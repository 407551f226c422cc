"""A night that somebody asked for: the request is a wake-up, what there is to do is read again.

Promises: a request that came twice, late or for nothing starts no second night: it ends as
``superseded`` where a night for its instant or a later one is done or at work, as ``nothing_to_do``
where the policy asks for none any more. What is read and what is pinned are one lease, so of two
that come at once one night begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final

from pipeline.base import Progress, format_instant, silent, to_utc
from pipeline.errors import ConcurrencyError
from pipeline.steps.feedback.drift import seen
from pipeline.steps.feedback.policy import begun, ruled
from pipeline.steps.nightly.snapshot import Started, snapshot
from pipeline.workspace.as_of_view import Lately
from pipeline.workspace.history import last_judged
from pipeline.workspace.workspace import Workspace

_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


def woken(
    ws: Workspace,
    as_of: datetime,
    *,
    recipes: Sequence[str] | None = None,
    publish: bool = True,
    progress: Progress = silent,
) -> Started:
    """Begin a night if the lake still asks for one; the parameters are those of `snapshot`.

    A night for this very instant that was begun and has not come to its end goes on.
    """
    as_of = to_utc(as_of)
    with ExitStack() as lease:
        try:
            lease.enter_context(ws.lake.lock("night"))
        except ConcurrencyError:
            return _at_work(ws, as_of)
        if (later := _later(ws, as_of)) is not None:
            return Started("", "superseded", later)
        asked = None
        if as_of not in begun(ws).values():
            lately = Lately.now(ws, as_of)
            drift = seen(lately, progress)
            ruling = ruled(lately, drift)
            if not ruling.wanted:
                return Started("", "nothing_to_do", ruling.reason)
            asked = {"policy": ruling.to_dict(), "drift": drift.to_dict()}
        return snapshot(ws, as_of, recipes=recipes, publish=publish, asked=asked, progress=progress)


def _later(ws: Workspace, as_of: datetime) -> str | None:
    """Name a night that makes this one needless: done for its instant, or begun for a later one."""
    done = last_judged(ws.ledger.entries(), _NEVER)
    if done is not None and done[0] >= as_of:
        return f"the night of {format_instant(done[0])} has decided"
    newest = max(begun(ws).values(), default=as_of)
    return f"the night of {format_instant(newest)} is at work" if newest > as_of else None


def _at_work(ws: Workspace, as_of: datetime) -> Started:
    newest = max(begun(ws).values(), default=None)
    status = "superseded" if newest is not None and newest >= as_of else "nothing_to_do"
    return Started("", status, "a night is at work; what it leaves to do is asked for again")
