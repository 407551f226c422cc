"""A version of the model, found again by its number: the night that made it, and its files.

Promises: the ledger and the runs are asked, never MLflow, so a registry that is away hides nothing;
a number that is not there is answered with those that are; a version whose run is gone says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError, StorageError
from pipeline.evaluation.gate import Decision
from pipeline.models.contract import Recipe
from pipeline.workspace.artifacts import MlflowFile
from pipeline.workspace.config import flat
from pipeline.workspace.config_errors import Tree
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import PublicationEntry
from pipeline.workspace.night import Night, decision_of, register_folder
from pipeline.workspace.workspace import Workspace

_SHOWN = 12


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
    runs = {number: entry.run_id for number, entry in history.by_version.items()}
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
        newest = ", ".join(map(str, list(runs)[-_SHOWN:])) or "none"
        raise ConfigError(
            "version.unknown", f"unknown version {number}; the newest registered are {newest}"
        )
    run = ws.runs.open(runs[number])
    if run.committed("refit") is None:
        raise StorageError(
            "version.files_gone",
            f"version {number} was made by run {run.run_id}, whose files are gone: "
            f"{run.folder} holds no refit",
        )
    decision, publication = decision_of(run), history.by_version.get(number)
    return Version(number, Night.read(ws, run), str(decision.recipe), decision, publication)


def hyper_parameters(recipe: Recipe) -> Tree:
    """Return what a recipe is made of, as plain JSON by dotted names: ``parts.als.alpha``.

    Recipes of all families, blends of them included, line up under equal names.
    """
    return flat(recipe.model_dump(mode="json"))
