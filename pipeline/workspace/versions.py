"""Registered model versions: the run and the files of a version, by its number.

Guarantees:

* Versions are read from the ledger and the runs, never from MLflow, so they are complete while
  MLflow is unavailable.
* The error for an unknown number lists the newest ones; that for missing files names the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.errors import ConfigError, StorageError
from pipeline.evaluation.gate import Decision
from pipeline.models.contract import Recipe
from pipeline.workspace.config import flat
from pipeline.workspace.config_errors import Tree
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import PublicationEntry
from pipeline.workspace.night import Night, decision_of, register_folder
from pipeline.workspace.release_artifacts import MlflowFile
from pipeline.workspace.workspace import Workspace

_SHOWN = 12
"""Number of versions that an error lists."""
_ALIASES: Final = {"champion": 1, "previous": 2}
"""MLflow's aliases, as places from the end of the publications."""


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes
    ----------
    number
        The version's number in MLflow.
    night
        The run whose refit it is.
    name, decision
        Name of its recipe in that run, and the decision that promoted it.
    publication
        Entry of its newest publication; ``None`` if it was never live.
    """

    number: int
    night: Night
    name: str
    decision: Decision
    publication: PublicationEntry | None


def runs_by_version(ws: Workspace, history: LedgerHistory) -> dict[int, str]:
    """Return the run ids of all versions by number, in ascending order.

    Parameters
    ----------
    history
        Names the runs of published versions, whose folders may be gone. Versions that were only
        registered come from the folders.
    """
    runs = {number: entry.run_id for number, entry in history.by_version.items()}
    for run in ws.runs.starting_with(""):
        registered = run.find(MlflowFile, register_folder(run))
        if registered is not None and registered.version is not None:
            # The ledger has precedence; the folder of an unpublished version is its only record.
            runs.setdefault(registered.version, run.run_id)
    return dict(sorted(runs.items()))


def find(ws: Workspace, number: int) -> Version:
    """Return a version.

    Parameters
    ----------
    number
        The version's number in MLflow.

    Raises
    ------
    ConfigError
        `version.unknown`; the sentence lists the newest versions.
    StorageError
        `version.files_gone`, or a file of its run that is damaged.
    """
    history = LedgerHistory.of(ws.ledger)
    runs = runs_by_version(ws, history)
    if number not in runs:
        newest = ", ".join(map(str, list(runs)[-_SHOWN:]))
        known = (
            f"the newest registered are {newest}"
            if newest
            else "none is registered yet; run `nightjar nightly` first"
        )
        raise ConfigError("version.unknown", f"unknown version {number}; {known}")
    run = ws.runs.open(runs[number])
    if run.committed("refit") is None:
        raise StorageError(
            "version.files_gone",
            f"version {number} was made by run {run.run_id}, whose files are gone: "
            f"{run.folder}/refit does not exist; choose a version of another run",
        )
    decision, publication = decision_of(run), history.by_version.get(number)
    return Version(number, Night.read(ws, run), str(decision.recipe), decision, publication)


def number_of(ws: Workspace, text: str) -> int:
    """Return the number of a version.

    Parameters
    ----------
    text
        A number, ``champion`` (the live version) or ``previous`` (the one before it).

    Raises
    ------
    ConfigError
        `version.not_a_version`: the text is none of these; `version.not_published`: there are too
        few publications.
    """
    if text.isdecimal():
        return int(text)
    if text not in _ALIASES:
        raise ConfigError(
            "version.not_a_version",
            f"{text} is not a version; write a number of `nightjar history`, champion or previous",
        )
    publications, place = LedgerHistory.of(ws.ledger).publications, _ALIASES[text]
    if len(publications) < place:
        raise ConfigError(
            "version.not_published",
            f"no version is {text}: {len(publications)} were published, {place} are needed; run "
            "`nightjar nightly` first",
        )
    return int(publications[-place].model_version)


def hyper_parameters(recipe: Recipe) -> Tree:
    """Return a recipe's fields as plain JSON by dotted names: ``parts.als.alpha``.

    The last part of a name is the same for a hyperparameter in all families and parts of a blend.
    """
    return flat(recipe.model_dump(mode="json"))
