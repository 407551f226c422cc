"""Ingest of files: each exactly once; an invalid file is set aside and does not stop the others.

Guarantees:

* After a crash at any point and a rerun, the lake equals that of an undisturbed run.
* Equal bytes add nothing, whatever the name of the file.
* rows = accepted + quarantined + duplicates + tombstoned + skipped.

Small files share a commit, which makes many of them fast. Files in the landing folder of the
workspace move to `archive/` (or `rejected/`, with the reason beside them) after their commit; files
anywhere else, and entries that are not regular files, are not moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.base import AsOf, Progress, silent, to_the_second
from pipeline.data.ingest.catalogue import validate_catalogue
from pipeline.data.ingest.events import ValidatedRows, validate_events
from pipeline.data.ingest.ids import doubtful
from pipeline.data.ingest.quarantine import quarantine_rows
from pipeline.data.ingest.settings import refuse_wrong_setting
from pipeline.data.sources.config import MappingError, Source
from pipeline.errors import ConfigError, DataError, NightjarError, StorageError, printable
from pipeline.failpoints import failpoint
from pipeline.steps.ingest.bundle import FileRead, combine, count_reasons
from pipeline.steps.ingest.discovery import (
    DiscoveredFile,
    Landed,
    expand,
    landed,
    source_for,
)
from pipeline.steps.ingest.irregular import age_text, read_reported, write_reported
from pipeline.steps.ingest.landing import Mark, archive, mark, reject, remove_moved
from pipeline.steps.ingest.read_file import FutureRows, NotRegular, Waits, read_text, sum_of
from pipeline.steps.ingest.results import FileResult, FileStatus, IngestResult
from pipeline.stores.batches import MERGED, Batches
from pipeline.stores.disk import storage_errors
from pipeline.workspace.child_process import Child, ChildKilled
from pipeline.workspace.permissions import PRIVATE_FOLDER
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

_STILL_WRITTEN = timedelta(seconds=2)
"""Age below which a file may still be written."""
_SHOWN: Final = 5
"""Bad rows that the result of a dry run shows."""


def ingest(
    ws: Workspace,
    paths: Sequence[Path],
    *,
    table: str = "events",
    at: AsOf,
    source: str | None = None,
    replace: bool = False,
    by_hand: bool = True,
    dry_run: bool = False,
    progress: Progress = silent,
) -> IngestResult:
    """Ingest files, and the files in folders, oldest first.

    An invalid file raises no error: the result names it, and `failed` is true.

    Parameters
    ----------
    ws
        Workspace.
    paths
        Files and folders.
    table
        ``events``, ``items`` or ``users``.
    at
        Becomes `ingested_at`; events after it are quarantined.
    source
        Name of the source that reads all files; None selects per file the source of the table
        whose `path` matches its name, or reads it by its own column names.
    replace
        Items only: each file is the full catalogue.
    by_hand
        Whether a user named the instant; otherwise it comes from the clock or a schedule.
    dry_run
        Validate the files, and neither store their rows nor move them. Duplicates are not counted.
    progress
        Receives short texts.

    Returns
    -------
    Counts, and the result of each file.

    Raises
    ------
    ConfigError
        `ingest.replace_only_items`, `ingest.unknown_table`, `ingest.unknown_source`,
        `ingest.clock_behind`, `privacy.changed`.
    StorageError
        As `Workspace.compare_stores`.
    DataError
        `ingest.not_found`, `ingest.empty_folder`, `ingest.folder_unreadable`.
    ConcurrencyError
        Another ingest is running.
    """
    if replace and table != "items":
        raise ConfigError(
            "ingest.replace_only_items",
            f"--replace needs --table items, not {table}; leave out --replace",
        )
    files = [source_for(ws.config.sources, path, table, source) for path in expand(paths)]
    with task_log("ingest", at, progress=progress) as log:
        with _open_pass(ws, at, by_hand=by_hand, replace=replace, dry_run=dry_run) as current:
            for number, file in enumerate(files, start=1):
                log.progress(f"reading {file.file} ({number} of {len(files)})")
                current.take(file)
            outcomes = current.finish()
        result = IngestResult.of_files(outcomes, ws.lake.version(table))
        log.rows, log.result = result.rows, result.sentence
    return result


def ingest_landed(
    ws: Workspace, at: AsOf, *, by_hand: bool = True, progress: Progress = silent
) -> IngestResult:
    """Ingest landed files, per table at most `ingest.files_per_pass` of them.

    Parameters
    ----------
    ws
        Workspace.
    at
        Instant of the pass. Files written after it, or less than two seconds before it, wait for
        the next pass.
    by_hand
        As for `ingest`.
    progress
        Receives short texts.

    Returns
    -------
    Counts, and the result of each file.

    Raises
    ------
    ConfigError
        `ingest.clock_behind`, and those of the workspace as for `ingest`.
    StorageError
        `ingest.link`, `ingest.folder_unreadable`: a landing folder cannot be listed.
    ConcurrencyError
        Another ingest is running.
    """
    with task_log("ingest", at, progress=progress) as log:
        with _open_pass(ws, at, by_hand=by_hand, landed=True) as current:
            listed = landed(ws.home, current.at - _STILL_WRITTEN)
            failpoint("listed")
            known = read_reported(ws.home)
            warnings, reported = _report_irregular(current, listed, known)
            backlog = _ingest_landed(current, listed, log.progress)
            outcomes = _warn_of_waiting(current, known, warnings, reported)
            # After the commits: a pass that fails before it reports the entries again.
            if reported != known:
                write_reported(ws.home, reported)
        result = IngestResult.of_files(
            outcomes,
            ws.lake.version("events"),
            backlog=backlog,
            younger=sum(x.younger for x in listed),
            warnings=tuple(warnings),
        )
        log.rows, log.result = result.rows, result.sentence
    return result


def _report_irregular(
    current: _Pass, listed: Sequence[Landed], known: Mapping[str, datetime]
) -> tuple[list[str], dict[str, datetime]]:
    """Add the entries that are new to the results; return warnings for the others, and all keys."""
    warnings: list[str] = []
    reported: dict[str, datetime] = {}
    for inside in listed:
        for entry in inside.irregular:
            since = reported[entry.key] = known.get(entry.key, current.at)
            if entry.key in known:
                warnings.append(entry.warning(since, current.at))
            else:
                current.add(inside.table, entry.file, FileStatus.NOT_READ, entry.problem)
    return warnings, reported


def _warn_of_waiting(
    current: _Pass,
    known: Mapping[str, datetime],
    warnings: list[str],
    reported: dict[str, datetime],
) -> tuple[FileResult, ...]:
    """Finish the pass; a file that an earlier pass reported as waiting becomes a warning."""
    outcomes = []
    at: datetime = current.at
    for file in current.finish():
        # Other problems may be over in the next pass, or are those of the machine.
        if file.batch_id and file.error_id and file.waits_for_config:
            cause = hashlib.sha256(file.sentence.encode()).hexdigest()[:16]
            key = f"waits {file.batch_id} {cause}"
            since = reported[key] = known.get(key, at)
            if key in known:
                age = age_text(at - since)
                reason = file.sentence.removeprefix(f"{file.file}: ")
                warnings.append(f"{file.file}: waits for {age}: {reason}")
                outcomes.append(dataclasses.replace(file, sentence="", exit_code=0))
                continue
        outcomes.append(file)
    return tuple(outcomes)


def _ingest_landed(current: _Pass, listed: Sequence[Landed], progress: Progress) -> int:
    """Ingest landed files; return how many are left."""
    ws, backlog = current.ws, 0
    for inside in listed:
        remove_moved(ws.home, inside.moved, ws.config.ingest.limits.max_file_bytes)
        for folder, trouble in inside.troubles:
            current.add(inside.table, printable(folder.name), FileStatus.WAITS, trouble)
        done = 0
        for number, (path, name) in enumerate(inside.files, start=1):
            if done == ws.config.ingest.files_per_pass:
                backlog += len(inside.files) - number + 1
                break
            file = source_for(ws.config.sources, path, inside.table, None, name)
            progress(f"reading {file.file} ({number} of {len(inside.files)})")
            # Files that wait for a better config do not count, or they would block the others.
            done += current.take(file)
    return backlog


@contextmanager
def _open_pass(
    ws: Workspace,
    at: AsOf,
    *,
    by_hand: bool,
    replace: bool = False,
    landed: bool = False,
    dry_run: bool = False,
) -> Iterator[_Pass]:
    """Hold the lock, complete the commits of a killed ingest, and provide the child process."""
    limits = ws.config.ingest.limits
    with (
        ws.lake.lock("ingest"),
        Child(max_memory_bytes=limits.max_memory_bytes, max_seconds=limits.max_seconds) as child,
    ):
        scratch = ws.home / "scratch"
        # The text of files, raw ids included, is here during validation: a killed ingest leaves it.
        shutil.rmtree(scratch, ignore_errors=True)
        with storage_errors("workspace.cannot_write", f"cannot write the workspace {ws.home}"):
            scratch.mkdir(PRIVATE_FOLDER, exist_ok=True)
        batches = Batches(ws.lake)
        batches.recover()  # commits that a killed ingest left open
        ws.compare_stores()
        if not dry_run:
            ws.create_vault()
            _check_event_ids(ws)
        if not by_hand:
            _refuse_earlier_clock(batches, at)
        try:
            yield _Pass(ws, at, child, batches, scratch, replace, landed, dry_run)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _refuse_earlier_clock(batches: Batches, at: AsOf) -> None:
    """Raise if the clock was set back: all newer events would be quarantined as of the future."""
    newest = batches.newest_ingest()
    if newest is not None and at < newest:
        raise ConfigError(
            "ingest.clock_behind",
            f"the instant of this pass, {to_the_second(at)}, is before the last ingest, "
            f"{to_the_second(newest)}; correct the clock of this machine and start again, or name "
            "the instant with --at (in Airflow, the param at)",
        )


def _check_event_ids(ws: Workspace) -> None:
    """Store the form of event ids before the first event; refuse another form afterwards."""
    derived = ws.config.privacy.derive_event_ids
    if ws.lake.version("events") is None:
        ws.vault.choose_event_ids(derived=derived)
    elif derived != ws.vault.derives_event_ids:
        before = str(not derived).lower()
        raise ConfigError(
            "privacy.changed",
            f"privacy.derive_event_ids = {str(derived).lower()}, but the events of this workspace "
            f"were ingested with {before}, so that events delivered again would count twice; set "
            f"it to {before}, or ingest all files into a new workspace",
        )


@dataclass
class _Pass:
    """State of one pass.

    Attributes
    ----------
    landed
        True if others delivered the files, False if a user named them.
    dry_run
        True if the files are only validated.
    outcomes
        Results in the order of the files; None for a file that waits for its commit.
    waiting
        Files that were read, with their places in `outcomes`.
    """

    ws: Workspace
    at: AsOf
    child: Child
    batches: Batches
    scratch: Path
    replace: bool
    landed: bool
    dry_run: bool
    outcomes: list[FileResult | None] = field(default_factory=list)
    waiting: list[tuple[int, FileRead]] = field(default_factory=list)

    def take(self, file: DiscoveredFile) -> bool:
        """Read one file and commit it now or with later ones; False for a file that waits."""
        if self.waiting and self._full(file):
            self._commit()
        place = len(self.outcomes)
        self.outcomes.append(None)
        try:
            read = self._read(file)
        except Exception:
            self._commit()  # the files before it are valid
            raise
        if isinstance(read, FileRead):
            if self.dry_run:
                self.outcomes[place] = _checked(read, self.at)
                return True
            self.waiting.append((place, read))
            return True
        self.outcomes[place] = read
        return not read.stays

    def add(self, table: str, name: str, status: FileStatus, problem: str) -> None:
        """Add the result of an entry of the landing folder that is not read as a file.

        Parameters
        ----------
        table
            Table of its landing folder.
        name
            Name for messages.
        status, problem
            As in the result.
        """
        self.outcomes.append(
            FileResult(
                name, table, status, None, f"{name}: {problem}", exit_code=DataError.exit_code
            )
        )

    def finish(self) -> tuple[FileResult, ...]:
        """Commit the files that wait; return the result of each file, in order."""
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
        """Read and validate a file; return its result if there is nothing to commit."""
        digest, name, home = None, file.file, self.ws.home
        seen = mark(file.path)
        if seen is None:
            return _result(file, FileStatus.WAITS, None, f"{name}: was removed")
        try:
            limits = self.ws.config.ingest.limits
            digest = sum_of(file.path, limits, home if self.landed else None)
            if self._seen(file.source.table, digest):
                return self._archive(
                    FileResult(name, file.name, FileStatus.SEEN, digest), file, digest, seen
                )
            failpoint("claimed")
            return self._judged(file, seen, digest)
        except ChildKilled as error:
            sentence = f"{name}: {error.sentence}"
            return _result(file, FileStatus.WAITS, digest, sentence, error)
        except DataError as error:
            failure: NightjarError = error
            sentence, status = error.sentence, FileStatus.WAITS
            # The error may belong to another file that replaced this one.
            if mark(file.path) != seen:
                sentence = f"{name}: was replaced or removed while it was read"
            elif isinstance(error, NotRegular):
                status = FileStatus.NOT_READ
            elif not isinstance(error, MappingError):
                status = FileStatus.SET_ASIDE
                try:
                    if self.dry_run:
                        sentence += "; this was a dry run, so the file was not moved"
                    else:
                        reject(home, file.path, sentence, digest, seen)
                except StorageError as not_moved:
                    sentence += f"; {not_moved.sentence}"
                    status, failure = FileStatus.WAITS, not_moved
            elif not file.matched and not isinstance(error, Waits):
                sentence += "; no source's path matches this name: columns were read by their names"
            return _result(file, status, digest, sentence, failure)

    def _archive(
        self, result: FileResult, file: DiscoveredFile, digest: str, seen: Mark
    ) -> FileResult:
        """Archive an ingested file; a file that cannot be moved must not stop the others."""
        try:
            if not self.dry_run:
                archive(self.ws.home, file.path, digest, seen)
        except StorageError as error:
            return result.not_moved(error)
        return result

    def _seen(self, table: str, digest: str) -> bool:
        keys = [read.digest for _, read in self.waiting if read.discovered.source.table == table]
        if keys and table in MERGED:
            return keys[-1] == digest  # as in `Batches.seen`: the latest file wins
        return digest in keys or self.batches.seen(table, digest)

    def _judged(self, file: DiscoveredFile, seen: Mark, digest: str) -> FileRead:
        config, source = self.ws.config.ingest, file.source
        # Parts are validated as they are read, so that only valid and bad rows stay in memory.
        judge: Callable[..., ValidatedRows] = partial(
            validate_catalogue, source=source, missing=config.missing_ids
        )
        if source.table == "events":
            judge = partial(validate_events, source=source, config=config, at=self.at)
        with read_text(self.child, file, digest, config.limits, self.scratch) as text:
            failpoint("parsed")
            judged = ValidatedRows.joined(
                (judge(part) for part in text.parts),
                name=file.file,
                broken=len(text.broken),
                most=config.limits.max_bad_rows,
            )
            reduced = _unmapped_position(judged, source)
            if reduced is not None:
                return self._judged(dataclasses.replace(file, source=reduced), seen, digest)
            if not text.broken:
                refuse_wrong_setting(judged, source, config, source_name=file.name, name=file.file)
                if source.table == "events":
                    _refuse_future(judged, file.file)
        return FileRead(file, seen, digest, text, judged)

    def _commit(self) -> None:
        """Commit the waiting files together, then archive them."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        files = [read for _, read in waiting]
        bundle = combine(self.ws, files, at=self.at, replace=self.replace)
        self.batches.commit(bundle.batches, bundle.rows, bundle.quarantine)
        for (place, read), result in zip(waiting, bundle.results, strict=True):
            # After the commit: a crash before it leaves the file in the landing folder.
            self.outcomes[place] = self._archive(result, read.discovered, read.digest, read.seen)
            failpoint("archived")


