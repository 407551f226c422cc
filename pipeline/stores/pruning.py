"""Taking files away: what nobody reads any more, and what dead processes left behind.

Promises: the folder of a run goes as a whole or not at all; a draft that a process is writing
stays; whatever is killed on the way, the next call ends what it began.
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
    """How many files were taken away, and their bytes."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.files + other.files, self.bytes + other.bytes)


def last_activity(run: Run, step: str) -> datetime:
    """Return when a committed step was written, or `touch` was last called for it."""
    return datetime.fromtimestamp((run.folder / step / MANIFEST).stat().st_mtime, UTC)


def touch(run: Run, step: str) -> None:
    """Say that a run is being worked on, now."""
    with storage_errors("cannot_write", run.folder):
        os.utime(run.folder / step / MANIFEST)


def drop_files(run: Run, step: str, names: Iterable[str]) -> Removed:
    """Take files of a committed step away; its manifest still names them, with their sums."""
    return _removed(run.folder / step / name for name in names)


def remove(run: Run) -> Removed:
    """Take a run away."""
    gone = run.folder.with_name(f"{_GONE}{run.run_id}")
    with storage_errors("cannot_remove", run.folder):
        run.folder.rename(gone)
    failpoint("run_renamed")
    return _emptied(gone)


def remove_orphans(runs: Runs) -> Removed:
    """Take away what processes left that died while they wrote a step, or removed a run."""
    taken = Removed()
    for gone in runs.root.glob(f"{_GONE}*"):
        taken += _emptied(gone)
    for run in runs.starting_with(""):
        for draft in sorted(run.folder.rglob(f"{_DRAFT}*")):
            name = draft.name.removeprefix(_DRAFT).rpartition("-")[0]
            step = draft.with_name(name).relative_to(run.folder).as_posix()
            try:
                with run.writing(step):
                    taken += _emptied(draft)
            except ConcurrencyError:  # it is being written
                continue
    return taken


def remove_older(paths: Iterable[Path], before: datetime) -> Removed:
    """Take away files, and links themselves, that were written and moved before an instant."""
    files = (path for path in paths if path.is_symlink() or not path.is_dir())
    return _removed(path for path in files if _since(path) < before)


def _since(path: Path) -> datetime:
    """Return when a file was written, or put where it is, whichever is later."""
    about = path.lstat()
    return datetime.fromtimestamp(max(about.st_mtime, about.st_ctime), UTC)


def _removed(paths: Iterable[Path]) -> Removed:
    taken = Removed()
    for path in paths:
        with storage_errors("cannot_remove", path), suppress(FileNotFoundError):
            size = path.lstat().st_size
            path.unlink()
            taken += Removed(1, size)
    return taken


def _emptied(folder: Path) -> Removed:
    """Remove a folder with all that is in it."""
    taken = _removed([path for path in folder.rglob("*") if path.is_symlink() or path.is_file()])
    shutil.rmtree(folder, ignore_errors=True)
    return taken
