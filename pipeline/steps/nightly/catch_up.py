"""Evaluates blocks of days before tonight's, where nightly runs are rare.

Each recipe is trained up to the beginning of a block and evaluated on the block, as a nightly run
at its end would have done; the gate adds the results to the e-processes.

Guarantees: a block that is committed is not evaluated again; no event at or after the end of a
block is read; a recipe that fails is left out of the block.
"""

from __future__ import annotations

from pipeline import columns as c
from pipeline.base import Interval, Progress
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.errors import NightjarError
from pipeline.evaluation import fits
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.evaluation.gate.processes import missing_blocks, processes_of
from pipeline.steps.diagnostics.training_cost import fit
from pipeline.steps.nightly.gate_history import gate_history_of
from pipeline.workspace.artifacts import EarlierBlockFile, RecipeEvaluation, SplitFile
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import earlier_step, read_block, read_split, trained


def catch_up(night: Night, progress: Progress) -> None:
    """Evaluate the missing blocks of a run; none without `gate.catch_up_blocks`.

    Parameters
    ----------
    night, progress
        The run, and a receiver of short texts.
    """
    for number, block in enumerate(_blocks(night)):
        if night.run.committed(earlier_step(number)) is None:
            _evaluate(night, number, block, progress)


def _blocks(night: Night) -> tuple[Interval, ...]:
    count = night.config.gate.catch_up_blocks
    if not count or night.champion_name is None:
        return ()
    holdout, past = night.run.read(SplitFile).holdout, gate_history_of(night)
    champion = night.recipes[night.champion_name].hash
    candidates = {night.recipes[name].hash for name in trained(night)} - {champion}
    processes = processes_of(past, champion, candidates, holdout.end)
    return missing_blocks(processes.values(), holdout, past.excused, count)


def _evaluate(night: Night, number: int, block: Interval, progress: Progress) -> None:
    split, history = read_block(night, block, read_split(night.run))
    recipes = {}
    with night.run.draft(earlier_step(number)) as draft:
        if history is not None:
            for name in trained(night):
                progress(f"earlier days from {block.start:%Y-%m-%d}: {name}")
                try:
                    evaluation, count = _fit(night, name, history, split, progress)
                except NightjarError as error:
                    progress(f"{name} is left out: {error.sentence}")
                    continue
                draft.frame(f"users-{name}", evaluation.users)
                recipes[name] = RecipeEvaluation(
                    metrics=evaluation.metrics, coverage=evaluation.coverage, fits=count
                )
        draft.write(EarlierBlockFile(holdout=block, users=split.n_users, recipes=recipes))
        draft.rows = split.n_users


def _fit(
    night: Night, name: str, history: History, split: Split, progress: Progress
) -> tuple[Evaluation, int]:
    """Train a recipe before a block; return its evaluation on it, and the number of fits."""
    recipe, config = night.recipes[name], night.config
    scorer, _ = fit(name, recipe, history, config.train, progress)
    more = fits.further(recipe, history, scorer, users=split.n_users)
    users = night.run.frame("features", "users").select(c.USER_ID, c.SEGMENT)
    segments, k = users if users.height else None, config.recommend.length
    scorers = (scorer, *more)
    evaluations = [evaluate(s, history, split, k=k, segments=segments) for s in scorers]
    return fits.averaged(evaluations), len(scorers)
