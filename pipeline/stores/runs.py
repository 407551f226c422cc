"""The files of a run: `runs/<run_id>/<step>/`, written once and never changed.

Guarantees:

* A step's folder contains all files of its manifest, or it does not exist, even after a crash.
* A second attempt at a committed step gets the output of the first one.
* A reader gets the bytes that were written, or a `StorageError`.
* The draft of a crashed writer (`.draft-…`) is removed by the next draft of that step.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import StorageError
from pipeline.failpoints import failpoint
from pipeline.stores.disk import read_regular, storage_errors, sync, write_synced
from pipeline.stores.json_files import JsonFile
from pipeline.stores.locks import locked

MANIFEST = "manifest.json"
_LONGEST = 100


@dataclass(frozen=True)
class Ref:
    """Reference to the output of a step, small enough to be passed between tasks.

    Attributes
    ----------
    step
        Folder below the run, such as ``features`` or ``train/als``.
    name
        The step's manifest.
    sha256
        SHA-256 of the manifest without volatile files (see `Draft.bytes`). The manifest lists the
        checksums of all files, so equal inputs give an equal value.
    rows
        Rows of the step's main result, for display.
    """

    step: str
    name: str
    sha256: str
    rows: int


A = TypeVar("A", bound=JsonFile)


def is_run_id(text: str) -> bool:
    """Return whether `text` is the name of a folder directly below the runs."""
    # Hidden folders are runs that are being removed; a slash would lead out of this folder.
    # Other characters, or too many, would be no name of a file.
    is_name = text.isascii() and text.isprintable() and 0 < len(text) <= _LONGEST
    return is_name and "/" not in text and not text.startswith(".")


class Draft:
    """A step's output while it is written; the commit makes it visible all at once.

    Attributes
    ----------
    files
        Size and SHA-256 of each file, by name.
    volatile
        Names of the volatile files.
    rows
        Rows of the step's main result; the step sets it.
    ref
        Set by the commit.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, dict[str, Any]] = {}
        self.volatile: set[str] = set()
        self.rows = 0
        self.ref: Ref | None = None

    def bytes(self, name: str, data: bytes, *, volatile: bool = False) -> None:
        """Write a file and force it to the disk.

        Parameters
        ----------
        name
            A new file.
        data
            Its content.
        volatile
            The content differs between attempts (measured seconds, memory). The file is checked
            on reading like all others, but is not part of the step's `Ref`.
        """
        path = self._folder / name
        # Exclusive: a step that writes a name twice has a bug.
        with path.open("xb") as file:
            write_synced(file, data)
        self.files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        if volatile:
            self.volatile.add(name)

    def write(self, file: JsonFile) -> None:
        """Write a JSON file under its own name."""
        self.bytes(f"{file.FILE}.json", file.to_bytes(), volatile=file.VOLATILE)

    def frame(self, name: str, frame: pl.DataFrame) -> None:
        """Write a frame as Parquet.

        Parameters
        ----------
        name
            File name without ``.parquet``.
        frame
            Any schema.
        """
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", statistics=False)
        self.bytes(f"{name}.parquet", buffer.getvalue())

    def arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write arrays as one NumPy archive.

        Parameters
        ----------
        name
            File name without ``.npz``.
        arrays
            Arrays by name. Object arrays raise `ValueError`: they would need pickle.
        """
        buffer = io.BytesIO()
        # A pickle could run code when it is read.
        np.savez(buffer, allow_pickle=False, **arrays)
        self.bytes(f"{name}.npz", buffer.getvalue())


class Run:
    """The folder of one run."""

    def __init__(self, root: Path, run_id: str) -> None:
        if not is_run_id(run_id):
            raise StorageError(
                "run.invalid_id", f"{run_id!r} is not a run id; see `nightjar history`"
            )
        self.run_id = run_id
        self.folder = root / run_id

    def committed(self, step: str) -> Ref | None:
        """Return the `Ref` of a committed step, or ``None``."""
        return self.ref(step) if self._has_manifest(step) else None

    def ref(self, step: str) -> Ref:
        """Return the `Ref` of a committed step; ``run.step_missing`` for another one."""
        manifest = self.manifest(step)
        files = {n: f for n, f in manifest["files"].items() if n not in manifest["volatile"]}
        lasting = {"step": step, "rows": manifest["rows"], "files": files}
        total = hashlib.sha256(_manifest_bytes(lasting)).hexdigest()
        return Ref(step, MANIFEST, total, int(manifest["rows"]))

    def steps(self, prefix: str = "") -> tuple[str, ...]:
        """Return the names of the committed steps below `prefix`, sorted."""
        with storage_errors("storage.cannot_read", f"cannot read {self.folder}"):
            folders = [path.parent for path in (self.folder / prefix).glob(f"**/{MANIFEST}")]
        # A draft has its manifest just before the rename that commits it.
        names = [f.relative_to(self.folder) for f in folders if not f.name.startswith(".")]
        return tuple(sorted(name.as_posix() for name in names))

    @contextmanager
    def draft(self, step: str) -> Iterator[Draft]:
        """Write a step's output; it is committed when the block ends without an error.

        Raises
        ------
        StorageError
            ``run.step_committed``: check `committed` first.
        """
        # The name becomes a path, and `..` would lead out of the run's folder.
        if any(part in ("", ".", "..") for part in step.split("/")):
            raise StorageError(
                "run.invalid_step",
                f"{step!r} is not the name of a step; this is a defect of Nightjar: report it",
            )
        final = self.folder / step
        with self.writing(step):
            # Inside the lock: another process may have committed since the caller looked.
            if self._has_manifest(step):
                raise StorageError(
                    "run.step_committed",
                    f"step {step} of run {self.run_id} is committed already; start the same "
                    "command again to use it",
                )
            yield from self._draft(step, final)

    def _draft(self, step: str, final: Path) -> Iterator[Draft]:
        work = final.parent / f".draft-{final.name}-{os.getpid()}"
        with storage_errors("storage.cannot_write", f"cannot write {final.parent}"):
            # Drafts of crashed writers; the lock excludes a writer at work.
            for draft_folder in final.parent.glob(f".draft-{final.name}-*"):
                shutil.rmtree(draft_folder)
            work.mkdir(parents=True)
        draft = Draft(work)
        try:
            with storage_errors("storage.cannot_write", f"cannot write {final}"):
                yield draft
                failpoint("manifest")
                lasting = {"step": step, "rows": draft.rows, "files": draft.files}
                manifest = {**lasting, "volatile": sorted(draft.volatile)}
                draft.bytes(MANIFEST, summed_manifest(manifest))
                sync(work)
                # Still without a manifest, so it is not a commit; rename needs an empty target.
                if final.exists():
                    shutil.rmtree(final)
                failpoint("step_tmp")
                work.rename(final)
                failpoint("step_renamed")
                # The rename survives a power failure only once the parent folder is synced.
                sync(final.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        draft.ref = self.committed(step)

    def writing(self, step: str) -> AbstractContextManager[None]:
        """Hold the lock for writing a step; it is free once the process has ended."""
        name = f".lock-{step.replace('/', '-')}"
        return locked(self.folder / name, f"step {step} of run {self.run_id}")

    def path(self, step: str, name: str) -> Path:
        """Return the path of a committed file after checking its checksum.

        Parameters
        ----------
        step
            Folder of a committed step.
        name
            A file of its manifest.

        Raises
        ------
        StorageError
            As `bytes`.
        """
        self.bytes(step, name)
        return self.folder / step / name

    def written_at(self, step: str, name: str) -> datetime:
        """Return when a committed file was written, by its modification time.

        Parameters
        ----------
        step
            Folder of a committed step.
        name
            A file of its manifest.
        """
        path = self.folder / step / name
        with storage_errors("storage.cannot_read", f"cannot read {path}"):
            return datetime.fromtimestamp(path.stat().st_mtime, UTC)

    def bytes(self, step: str, name: str) -> bytes:
        """Return the content of a committed file after checking its checksum.

        Parameters
        ----------
        step
            Folder of a committed step.
        name
            A file of its manifest.

        Raises
        ------
        StorageError
            ``run.step_missing``, ``run.manifest_damaged``, ``run.no_file``,
            ``storage.cannot_read``, ``run.checksum``
        """
        manifest = self.manifest(step)
        if name not in manifest["files"]:
            raise StorageError(
                "run.no_file",
                f"step {step} of run {self.run_id} has no file {name}; use the version of Nightjar "
                "that wrote the run, or start a new run",
            )
        path = self.folder / step / name
        # Read once, so that the bytes that are checked are those that are returned.
        with storage_errors("storage.cannot_read", f"cannot read {path}"):
            data = read_regular(path)
        if hashlib.sha256(data).hexdigest() != manifest["files"][name]["sha256"]:
            raise StorageError(
                "run.checksum",
                f"{path} was changed after step {step} wrote it: its sha256 differs; restore it "
                "from a backup",
            )
        return data

    def manifest(self, step: str) -> dict[str, Any]:
        """Return ``rows``, ``files`` (size and SHA-256 by name) and ``volatile`` of a step."""
        path = self.folder / step / MANIFEST
        if not self._has_manifest(step):
            raise StorageError(
                "run.step_missing",
                f"step {step} of run {self.run_id} is missing; run it first, or restore the folder "
                f"{self.folder} from a backup if the run was complete",
            )
        with storage_errors("storage.cannot_read", f"cannot read {path}"):
            data = read_regular(path) if path.is_file() else b""
        try:
            manifest = json.loads(data)
            claimed = manifest.pop("sha256")
            if hashlib.sha256(_manifest_bytes(manifest)).hexdigest() != claimed:
                raise ValueError(claimed)
            return {name: manifest[name] for name in ("rows", "files", "volatile")}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                "run.manifest_damaged",
                f"{path} is damaged: it is not a manifest; restore it from a backup",
            ) from error

    def _has_manifest(self, step: str) -> bool:
        path = self.folder / step / MANIFEST
        with storage_errors("storage.cannot_read", f"cannot read {path}"):
            # A folder or a link that leads nowhere is damage: the step must not be done again.
            return path.exists() or path.is_symlink()

    def read(self, kind: type[A], step: str = "") -> A:
        """Read a JSON file after checking its checksum.

        Parameters
        ----------
        kind
            Class of the file.
        step
            Folder of the step, if the class names none.

        Raises
        ------
        StorageError
            As `bytes`, and ``artifact.invalid``.
        """
        folder, name = step or kind.STEP, f"{kind.FILE}.json"
        return kind.parse(self.bytes(folder, name), self.folder / folder / name)

    def find(self, kind: type[A], step: str = "") -> A | None:
        """Read a JSON file if it exists.

        Parameters
        ----------
        kind
            Class of the file.
        step
            Folder of the step, if the class names none.

        Returns
        -------
        A or None
            None if the step is not committed or has not written the file.
        """
        return self.read(kind, step) if self.has(kind, step) else None

    def has(self, kind: type[JsonFile], step: str = "") -> bool:
        """Return whether a committed step has written a JSON file.

        Parameters
        ----------
        kind
            Class of the file.
        step
            Folder of the step, if the class names none.
        """
        folder = step or kind.STEP
        return self.committed(folder) is not None and (
            f"{kind.FILE}.json" in self.manifest(folder)["files"]
        )

    def frame(self, step: str, name: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read the Parquet file `name` of a step, without its suffix.

        Parameters
        ----------
        step, name
            The step, and the name that `Draft.frame` was given.
        columns
            Columns to read; all by default.

        Returns
        -------
        pl.DataFrame
            With the schema that was written.

        Raises
        ------
        StorageError
            As `bytes`.
        """
        data = io.BytesIO(self.bytes(step, f"{name}.parquet"))
        return pl.read_parquet(data, columns=columns if columns is None else list(columns))

    def arrays(self, step: str, name: str) -> dict[str, NDArray[Any]]:
        """Read the NumPy archive `name` of a step, without its suffix.

        Returns
        -------
        dict
            Arrays by name, shapes and dtypes as written.

        Raises
        ------
        StorageError
            As `bytes`.
        """
        # Refused here as well: a checksum does not help if the manifest was replaced too.
        with np.load(io.BytesIO(self.bytes(step, f"{name}.npz")), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}


class Runs:
    """All runs of a workspace."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, run_id: str) -> Run:
        """Return a run, which may be new; ``run.invalid_id`` for an unusable id."""
        return Run(self.root, run_id)

    def starting_with(self, prefix: str) -> tuple[Run, ...]:
        """Return the runs whose id starts with `prefix`, sorted by id; a link is not a run."""
        with storage_errors("storage.cannot_read", f"cannot read {self.root}"):
            # A glob would skip an unreadable folder.
            names = sorted(os.listdir(self.root)) if self.root.exists() else []  # noqa: PTH208
            names = [name for name in names if not (self.root / name).is_symlink()]
        names = [name for name in names if name.startswith(prefix) and is_run_id(name)]
        return tuple(Run(self.root, name) for name in names)


def summed_manifest(manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of a manifest with its own checksum, as its last check on reading."""
    # Rows, and the files of steps that the ledger does not name, have no other checksum.
    total = hashlib.sha256(_manifest_bytes(manifest)).hexdigest()
    return _manifest_bytes({**manifest, "sha256": total})


def _manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, indent=1).encode()
