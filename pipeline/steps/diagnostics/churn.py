"""Churn of a promotion for users without new events, and the seed noise in it.

Guarantees: measured once per run on the refit's lists, before they go live; a measurement that is
not possible has a reason in words and stops no run.

The cold check measures it, because it needs most of these lists anyway and runs before `register`,
which closes the MLflow run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import AsOf, Progress
from pipeline.data.matrix import History
from pipeline.errors import NightjarError
from pipeline.evaluation.fits import QUICK_SECONDS
from pipeline.models.contract import Scorer
from pipeline.serving.churn import (
    DATA,
    EARLIER,
    FIRST,
    RECIPE,
    STOCK,
    churn,
    idle,
    lists_of_users,
)
from pipeline.serving.publish import chain, trim, unavailable, unpatched
from pipeline.serving.recommend import model_lists
from pipeline.serving.withdrawal import without_withdrawals
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import REFIT, CostFile, train_step
from pipeline.workspace.ledger import Champion
from pipeline.workspace.memory import refuse_too_large
from pipeline.workspace.night import Night
from pipeline.workspace.publications import read_lists
from pipeline.workspace.release_artifacts import ChurnFile, ColdCheckFile, SeedNoise
from pipeline.workspace.run_files import promoted, read_history, read_scorer, read_split, trained

MIN_IDLE_USERS: Final = 20
"""Number of users without new events below which their overlap is recorded but not compared."""
_ENTRIES: Final = (c.USER_ID, c.POSITION, c.ITEM_ID)
"""Columns that are compared; the other ones take more memory than these."""
_SEED: Final = 1
_SAMPLE: Final = 5_000
"""Number of users whose lists are compared between two recipes, at most."""


def measure(night: Night, progress: Progress) -> ChurnFile | None:
    """Compare the refit's lists with the live ones.

    Parameters
    ----------
    night
        Run with a committed refit.

    Returns
    -------
    Churn of the first entries and of whole lists; None if no lists are live.
    """
    champion = night.champion
    if champion is None:
        return None
    progress("churn of users without new events")
    live, users = _live_lists(night, champion)
    length = night.config.recommend.length
    gone = unavailable(night.table("items"))
    repeat = read_split(night.run).task == "repeat"
    rows = _rows_of(night, users)

    def lists(scorer: Scorer) -> pl.DataFrame:
        return model_lists(scorer.score, rows, gone, repeat=repeat, length=length)

    def overlap(other: Scorer) -> float | None:
        return churn(fresh, lists(other), users, k=FIRST).overlap

    scorer = read_scorer(night.run, REFIT)
    fresh = lists(scorer) if users else live.clear()
    before, made = night.ws.runs.open(champion.run_id), live
    # The run keeps spare entries behind the published ones, until its files are deleted.
    if before.committed("recommend") is not None:
        made = before.frame("recommend", "lists", _ENTRIES)
    stock = trim(lists_of_users(made, users), gone, length)
    # Changes without another cause come from the new recipe, or else from new data.
    rest = RECIPE if promoted(night).kind == "switch" else DATA
    # The seed noise costs another training: it is skipped without users to compare.
    noise = SeedNoise(rate=None, reason="not measured: no user is without new events")
    if users:
        noise = _seed_noise(night, scorer, overlap, progress)
    return ChurnFile(
        publication_id=champion.publication_id,
        users=len(users),
        at={
            k: churn(live, fresh, users, k=k, replays=[(STOCK, stock)], rest=rest)
            for k in sorted({FIRST, length})
        },
        seed_noise=noise,
    )


def _live_lists(night: Night, champion: Champion) -> tuple[pl.DataFrame, list[str]]:
    """Return the entries of the live lists, and the users without new events."""
    chained = chain(night.ws.lake.read("publications"), champion.publication_id)
    # A patch that only removes items does not mean that the user has new events.
    shown = read_lists(night.ws, without_withdrawals(chained))
    live = unpatched(shown, champion.publication_id)  # a patched user has new events
    users = idle(live, night.events(c.USER_ID, c.TIMESTAMP), champion.as_of)
    return live.select(_ENTRIES), users


def _rows_of(night: Night, users: Sequence[str]) -> History:
    history = History.from_arrays(night.run.arrays(REFIT, "history"))
    return history.take(np.flatnonzero(np.isin(history.user_ids, users)))


def recipe_overlap(night: Night, first: str, second: str) -> float | None:
    """Compare the evaluation lists of two recipes of a run: they lack the days of its holdout.

    Parameters
    ----------
    night
        Run with both recipes trained.
    first, second
        Names of the recipes.

    Returns
    -------
    Share of the first entries that both list; None without entries.
    """
    sides = [(night.run, train_step(name)) for name in (first, second)]
    return _evaluation_overlap(night, sides, read_history(night.run, "train").user_ids)


def fit_overlap(night: Night) -> float | None:
    """Compare the evaluation lists of the live recipe in this run and in the run that is live.

    Users with the same number of events in both windows are compared: they have no new ones.

    Returns
    -------
    Share of the first entries that both list; None without entries, or without the files.
    """
    champion = night.champion
    if champion is None or night.champion_name not in trained(night):
        return None
    live, step = night.ws.runs.open(champion.run_id), train_step(champion.name)
    if live.committed(step) is None or live.committed("features") is None:
        return None
    sides = [(live, step), (night.run, step)]
    before, now = (
        pl.DataFrame({c.USER_ID: history.user_ids.tolist(), "events": np.diff(history.indptr)})
        for history in (read_history(run, "train") for run, _ in sides)
    )
    users = before.join(now, on=(c.USER_ID, "events"), how="semi")[c.USER_ID].sort()
    return _evaluation_overlap(night, sides, np.asarray(users.to_list(), dtype=np.str_))


def _evaluation_overlap(
    night: Night, sides: Sequence[tuple[Run, str]], users: NDArray[np.str_]
) -> float | None:
    """Compare the lists of two trained recipes for a sample of users, each with its own history."""
    users = users[:: max(1, len(users) // _SAMPLE)]
    gone, repeat = unavailable(night.table("items")), read_split(night.run).task == "repeat"

    def lists(run: Run, step: str) -> pl.DataFrame:
        # A scorer may also list items without an event. One scorer at a time is in memory.
        scorer = read_scorer(run, step)
        history = read_history(run, "train").reindex_items(scorer.item_ids)
        rows = history.take(np.flatnonzero(np.isin(history.user_ids, users)))
        return model_lists(scorer.score, rows, gone, repeat=repeat, length=FIRST)

    before, after = (lists(run, step) for run, step in sides)
    return churn(before, after, users.tolist(), k=FIRST).overlap


def earlier_overlaps(night: Night) -> tuple[float, ...]:
    """Return the overlaps of earlier refreshes of the live recipe, oldest first.

    Older lists differ more. A refresh of lists of age a counts with its overlap to the power of A/a
    if the live ones have a greater age A, as if equal shares were lost in equal times: otherwise
    damage would go live as soon as a stopped run has made the live lists older than usual. Runs
    whose files were deleted are left out.
    """
    accepted = night.history.published(night.as_of)
    age = night.as_of - AsOf(accepted[-1].as_of)
    overlaps = []
    for before, later in pairwise(accepted):
        if not before.recipe.hash == later.recipe.hash == accepted[-1].recipe.hash:
            continue
        if later.as_of <= before.as_of:  # the same night again, with another config
            continue
        check = night.ws.runs.open(later.run_id).find(ColdCheckFile)
        if check is not None and check.overlap is not None and check.idle >= MIN_IDLE_USERS:
            overlaps.append(check.overlap ** max(1.0, age / (later.as_of - before.as_of)))
    return tuple(overlaps[-EARLIER:])


def churn_metrics(run: Run) -> dict[str, float]:
    """Return a run's churn as metrics: overlaps, causes and seed noise of the first entries."""
    file = run.find(ChurnFile)
    if file is None:
        return {}
    values = {f"churn.overlap_at_{k}": shares.overlap for k, shares in file.at.items()}
    values |= {f"churn.{cause}": share for cause, share in file.at[FIRST].lost.items()}
    values |= {"churn.users": float(file.users), "churn.seed_noise": file.seed_noise.rate}
    return {name: float(value) for name, value in values.items() if value is not None}


