"""Taking files in: each one exactly once, a bad one set aside, the others unharmed.

Promises: killed anywhere and run again, the lake is that of a calm run; the same bytes add
nothing, whatever their name; rows = accepted + quarantined + duplicates + tombstoned + skipped.
Files that lie in the workspace's landing folder move to `archive/` (or `rejected/`, with the reason
beside them) at the very end; files anywhere else are left where they are.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress, silent, to_utc
from pipeline.data.ingest import (
    CONTENT,
    IDENTITY,
    Judged,
    conflict_rows,
    conflicting,
    derive_ids,
    event_rows,
    judge_catalogue,
    judge_events,
    on_days,
    quarantine_rows,
    split_duplicates,
    upsert,
    with_pseudonyms,
)
from pipeline.data.sources import MappingError
from pipeline.errors import ConfigError, DataError, StorageError
from pipeline.failpoints import failpoint
from pipeline.steps.child import Child
from pipeline.steps.landing import (
    Found,
    archive,
    expand,
    landed,
    mark,
    reject,
    source_for,
)
from pipeline.steps.outcomes import FileResult, FileStatus, IngestResult
from pipeline.steps.parse import sum_of
from pipeline.steps.reading import Text, read_text
from pipeline.steps.run import Workspace
from pipeline.stores.batches import Batch, Batches

_STILL_WRITTEN = timedelta(seconds=2)


def ingest(
    ws: Workspace,
    paths: Sequence[Path],
    *,
    table: str = "events",
    at: datetime,
    source: str | None = None,
    replace: bool = False,
    progress: Progress = silent,
) -> IngestResult:
    """Take in files, and those in folders, oldest first.

    Parameters
    ----------
    table
        ``events``, ``items`` or ``users``.
    at
        Becomes `ingested_at`; events after it are quarantined.
    source
        Name of the source that reads them all; None picks, for each file, the table's source
        whose `path` matches its name, and reads it by its own column names where none does.
    replace
        Items only: each file is the full catalogue.

    Raises
    ------
    DataError
        A path that does not exist, or a folder without files. (A file that is bad raises nothing:
        the result names it, and `failed` is true.)
    ConcurrencyError
        Another ingest is running.
    """
    if replace and table != "items":
        raise ConfigError("only items can be replaced by a full catalogue")
    files = expand(paths)
    found = [source_for(ws.config.sources, path, table, source) for path in files]
    with _taking(ws, at) as taking:
        outcomes = []
        for number, one in enumerate(found, start=1):
            progress(f"reading {one.path.name} ({number} of {len(found)})")
            outcomes.append(taking.take(one, replace=replace))
    return IngestResult(tuple(outcomes), ws.lake.version(table))


def ingest_landed(ws: Workspace, at: datetime, *, progress: Progress = silent) -> IngestResult:
    """Take in what has landed.

    Files that were written within two seconds of `at`, or after it, wait for the next pass.
    """
    with _taking(ws, at) as taking:
        found = list(landed(ws.home, ws.config.sources, to_utc(at) - _STILL_WRITTEN))
        failpoint("listed")
        outcomes = []
        for one in found:
            progress(f"reading {one.path.name}")
            outcomes.append(taking.take(one, replace=False))
    return IngestResult(tuple(outcomes), ws.lake.version("events"))


@contextmanager
def _taking(ws: Workspace, at: datetime) -> Iterator[_Taking]:
    """Hold the lock, finish what a crash left, and start the reader with the first file."""
    limits = ws.config.ingest.limits
    at = to_utc(at)
    with (
        ws.lake.lock("ingest"),
        Child(max_memory_bytes=limits.max_memory_bytes, max_seconds=limits.max_seconds) as child,
    ):
        scratch = ws.home / "scratch"
        # Text of files lies here while it is judged, raw ids included: no crash may leave it.
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write the workspace {ws.home}: {error.strerror}") from error
        batches = Batches(ws.lake)
        batches.recover()
        if ws.lake.version("events") is not None and not len(ws.vault):
            raise ConfigError(
                f"the lake holds events, but its vault {ws.vault.path} is gone; restore it: with a "
                "new one every person would count as another"
            )
        try:
            yield _Taking(ws, at, child, batches, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class _Taken:
    """What a file comes to: bad rows, rows to commit (None: no change), and their counts."""

    bad: pl.DataFrame
    rows: pl.DataFrame | None
    accepted: int
    duplicates: int


@dataclass(frozen=True)
class _Taking:
    """One pass: everything that taking in a file needs."""

    ws: Workspace
    at: datetime
    child: Child
    batches: Batches
    scratch: Path

    def take(self, found: Found, *, replace: bool) -> FileResult:
        """Take in one file; what is wrong with it is in the result."""
        digest, name = None, found.path.name
        seen = mark(found.path)
        if seen is None:
            return FileResult(name, found.name, FileStatus.WAITS, None, f"{name}: is gone again")
        try:
            digest = sum_of(found.path, self.ws.config.ingest.limits)
            if self.batches.seen(found.source.table, digest):
                archive(self.ws.home, found.path, digest, seen)
                return FileResult(name, found.name, FileStatus.SEEN, digest)
            failpoint("claimed")
            result = self._take(found, digest, replace=replace)
        except MappingError as error:
            hint = found.hint(error.sentence)
            return FileResult(name, found.name, FileStatus.WAITS, digest, hint)
        except DataError as error:
            if mark(found.path) != seen:
                moved = f"{name}: was replaced or taken away while it was read"
                return FileResult(name, found.name, FileStatus.WAITS, digest, moved)
            reject(self.ws.home, found.path, error.sentence, seen)
            return FileResult(name, found.name, FileStatus.SET_ASIDE, digest, error.sentence)
        archive(self.ws.home, found.path, digest, seen)
        failpoint("archived")
        return result

    def _take(self, found: Found, digest: str, *, replace: bool) -> FileResult:
        limits = self.ws.config.ingest.limits
        with read_text(self.child, found, digest, limits, self.scratch) as text:
            failpoint("parsed")
            if found.source.table == "events":
                taken = self._events(found, text, digest)
            else:
                taken = self._catalogue(found, text, replace=replace)
        quarantine = quarantine_rows(
            taken.bad, text.broken, at=self.at, source=found.name, batch_id=digest
        )
        batch = Batch(
            batch_id=digest,
            table=found.source.table,
            source=found.name,
            file=found.path.name,
            rows=text.rows,
            accepted=taken.accepted,
            quarantined=quarantine.height,
            duplicates=taken.duplicates,
            tombstoned=0,
            skipped=text.skipped,
            ingested_at=self.at,
        )
        self.batches.commit(batch, taken.rows, quarantine)
        reasons = Counter(quarantine[c.REASONS].explode(empty_as_null=False).to_list())
        return FileResult.taken(batch, dict(sorted(reasons.items())), text.ignored_columns)

    def _events(self, found: Found, text: Text, digest: str) -> _Taken:
        judge = partial(judge_events, source=found.source, config=self.ws.config.ingest, at=self.at)
        judged = self._joined(found, text, judge)
        people = self.ws.vault.pseudonyms(judged.good[c.USER_ID].unique().to_list())
        identified = derive_ids(with_pseudonyms(judged.good, people))
        known = self.ws.lake.read("events", columns=IDENTITY, where=on_days(identified))
        fresh, repeats = split_duplicates(identified, known)
        conflicts = fresh.clear()
        if repeats.height:
            stored = self.ws.lake.read("events", columns=CONTENT, where=on_days(repeats))
            conflicts = conflicting(repeats, pl.concat([stored, fresh.select(CONTENT)]))
        bad = pl.concat([judged.bad, conflict_rows(conflicts)])
        rows = event_rows(fresh, at=self.at, source=found.name, batch_id=digest)
        duplicates = repeats.height - conflicts.height
        return _Taken(bad, rows if rows.height else None, rows.height, duplicates)

    def _joined(self, found: Found, text: Text, judge: Callable[..., Judged]) -> Judged:
        name, limits = found.path.name, self.ws.config.ingest.limits
        return Judged.joined(
            (judge(part, name=name) for part in text.parts),
            name=name,
            broken=len(text.broken),
            most=limits.max_bad_rows,
        )

    def _catalogue(self, found: Found, text: Text, *, replace: bool) -> _Taken:
        table = found.source.table
        judged = self._joined(found, text, partial(judge_catalogue, source=found.source))
        good = judged.good
        if table == "users":
            people = self.ws.vault.pseudonyms(good[c.USER_ID].unique().to_list())
            good = with_pseudonyms(good, people)
        current = self.ws.lake.read(table)
        merged, duplicates = upsert(table, current, good, replace=replace)
        same = merged.equals(current.sort(merged.columns[0]))
        return _Taken(judged.bad, None if same else merged, good.height - duplicates, duplicates)
