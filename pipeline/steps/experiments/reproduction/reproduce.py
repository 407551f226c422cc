"""A version made again from what its night pinned: the same bytes, or what differs and why.

Promises: the night's own steps run, `features` and `refit`, over the workspace's lake and in a
scratch folder, so that nothing of the workspace changes; recipes and weights are those that the
night had settled, and none is chosen anew; every file of the refit counts, but for what was merely
measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pipeline.base import Progress, format_instant, silent
from pipeline.errors import DataError, LakeError
from pipeline.steps.experiments.reproduction.causes import Cause, Origin, Why, causes, differing
from pipeline.steps.nightly.features import features
from pipeline.steps.nightly.refit import refit
from pipeline.stores.runs import Run, Runs
from pipeline.workspace import provenance
from pipeline.workspace.night import train_folder
from pipeline.workspace.versions import Version, find
from pipeline.workspace.workspace import Workspace

SAME: Final = "same"
DIFFERS: Final = "differs"
GONE: Final = "gone"
_REFIT: Final = "refit"
_FEATURES: Final = "features"


@dataclass(frozen=True)
class FileRow:
    """A file of the refit: its sums then and now, and the arrays of it that differ."""

    file: str
    same: bool
    committed: str
    rebuilt: str
    arrays: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reproduced:
    """What making a version again has shown.

    Attributes
    ----------
    outcome
        ``same``, ``differs``, or ``gone`` where the pinned data cannot be read.
    """

    version: int
    recipe: str
    as_of: str
    run_id: str
    outcome: str
    rows: tuple[FileRow, ...]
    causes: tuple[Cause, ...]

    @property
    def exit_code(self) -> int:
        """0 the same bytes, 3 others for a cause that is named, 6 no data, 1 others for none."""
        if self.outcome == SAME:
            return 0
        if self.outcome == GONE:
            return LakeError.exit_code
        return DataError.exit_code if self.causes else 1

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            **vars(self),
            "rows": [asdict(row) for row in self.rows],
            "causes": [cause.to_dict() for cause in self.causes],
        }

    def text(self) -> str:
        """As lines for a person."""
        what = f"version {self.version} ({self.recipe}, as-of {self.as_of})"
        if self.outcome == SAME:
            sums = {row.file: row.committed for row in self.rows}
            return f"same bytes: {what}, {len(sums)} files, scorer {sums['scorer.npz'][:12]}"
        if self.outcome == GONE:
            return "\n".join([f"{what} cannot be made again:", *self._why()])
        lines = [f"{what} comes out differently:"]
        for row in self.rows:
            if not row.same:
                arrays = f": {', '.join(row.arrays)}" if row.arrays else ""
                lines.append(f"  {row.file} differs{arrays}")
        return "\n".join([*lines, *self._why()])

    def _why(self) -> list[str]:
        if not self.causes:
            return ["  nothing that is known explains it: a bug, or the files were altered"]
        return [f"  {cause.kind}: {cause.sentence}" for cause in self.causes]


def reproduce(ws: Workspace, number: int, *, progress: Progress = silent) -> Reproduced:
    """Make a version again, and compare it with what its night committed.

    Raises
    ------
    ConfigError
        There is no such version.
    StorageError
        The files of its run are gone or damaged.
    ResourceError
        A device, an extra or memory that training needs is not here.
    """
    version = find(ws, number)
    with _scratch(ws, version) as again:
        run = again.runs.open(version.night.run.run_id)
        try:
            features(again, run.run_id, progress=progress)
        except LakeError as error:
            why = Cause(Why.SNAPSHOT, f"the data that it pinned are not there: {error.sentence}")
            return _told(version, GONE, (), (why,))
        refit(again, run.run_id, progress=progress)
        rows = _rows(version.night.run, run)
        if all(row.same for row in rows):
            return _told(version, SAME, rows, ())
        return _told(version, DIFFERS, rows, _causes(again, version, run))


def _told(
    version: Version, outcome: str, rows: tuple[FileRow, ...], why: tuple[Cause, ...]
) -> Reproduced:
    night = version.night
    as_of = format_instant(night.as_of)
    return Reproduced(version.number, version.name, as_of, night.run.run_id, outcome, rows, why)


def _rows(committed: Run, rebuilt: Run) -> tuple[FileRow, ...]:
    was, now = committed.manifest(_REFIT), rebuilt.manifest(_REFIT)
    measured = {*was["measured"], *now["measured"]}
    rows = []
    for file in sorted({*was["files"], *now["files"]} - measured):
        sums = [str(side["files"].get(file, {}).get("sha256", "")) for side in (was, now)]
        arrays: tuple[str, ...] = ()
        if sums[0] != sums[1] and file.endswith(".npz") and all(sums):
            name = file.removesuffix(".npz")
            arrays = differing(committed.arrays(_REFIT, name), rebuilt.arrays(_REFIT, name))
        rows.append(FileRow(file, sums[0] == sums[1], sums[0], sums[1], arrays))
    return tuple(rows)


def _causes(ws: Workspace, version: Version, rebuilt: Run) -> tuple[Cause, ...]:
    night, committed = version.night, version.night.run
    window = differing(committed.arrays(_FEATURES, "full"), rebuilt.arrays(_FEATURES, "full"))
    then = Origin(
        rows=committed.json(_FEATURES, "tables"),
        trained_on=committed.json(_REFIT, "recipe")["trained_on"],
        libraries=night.facts.get("libraries", {}),
        commit=night.facts["commit"],
    )
    now = Origin(
        rows=rebuilt.json(_FEATURES, "tables"),
        trained_on=rebuilt.json(_REFIT, "recipe")["trained_on"],
        libraries=provenance.libraries(),
        commit=provenance.commit(),
    )
    return causes(
        then,
        now,
        deterministic=night.recipes[version.name].capabilities.deterministic,
        window=window,
        damage=_damage(ws, version) if window or then.rows != now.rows else None,
    )


def _damage(ws: Workspace, version: Version) -> str | None:
    """Say which file of the pinned data is not what was written, ``None`` if all are."""
    for table in ("events", "items", "users"):
        pinned = version.night.versions[table]
        if pinned is not None:
            try:
                ws.lake.verify(table, pinned)
            except LakeError as error:
                return error.sentence
    return None


@dataclass(frozen=True)
class _Elsewhere(Workspace):
    """The lake of a workspace, with runs of its own in a scratch folder."""

    scratch: Path

    @cached_property
    def runs(self) -> Runs:
        return Runs(self.scratch)


@contextmanager
def _scratch(ws: Workspace, version: Version) -> Iterator[Workspace]:
    """Lay what the night had pinned, settled and decided into a scratch folder."""
    night, run = version.night, version.night.run
    with tempfile.TemporaryDirectory(prefix="nightjar-reproduce-") as folder:
        again = _Elsewhere(ws.home, ws.composed, Path(folder))
        copy = again.runs.open(run.run_id)
        facts = {**night.facts, "weights": run.json(_FEATURES, "weights")}
        _write(copy, "snapshot", "snapshot", facts)
        _write(copy, "gate", "decision", version.decision)
        for name in night.recipes:
            if run.committed(train_folder(name)) is not None:
                _write(copy, train_folder(name), "recipe", run.json(train_folder(name), "recipe"))
        yield again


def _write(run: Run, step: str, name: str, value: Any) -> None:
    with run.draft(step) as draft:
        draft.json(name, value)
