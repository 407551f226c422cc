"""A version of the model, found again by its number: the night that made it, and its files.

Promises: the ledger and the runs are asked, never MLflow, so a registry that is away hides nothing;
a number that is not there is answered with those that are; a version whose run is gone says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, StorageError
from pipeline.models.contract import Recipe
from pipeline.workspace.history import PUBLICATION
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
    decision: dict[str, Any]
    publication: dict[str, Any] | None


def known(ws: Workspace) -> dict[int, str]:
    """Return the runs of all versions, by number: published ones, and those that only registered.

    Where a run's folder was taken away, the ledger still names it.
    """
    found = {
        int(entry["model_version"]): str(entry["run_id"])
        for entry in ws.ledger.entries()
        if entry["type"] == PUBLICATION
    }
    for run in ws.runs.starting_with(""):
        folder = register_folder(run)
        if run.committed(folder) is not None:
            number = run.json(folder, "mlflow")["version"]
            if number is not None:
                found.setdefault(int(number), run.run_id)
    return dict(sorted(found.items()))


def find(ws: Workspace, number: int) -> Version:
    """Return a version.

    Raises
    ------
    ConfigError
        There is no such version; the sentence names those there are.
    StorageError
        The folder of its run, or a part of it, is gone or damaged.
    """
    runs = known(ws)
    if number not in runs:
        raise ConfigError(f"there is no version {number}{_hint(list(runs))}")
    run = ws.runs.open(runs[number])
    if run.committed("refit") is None:
        raise StorageError(
            f"version {number} was made by run {run.run_id}, whose files are gone: "
            f"{run.folder} holds no refit"
        )
    night = Night.read(run)
    decision = decision_of(run)
    lines = [
        entry
        for entry in ws.ledger.entries()
        if entry["type"] == PUBLICATION and int(entry["model_version"]) == number
    ]
    return Version(number, night, str(decision["recipe"]), decision, lines[-1] if lines else None)


def _hint(numbers: list[int]) -> str:
    if not numbers:
        return ": no night has registered one yet"
    told = ", ".join(str(number) for number in numbers[-_SHOWN:])
    return f"; known are {'the newest, ' if len(numbers) > _SHOWN else ''}{told}"


def hyper_parameters(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe is made of, as plain JSON by dotted names: ``parts.als.alpha``.

    Recipes of all families, blends of them included, line up under equal names.
    """
    return flat(recipe.model_dump(mode="json"))


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted names."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping) and inner:
            found |= flat(inner, f"{name}.")
        else:
            found[name] = inner
    return found
