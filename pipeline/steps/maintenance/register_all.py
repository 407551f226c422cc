"""Fills MLflow again from the files of all runs and studies.

Guarantees: versions have the numbers of the ledger; of two calls the second changes nothing; notes
of users and pages of `compare` that MLflow has lost do not come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.base import Progress, silent
from pipeline.steps.experiments.tuning.report import mirror_all
from pipeline.steps.nightly.night_record import has_model_files
from pipeline.steps.nightly.register import Mirror
from pipeline.workspace.registry import point_aliases
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class RegisterResult:
    """Result of a call.

    Attributes
    ----------
    runs
        Number of registered runs.
    studies
        Number of studies.
    lost
        Runs that MLflow did not have, or not as a whole.
    versions
        Number in the ledger -> number in MLflow; None for a version that a user deleted there, or
        whose run is gone.
    without_files
        Versions in the ledger whose files were removed.
    """

    runs: int
    studies: int
    lost: tuple[str, ...]
    versions: Mapping[int, int | None]
    without_files: tuple[int, ...]

    def text(self) -> str:
        """Return the result as lines."""
        lines = [
            f"{self.runs:,} runs and {self.studies:,} studies are in MLflow; "
            f"{len(self.lost):,} runs were missing or incomplete"
        ]
        for number, other in self.versions.items():
            if other is None:
                lines.append(f"version {number}: not in MLflow (deleted there, or its run is gone)")
            elif other != number:
                lines.append(f"version {number}: version {other} in MLflow, which gave {number} up")
        lines += [f"version {number}: without files" for number in self.without_files]
        return "\n".join(lines)


def register_all(ws: Workspace, *, progress: Progress = silent) -> RegisterResult:
    """Copy all registered runs and all studies to MLflow, and set the aliases.

    Parameters
    ----------
    ws
        The workspace.
    progress
        Receives the id of each run.

    Returns
    -------
    The result; all files of versions were compared with their checksums.

    Raises
    ------
    ConcurrencyError
        `lock.held`: a run is being registered.
    RegistryError
        MLflow is unavailable; the next call continues.
    StorageError
        A file of a run is damaged.
    """
    with ws.lake.lock("register"):
        mirror = Mirror.of(ws)
        lost = tuple(run.run_id for run in mirror.lost())
        mirror.copy(mirror.runs, progress)
        point_aliases(ws)
        shown = {run_id: number for number, run_id in mirror.client.versions().items()}
    promoted = (run for run in mirror.runs if run.run_id in mirror.numbers)
    without = (mirror.numbers[run.run_id] for run in promoted if not has_model_files(run))
    return RegisterResult(
        runs=len(mirror.runs),
        studies=mirror_all(ws, progress=progress),
        lost=lost,
        versions={number: shown.get(run_id) for number, run_id in mirror.known.items()},
        without_files=tuple(without),
    )
