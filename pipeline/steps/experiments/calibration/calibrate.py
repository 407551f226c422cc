"""Calibration of the gate: its error rates and power, with the champion's recipe on its own data.

Guarantees:

* No event at or after the as-of is read.
* The first call pins the data, and each fit is stored when it is done, so the same call resumes an
  interrupted calibration.
* An as-of and a recipe are calibrated once; later runs take the seed SD (τ) from the ledger entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.base import AsOf, Progress, compact_instant, format_instant, plain, silent
from pipeline.data.targets import Task
from pipeline.errors import ConfigError
from pipeline.evaluation.calibrate import calibrate
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.evaluate import NDCG
from pipeline.models.contract import Recipe
from pipeline.report.calibration import figure, sentence, text
from pipeline.steps.experiments.calibration.fits import ReplicateFits, pinned
from pipeline.steps.experiments.learning_data import data_sections
from pipeline.stores.runs import Run, Runs
from pipeline.workspace.config import short_digest
from pipeline.workspace.experiment_artifacts import CalibrationFile, CalibrationPlanFile
from pipeline.workspace.history import JUST_AFTER, LedgerHistory
from pipeline.workspace.ledger import CalibrationEntry, Champion, append_entry
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

LOCK: Final = "calibrate"
FOLDER: Final = "calibrations"
FIGURE: Final = "calibration.svg"
_RESULT: Final = CalibrationFile.STEP


@dataclass(frozen=True)
class Calibrated:
    """Result of a calibration.

    Attributes
    ----------
    line
        Entry of the ledger.
    calibration
        All figures, with the paths of all e-processes.
    svg
        The figure as SVG.
    """

    line: CalibrationEntry
    calibration: Calibration
    svg: bytes

    def plain(self) -> dict[str, Any]:
        """Return the entry and the result as plain JSON."""
        return {**self.line.plain(), "found": plain(self.calibration)}

    def text(self) -> str:
        """Return the result as lines."""
        line = self.line
        return f"{line.sentence}\n{text(self.calibration, line.recipe, line.k, line.cutoffs)}"


def gate_calibrate(
    ws: Workspace,
    as_of: AsOf,
    *,
    elapsed: Callable[[], float],
    progress: Progress = silent,
) -> Calibrated:
    """Calibrate the gate, resume a calibration, or return the result of an earlier call.

    Parameters
    ----------
    as_of
        The recipe is that of the champion right after a nightly run of this as-of.
    elapsed
        Seconds since the call began.

    Raises
    ------
    ConfigError
        `calibration.no_champion`.
    DataError
        `calibration.too_few_holdouts`.
    GateError
        Fewer than two holdouts have `gate.min_users` users.
    """
    history = LedgerHistory.of(ws.ledger)
    # Right after the run of this as-of, whose publication counts.
    champion = history.champion(as_of + JUST_AFTER)
    if champion is None:
        raise ConfigError(
            "calibration.no_champion",
            f"no recipe is live as of {format_instant(as_of)}: a calibration needs the champion's "
            "recipe; run `nightjar nightly --as-of T` first",
        )
    run = _run(ws, as_of, champion.recipe)  # other settings make another calibration
    with (
        ws.lake.lock(LOCK),
        task_log("calibrate", as_of, run_id=run.run_id, progress=progress) as log,
    ):
        if not run.has(CalibrationFile):
            plan = pinned(ws, run, as_of, history)
            # All other recipes of a run are candidates, with the hyperparameters it selected.
            recipes = history.selected_recipes(ws.config.recipes, as_of + JUST_AFTER)
            others = {n: r for n, r in recipes.items() if r.hash != champion.recipe.hash}
            fits = ReplicateFits(ws, run, plan, champion, _fitted(others, plan.task))
            result = calibrate(
                fits.all(elapsed, log.progress),
                ws.config.gate,
                candidates=len(others),
                task=plan.task,
                baselines=[n for n, r in others.items() if r.capabilities.baseline is not None],
            )
            with run.draft(_RESULT) as draft:
                draft.write(CalibrationFile(result))
                draft.bytes(FIGURE, figure(result))
                draft.rows = sum(result.users)
        result = run.read(CalibrationFile).root
        # Appended in every call: one killed after its result left no entry, and a key is unique.
        line = append_entry(ws.ledger, calibration_entry(run, champion))
        log.rows, log.result = run.ref(_RESULT).rows, line.sentence
    return Calibrated(line, result, run.bytes(_RESULT, FIGURE))


def _fitted(others: Mapping[str, Recipe], task: Task) -> dict[str, Recipe]:
    """Return the recipes that can be trained for a task; open hyperparameters need a night."""
    return {
        name: recipe
        for name, recipe in others.items()
        if not recipe.has_free_params
        and not (recipe.capabilities.repeats_only and task == "discovery")
    }


def _run(ws: Workspace, as_of: AsOf, recipe: Recipe) -> Run:
    """Open the calibration; the same call finds it again, whatever was ingested since."""
    digest = short_digest({"recipe": recipe.hash, **data_sections(ws.config)})
    return Runs(ws.home / FOLDER).open(f"{compact_instant(as_of)}-{digest}")


def calibration_entry(run: Run, champion: Champion) -> CalibrationEntry:
    """Return the ledger entry of a calibration, from its committed files.

    Parameters
    ----------
    run
        The calibration; it has a result.
    champion
        Champion right after the nightly run of its as-of.
    """
    plan, result = run.read(CalibrationPlanFile), run.read(CalibrationFile).root
    return CalibrationEntry(
        key=f"calibration:{run.run_id}",
        calibration=run.run_id,
        as_of=plan.as_of,
        recipe=champion.name,
        family=champion.recipe.family,
        recipe_hash=champion.recipe.hash,
        task=plan.task,
        k=plan.k,
        metric=NDCG,
        **{n: getattr(result, n) for n in CalibrationEntry.model_fields if hasattr(result, n)},
        lineages=len(result.equal),
        cutoffs=tuple(span.start for span in plan.holdouts[-len(result.users) :]),
        sentence=f"{champion.name}: {sentence(result)}",
    )
