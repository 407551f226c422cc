"""Taking files in: each one exactly once, a bad one set aside, the others unharmed.

Guarantees: killed anywhere and run again, the lake is that of an undisturbed run; the same bytes
add nothing, whatever their name; rows = accepted + quarantined + duplicates + tombstoned + skipped.
Small files are put together and taken in with one commit, so that many of them are quick.
Files that lie in the workspace's landing folder move to `archive/` (or `rejected/`, with the reason
beside them) at the very end; files anywhere else are left where they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from pipeline.base import AsOf, Progress, silent
from pipeline.data.ingest.catalogue import validate_catalogue
from pipeline.data.ingest.events import ValidatedRows, validate_events
from pipeline.data.sources.config import MappingError
from pipeline.errors import ConfigError, DataError, StorageError
from pipeline.failpoints import failpoint
from pipeline.steps.ingest.bundle import FileRead, bundled
from pipeline.steps.ingest.discovery import DiscoveredFile, expand, landed, source_for
from pipeline.steps.ingest.landing import Mark, archive, mark, printable, reject
from pipeline.steps.ingest.read_file import CannotOpen, read_text, sum_of
from pipeline.steps.ingest.results import FileResult, FileStatus, IngestResult
from pipeline.stores.batches import MERGED, Batches
from pipeline.workspace.child_process import Child
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

_STILL_WRITTEN = timedelta(seconds=2)


def ingest(
    ws: Workspace,
    paths: Sequence[Path],
    *,
    table: str = "events",
    at: AsOf,
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
        raise ConfigError(
            "ingest.replace_only_items", "only items can be replaced by a full catalogue"
        )
    files = [source_for(ws.config.sources, path, table, source) for path in expand(paths)]
    with task_log("ingest", at, progress=progress) as log:
        with _taking(ws, at, replace=replace) as taking:
            for number, file in enumerate(files, start=1):
                log.progress(f"reading {file.file} ({number} of {len(files)})")
                taking.take(file)
            outcomes = taking.finish()
        result = IngestResult.of_files(outcomes, ws.lake.version(table))
        log.rows, log.result = result.rows, result.sentence
    return result


def ingest_landed(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> IngestResult:
    """Take in what has landed, of each table no more than `ingest.files_per_pass` files.

    Files that were written within two seconds of `at`, or after it, wait for the next pass.
    """
    with task_log("ingest", at, progress=progress) as log:
        with _taking(ws, at) as taking:
            backlog, younger = _take_landed(taking, log.progress)
            outcomes = taking.finish()
        result = IngestResult.of_files(
            outcomes, ws.lake.version("events"), backlog=backlog, younger=younger
        )
        log.rows, log.result = result.rows, result.sentence
    return result


def _take_landed(taking: _Taking, progress: Progress) -> tuple[int, int]:
    """Take in landed files; returns how many are left, and how many are too young."""
    ws, backlog, younger = taking.ws, 0, 0
    listed = landed(ws.home, taking.at - _STILL_WRITTEN)
    failpoint("listed")
    for inside in listed:
        for folder, trouble in inside.troubles:
            taking.hold(inside.table, folder, trouble)
        younger += inside.younger
        done = 0
        for number, (path, name) in enumerate(inside.files, start=1):
            if done == ws.config.ingest.files_per_pass:
                backlog += len(inside.files) - number + 1
                break
            file = source_for(ws.config.sources, path, inside.table, None, name)
            progress(f"reading {file.file} ({number} of {len(inside.files)})")
            # One that waits for a better config must not keep the others waiting.
            done += taking.take(file)
    return backlog, younger


@contextmanager
def _taking(ws: Workspace, at: AsOf, *, replace: bool = False) -> Iterator[_Taking]:
    """Hold the lock, finish what a crash left, and start the reader with the first file."""
    limits = ws.config.ingest.limits
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
            raise StorageError(
                "workspace.cannot_write", f"cannot write the workspace {ws.home}: {error.strerror}"
            ) from error
        if ws.lake.version("batches") is None and LedgerHistory.of(ws.ledger).entries:
            raise ConfigError(
                "workspace.lake_lost",
                f"there were nights, but the lake {ws.lake.root} holds nothing that was ever taken "
                "in; restore it",
            )
        batches = Batches(ws.lake)
        batches.recover()
        if ws.lake.version("events") is not None and not len(ws.vault):
            raise ConfigError(
                "workspace.vault_lost",
                f"the lake holds events, but its vault {ws.vault.path} is gone; restore it: with a "
                "new one every person would count as another",
            )
        try:
            yield _Taking(ws, at, child, batches, scratch, replace)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@dataclass
class _Taking:
    """One pass: what taking in files needs, and those that were read and wait for their commit."""

    ws: Workspace
    at: AsOf
    child: Child
    batches: Batches
    scratch: Path
    replace: bool
    outcomes: list[FileResult | None] = field(default_factory=list)
    waiting: list[tuple[int, FileRead]] = field(default_factory=list)

    def take(self, file: DiscoveredFile) -> bool:
        """Take in one file, at once or with those that follow; False for one that has to wait."""
        if self.waiting and self._full(file):
            self._commit()
        place = len(self.outcomes)
        self.outcomes.append(None)
        try:
            read = self._read(file)
        except Exception:
            self._commit()  # those before it are not to blame
            raise
        if isinstance(read, FileRead):
            self.waiting.append((place, read))
            return True
        self.outcomes[place] = read
        return read.status is not FileStatus.WAITS

    def hold(self, table: str, folder: Path, trouble: str) -> None:
        """Name a folder that cannot be listed."""
        name = printable(folder.name)
        self.outcomes.append(FileResult(name, table, FileStatus.WAITS, None, f"{name}: {trouble}"))

    def finish(self) -> tuple[FileResult, ...]:
        """Commit what still waits; returns what became of each file, in order."""
        self._commit()
        return tuple(outcome for outcome in self.outcomes if outcome is not None)

    def _full(self, file: DiscoveredFile) -> bool:
        config, files = self.ws.config.ingest, [read for _, read in self.waiting]
        return (
            files[0].discovered.source.table != file.source.table
            or len(files) >= config.files_per_pass
            or sum(read.text.rows for read in files) >= config.rows_per_commit
        )

    def _read(self, file: DiscoveredFile) -> FileRead | FileResult:
        """Read and judge a file, or say why there is nothing to commit of it."""
        digest, name, home = None, file.file, self.ws.home
        seen = mark(file.path)
        if seen is None:
            return FileResult(name, file.name, FileStatus.WAITS, None, f"{name}: is gone again")
        try:
            digest = sum_of(file.path, self.ws.config.ingest.limits)
            if self._seen(file.source.table, digest):
                archive(home, file.path, digest, seen)
                return FileResult(name, file.name, FileStatus.SEEN, digest)
            failpoint("claimed")
            return self._judged(file, seen, digest)
        except DataError as error:
            sentence, status = error.sentence, FileStatus.WAITS
            if mark(file.path) != seen:
                sentence = f"{name}: was replaced or taken away while it was read"
            elif isinstance(error, CannotOpen):
                pass
            elif isinstance(error, MappingError):
                sentence = file.hint(sentence)
            else:
                status = FileStatus.SET_ASIDE
                reject(home, file.path, sentence, seen)
            return FileResult(name, file.name, status, digest, sentence)

    def _seen(self, table: str, digest: str) -> bool:
        keys = [read.digest for _, read in self.waiting if read.discovered.source.table == table]
        if keys and table in MERGED:
            return keys[-1] == digest  # as the lake's own: the latest wins
        return digest in keys or self.batches.seen(table, digest)

    def _judged(self, file: DiscoveredFile, seen: Mark, digest: str) -> FileRead:
        config, source = self.ws.config.ingest, file.source
        judge: Callable[..., ValidatedRows] = partial(validate_catalogue, source=source)
        if source.table == "events":
            judge = partial(validate_events, source=source, config=config, at=self.at)
        with read_text(self.child, file, digest, config.limits, self.scratch) as text:
            failpoint("parsed")
            judged = ValidatedRows.joined(
                (judge(part, name=file.file) for part in text.parts),
                name=file.file,
                broken=len(text.broken),
                most=config.limits.max_bad_rows,
            )
        return FileRead(file, seen, digest, text, judged)

    def _commit(self) -> None:
        """Take in what waits, with one commit; then its files go."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        files = [read for _, read in waiting]
        bundle = bundled(self.ws, files, at=self.at, replace=self.replace)
        self.batches.commit(bundle.batches, bundle.rows, bundle.quarantine)
        for (place, read), result in zip(waiting, bundle.results, strict=True):
            archive(self.ws.home, read.discovered.path, read.digest, read.seen)
            self.outcomes[place] = result
            failpoint("archived")
