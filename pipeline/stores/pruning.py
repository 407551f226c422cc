"""Removal of old runs and files, and of drafts that killed processes left.

Guarantees: a run's folder is removed as a whole or not at all; a draft that a process is writing
stays; after a crash the next call completes the removal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pipeline.errors import ConcurrencyError
from pipeline.failpoints import failpoint
from pipeline.stores.disk import storage_errors
from pipeline.stores.runs import MANIFEST, Run, Runs

_GONE: Final = ".gone-"
_DRAFT: Final = ".draft-"


@dataclass(frozen=True)
class Removed:
    """Number of removed files, and their bytes."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.files + other.files, self.bytes + other.bytes)


def last_activity(run: Run, step: str) -> datetime:
    """Return the instant at which a committed step was written or last touched.

    Parameters
    ----------
    run
        Run with the step.
    step
        Folder of a committed step.

    Returns
    -------
    datetime
        In UTC: the time of the step's manifest, which `touch` renews.
    """
    return datetime.fromtimestamp((run.folder / step / MANIFEST).stat().st_mtime, UTC)


def touch(run: Run, step: str) -> None:
    """Mark a run as active now.

    Parameters
    ----------
    run
        Run with the step.
    step
        Folder of a committed step; its manifest gets a new modification time.
    """
    with storage_errors("storage.cannot_write", f"cannot write {run.folder}"):
        os.utime(run.folder / step / MANIFEST)


def drop_files(run: Run, step: str, names: Iterable[str]) -> Removed:
    """Remove files of a committed step.

    Parameters
    ----------
    run
        Run with the step.
    step
        Folder of a committed step; its manifest still lists the files with their checksums.
    names
        Files in that folder; missing ones are skipped.
    """
    return _remove_files(run.folder / step / name for name in names)


def remove(run: Run) -> Removed:
    """Remove a run."""
    target = run.folder.with_name(f"{_GONE}{run.run_id}")
    # After the rename no reader sees a run with only some of its files.
    with storage_errors("storage.cannot_remove", f"cannot remove {run.folder}"):
        run.folder.rename(target)
    failpoint("run_renamed")
    return _remove_folder(target)


def remove_orphans(runs: Runs) -> Removed:
    """Remove the files of processes that ended while they wrote a step or removed a run."""
    removed = Removed()
    for folder in runs.root.glob(f"{_GONE}*"):
        removed += _remove_folder(folder)
    for run in runs.starting_with(""):
        for draft in sorted(run.folder.rglob(f"{_DRAFT}*")):
            name = draft.name.removeprefix(_DRAFT).rpartition("-")[0]
            step = draft.with_name(name).relative_to(run.folder).as_posix()
            # A process that is writing the step holds its lock, and its draft stays.
            with suppress(ConcurrencyError), run.writing(step):
                removed += _remove_folder(draft)
    return removed


def remove_older(paths: Iterable[Path], before: datetime) -> Removed:
    """Remove old files and links.

    Parameters
    ----------
    paths
        Files and links; folders are skipped. A link is removed, not its target.
    before
        In UTC; a file stays if it was written or moved later.
    """
    files = (path for path in paths if path.is_symlink() or not path.is_dir())
    return _remove_files(path for path in files if _last_change(path) < before)


def _last_change(path: Path) -> datetime:
    """Return the instant at which a file was written or moved to its place."""
    # A move changes only the ctime, and a sender can set the mtime to any instant.
    return datetime.fromtimestamp(path.lstat().st_ctime, UTC)


def _remove_files(paths: Iterable[Path]) -> Removed:
    removed = Removed()
    for path in paths:
        with (
            storage_errors("storage.cannot_remove", f"cannot remove {path}"),
            suppress(FileNotFoundError),
        ):
            size = path.lstat().st_size
            path.unlink()
            removed += Removed(1, size)
    return removed


def _remove_folder(folder: Path) -> Removed:
    """Remove a folder with its contents; a link is removed, not its target."""
    if folder.is_symlink():
        return _remove_files([folder])
    removed = _remove_files(
        [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    )
    shutil.rmtree(folder, ignore_errors=True)
    return removed
