"""Evaluates all recipes on the holdout, and the champion's recipe against stored scorers.

The gate reads the values of each user that are written here; nothing is decided. Attribution,
drift, retrain policy and earlier blocks of the run are written as well, each into a folder of its
own.

Guarantees: the values of each user are written for every trained recipe; a stored scorer that was
trained on events of this holdout is not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.feature_encoding import described_users
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.data.targets import is_target
from pipeline.evaluation.evaluate import NDCG, evaluate_stored, metric_name
from pipeline.evaluation.evaluate import evaluate as evaluate_scorer
from pipeline.evaluation.fits import averaged
from pipeline.evaluation.new_users import NewUsers, evaluate_new_users
from pipeline.failpoints import failpoint
from pipeline.steps.diagnostics.foldin_parity import follow_parity
from pipeline.steps.diagnostics.hit_options import hit_options
from pipeline.steps.diagnostics.live_quality import write_live
from pipeline.steps.feedback.attribution import answered_targets, attribution_of
from pipeline.steps.feedback.drift import drift_of
from pipeline.steps.feedback.policy import policy_of
from pipeline.steps.nightly.catch_up import catch_up
from pipeline.stores.runs import Draft
from pipeline.workspace.artifacts import (
    AnsweredTargets,
    EvaluationFile,
    RecipeEvaluation,
    ReferenceRun,
    References,
    SplitFile,
    train_step,
)
from pipeline.workspace.as_of_view import AsOfView
from pipeline.workspace.history import AcceptedRun, references
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import (
    FALLBACK,
    fit_names,
    read_history,
    read_scorer,
    read_split,
    trained,
)
from pipeline.workspace.task_log import task_step

_SHOWN = 3
"""Number of recipes in the log line."""


@dataclass(frozen=True)
class _Holdout:
    """Data on which all scorers of a run are evaluated.

    Attributes
    ----------
    segments, categories
        Of the cleaned users and items; None if no user or item has one.
    answered
        Target items that answer a shown list; None if there is none.
    """

    history: History
    split: Split
    segments: pl.DataFrame | None
    categories: pl.DataFrame | None
    k: int
    answered: pl.DataFrame | None

    @classmethod
    def of(cls, night: Night, answered: pl.DataFrame | None) -> _Holdout:
        run = night.run
        users = run.frame("features", "users").select(c.USER_ID, c.SEGMENT)
        items = run.frame("features", "items").select(c.ITEM_ID, c.CATEGORIES)
        return cls(
            read_history(run, "train"),
            read_split(run),
            users if users.height else None,
            items if (items[c.CATEGORIES].list.len() > 0).any() else None,
            night.config.recommend.length,
            answered if answered is not None and answered.height else None,
        )


@task_step("evaluate")
def evaluate(night: Night, progress: Progress) -> str:
    """Write the values of each user for each trained recipe, and the paired values.

    Parameters
    ----------
    night, progress
        The run, and a receiver of short texts; `task_step` passes both.

    Returns
    -------
    The result in one sentence.
    """
    answered = _answered(night, progress)
    holdout = _Holdout.of(night, answered)
    # In this order: the policy reads the drift of the run.
    attribution_of(night, progress)
    drift_of(night, progress)
    policy_of(night, progress)
    catch_up(night, progress)
    recipes = {}
    described = described_users(holdout.history, night.run.frame("features", "users"))
    with night.run.draft("evaluate") as draft:
        for name in trained(night):
            progress(f"evaluate {name}")
            step = train_step(name)
            names = fit_names(night.run, step)
            # Scorers are read one by one, so that only one is in memory.
            scorers = (read_scorer(night.run, step, fit) for fit in names)
            evaluation = averaged([evaluate_scorer(scorer, **vars(holdout)) for scorer in scorers])
            draft.frame(f"users-{name}", evaluation.users)
            recipes[name] = RecipeEvaluation(
                metrics=evaluation.metrics,
                coverage=evaluation.coverage,
                fits=len(names),
                new_users=_new_users(night, name, described, holdout),
            )
        paired = _references(night, draft, holdout, progress)
        options = hit_options(night, holdout.split, recipes, progress)
        answers = None
        if answered is not None:
            truth = holdout.split.truth
            known = truth.join(answered, on=[c.USER_ID, c.ITEM_ID], how="semi")
            answers = AnsweredTargets(targets=truth.height, answered=known.height)
        draft.write(
            EvaluationFile(recipes=recipes, references=paired, answers=answers, hit_options=options)
        )
        write_live(night, holdout.split, draft, progress)
        follow_parity(night, holdout.split, draft, progress)
        draft.rows = holdout.split.n_users
    failpoint("evaluated")
    return _summary(recipes, metric_name(NDCG, holdout.k))


def _new_users(night: Night, name: str, described: History, holdout: _Holdout) -> NewUsers | None:
    """Compare the lists of a recipe for users without events with the fallback list."""
    able = night.recipes[name].capabilities.fold_in and FALLBACK in trained(night)
    if not described.n_users or not able:
        return None
    scorer, fallback = (read_scorer(night.run, train_step(one)) for one in (name, FALLBACK))
    return evaluate_new_users(scorer, fallback, described, holdout.split, holdout.k)


def _answered(night: Night, progress: Progress) -> pl.DataFrame | None:
    """Return the target items that answer a shown list; None without a champion."""
    if night.champion is None:
        return None
    progress("targets that answer a shown list")
    split = read_split(night.run)
    wanted = is_target(split.target_kinds, night.config.features.rating_threshold)
    # Those of all users: a stored scorer is compared on users whom tonight's window may have lost.
    return answered_targets(AsOfView.of(night), split.holdout, split.targets, wanted)


def _references(night: Night, draft: Draft, holdout: _Holdout, progress: Progress) -> References:
    """Pair the champion's recipe with the evaluation scorers of accepted runs."""
    # Only the champion's recipe has earlier fits that were live.
    if night.champion_name is None or night.champion_name not in trained(night):
        return References()
    runs, cutoff = night.ws.runs, holdout.split.cutoff
    accepted = night.history.reference_runs(night.as_of)

    def precedes(earlier: AcceptedRun) -> bool:
        """Return True if the training window of that run ends before this holdout starts."""
        return runs.open(earlier.run_id).read(SplitFile).holdout.start <= cutoff

    chosen = references(accepted, night.as_of, precedes)
    scorer = read_scorer(night.run, train_step(night.champion_name))
    fallback = None
    if FALLBACK in trained(night):
        fallback = read_scorer(night.run, train_step(FALLBACK))
    paired = {}
    for label, earlier in chosen.items():
        day, stored = f"{earlier.as_of:%Y-%m-%d}", runs.open(earlier.run_id)
        progress(f"evaluate against the scorer of {day}")
        pair = evaluate_stored(
            read_scorer(stored, train_step(earlier.name)),
            read_history(stored, "train"),
            scorer,
            holdout.history,
            holdout.split,
            k=holdout.k,
            fallback=fallback,
            segments=holdout.segments,
            answered=holdout.answered,
        )
        draft.frame(f"reference-{label}-tonight", pair.tonight)
        draft.frame(f"reference-{label}-stored", pair.stored)
        paired[label] = ReferenceRun(run_id=earlier.run_id, recipe=earlier.name, day=day)
    skipped = None  # the page names a newest scorer that is not the reference
    if accepted and chosen.get("last") != accepted[-1]:
        day = f"{accepted[-1].as_of:%Y-%m-%d}"
        skipped = f"the scorer of {day} was trained on events of this holdout"
    return References(**paired, skipped=skipped)


def _summary(recipes: Mapping[str, RecipeEvaluation], metric: str) -> str:
    """Return the best recipes by a metric, the first one with its 95 % interval."""
    ranked = sorted(recipes, key=lambda name: -recipes[name].metrics.get(metric, 0.0))
    texts = [f"{name} {recipes[name].metrics.get(metric, 0.0):.4f}" for name in ranked[:_SHOWN]]
    if ranked:
        _, low, high = recipes[ranked[0]].interval(metric)
        if low is not None and high is not None:
            texts[0] += f" ({low:.4f} to {high:.4f})"
    return ", ".join(texts)
