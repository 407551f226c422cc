"""A whole night, and the steps it is made of, under one roof.

Airflow, the command line and the tests call these functions. Each returns what an earlier attempt
committed, so a night that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.base import Progress, format_instant, silent, to_utc
from pipeline.report.wording import acceptance
from pipeline.steps.diagnostics.training_cost import cost_line, costs
from pipeline.steps.nightly.accept import offered
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
from pipeline.workspace.chosen_recipes import in_words
from pipeline.workspace.history import PROMOTIONS, PUBLICATION, accepted_before
from pipeline.workspace.night import Night, decision_of, train_folder
from pipeline.workspace.workspace import Workspace

EXIT_CODES = {"keep": 4, "block": 5}
"""Exit codes of decisions; every other one is 0."""


@dataclass(frozen=True)
class NightResult:
    """How a night ended, the shape of `nightly --json`.

    Attributes
    ----------
    status
        ``done``, ``already_done``, ``nothing_to_do`` or ``replay``.
    decision
        The gate's kind, ``None`` where there was nothing to do.
    recipe, model_version, publication_id
        Of the champion after the night.
    metrics
        Name -> what candidate, champion and baseline reached.
    failures
        Recipes that could not be trained, with the sentence.
    chosen
        What earlier weeks chose for recipes that left something open, in words.
    may_accept
        Recipes that `nightjar gate accept` would put live now.
    cost
        What training each recipe took, and under ``refit`` what training the winner again took.
    """

    run_id: str
    as_of: str
    status: str
    decision: str | None
    sentence: str
    reasons: tuple[str, ...] = ()
    recipe: str | None = None
    model_version: str | None = None
    publication_id: str | None = None
    accounts: tuple[Any, ...] = ()
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    may_accept: tuple[str, ...] = ()
    cost: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """4 for keep, 5 for block; 0 for a promotion, and where nothing was (left) to do."""
        if self.status == "already_done":
            return 0
        return EXIT_CODES.get(self.decision or "", 0)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        lists = ("reasons", "accounts", "may_accept")
        return {**vars(self), **{name: list(getattr(self, name)) for name in lists}}

    def text(self) -> str:
        """As lines for a person."""
        told = f"{self.decision}: {self.reasons[0]}" if self.reasons else self.sentence
        lines = [f"{self.status.replace('_', ' ')}: {told}"]
        lines += [f"  {reason}" for reason in self.reasons[1:]]
        lines += [f"  {name} was left out: {why}" for name, why in self.failures.items()]
        lines += [f"  {name} is {words}" for name, words in self.chosen.items()]
        if self.cost:
            lines.append(f"cost: {cost_line(self.cost)}")
        if self.publication_id == publication_id(self.run_id):
            lines.append(f"live: {self.recipe}, version {self.model_version}")
        if self.run_id:
            lines.append(f"run:  {self.run_id}")
        lines += acceptance(self.run_id, self.may_accept)
        return "\n".join(lines)


def nightly(
    ws: Workspace,
    as_of: datetime,
    *,
    recipes: Sequence[str] | None = None,
    publish: bool = True,
    progress: Progress = silent,
) -> NightResult:
    """Run a night from snapshot to publication, or what is left of it.

    Raises
    ------
    NightjarError
        Any step's; the same call goes on from there once its cause is gone.
    """
    as_of = to_utc(as_of)
    with ws.lake.lock("night"):
        started = snapshot(ws, as_of, recipes=recipes, publish=publish, progress=progress)
        if started.status == "nothing_to_do":
            return NightResult("", format_instant(as_of), started.status, None, started.sentence)
        failures = {}
        if started.status == "new":
            failures = _steps(ws, started, progress)
    return result(ws, started.run_id, status=started.status, failures=failures)


def _steps(ws: Workspace, started: Started, progress: Progress) -> dict[str, str]:
    run_id = started.run_id
    validate(ws, run_id, progress=progress)
    features(ws, run_id, progress=progress)
    failures = {}
    for recipe in started.recipes:
        trained = train(ws, run_id, recipe, progress=progress)
        if isinstance(trained, Failure):
            failures[recipe] = trained.sentence
    evaluate(ws, run_id, progress=progress)
    gate(ws, run_id, progress=progress)
    kind = decision_of(ws.run(run_id))["kind"]
    progress(f"gate: {kind}")
    if kind in PROMOTIONS:
        refit(ws, run_id, progress=progress)
        cold_check(ws, run_id, progress=progress)
    register(ws, run_id, progress=progress)
    if kind in PROMOTIONS:
        recommend(ws, run_id, progress=progress)
        publish(ws, run_id, progress=progress)
    return failures


def result(
    ws: Workspace, run_id: str, *, status: str = "new", failures: Mapping[str, str] | None = None
) -> NightResult:
    """Read how a night ended from what it committed."""
    night = Night.read(ws.run(run_id))
    decision = decision_of(night.run)
    steps = {name: train_folder(name) for name in night.recipes}
    if status == "new":
        status = "replay" if night.replay else "done"
    champion = _champion_after(ws, night)
    return NightResult(
        run_id=run_id,
        as_of=format_instant(night.as_of),
        status=status,
        decision=decision["kind"],
        sentence=decision["sentence"],
        reasons=tuple(decision["reasons"]),
        recipe=champion.get("name"),
        model_version=champion.get("model_version"),
        publication_id=champion.get("publication_id"),
        accounts=tuple(decision["accounts"]),
        metrics=night.run.json("gate", "metrics"),
        failures=dict(failures or {}),
        chosen=in_words(night),
        may_accept=offered(ws, night),
        cost=costs(night.run, steps, decision["recipe"]),
    )


def _champion_after(ws: Workspace, night: Night) -> dict[str, Any]:
    """Return the champion once this night is over: its own, or the one it found."""
    entries = ws.ledger.entries()
    for entry in entries:
        if entry["type"] == PUBLICATION and entry["run_id"] == night.run.run_id:
            return dict(entry)
    before = accepted_before(entries, night.as_of)
    return before[-1].to_dict() if before else {}
