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
from typing import Any, ClassVar, Generic, Self, TypeVar, Unpack

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from pipeline.errors import StorageError
from pipeline.failpoints import failpoint
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
        Sum of that file without what was merely measured (`Draft.json`); it names the sums of all
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
    FILE: ClassVar[str] = ""
    VOLATILE: ClassVar[bool] = False

    def __init_subclass__(
        cls, *, step: str = "", file: str = "", volatile: bool = False, **config: Unpack[ConfigDict]
    ) -> None:
        """Set the class variables that a class statement names: ``(Artifact, step="train")``."""
        super().__init_subclass__(**config)
        cls.STEP, cls.FILE = step or cls.STEP, file or cls.FILE
        cls.VOLATILE = volatile or cls.VOLATILE

    def plain(self) -> Any:
        """Return the content as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        return _json_bytes(self.plain())

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
        """Write a file and force it to disk; `volatile` as in `json`."""
        path = self._folder / name
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        if volatile:
            self.volatile.add(name)

    def json(self, name: str, value: object, *, volatile: bool = False) -> None:
        """Write `<name>.json`, keys sorted.

        A `volatile` file (measured seconds, memory) differs from one attempt to the next: its
        bytes are checked like all others, and the step's `Ref` says nothing of them.
        """
        self.bytes(f"{name}.json", _json_bytes(value), volatile=volatile)

    def write(self, file: JsonFile) -> None:
        """Write a file under its own name; a volatile one is no part of the `Ref`."""
        self.json(file.FILE, file.plain(), volatile=file.VOLATILE)

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
        path = self.folder / step / MANIFEST
        if not path.is_file():
            return None
        data = path.read_bytes()
        manifest = _parse(data, path)
        return Ref(step, MANIFEST, _repeatable_sum(step, manifest), int(manifest["rows"]))

    def ref(self, step: str) -> Ref:
        """Return the `Ref` of a step that must have been done."""
        self.manifest(step)
        ref = self.committed(step)
        assert ref is not None  # noqa: S101  (its manifest was just read)
        return ref

    def steps(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the committed steps below `prefix`, sorted."""
        manifests = (self.folder / prefix).glob(f"**/{MANIFEST}")
        return tuple(
            sorted(
                path.parent.relative_to(self.folder).as_posix()
                for path in manifests
                if not path.parent.name.startswith(".")
            )
        )

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
        try:
            for left in final.parent.glob(f".draft-{final.name}-*"):
                shutil.rmtree(left)
            work.mkdir(parents=True)
        except OSError as error:
            raise StorageError(
                "storage.cannot_write", f"cannot write {final.parent}: {error.strerror}"
            ) from error
        draft = Draft(work)
        try:
            yield draft
            failpoint("manifest")
            draft.bytes(MANIFEST, _manifest(step, draft))
            _sync_folder(work)
            if final.exists():  # a folder without a manifest: no commit of ours
                shutil.rmtree(final)
            failpoint("step_tmp")
            work.rename(final)
            failpoint("step_renamed")
            _sync_folder(final.parent)
        except OSError as error:
            raise StorageError(
                "storage.cannot_write", f"cannot write step {step}: {error.strerror}"
            ) from error
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
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(
                "storage.cannot_read", f"cannot read {path}: {error.strerror}"
            ) from error
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
        return _parse(path.read_bytes(), path)

    def json(self, step: str, name: str) -> Any:
        """Read `<name>.json`."""
        return json.loads(self.bytes(step, f"{name}.json"))

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
        if not self.root.is_dir():
            return ()
        names = sorted(path.name for path in self.root.iterdir() if path.name.startswith(prefix))
        return tuple(Run(self.root, name) for name in names if not name.startswith("."))


def _json_bytes(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode()


def _manifest(step: str, draft: Draft) -> bytes:
    lasting = {"step": step, "rows": draft.rows, "files": draft.files}
    return _written({**lasting, "volatile": sorted(draft.volatile)})


def _written(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, indent=1).encode()


def _repeatable_sum(step: str, manifest: Mapping[str, Any]) -> str:
    files = {n: f for n, f in manifest["files"].items() if n not in manifest["volatile"]}
    lasting = {"step": step, "rows": manifest["rows"], "files": files}
    return hashlib.sha256(_written(lasting)).hexdigest()


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
        return {
            "rows": manifest["rows"],
            "files": dict(manifest["files"]),
            "volatile": list(manifest.get("volatile", ())),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            "run.manifest_damaged", f"{path} is damaged: it is no manifest"
        ) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
