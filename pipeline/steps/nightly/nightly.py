"""The nightly run: its tasks in their order, and its result.

Airflow, the command line and the tests call these functions. Each task returns the result that an
earlier attempt committed, so a run that was killed continues where it stopped.

Guarantees: two calls of `nightly` never run at once in one workspace; a candidate that cannot be
trained does not end the run; lists are published only after a promotion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.base import AsOf, Instant, Progress, silent
from pipeline.evaluation.gate.decision import Kind
from pipeline.evaluation.gate.e_process_status import EProcessStatus
from pipeline.report.headline import Headline, night_headline
from pipeline.report.wording import acceptance
from pipeline.steps.diagnostics.training_cost import TrainingCosts, cost_line, costs
from pipeline.steps.nightly.accept import offered_recipes
from pipeline.steps.nightly.cold_check import cold_check
from pipeline.steps.nightly.evaluate import evaluate
from pipeline.steps.nightly.features import features
from pipeline.steps.nightly.gate import gate
from pipeline.steps.nightly.publish import publication_id, publish
from pipeline.steps.nightly.recommend import recommend
from pipeline.steps.nightly.refit import refit
from pipeline.steps.nightly.register import register
from pipeline.steps.nightly.snapshot import Started, snapshot
from pipeline.steps.nightly.train import Failure, train
from pipeline.steps.nightly.validate import validate
from pipeline.steps.reporting.page_files import draw_lost_page
from pipeline.workspace.night import Night, decision_of
from pipeline.workspace.release_artifacts import MetricsFile, RoleMetrics
from pipeline.workspace.workspace import Workspace

EXIT_CODES: Final = {"keep": 4, "block": 5}
"""Exit codes of decisions; every other one is 0."""


def nightly(
    ws: Workspace,
    as_of: AsOf,
    *,
    recipes: Sequence[str] | None = None,
    publish: bool = True,
    progress: Progress = silent,
) -> NightResult:
    """Run all tasks of a nightly run, or the remaining ones.

    Parameters
    ----------
    ws
        Workspace.
    as_of
        Instant that bounds all data of the run.
    recipes
        Names of configured recipes to train; None means all. Baselines are always included.
    publish
        Whether a promotion goes live.
    progress
        Receives short texts.

    Returns
    -------
    Decision, metrics and champion after the run.

    Raises
    ------
    NightjarError
        A task failed; once the cause is removed, the same call continues from there.
    """
    # The kernel frees the lock of a killed process.
    with ws.lake.lock("night"):
        started = snapshot(ws, as_of, recipes=recipes, publish=publish, progress=progress)
        if started.status == "nothing_to_do":
            return NightResult("", as_of, started.status, None, started.sentence)
        if started.status == "already_done":
            draw_lost_page(ws.run(started.run_id))
        failures = _run_tasks(ws, started, progress) if started.status == "new" else {}
    return result(ws, started.run_id, status=started.status, failures=failures)


def _run_tasks(ws: Workspace, started: Started, progress: Progress) -> dict[str, str]:
    """Run the tasks after `snapshot` in their order; return the failed recipes with reasons."""

    def run(*tasks: Callable[..., object]) -> None:
        for task in tasks:
            task(ws, started.run_id, progress=progress)

    run(validate, features)
    failures = {}
    for recipe in started.recipes:
        trained = train(ws, started.run_id, recipe, progress=progress)
        # The other recipes stay in the comparison.
        if isinstance(trained, Failure):
            failures[recipe] = trained.sentence
    run(evaluate, gate)
    # Task `accept`: a user changes the decision (`accept_run`); in Airflow the run waits here.
    if decision_of(ws.run(started.run_id)).promotes:
        run(refit, cold_check, register, recommend, publish)
    else:
        run(register)
    return failures


@dataclass(frozen=True)
class NightResult:
    """Result of a run, and the shape of `nightly --json`.

    Attributes
    ----------
    status
        ``done``, ``already_done``, ``nothing_to_do`` or ``replay``.
    decision
        Kind of the decision; ``None`` if there was nothing to do.
    recipe, model_version, publication_id
        Of the champion after the run.
    metrics
        Name -> values of the best candidate, the champion and the best baseline.
    failures
        Recipes that could not be trained, with the reasons.
    chosen
        Recipe -> its selected hyperparameters, in words.
    acceptable
        Recipes that `nightjar gate accept` would accept now.
    headline
        Result of the run in plain sentences; ``None`` if there was nothing to do.
    cost
        Recipe -> cost of its training.
    """

    run_id: str
    as_of: Instant
    status: str
    decision: Kind | None
    sentence: str
    reasons: tuple[str, ...] = ()
    recipe: str | None = None
    model_version: str | None = None
    publication_id: str | None = None
    e_processes: tuple[EProcessStatus, ...] = ()
    metrics: Mapping[str, RoleMetrics] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    acceptable: tuple[str, ...] = ()
    headline: Headline | None = None
    cost: Mapping[str, TrainingCosts] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """4 for keep, 5 for block; 0 for a promotion, and if there was nothing (left) to do."""
        if self.status == "already_done":
            return 0
        return EXIT_CODES.get(self.decision or "", 0)

    def text(self) -> str:
        """Return lines for a terminal."""
        head = self.status.replace("_", " ")
        if self.headline is None:
            return f"{head}: {self.sentence}"
        lines = [f"{head}, {self.decision}: {self.headline.text}"]
        lines += [f"  {reason}" for reason in self.reasons]
        lines += [f"  {name} was left out: {reason}" for name, reason in self.failures.items()]
        lines += [f"  {name} is {words}" for name, words in self.chosen.items()]
        if self.cost:
            lines.append(f"cost: {cost_line(self.cost)}")
        if self.publication_id == publication_id(self.run_id):
            lines.append(f"live: {self.recipe}, version {self.model_version}")
        lines.append(f"run:  {self.run_id}")
        lines += acceptance(self.run_id, self.acceptable)
        return "\n".join(lines)


def result(
    ws: Workspace, run_id: str, *, status: str = "new", failures: Mapping[str, str] | None = None
) -> NightResult:
    """Read the result of a run from its committed files.

    Parameters
    ----------
    ws, run_id
        Workspace and run; it must have decided.
    status
        Status of `Started`.
    failures
        Recipes that could not be trained, with the reasons.

    Returns
    -------
    Result with status ``done`` or ``replay`` for a new run, else with `status`.
    """
    night = Night.read(ws, ws.run(run_id))
    decision = decision_of(night.run)
    if status == "new":
        status = "replay" if night.replay else "done"
    # The champion after this run: its own, or the one that it found.
    champion = night.history.publication_of(run_id) or night.history.champion(night.as_of)
    return NightResult(
        run_id=run_id,
        as_of=night.as_of,
        status=status,
        decision=decision.kind,
        sentence=decision.sentence,
        reasons=decision.reasons,
        recipe=None if champion is None else champion.name,
        model_version=None if champion is None else champion.model_version,
        publication_id=None if champion is None else champion.publication_id,
        e_processes=decision.e_processes,
        metrics=night.run.read(MetricsFile).root,
        failures=dict(failures or {}),
        chosen={name: recipe.summary for name, recipe in night.selected.items()},
        acceptable=offered_recipes(night),
        headline=night_headline(night.run),
        cost=costs(night.run, night.recipes, decision.recipe),
    )
