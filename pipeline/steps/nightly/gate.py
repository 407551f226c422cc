"""The gate as a task: gathers the evidence, decides, and writes decision, page and ledger entry.

Guarantees: the decision follows from committed files and from ledger entries of earlier runs, so a
second attempt decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.base import Progress, silent
from pipeline.data.split import UNDERPOWERED
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.evaluation.gate import (
    Absent,
    Decision,
    Evidence,
    Reference,
    decide,
)
from pipeline.failpoints import failpoint
from pipeline.steps.feedback.decisions import decision_entry
from pipeline.steps.nightly.gate_history import gate_history_of
from pipeline.steps.reporting.night_page import build_page
from pipeline.steps.reporting.page_files import draft_page, draw_page
from pipeline.stores.runs import Ref
from pipeline.workspace.artifacts import (
    EvaluationFile,
    ReferenceRun,
    SplitFile,
    ValidationFile,
    train_step,
)
from pipeline.workspace.ledger import append_entry
from pipeline.workspace.night import Night, open_night
from pipeline.workspace.release_artifacts import DecisionFile, MetricsFile, RoleMetrics
from pipeline.workspace.run_files import (
    absences,
    read_earlier_blocks,
    read_evaluated_recipes,
    trained,
)
from pipeline.workspace.task_log import task_step
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class Decided:
    """Decision of the gate, and its `Ref`.

    Attributes
    ----------
    needs_review
        True if a user is to decide on an inconclusive candidate.
    """

    kind: str
    sentence: str
    needs_review: bool
    ref: Ref


def gate(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Decided:
    """Decide on a run; the decision of a replay is not part of the ledger.

    Parameters
    ----------
    ws, run_id
        Workspace and run; it must have been evaluated.
    progress
        Receives short texts.

    Returns
    -------
    Kind and sentence of the decision.
    """
    ref = _gate(ws, run_id, progress=progress)
    night = open_night(ws, run_id)
    decision = night.run.read(DecisionFile).root
    needs_review = (
        night.config.gate.human_review and decision.inconclusive is not None and not night.replay
    )
    return Decided(decision.kind, decision.sentence, needs_review, ref)


def _record(night: Night) -> None:
    """Draw the page, and append the decision to the ledger; safe to repeat."""
    draw_page(night.run)
    if night.replay:  # a replay changes nothing, so its decision stays in its folder
        return
    append_entry(night.ws.ledger, decision_entry(night))


@task_step("gate", check=_record)
def _gate(night: Night, _: Progress) -> str:
    """Write the decision, the metrics of its roles, and the rows of the page."""
    decision = decide(_evidence(night), night.config.gate)
    with night.run.draft("gate") as draft:
        draft.write(DecisionFile(decision))
        draft.write(_metrics(night, decision))
        draft_page(draft, build_page(night, decision), volatile=False)
        draft.rows = len(decision.rules)
    failpoint("decided")
    return decision.sentence


def _evidence(night: Night) -> Evidence:
    run = night.run
    missing, names = absences(night), trained(night)
    evaluation = run.read(EvaluationFile)
    references = evaluation.references
    # A recipe that does not apply to this task is not missing evidence; a failed training is.
    expected = tuple(
        name for name in night.recipes if name in names or run.committed(train_step(name)) is None
    )
    split = run.read(SplitFile)
    return Evidence(
        k=night.config.recommend.length,
        task=split.task,
        holdout=split.holdout,
        judged=read_evaluated_recipes(night.run, night.snapshot),
        expected=expected,
        champion=night.champion_name,
        checks=run.read(ValidationFile).checks,
        absent=tuple(
            Absent(name, night.recipes[name].capabilities.baseline, missing[name])
            for name in expected
            if name in missing
        ),
        last=_reference(night, references.last, "last"),
        month=_reference(night, references.month, "month"),
        notes=_notes(night, split),
        skipped=() if references.skipped is None else (references.skipped,),
        past=gate_history_of(night),
        earlier=read_earlier_blocks(night),
        hit_options=evaluation.hit_options,
    )


def _notes(night: Night, split: SplitFile) -> tuple[str, ...]:
    """Return the task that the first decision pins, and stronger kinds that could be the target."""
    notes = []
    if night.champion is None:
        named = night.snapshot.config.split.target_kinds is not None
        why = "as configured" if named else "the strongest kind by which enough users are evaluated"
        if not named and UNDERPOWERED in split.flags:
            why = "the strongest kind in the data"
        present = night.config.ingest.kinds
        weights = {k: w for k, w in night.config.features.weights.items() if k in present}
        same = night.config.features == night.snapshot.config.features
        notes.append(
            f"target {', '.join(split.target_kinds)}: {why}; lists for {split.task}; event weights "
            f"{'as configured' if same else 'selected on earlier windows'}: "
            f"{', '.join(f'{kind} {weight:g}' for kind, weight in weights.items())}"
        )
    notes += [
        f"{kind} is stronger than the target {', '.join(split.target_kinds)} and has enough users "
        f"on four holdouts; `nightjar gate accept {night.run_id} --target {kind}` makes it the "
        "target"
        for kind in split.stronger_kinds
    ]
    return tuple(notes)


def _reference(night: Night, run: ReferenceRun | None, label: str) -> Reference | None:
    if run is None:
        return None
    tonight, stored = (
        night.run.frame("evaluate", f"reference-{label}-{scorer}")
        for scorer in ("tonight", "stored")
    )
    return Reference(label=run.day, tonight=tonight, stored=stored)


def _metrics(night: Night, decision: Decision) -> MetricsFile:
    """Return the metrics of the best candidate, the champion's recipe and the best baseline."""
    metrics: Mapping[str, Mapping[str, float]] = {
        name: recipe.metrics for name, recipe in night.run.read(EvaluationFile).recipes.items()
    }
    primary = metric_name(NDCG, night.config.recommend.length)

    def best(names: list[str]) -> str | None:
        return max(names, key=lambda name: metrics[name].get(primary, 0.0), default=None)

    baselines = [n for n in metrics if night.recipes[n].capabilities.baseline is not None]
    others = [n for n in metrics if n not in baselines and n != night.champion_name]
    # The recipe of a kept or refreshed champion is not a candidate; the best other one is shown.
    candidate = decision.recipe if decision.recipe != night.champion_name else None
    roles = {
        "candidate": candidate or best(others),
        "champion": night.champion_name,
        "baseline": best(baselines),
    }
    # Metrics of slices have a dot in their name.
    shown = sorted({name for values in metrics.values() for name in values if "." not in name})
    values = {role: metrics.get(recipe or "", {}) for role, recipe in roles.items()}
    return MetricsFile(
        {name: RoleMetrics(**{role: values[role].get(name) for role in roles}) for name in shown}
    )