def _result(
    file: DiscoveredFile,
    status: FileStatus,
    digest: str | None,
    sentence: str,
    error: NightjarError | None = None,
) -> FileResult:
    """Return the result of a file with a problem."""
    id, code = ("", DataError.exit_code) if error is None else (error.id, error.exit_code)
    return FileResult(file.file, file.name, status, digest, sentence, error_id=id, exit_code=code)


def _checked(read: FileRead, at: AsOf) -> FileResult:
    """Return the result of a file that was only validated, with its first bad rows."""
    file, judged = read.discovered, read.judged
    bad = quarantine_rows(
        judged.bad, read.text.broken, at=at, source=file.name, batch_id=read.digest
    )
    first = [
        f"line {line} ({', '.join(reasons)}): {raw}"
        for line, reasons, raw in bad.select(c.LINE, c.REASONS, c.RAW).head(_SHOWN).rows()
    ]
    return FileResult(
        file.file,
        file.name,
        FileStatus.CHECKED,
        read.digest,
        "; ".join([*first, "nothing was stored"]),
        read.text.ignored_columns,
        file.source.table,
        rows=read.text.rows,
        accepted=judged.good.height,
        quarantined=bad.height,
        skipped=read.text.skipped,
        reasons=count_reasons(bad),
        emptied=count_reasons(judged.emptied),
        changed=judged.changed,
        doubtful=doubtful(judged.good),
    )


def _unmapped_position(judged: ValidatedRows, source: Source) -> Source | None:
    """Return the source without positions, if it does not map them and one of them is invalid."""
    # A column of this name may count from zero, or mean something else.
    if source.table != "events" or c.POSITION in (*source.columns, *source.constants):
        return None
    invalid = pl.element().str.starts_with(f"{c.POSITION}_")
    if not judged.bad[c.REASONS].list.eval(invalid).list.any().any():
        return None
    return source.model_copy(update={"constants": {**source.constants, c.POSITION: ""}})


def _refuse_future(judged: ValidatedRows, name: str) -> None:
    """Raise `FutureRows` if all rows of a file lie in the future."""
    future = judged.bad[c.REASONS].list.contains(f"{c.TIMESTAMP}_in_future")
    if judged.good.is_empty() and future.len() and future.all():
        raise FutureRows(
            "ingest.future_rows",
            # Without the instant, so that each pass gives the same sentence.
            "all rows lie after the instant of the pass; correct the clock of this machine, or the "
            "time zone or unit of the source",
            where=name,
            count=future.len(),
        )
