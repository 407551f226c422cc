"""The files of a run: `runs/<run_id>/<step>/`, written once, whole, and never changed.

Promises: a step's folder is there with everything that its manifest names, or it is not there at
all, whatever is killed when; a second attempt at a committed step gets what the first one
committed; a reader gets the bytes that were written or `StorageError`. What a writer that died
left behind (`.draft-…`) is swept by the next draft of that step.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from pipeline.errors import StorageError
from pipeline.failpoints import failpoint
from pipeline.stores.disk import storage_errors, sync, write_synced
from pipeline.stores.locks import locked

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Ref:
    """What a step hands on: small enough for a message, exact enough to check.

    Attributes
    ----------
    step
        Folder below the run, such as ``features`` or ``train/als``.
    name
        File that was summed: the step's manifest.
    sha256
        Sum of that file without what was merely measured (`Draft.bytes`); it names the sums of all
        the others, so equal inputs give an equal one.
    rows
        Rows of the step's main result, for people.
    """

    step: str
    name: str
    sha256: str
    rows: int


class JsonFile(BaseModel):
    """A JSON file of a step: frozen, and it knows where it lies.

    Attributes
    ----------
    STEP
        Folder below the run; empty where the caller names it (``train/als``).
    FILE
        Name in that folder, without ``.json``.
    VOLATILE
        Measured on the way: checked, but no part of the step's reproducible checksum.
    """

    # `json.dumps` refuses NaN; pydantic's default would write null.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")
    STEP: ClassVar[str] = ""
    FILE: ClassVar[str]
    VOLATILE: ClassVar[bool] = False

    def plain(self) -> Any:
        """Return the content as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file, keys sorted."""
        plain = self.plain()
        return json.dumps(
            plain, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False
        ).encode()

    @classmethod
    def parse(cls, data: bytes, where: object) -> Self:
        """Read what `Draft.write` wrote; raises `StorageError` for a file of another shape."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise StorageError(
                "artifact.invalid", f"{where} is not a {cls.__name__}: {field}: {first['msg']}"
            ) from error


class Artifact(JsonFile):
    """A JSON file whose keys are the model's fields."""

    model_config = ConfigDict(extra="forbid")


T = TypeVar("T")


class RootArtifact(JsonFile, RootModel[T], Generic[T]):
    """A JSON file that holds one object of a stage, as `root`."""


A = TypeVar("A", bound=JsonFile)


def is_run_id(text: str) -> bool:
    """Tell whether `text` can name a run's folder and nothing outside it."""
    return bool(text) and "/" not in text and not text.startswith(".")


class Draft:
    """A step's output while it is written; becomes visible all at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, dict[str, Any]] = {}
        self.volatile: set[str] = set()
        self.rows = 0
        self.ref: Ref | None = None

    def bytes(self, name: str, data: bytes, *, volatile: bool = False) -> None:
        """Write a file and force it to disk.

        A `volatile` file (measured seconds, memory) differs from one attempt to the next: its
        bytes are checked like all others, and the step's `Ref` says nothing of them.
        """
        path = self._folder / name
        with path.open("xb") as file:
            write_synced(file, data)
        self.files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        if volatile:
            self.volatile.add(name)

    def write(self, file: JsonFile) -> None:
        """Write a file under its own name; a volatile one is no part of the `Ref`."""
        self.bytes(f"{file.FILE}.json", file.to_bytes(), volatile=file.VOLATILE)

    def frame(self, name: str, frame: pl.DataFrame) -> None:
        """Write `<name>.parquet`."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", statistics=False)
        self.bytes(f"{name}.parquet", buffer.getvalue())

    def arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write `<name>.npz`; arrays of objects are refused, since they would need pickle."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self.bytes(f"{name}.npz", buffer.getvalue())


