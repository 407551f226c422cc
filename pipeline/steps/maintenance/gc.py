"""Maintenance of all stores: compaction of small files, removal of data past their retention time.

Guarantees:

* Live lists and pinned versions stay readable; compaction changes no rows.
* A store that another process holds is skipped, and named in the result.
* Runs are freed before the lake is touched, because compaction needs free disk space.
* After a crash the next call continues.
* Ages are measured from a given instant.
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
from pipeline.base import AsOf, Instant, Progress, silent, to_the_second
from pipeline.errors import ConcurrencyError, ConfigError
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
_FAR: Final = timedelta(days=365)
WRITERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("events", "items", "users", "quarantine", "batches"), "ingest"),
    **dict.fromkeys(("publications", "recommendations"), "publish"),
}
"""Lock of the writers, by table."""


@dataclass(frozen=True)
class TableKept:
    """Result for one table of the lake.

    Attributes
    ----------
    rows
        Deleted rows past their retention time.
    before, after
        Number of data files of the newest version.
    cleared
        Removed data files and log entries.
    """

    table: str
    rows: int = 0
    before: int = 0
    after: int = 0
    cleared: Cleared = field(default=Cleared())

    def text(self) -> str:
        """Return the result as one line; empty if nothing was done."""
        files, log = self.cleared.files, self.cleared.log
        parts = [f"{self.before:,} files merged to {self.after:,}"] * (self.before != self.after)
        parts += [f"{self.rows:,} rows deleted"] * (self.rows > 0)
        parts += [f"{files:,} files and {log:,} log entries removed"] * (files + log > 0)
        return f"{self.table}: {', '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class GcResult:
    """Result of all stores.

    Attributes
    ----------
    taken
        Removed files, by kind.
    left
        Message of the lock, by skipped store.
    bytes
        Freed bytes.
    """

    at: Instant
    tables: tuple[TableKept, ...]
    taken: Mapping[str, Removed]
    left: Mapping[str, str]
    bytes: int

    @property
    def exit_code(self) -> int:
        """0, or the code of a held lock."""
        return ConcurrencyError.exit_code if self.left else 0

    @property
    def sentence(self) -> str:
        """Skipped stores in one sentence; empty for none."""
        skipped = "; ".join(f"{store}: {reason}" for store, reason in self.left.items())
        return f"skipped, run `nightjar gc` again: {skipped}" if skipped else ""

    def text(self) -> str:
        """Return the result as lines."""
        lines = [line for table in self.tables if (line := table.text())]
        lines += [f"{kind}: {x.files:,} files removed" for kind, x in self.taken.items() if x.files]
        lines.append(f"{self.bytes / 1e6:,.1f} MB freed" if lines else "nothing to do")
        return "\n".join([*lines, self.sentence]).rstrip()


def instant_of_ages(ws: Workspace, at: AsOf, *, by_hand: bool, far_ahead: bool = False) -> AsOf:
    """Return the instant from which the ages of a call of `gc` count.

    In a workspace whose publications count from their as-of, this is the newest instant of an
    ingest, because the clock is not that of its data.

    Parameters
    ----------
    ws
        The workspace.
    at
        Instant of the call.
    by_hand
        Whether a user named the instant; otherwise it comes from the clock or a schedule.
    far_ahead
        Allow an instant that is more than a year after the newest ingest.

    Raises
    ------
    ConfigError
        ``gc.far_ahead``
    """
    newest = Batches(ws.lake).newest_ingest()
    if newest is None:
        return at
    if not by_hand and ws.config.publish.live_from == "as_of":
        return AsOf(newest)
    if at > newest + _FAR and not far_ahead:
        raise ConfigError(
            "gc.far_ahead",
            f"{to_the_second(at)} is more than a year after the last ingest "
            f"({to_the_second(newest)}), so nearly everything would count as old and be removed; "
            "correct the clock or the instant, or confirm with --yes (in Airflow, the param yes)",
        )
    return at


def gc(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> GcResult:
    """Compact the lake and remove data past their retention time.

    Parameters
    ----------
    ws
        The workspace; `config.gc` has the retention times.
    at
        Instant from which ages are measured.
    progress
        Receives the name of each store.

    Raises
    ------
    ConcurrencyError
        ``lock.held``: another `gc` is running.
    LakeError
        The lake is damaged; nothing of that table was compacted or removed.
    """
    with task_log("maintenance", at, progress=progress) as log:
        with ws.lake.lock(LOCK):
            result = _Maintenance(ws, at, log.progress).run()
        log.rows = sum(table.rows for table in result.tables)
        log.result = f"{result.bytes / 1e6:,.1f} MB freed"
    return result


class _Maintenance:
    """One pass over all stores."""

    def __init__(self, ws: Workspace, at: AsOf, progress: Progress) -> None:
        self._ws = ws
        self._at = at
        self._progress = progress
        self._left: dict[str, str] = {}
        self._taken: defaultdict[str, Removed] = defaultdict(Removed)

    def run(self) -> GcResult:
        """Process the stores one after the other; each lock is held only meanwhile."""
        # Before the tables: the versions that only abandoned runs pinned can go in the same call,
        # and on a full disk compaction needs the space that runs and files free.
        with self._skip_if_held("abandoned nights"), self._ws.lake.lock(PINS):
            self._abandoned()
        self._progress("runs")
        self._runs()
        with self._skip_if_held("landed files"), self._ws.lake.lock("ingest"):
            self._landed()
        tables = tuple(self._table(table) for table in WRITERS)
        freed = sum(t.cleared.bytes for t in tables) + sum(t.bytes for t in self._taken.values())
        return GcResult(self._at, tables, dict(self._taken), self._left, freed)

    def _before(self, days: int) -> datetime:
        return self._at - timedelta(days=days)

    @contextmanager
    def _skip_if_held(self, store: str) -> Iterator[None]:
        """Skip a store whose lock another process holds."""
        try:
            yield
        except ConcurrencyError as error:
            self._left[store] = error.sentence

    def _landed(self) -> None:
        """Remove landed files past their retention time, after recovering an open ingest."""
        home, before = self._ws.home, self._before(self._ws.config.gc.files_days)
        Batches(self._ws.lake).recover()
        # Archived files can restore a store that is behind.
        self._ws.compare_stores()
        # The caller holds the ingest lock, so no process uses the scratch folder.
        shutil.rmtree(home / "scratch", ignore_errors=True)
        for name in ("archive", "rejected"):
            self._progress(name)
            self._taken[name] += remove_older(sorted((home / name).glob("*")), before)

    def _abandoned(self) -> None:
        """Remove runs without a decision and without recent activity."""
        before = self._before(self._ws.config.gc.abandoned_days)
        for run in self._ws.runs.starting_with(""):
            begun, decided = run.committed("snapshot"), run.committed("gate")
            if begun is not None and decided is None and last_activity(run, "snapshot") < before:
                self._progress(f"abandoned run {run.run_id}")
                self._taken["abandoned nights"] += remove(run)

    def _table(self, table: str) -> TableKept:
        """Compact a table of the lake, and remove files that only old versions need."""
        lake, compaction = self._ws.lake, Compaction(self._ws.lake, table)
        rows = before = after = 0
        cleared = Cleared()
        self._progress(table)
        with self._skip_if_held(table), lake.lock(WRITERS[table]):
            rows = self._delete_rows(table, compaction)
            before, after = compaction.compact()
            # A starting run waits for this lock before it pins a version (`Workspace.pinning`).
            with lake.lock(PINS):
                pins = pinned(self._ws, self._at).get(table, ())
                cleared = compaction.clear(pins, self._before(self._ws.config.gc.versions_days))
        return TableKept(table, rows, before, after, cleared)

    def _delete_rows(self, table: str, compaction: Compaction) -> int:
        """Delete rows past the retention time of their table."""
        config = self._ws.config.gc
        if table == "quarantine":
            return compaction.drop_before(c.INGESTED_AT, self._before(config.quarantine_days))
        if table == "recommendations":
            rows, before = self._ws.lake.read("publications"), self._before(config.lists_days)
            return compaction.drop_partitions(retired(rows, compaction.partitions(), before))
        return 0

    def _runs(self) -> None:
        """Remove files of runs that no step reads, and files of crashed processes."""
        home, before = self._ws.home, self._before(self._ws.config.gc.scorers_days)
        for runs in (self._ws.runs, Runs(home / CALIBRATIONS)):
            self._taken["unfinished files"] += remove_orphans(runs)
        # Temporary names of files that are written and then renamed.
        places = ("reports/.*", "studies/*/*.new", "runs/*/.page.*")
        drafts = [path for place in places for path in home.glob(place)]
        self._taken["unfinished files"] += remove_older(drafts, before)
        for run in self._ws.runs.starting_with(""):
            for step, names in prunable_files(self._ws, run, before):
                self._taken["scorers and windows"] += drop_files(run, step, names)
