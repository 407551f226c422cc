"""Maintenance of all stores: small files are compacted, and files that nothing needs are removed.

Guarantees: rows, live lists and every pinned version stay as they are; what another process holds
is left for the next time, and named in the result; killed anywhere, the next call goes on. Ages are
measured from the instant of the call.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pipeline import columns as c
from pipeline.base import AsOf, Instant, Progress, silent
from pipeline.errors import ConcurrencyError
from pipeline.serving.retire import retired
from pipeline.steps.experiments.calibration.calibrate import FOLDER as CALIBRATIONS
from pipeline.steps.maintenance.prunable_files import prunable_files
from pipeline.steps.maintenance.retained_versions import pinned
from pipeline.stores.batches import Batches
from pipeline.stores.lake import Cleared, Compaction
from pipeline.stores.pruning import (
    Removed,
    drop_files,
    last_activity,
    remove,
    remove_older,
    remove_orphans,
)
from pipeline.stores.runs import Runs
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import PINS, Workspace

LOCK: Final = "gc"
WRITERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("events", "items", "users", "quarantine", "batches"), "ingest"),
    **dict.fromkeys(("publications", "recommendations"), "publish"),
}
"""Table -> the lock of those who write it."""


@dataclass(frozen=True)
class TableKept:
    """What was done to a table of the lake.

    Attributes
    ----------
    rows
        Rows that were taken out for their age.
    before, after
        Data files that the newest version needed, and needs.
    cleared
        Files and entries of the log that nobody needs any more.
    """

    table: str
    rows: int = 0
    before: int = 0
    after: int = 0
    cleared: Cleared = field(default=Cleared())

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return self.rows == 0 and self.before == self.after and self.cleared == Cleared()

    def text(self) -> str:
        """As a line for a person."""
        gone = self.cleared
        parts = [f"{self.before:,} files are {self.after:,} now"] * (self.before != self.after)
        parts += [f"{self.rows:,} rows taken out"] * (self.rows > 0)
        removed = f"{gone.files:,} files and {gone.log:,} log entries removed"
        parts += [removed] * (gone.files + gone.log > 0)
        return f"{self.table}: {', '.join(parts)}"


@dataclass(frozen=True)
class GcResult:
    """What was done, and what was left.

    Attributes
    ----------
    taken
        What -> how many files of it were removed.
    left
        What is left for the next time -> the process that holds it.
    bytes
        Bytes that are free now.
    """

    at: Instant
    tables: tuple[TableKept, ...]
    taken: Mapping[str, Removed]
    left: Mapping[str, str]
    bytes: int

    @property
    def exit_code(self) -> int:
        """0, or the code of a store that another process held."""
        return ConcurrencyError.exit_code if self.left else 0

    @property
    def sentence(self) -> str:
        """What was left, in one sentence; empty for nothing."""
        left = "; ".join(f"{what}: {reason}" for what, reason in self.left.items())
        return f"left for the next time: {left}" if left else ""

    def text(self) -> str:
        """As lines for a person."""
        lines = [table.text() for table in self.tables if not table.idle]
        lines += [f"{what}: {x.files:,} files removed" for what, x in self.taken.items() if x.files]
        lines.append(f"{self.bytes / 1e6:,.1f} MB are free" if lines else "there was nothing to do")
        return "\n".join([*lines, self.sentence]).rstrip()


def gc(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> GcResult:
    """Look after every store of a workspace.

    Parameters
    ----------
    at
        The instant that ages are measured from; what `config.gc` keeps for days is kept for so
        many days before it.

    Raises
    ------
    ConcurrencyError
        Another call is at work.
    LakeError
        The lake is damaged: nothing of that table was compacted or removed.
    """
    with task_log("maintenance", at, progress=progress) as log:
        with ws.lake.lock(LOCK):
            result = _Upkeep(ws, at, log.progress).all()
        log.rows = sum(table.rows for table in result.tables)
        log.result = f"{result.bytes / 1e6:,.1f} MB are free"
    return result


class _Upkeep:
    """One pass over all stores."""

    def __init__(self, ws: Workspace, at: AsOf, progress: Progress) -> None:
        self._ws = ws
        self._at = at
        self._progress = progress
        self._left: dict[str, str] = {}
        self._taken: defaultdict[str, Removed] = defaultdict(Removed)

    def all(self) -> GcResult:
        """Look after the stores, one after the other; each lock is held no longer than needed."""
        with self._left_if_held("landed files"), self._ws.lake.lock("ingest"):
            self._landed()
        with self._left_if_held("abandoned nights"), self._ws.lake.lock(PINS):
            self._abandoned()
        tables = tuple(self._table(table) for table in WRITERS)
        self._progress("runs")
        self._runs()
        freed = sum(t.cleared.bytes for t in tables) + sum(t.bytes for t in self._taken.values())
        return GcResult(self._at, tables, dict(self._taken), self._left, freed)

    def _before(self, days: int) -> datetime:
        return self._at - timedelta(days=days)

    @contextmanager
    def _left_if_held(self, what: str) -> Iterator[None]:
        """Leave something for the next time if another process holds its lock."""
        try:
            yield
        except ConcurrencyError as error:
            self._left[what] = error.sentence

    def _landed(self) -> None:
        """Look after what passes over landed files leave: a killed one is carried out first."""
        home, before = self._ws.home, self._before(self._ws.config.gc.files_days)
        Batches(self._ws.lake).recover()
        shutil.rmtree(home / "scratch", ignore_errors=True)
        for name in ("archive", "rejected"):
            self._progress(name)
            self._taken[name] += remove_older(sorted((home / name).glob("*")), before)

    def _abandoned(self) -> None:
        """Remove runs that never came to a decision, and on which nothing works any more."""
        before = self._before(self._ws.config.gc.abandoned_days)
        for run in self._ws.runs.starting_with(""):
            begun, decided = run.committed("snapshot"), run.committed("gate")
            if begun is not None and decided is None and last_activity(run, "snapshot") < before:
                self._progress(f"run {run.run_id} was abandoned")
                self._taken["abandoned nights"] += remove(run)

    def _table(self, table: str) -> TableKept:
        """Look after a table of the lake."""
        lake, upkeep = self._ws.lake, Compaction(self._ws.lake, table)
        rows = before = after = 0
        cleared = Cleared()
        self._progress(table)
        with self._left_if_held(table), lake.lock(WRITERS[table]):
            rows = self._retire(table, upkeep)
            before, after = upkeep.compact()
            with lake.lock(PINS):
                pins = pinned(self._ws, self._at).get(table, ())
                cleared = upkeep.clear(pins, self._before(self._ws.config.gc.versions_days))
        return TableKept(table, rows, before, after, cleared)

    def _retire(self, table: str, upkeep: Compaction) -> int:
        """Take out rows that are older than their table keeps them."""
        config = self._ws.config.gc
        if table == "quarantine":
            return upkeep.drop_before(c.INGESTED_AT, self._before(config.quarantine_days))
        if table == "recommendations":
            rows, before = self._ws.lake.read("publications"), self._before(config.lists_days)
            return upkeep.drop_partitions(retired(rows, upkeep.partitions(), before))
        return 0

    def _runs(self) -> None:
        """Look after the files of runs, and what dead processes left beside them."""
        home, before = self._ws.home, self._before(self._ws.config.gc.scorers_days)
        for runs in (self._ws.runs, Runs(home / CALIBRATIONS)):
            self._taken["unfinished files"] += remove_orphans(runs)
        places = ("reports/.*", "studies/*/*.new", "runs/*/.page.*")
        drafts = [path for place in places for path in home.glob(place)]
        self._taken["unfinished files"] += remove_older(drafts, before)
        for run in self._ws.runs.starting_with(""):
            for step, names in prunable_files(self._ws, run, before):
                self._taken["scorers and windows"] += drop_files(run, step, names)
