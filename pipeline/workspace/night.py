"""A nightly run as later steps read it: its snapshot, settings, recipes and champion.

Guarantees: all content is independent of the time of reading; a table that did not exist when the
run began stays empty for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

import polars as pl

from pipeline.base import AsOf
from pipeline.data.split import before, ingested_by
from pipeline.evaluation.gate import Decision
from pipeline.models.contract import Recipe
from pipeline.stores.batches import MERGED, Batches
from pipeline.stores.pruning import touch
from pipeline.stores.runs import Run
from pipeline.workspace.agreement import refuse_other_workspace
from pipeline.workspace.artifacts import RecipeFile, SnapshotFile, WeightsFile, train_step
from pipeline.workspace.config import Config
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import Champion
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.workspace import Workspace

ACCEPT: Final = "accept"
"""Folder of a run for a decision that a user changed."""


@dataclass(frozen=True)
class Night:
    """A nightly run.

    Attributes
    ----------
    config
        The run's settings; event weights are those that `features` chose, once it is done.
    recipes
        By name, with the hyperparameters that `train` selected for open fields.
    """

    ws: Workspace
    run: Run
    snapshot: SnapshotFile
    config: Config
    recipes: dict[str, Recipe]

    @classmethod
    def read(cls, ws: Workspace, run: Run) -> Night:
        """Read a run.

        Parameters
        ----------
        run
            Its snapshot is committed.

        Raises
        ------
        StorageError
            `run.other_workspace`: the run read another lake.
        """
        snapshot = run.read(SnapshotFile)
        refuse_other_workspace(ws.lake, snapshot.lake, run.run_id)
        weights = run.find(WeightsFile)
        config = snapshot.config
        if weights is not None:
            # Later steps must weigh events as `features` did.
            config = config.model_copy(update={"features": weights.root})
        return cls(ws, run, snapshot, config, trained_recipes(run, snapshot))

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return self.run.run_id

    @property
    def as_of(self) -> AsOf:
        """Instant that bounds all data of the run."""
        return AsOf(self.snapshot.as_of)

    @property
    def champion(self) -> Champion | None:
        """The champion before the run."""
        return self.snapshot.champion

    @property
    def champion_name(self) -> str | None:
        """Name of the champion's recipe among `recipes`."""
        return self.snapshot.champion_name

    @property
    def replay(self) -> bool:
        """True if newer lists were live at the start, so that the run changes nothing."""
        return self.snapshot.replay

    @property
    def span(self) -> tuple[datetime, datetime]:
        """Start of the run, and the end of the last step before `register`."""
        run, last = self.run, ("gate", "decision.json")
        if run.committed("cold_check") is not None:
            last = ("cold_check", "cold.json")
        elif run.committed(ACCEPT) is not None:
            last = (ACCEPT, "decision.json")
        # Not of the manifest of `snapshot`: `touch` changes its time.
        return run.written_at("snapshot", "snapshot.json"), run.written_at(*last)

    @cached_property
    def history(self) -> LedgerHistory:
        """The ledger at the first use of this property."""
        return LedgerHistory.of(self.ws.ledger)

    @cached_property
    def selected(self) -> dict[str, Recipe]:
        """Recipes by name whose open hyperparameters were selected."""
        return {
            name: self.recipes[name]
            for name, configured in self.snapshot.recipes.items()
            if configured.has_free_params and not self.recipes[name].has_free_params
        }

    def table(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Read what a run sees of a table, at its pinned version; empty if it did not exist then.

        Parameters
        ----------
        name
            A table of `SnapshotFile.versions`.
        columns
            All by default.
        where
            Filter that the lake applies while it reads.
        """
        if self.snapshot.known.by == "as_of" and name not in MERGED:
            # Items and users are pinned at a version of the as-of.
            known = ingested_by(self.as_of)
            where = known if where is None else where & known
        return self.ws.read_pinned(self.snapshot.versions, name, columns, where)

    def events(self, *columns: str) -> pl.DataFrame:
        """Read the pinned events before the as-of."""
        return self.table("events", columns=columns, where=before(self.as_of))


def last_file(ws: Workspace, snapshot: SnapshotFile) -> int:
    """Return the number of the last file of events that a run saw; 0 without any.

    Parameters
    ----------
    snapshot
        Of the run.
    """
    version, batches = snapshot.versions["events"], Batches(ws.lake)
    last = 0 if version is None else batches.last_at(version)
    if snapshot.known.by == "now":
        return last
    return min(last, batches.last_known("events", snapshot.as_of))


def trained_recipes(run: Run, snapshot: SnapshotFile) -> dict[str, Recipe]:
    """Return the recipes of a run by name, with the hyperparameters that `train` selected.

    Parameters
    ----------
    run, snapshot
        The run, and its snapshot.
    """
    return {name: _trained(run, name, recipe) for name, recipe in snapshot.recipes.items()}


def _trained(run: Run, name: str, configured: Recipe) -> Recipe:
    """Return a recipe with the hyperparameters that were selected in training."""
    if not configured.has_free_params:
        return configured
    trained = run.find(RecipeFile, train_step(name))
    return configured if trained is None else trained.recipe


def open_night(ws: Workspace, run_id: str) -> Night:
    """Read a run, and mark one without a decision as in use.

    Parameters
    ----------
    run_id
        A run that was started.

    Raises
    ------
    ConfigError
        `run.unknown`.
    """
    run = ws.run(run_id)
    if run.committed("gate") is None:
        touch(run, "snapshot")  # upkeep deletes undecided runs by their last use
    return Night.read(ws, run)


def decision_of(run: Run) -> Decision:
    """Return the decision: the one that a user changed, else the gate's."""
    return run.read(DecisionFile, ACCEPT if run.committed(ACCEPT) else "gate").root


def register_folder(run: Run) -> str:
    """Return the folder of `register`; a decision that a user changed is registered again."""
    return f"{ACCEPT}/register" if run.committed(ACCEPT) else "register"


def concluded(run: Run) -> str | None:
    """Return the decision's sentence if the run has ended, else ``None``."""
    # The order of the tasks: a run without these has more to do, whatever it decided.
    if run.committed("gate") is None or run.committed(register_folder(run)) is None:
        return None
    decision = decision_of(run)
    if decision.kind == "keep" or run.committed("publish") is not None:
        return decision.sentence
    return None
