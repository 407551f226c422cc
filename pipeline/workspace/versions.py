"""A version of the model, found again by its number: the night that made it, and its files.

Promises: the ledger and the runs are asked, never MLflow, so a registry that is away hides nothing;
a number that is not there is answered with those that are; a version whose run is gone says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.errors import ConfigError, StorageError
from pipeline.evaluation.gate import Decision
from pipeline.models.contract import Recipe
from pipeline.workspace.artifacts import MlflowFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import PublicationEntry
from pipeline.workspace.night import Night, decision_of, register_folder
from pipeline.workspace.workspace import Workspace

_SHOWN = 12

HyperParameters: TypeAlias = dict[str, Any]
"""Plain JSON values by dotted names: ``parts.als.alpha``."""


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes
    ----------
    night
        The night whose refit it is.
    name
        Its recipe in that night.
    publication
        The ledger's line of the publication that showed it, ``None`` if none did.
    """

    number: int
    night: Night
    name: str
    decision: Decision
    publication: PublicationEntry | None


def known(ws: Workspace, history: LedgerHistory) -> dict[int, str]:
    """Return the runs of all versions, by number: published ones, and those that only registered.

    Where a run's folder is gone, the ledger still names it.
    """
    runs = history.versions()
    for run in ws.runs.starting_with(""):
        registered = run.find(MlflowFile, register_folder(run))
        if registered is not None and registered.version is not None:
            runs.setdefault(registered.version, run.run_id)
    return dict(sorted(runs.items()))


def find(ws: Workspace, number: int) -> Version:
    """Return a version.

    Raises
    ------
    ConfigError
        There is no such version; the sentence names those there are.
    StorageError
        The folder of its run, or a part of it, is gone or damaged.
    """
    history = LedgerHistory.of(ws.ledger)
    runs = known(ws, history)
    if number not in runs:
        raise ConfigError("version.unknown", f"there is no version {number}{_hint(list(runs))}")
    run = ws.runs.open(runs[number])
    if run.committed("refit") is None:
        raise StorageError(
            "version.files_gone",
            f"version {number} was made by run {run.run_id}, whose files are gone: "
            f"{run.folder} holds no refit",
        )
    decision = decision_of(run)
    return Version(
        number, Night.read(ws, run), str(decision.recipe), decision, history.version(number)
    )


def _hint(numbers: list[int]) -> str:
    if not numbers:
        return ": no run has registered one yet"
    newest = ", ".join(str(number) for number in numbers[-_SHOWN:])
    return f"; known are {'the newest, ' if len(numbers) > _SHOWN else ''}{newest}"


def hyper_parameters(recipe: Recipe) -> HyperParameters:
    """Return what a recipe is made of, as plain JSON by dotted names: ``parts.als.alpha``.

    Recipes of all families, blends of them included, line up under equal names.
    """
    return flat(recipe.model_dump(mode="json"))


def flat(value: Mapping[str, object], prefix: str = "") -> HyperParameters:
    """Return the leaves of nested mappings by their dotted names."""
    leaves: HyperParameters = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping) and inner:
            leaves |= flat(inner, f"{name}.")
        else:
            leaves[name] = inner
    return leaves
