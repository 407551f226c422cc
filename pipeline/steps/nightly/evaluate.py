"""The night's judgement: every recipe by the holdout, and the champion's by stored scorers.

What the gate will look at is written down here, person by person; nothing is decided. So is what
came back from people since the last night, each in a folder of its own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress, parse_instant, silent
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.failpoints import failpoint
from pipeline.steps.diagnostics.foldin_parity import follow_parity
from pipeline.steps.diagnostics.live_quality import write_live
from pipeline.steps.feedback.attribution import answers_of
from pipeline.steps.feedback.drift import drift_of
from pipeline.steps.feedback.policy import policy_of
from pipeline.stores.runs import Draft, Ref, Run
from pipeline.workspace.history import accepted_before, references
from pipeline.workspace.night import Night, open_night, train_folder
from pipeline.workspace.run_files import fit_names, read_history, read_scorer, read_split, trained
from pipeline.workspace.workspace import Workspace


def evaluate(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Judge every trained recipe on the holdout, and tonight's champion recipe on stored ones."""
    from pipeline.evaluation.evaluate import evaluate as judge
    from pipeline.evaluation.fits import averaged

    night = open_night(ws, run_id)
    if (ref := night.run.committed("evaluate")) is not None:
        return ref
    history, split = read_history(night.run, "train"), read_split(night.run)
    segments, categories = _segments(night.run), _categories(night.run)
    answers_of(ws, night, progress)
    drift_of(ws, night, progress)
    policy_of(ws, night, progress)
    summary: dict[str, Any] = {}
    with night.run.draft("evaluate") as draft:
        for name in trained(night):
            progress(f"evaluate {name}")
            names = fit_names(night.run, train_folder(name))
            found = averaged(
                [
                    judge(
                        read_scorer(night.run, train_folder(name), fit),
                        history,
                        split,
                        k=night.config.recommend.length,
                        segments=segments,
                        categories=categories,
                    )
                    for fit in names
                ]
            )
            draft.frame(f"users-{name}", found.users)
            summary[name] = {
                "metrics": dict(found.metrics),
                "coverage": found.coverage,
                "fits": len(names),
            }
        references = _references(ws, night, draft, history, split, segments, progress)
        draft.json("evaluation", {"recipes": summary, "references": references})
        write_live(ws, night, split, draft, progress)
        follow_parity(ws, night, split, draft, progress)
        draft.rows = split.n_users
    failpoint("evaluated")
    return night.run.ref("evaluate")


def _references(
    ws: Workspace,
    night: Night,
    draft: Draft,
    history: History,
    split: Split,
    segments: pl.DataFrame | None,
    progress: Progress,
) -> dict[str, Any]:
    """Judge tonight's champion recipe against the evaluation scorers of accepted nights."""
    from pipeline.evaluation.evaluate import evaluate_stored

    told: dict[str, Any] = {}
    if night.champion is None or night.champion_name not in trained(night):
        return told
    tonight = read_scorer(night.run, train_folder(str(night.champion_name)))
    accepted = accepted_before(ws.ledger.entries(), night.as_of)
    chosen = references(
        accepted, night.as_of, lambda x: _cutoff(ws.runs.open(x.run_id)) <= split.cutoff
    )
    for label, found in chosen.items():
        progress(f"evaluate against the scorer of {found.as_of:%Y-%m-%d}")
        stored_run = ws.runs.open(found.run_id)
        pair = evaluate_stored(
            read_scorer(stored_run, train_folder(found.name)),
            read_history(stored_run, "train"),
            tonight,
            history,
            split,
            k=night.config.recommend.length,
            segments=segments,
        )
        draft.frame(f"reference-{label}-tonight", pair.tonight)
        draft.frame(f"reference-{label}-stored", pair.stored)
        told[label] = {
            "run_id": found.run_id,
            "recipe": found.name,
            "day": f"{found.as_of:%Y-%m-%d}",
        }
    skipped = accepted[-1:] if accepted and chosen.get("last") != accepted[-1] else ()
    for night_before in skipped:
        told["skipped"] = (
            f"the scorer of {night_before.as_of:%Y-%m-%d} was trained into tonight's holdout"
        )
    return told


def _cutoff(run: Run) -> datetime:
    """Return the instant until which a run's evaluation scorers were trained."""
    return parse_instant(run.json("features", "split")["holdout"][0])


def _segments(run: Run) -> pl.DataFrame | None:
    """Return the cleaned users' segments, ``None`` where nobody is known by more than events."""
    users = run.frame("features", "users").select(c.USER_ID, c.SEGMENT)
    return users if users.height else None


def _categories(run: Run) -> pl.DataFrame | None:
    """Return the cleaned items' categories, ``None`` where no item has one."""
    items = run.frame("features", "items").select(c.ITEM_ID, c.CATEGORIES)
    return items if (items[c.CATEGORIES].list.len() > 0).any() else None
