"""Fold-in: new lists between two nightly runs for the users with new events.

Guarantees:

* The users are selected from the lake, so the next pass completes one that was killed at any point,
  and a pass without new events changes nothing.
* A patch goes live only directly behind the publication that it was made against; if a run or
  another pass published first, the patch is made again.
* Events at or after the instant of the pass are not used.
* Before new events are folded in, unavailable items leave the live lists of all users.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline import columns as c
from pipeline.base import AsOf, Progress, format_instant, silent
from pipeline.errors import ConcurrencyError, ConfigError, NightjarError
from pipeline.failpoints import failpoint
from pipeline.serving import publish as serving
from pipeline.serving.publish import Patch, PublicationRow
from pipeline.steps.feedback.decisions import recover_ledger
from pipeline.steps.feedback.patch import count_users, make_patch
from pipeline.steps.feedback.results import FoldinResult
from pipeline.steps.feedback.withdrawal import make_withdrawal
from pipeline.steps.ingest.landing import landed_at
from pipeline.steps.reporting.index_page import draw_index
from pipeline.workspace.night import Night
from pipeline.workspace.publications import append_ledger_entry, go_live, stage, verify_staged
from pipeline.workspace.step_outputs import verify_refit
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

TRIES: Final = 3
"""Number of attempts while other processes change the live publication."""


def foldin(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> FoldinResult:
    """Refresh the lists of all users with events that their lists do not contain.

    Parameters
    ----------
    ws
        Workspace.
    at
        Exclusive end of the events.
    progress
        Receives short texts.

    Returns
    -------
    Number of users and publication, or the reason why no list was refreshed.

    Raises
    ------
    ConfigError
        `instant.future`: `at` lies in the future while lists go live by the clock.
    ConcurrencyError
        `publish.base_replaced`, `publish.overtaken`: another process published during each attempt.
    """
    began, start = datetime.now(UTC), time.perf_counter()
    with task_log("foldin", at, progress=progress) as log:
        attempt = _Pass(ws, at, began, start, log.progress)
        failpoint("before_foldin")
        ws.compare_stores()
        recover_ledger(ws)
        for attempts_left in reversed(range(TRIES)):
            try:
                result = attempt.once()
                break
            except ConcurrencyError as error:
                if not attempts_left:
                    raise
                log.progress(f"fold in again: {error.sentence}")
        log.rows, log.result = result.users_refreshed, result.sentence
        if result.users_refreshed or result.users_trimmed:
            _draw_index(ws, log.progress)
    return result


def _draw_index(ws: Workspace, progress: Progress) -> None:
    """Draw the page of all nights, which shows live lists."""
    try:
        draw_index(ws)
    except NightjarError as error:  # the new lists are live, so the pass has succeeded
        progress(f"the page of all nights was not drawn: {error.sentence}")


@dataclass(frozen=True)
class _Pass:
    """One pass: the end of the events that it reads, and its start by the clock."""

    ws: Workspace
    at: AsOf
    began: datetime
    start: float
    progress: Progress

    def once(self) -> FoldinResult:
        """Remove unavailable items from live lists, then fold in new events."""
        publications = self.ws.lake.read("publications")
        base = serving.live(publications)
        if base is None:
            return self._unchanged("nothing is published yet")
        chained = serving.chain(publications, base[c.PUBLICATION_ID])
        behind: PublicationRow = chained.row(-1, named=True)
        night = Night.read(self.ws, self.ws.runs.open(base[c.RUN_ID]))
        verify_refit(night)
        by_clock = night.config.publish.live_from == "clock"
        if by_clock and self.at > self.began:
            raise ConfigError(
                "instant.future",
                f"{format_instant(self.at)} lies in the future; lists go live by the clock, so use "
                "an instant that has passed",
            )
        # A patch up to an earlier instant would take events out of the lists.
        if self.at < behind[c.AS_OF]:
            until = format_instant(behind[c.AS_OF])
            return self._unchanged(f"the live lists contain events up to {until}")
        items = self.ws.lake.version("items")
        trimmed = 0
        withdrawal = make_withdrawal(night, chained, self.at, catalogue=items)
        if withdrawal is not None:
            behind = self._swap(withdrawal, behind, by_clock=by_clock)
            trimmed = withdrawal.users
        result = self._fold_in(night, behind, items, by_clock=by_clock)
        if not trimmed:
            return result
        sentence = f"unavailable items left the lists of {count_users(trimmed)}; {result.sentence}"
        return replace(result, users_trimmed=trimmed, sentence=sentence)

    def _fold_in(
        self, night: Night, behind: PublicationRow, items: int | None, *, by_clock: bool
    ) -> FoldinResult:
        patch = make_patch(night, behind, self.at, catalogue=items, progress=self.progress)
        if isinstance(patch, str):
            return self._unchanged(patch)
        row = self._swap(patch, behind, by_clock=by_clock)
        # In a replay of the past, the files landed long after the instant of the lists.
        landed = landed_at(self.ws.home, patch.files) if by_clock else None
        waited = None if landed is None else (row[c.LIVE_FROM] - landed).total_seconds()
        sentence = f"new lists for {count_users(patch.users)}"
        if patch.outside:
            sentence += (
                f"; all new events of {count_users(patch.outside)} are for items unknown to the "
                "live model: their lists stay until the next nightly run"
            )
        return FoldinResult(
            users_refreshed=patch.users,
            publication_id=patch.publication_id,
            generation=row[c.GENERATION],
            sentence=sentence,
            seconds=self._seconds,
            fresh_after_seconds=waited,
        )

    def _swap(self, patch: Patch, behind: PublicationRow, *, by_clock: bool) -> PublicationRow:
        """Publish a patch; raises `ConcurrencyError` if its base is not live any more."""
        with self.ws.lake.lock("publish", wait=True):
            # A monotonic clock measures the duration: the wall clock may be set back meanwhile.
            live_from = self.began + timedelta(seconds=self._seconds) if by_clock else patch.at
            frame = patch.row(behind, live_from=live_from)
            row = frame.row(0, named=True)
            serving.check_patch(self.ws.lake.read("publications"), row)
            stage(self.ws, patch.publication_id, patch.lists)
            verify_staged(self.ws, patch.publication_id, row[c.SUMS])
            failpoint("patch_staged")
            # The lists are complete before this commit, which makes them live; a crash after it is
            # repaired by `reconcile`.
            go_live(self.ws, frame)
            failpoint("patch_swapped")
            append_ledger_entry(self.ws, row)
        return row

    def _unchanged(self, reason: str) -> FoldinResult:
        return FoldinResult(0, None, None, f"no list was refreshed: {reason}", self._seconds)

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self.start
