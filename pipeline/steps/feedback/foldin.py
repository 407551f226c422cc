"""Fold-in: new lists between two runs for the users with new events, and for no other user.

Guarantees: the users are read from the lake, so the next pass completes one that was killed
anywhere, and a pass that finds nothing new changes nothing. A patch goes live only right behind
the lists that it was made against: where a run or another pass came first, it is made again. No
event at or after the pass's instant is used.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline import columns as c
from pipeline.base import AsOf, Progress, format_instant, silent
from pipeline.errors import ConcurrencyError, ConfigError
from pipeline.failpoints import failpoint
from pipeline.serving import publish as swap
from pipeline.serving.publish import Patch, PublicationRow
from pipeline.steps.feedback.patch import counted, make_patch
from pipeline.steps.feedback.results import FoldinResult
from pipeline.steps.ingest.landing import landed_at
from pipeline.workspace.night import Night
from pipeline.workspace.publications import append_ledger_entry, reconcile, stage, verify_staged
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

TRIES: Final = 3
"""How often a patch is made, at most, while the live publication changes meanwhile."""


def foldin(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> FoldinResult:
    """Refresh the lists of all users with events before `at` that their lists do not know.

    Raises
    ------
    ConfigError
        `at` lies in the future, where lists go live by the clock.
    ConcurrencyError
        The live publication changed each time while the lists were made.
    """
    began, start = datetime.now(UTC), time.perf_counter()
    with task_log("foldin", at, progress=progress) as log:
        attempt = _Pass(ws, at, began, start, log.progress)
        failpoint("before_foldin")
        reconcile(ws)
        for attempts_left in reversed(range(TRIES)):
            try:
                result = attempt.once()
                break
            except ConcurrencyError as error:
                if not attempts_left:
                    raise
                log.progress(f"fold in: once more, for {error.sentence}")
        log.rows, log.result = result.users_refreshed, result.sentence
    return result


@dataclass(frozen=True)
class _Pass:
    """One pass: the end of the events that it reads, and when it began by the clock."""

    ws: Workspace
    at: AsOf
    began: datetime
    start: float
    progress: Progress

    def once(self) -> FoldinResult:
        """Make a patch against the live publication and publish it, or return why there is none."""
        publications = self.ws.lake.read("publications")
        base = swap.live(publications)
        if base is None:
            return self._nothing("nothing is published yet")
        behind = swap.chain(publications, base[c.PUBLICATION_ID]).row(-1, named=True)
        night = Night.read(self.ws, self.ws.run(base[c.RUN_ID]))
        by_clock = night.config.publish.live_from == "clock"
        if by_clock and self.at > self.began:
            raise ConfigError(
                "instant.future",
                f"{format_instant(self.at)} lies in the future: lists go live by the clock, and "
                "nobody has done anything then yet",
            )
        if self.at < behind[c.AS_OF]:
            until = format_instant(behind[c.AS_OF])
            return self._nothing(f"the live lists know what was done until {until}, and later")
        items = self.ws.lake.version("items")
        made = make_patch(night, behind, self.at, catalogue=items, progress=self.progress)
        if isinstance(made, str):
            return self._nothing(made)
        row = self._swap(made, behind, by_clock=by_clock)
        landed = landed_at(self.ws.home, made.files) if by_clock else None
        waited = None if landed is None else (row[c.LIVE_FROM] - landed).total_seconds()
        sentence = f"new lists for {counted(made.users)}"
        if made.outside:
            sentence += (
                f"; {counted(made.outside)} did something with items alone that the live model "
                "does not know: their lists stay until the next night"
            )
        return FoldinResult(
            users_refreshed=made.users,
            publication_id=made.publication_id,
            generation=row[c.GENERATION],
            sentence=sentence,
            seconds=self._seconds,
            fresh_after_seconds=waited,
        )

    def _swap(self, made: Patch, behind: PublicationRow, *, by_clock: bool) -> PublicationRow:
        """Publish a patch; `ConcurrencyError` if its base is not live any more."""
        with self.ws.lake.lock("publish", wait=True):
            live_from = self.began + timedelta(seconds=self._seconds) if by_clock else made.at
            frame = made.row(behind, live_from=live_from)
            row = frame.row(0, named=True)
            swap.check_patch(self.ws.lake.read("publications"), row)
            stage(self.ws, made.publication_id, made.lists)
            verify_staged(self.ws, made.publication_id, row[c.SUMS])
            failpoint("patch_staged")
            self.ws.lake.append("publications", frame)
            failpoint("patch_swapped")
            append_ledger_entry(self.ws, row)
        return row

    def _nothing(self, reason: str) -> FoldinResult:
        return FoldinResult(0, None, None, f"no list was refreshed: {reason}", self._seconds)

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self.start
