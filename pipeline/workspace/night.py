"""What a night pinned, as every later step reads it: settings, versions, recipes, champion.

Promises: nothing here depends on when it is read; a table that was not there when the night began
stays empty for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from pipeline.base import parse_instant
from pipeline.data.features import FeaturesConfig
from pipeline.data.split import before
from pipeline.models.contract import Recipe
from pipeline.models.families import recipe_from
from pipeline.stores.pruning import renew
from pipeline.stores.runs import Run
from pipeline.workspace.config import Config, load
from pipeline.workspace.history import Champion
from pipeline.workspace.workspace import Workspace

ACCEPT = "accept"
"""Folder of a run that holds the decision as a person changed it."""


@dataclass(frozen=True)
class Night:
    """What `snapshot` pinned, as later steps read it.

    Attributes
    ----------
    config
        Its weights of events are those that `features` chose, once it has.
    asked, recipes
        As the config has them, and with what training chose for the fields left open.
    taus
        Spread over training seeds of the families that were calibrated.
    """

    run: Run
    as_of: datetime
    versions: dict[str, int | None]
    config: Config
    asked: dict[str, Recipe]
    recipes: dict[str, Recipe]
    champion: Champion | None
    champion_name: str | None
    publish: bool
    replay: bool
    taus: dict[str, float]
    facts: dict[str, Any]

    @classmethod
    def read(cls, run: Run) -> Night:
        """Read a committed snapshot."""
        facts = run.json("snapshot", "snapshot")
        champion = facts["champion"]
        asked: dict[str, Recipe] = {n: recipe_from(r) for n, r in facts["recipes"].items()}
        return cls(
            run=run,
            as_of=parse_instant(facts["as_of"]),
            versions=facts["versions"],
            config=_weighed(run, load(facts["config"])),
            asked=asked,
            recipes={name: _trained(run, name, recipe) for name, recipe in asked.items()},
            champion=Champion.from_dict(champion) if champion else None,
            champion_name=facts["champion_name"],
            publish=facts["publish"],
            replay=facts["replay"],
            taus=facts["taus"],
            facts=facts,
        )


def train_folder(name: str) -> str:
    """Return the folder of a recipe's evaluation scorer below its run."""
    return f"train/{name}"


def _weighed(run: Run, asked: Config) -> Config:
    """Return the config with the weights of events that `features` chose."""
    if run.committed("features") is None:
        return asked
    chosen = FeaturesConfig.model_validate(run.json("features", "weights"))
    return asked.model_copy(update={"features": chosen})


def _trained(run: Run, name: str, asked: Recipe) -> Recipe:
    """Return a recipe as it was trained, which leaves nothing open."""
    if not asked.open or run.committed(train_folder(name)) is None:
        return asked
    written = run.json(train_folder(name), "recipe")
    return recipe_from(written["recipe"]) if "recipe" in written else asked


def open_night(ws: Workspace, run_id: str) -> Night:
    """Read the snapshot of a run that was started; until it decides, that says it is worked on."""
    run = ws.run(run_id)
    if run.committed("gate") is None:
        renew(run, "snapshot")
    return Night.read(run)


def read_pinned(
    ws: Workspace,
    night: Night,
    table: str,
    *,
    columns: Sequence[str] | None = None,
    where: pl.Expr | None = None,
) -> pl.DataFrame:
    """Read a table at the version that the night pinned; empty if it was not there then."""
    version = night.versions[table]
    if version is None:
        return ws.lake.empty(table, columns)
    return ws.lake.read(table, version=version, columns=columns, where=where)


def read_events(ws: Workspace, night: Night, *columns: str) -> pl.DataFrame:
    """Return the pinned events before the as-of."""
    return read_pinned(ws, night, "events", columns=columns, where=before(night.as_of))


def decision_of(run: Run) -> dict[str, Any]:
    """Return what was decided: by a person, if somebody changed it, else by the gate."""
    decision: dict[str, Any] = run.json(ACCEPT if run.committed(ACCEPT) else "gate", "decision")
    return decision


def register_folder(run: Run) -> str:
    """Return the folder of the night's mirror; what a person changed is mirrored once more."""
    return f"{ACCEPT}/register" if run.committed(ACCEPT) else "register"


def concluded(run: Run) -> str | None:
    """Return the sentence of a night that has come to its end, else ``None``."""
    if run.committed("gate") is None or run.committed(register_folder(run)) is None:
        return None
    decision = decision_of(run)
    if decision["kind"] == "keep" or run.committed("publish") is not None:
        return str(decision["sentence"])
    return None