class Run:
    """One run's folder."""

    def __init__(self, root: Path, run_id: str) -> None:
        if not is_run_id(run_id):
            raise StorageError("run.invalid_id", f"{run_id!r} is no run id")
        self.run_id = run_id
        self.folder = root / run_id

    def committed(self, step: str) -> Ref | None:
        """Return the `Ref` of a committed step, or ``None``."""
        return self.ref(step) if (self.folder / step / MANIFEST).is_file() else None

    def ref(self, step: str) -> Ref:
        """Return the `Ref` of a step that must have been done."""
        manifest = self.manifest(step)
        files = {n: f for n, f in manifest["files"].items() if n not in manifest["volatile"]}
        lasting = {"step": step, "rows": manifest["rows"], "files": files}
        total = hashlib.sha256(_manifest_bytes(lasting)).hexdigest()
        return Ref(step, MANIFEST, total, int(manifest["rows"]))

    def steps(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the committed steps below `prefix`, sorted."""
        folders = (path.parent for path in (self.folder / prefix).glob(f"**/{MANIFEST}"))
        names = [f.relative_to(self.folder) for f in folders if not f.name.startswith(".")]
        return tuple(sorted(name.as_posix() for name in names))

    @contextmanager
    def draft(self, step: str) -> Iterator[Draft]:
        """Write a step's output; it is committed when the block ends without an error.

        Raises `StorageError` if the step is committed already: ask `committed` first.
        """
        if any(part in ("", ".", "..") for part in step.split("/")):
            raise StorageError("run.invalid_step", f"{step!r} is no step")
        final = self.folder / step
        with self.writing(step):
            if (final / MANIFEST).exists():
                raise StorageError(
                    "run.step_committed", f"step {step} of run {self.run_id} is committed already"
                )
            yield from self._draft(step, final)

    def _draft(self, step: str, final: Path) -> Iterator[Draft]:
        work = final.parent / f".draft-{final.name}-{os.getpid()}"
        with storage_errors("cannot_write", final.parent):
            for left in final.parent.glob(f".draft-{final.name}-*"):
                shutil.rmtree(left)
            work.mkdir(parents=True)
        draft = Draft(work)
        try:
            with storage_errors("cannot_write", f"step {step}"):
                yield draft
                failpoint("manifest")
                lasting = {"step": step, "rows": draft.rows, "files": draft.files}
                manifest = _manifest_bytes({**lasting, "volatile": sorted(draft.volatile)})
                draft.bytes(MANIFEST, manifest)
                sync(work)
                if final.exists():  # a folder without a manifest: no commit of ours
                    shutil.rmtree(final)
                failpoint("step_tmp")
                work.rename(final)
                failpoint("step_renamed")
                sync(final.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        draft.ref = self.committed(step)

    def writing(self, step: str) -> AbstractContextManager[None]:
        """Hold the exclusive right to write a step; the death of the process frees it."""
        name = f".lock-{step.replace('/', '-')}"
        return locked(self.folder / name, f"step {step} of run {self.run_id}")

    def path(self, step: str, name: str) -> Path:
        """Return the path of a committed file after checking its sum."""
        self.bytes(step, name)
        return self.folder / step / name

    def bytes(self, step: str, name: str) -> bytes:
        """Return a committed file's bytes after checking their sum."""
        manifest = self.manifest(step)
        if name not in manifest["files"]:
            raise StorageError(
                "run.no_file", f"step {step} of run {self.run_id} has no file {name}"
            )
        path = self.folder / step / name
        with storage_errors("cannot_read", path):
            data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest["files"][name]["sha256"]:
            raise StorageError(
                "run.checksum", f"{path} is not what step {step} wrote: its sha256 differs"
            )
        return data

    def manifest(self, step: str) -> dict[str, Any]:
        """Return a step's manifest: ``rows``, the sums of its ``files``, which are ``volatile``."""
        path = self.folder / step / MANIFEST
        if not path.is_file():
            raise StorageError(
                "run.step_missing", f"step {step} of run {self.run_id} has not been done"
            )
        try:
            manifest = json.loads(path.read_bytes())
            return {
                "rows": manifest["rows"],
                "files": dict(manifest["files"]),
                "volatile": list(manifest.get("volatile", ())),
            }
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                "run.manifest_damaged", f"{path} is damaged: it is no manifest"
            ) from error

    def read(self, kind: type[A], step: str = "") -> A:
        """Read a committed file after checking its sum; `step` where the kind names none."""
        folder, name = step or kind.STEP, f"{kind.FILE}.json"
        return kind.parse(self.bytes(folder, name), self.folder / folder / name)

    def find(self, kind: type[A], step: str = "") -> A | None:
        """Read a file, ``None`` where the step was not done or wrote none."""
        return self.read(kind, step) if self.has(kind, step) else None

    def has(self, kind: type[JsonFile], step: str = "") -> bool:
        """Return whether a step has written a file of this kind."""
        folder = step or kind.STEP
        return self.committed(folder) is not None and (
            f"{kind.FILE}.json" in self.manifest(folder)["files"]
        )

    def frame(self, step: str, name: str) -> pl.DataFrame:
        """Read `<name>.parquet`."""
        return pl.read_parquet(io.BytesIO(self.bytes(step, f"{name}.parquet")))

    def arrays(self, step: str, name: str) -> dict[str, NDArray[Any]]:
        """Read `<name>.npz`."""
        with np.load(io.BytesIO(self.bytes(step, f"{name}.npz")), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}


class Runs:
    """All runs of a workspace."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, run_id: str) -> Run:
        """Return a run that need not have written anything yet."""
        return Run(self.root, run_id)

    def starting_with(self, prefix: str) -> tuple[Run, ...]:
        """Return the runs whose id starts so, sorted by id."""
        names = sorted(path.name for path in self.root.glob(f"{prefix}*"))
        return tuple(Run(self.root, name) for name in names if not name.startswith("."))


def _manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, indent=1).encode()