def _seed_noise(
    night: Night, scorer: Scorer, overlap: Callable[[Scorer], float | None], progress: Progress
) -> SeedNoise:
    """Return the share of the first entries that a refit with another seed changes."""
    name = str(promoted(night).recipe)
    recipe = night.recipes[name]
    if not recipe.seeded:
        return SeedNoise(rate=0.0, reason="no seed noise")
    cost = night.run.find(CostFile, REFIT)
    if cost is None or cost.fit_seconds > QUICK_SECONDS:
        took = "an unknown time" if cost is None else f"{cost.fit_seconds:,.0f} s"
        reason = f"not measured: the refit took {took}, more than {QUICK_SECONDS:.0f} s"
        return SeedNoise(rate=None, reason=reason)
    history = read_history(night.run, "full")
    try:
        refuse_too_large(name, recipe, history, night.config.train)
        other = recipe.train_again(
            history, scorer, _SEED, lambda text: progress(f"seed noise: {text}")
        )
    except NightjarError as error:
        return SeedNoise(rate=None, reason=f"not measured: {error.sentence}")
    kept = overlap(other)
    return SeedNoise(rate=None if kept is None else 1.0 - kept, reason=variation(night, name))


def variation(night: Night, name: str) -> str | None:
    """Return a remark for compared lists of a recipe that is not deterministic.

    Parameters
    ----------
    night, name
        A run, and the name of one of its recipes.
    """
    if night.recipes[name].capabilities.deterministic:
        return None
    return f"{name} is not deterministic: another fit on equal data may give other lists"
