"""Weekly healthy nights of a shop, each decided by the gate's own code, without any publication.

A night trains the baselines and the learned recipes on the days before its holdout, evaluates them,
compares the champion with stored scorers of accepted nights, applies the data checks on volume and
activity, and decides. On the first night the recipe with the highest mean is put live by hand, so
that learned recipes are champions in small shops as well; every switch is the gate's own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import beta

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gate_figures import Figure, at_most, shown
from benchmarks.gate_shops import DAY, Shop
from pipeline import columns as c
from pipeline.base import Interval, Progress
from pipeline.data.matrix import History
from pipeline.data.split import PinnedTask, Split, SplitConfig, before, split
from pipeline.data.targets import Task
from pipeline.data.validate.activity import ActivityConfig, judge_activity
from pipeline.data.validate.checks import DataCheck
from pipeline.data.validate.returns import ReturnsConfig, judge_returns
from pipeline.data.validate.volume import VolumeConfig, judge_volume
from pipeline.evaluation.evaluate import evaluate, evaluate_stored
from pipeline.evaluation.gate import (
    Decision,
    EvaluatedRecipe,
    Evidence,
    GateConfig,
    GateHistory,
    Reference,
    build_gate_history,
    decide,
)
from pipeline.evaluation.gate.accept import anchor_from
from pipeline.evaluation.gate.rules import mean
from pipeline.evaluation.holdout import lists_of, rows_of
from pipeline.models.als import Als
from pipeline.models.blend import Blend
from pipeline.models.contract import Recipe, Scorer
from pipeline.models.personal_frequency import PersonalFrequency
from pipeline.models.popularity import DecayedPopularity, Popularity
from pipeline.serving.churn import EARLIER, least_overlap
from pipeline.steps.diagnostics.churn import MIN_IDLE_USERS

CONFIG = GateConfig()
TASKS: tuple[Task, ...] = ("discovery", "repeat")
K = 10
MEASURED = (
    "activity_items",
    "activity_users",
    "returning_users",
    "known_users",
    "repeated_items",
)
"""Data checks whose lowest ratios are printed."""
WEEK = timedelta(days=7)
GOAL = 3
"""Blocked nights of at least 400, at most."""


def learned() -> dict[str, Recipe]:
    """Return the learned recipes, of which the blend also needs personal frequency."""
    als = Als(factors=32, regularization=5.0, half_life_days=60.0, device="cpu")
    own = PersonalFrequency(half_life_days=60.0)
    blend = Blend(parts={"als": als, "own": own}, weights={"als": 1.0, "own": 0.5})
    return {"als": als, "blend": blend}


RECIPES: dict[str, Recipe] = {
    "popularity": Popularity(),
    "decayed_popularity": DecayedPopularity(),
    "personal_frequency": PersonalFrequency(half_life_days=60.0),
    **learned(),
}
FALLBACK = "decayed_popularity"
OF_TASK: Mapping[Task, tuple[str, ...]] = {
    "discovery": ("popularity", "decayed_popularity", "als"),
    "repeat": tuple(RECIPES),
}


@dataclass(frozen=True)
class Fit:
    """Scorers of one training window; both tasks use them."""

    cutoff: datetime
    history: History
    scorers: Mapping[str, Scorer]

    @classmethod
    def of(cls, shop: Shop, cutoff: datetime) -> Fit:
        """Train every recipe; the ALS of the blend is the ALS itself."""
        history = shop.history(cutoff)
        scorers = {name: recipe.train(history) for name, recipe in RECIPES.items() if name != "als"}
        blend = scorers["blend"]
        return cls(history.end, history, {**scorers, "als": blend.parts["als"]})  # type: ignore[attr-defined]

    def emptied(self) -> Fit:
        """Return the window without users and scorers."""
        return Fit(self.cutoff, self.history.take(np.zeros(0, np.int64)), {})


@dataclass(frozen=True, eq=False)
class Night:
    """A decided night.

    Attributes
    ----------
    fit
        The training window before its holdout.
    overlap, idle
        Share of the first ten entries of users without new events that the last accepted night's
        fit of this recipe lists as well, and their number; None without such a night.
    """

    as_of: datetime
    decision: Decision
    checks: tuple[DataCheck, ...]
    fit: Fit
    overlap: float | None
    idle: int


def weeks(
    shop: Shop,
    tasks: Sequence[Task],
    progress: Progress,
    limit: int | None = None,
    *,
    grows: bool = True,
) -> dict[Task, list[Night]]:
    """Decide all weeks of a shop in some tasks, oldest first.

    Parameters
    ----------
    shop
        Purchases.
    tasks
        Whether lists may repeat items.
    progress
        Receives a line for each night.
    limit
        Number of weeks, the newest ones; None: all.
    grows
        Whether a holdout grows after a night with too few users of the stored window (B1).
    """
    nights: dict[Task, list[Night]] = {task: [] for task in tasks}
    for as_of in _ends(shop, limit):
        fits: dict[datetime, Fit] = {}
        for task in tasks:
            part = _part(shop, task, as_of, nights[task], grows)
            if part.cutoff not in fits:
                fits[part.cutoff] = Fit.of(shop, part.cutoff)
            night = decided(shop, task, as_of, part, fits[part.cutoff], nights[task])
            nights[task].append(night)
            kept = "" if night.overlap is None else f"; overlap {night.overlap:.3f} of {night.idle}"
            progress(f"{shop.name}, {task}, {as_of:%Y-%m-%d}: {night.decision.sentence}{kept}")
        for task in tasks:
            nights[task] = _without_old_fits(nights[task], as_of)
    return nights


def _ends(shop: Shop, limit: int | None) -> list[datetime]:
    """Return the as-of instants of the weeks, oldest first."""
    count = (shop.end - shop.begin - shop.warm * WEEK) // WEEK
    return [shop.end - back * WEEK for back in range(min(count, limit or count), -1, -1)]


def check_ratios(
    shops: Iterable[Shop], progress: Progress, limit: int | None = None
) -> list[Figure]:
    """Return the lowest figures of the data checks over all weeks, without training.

    Parameters
    ----------
    shops, progress, limit
        As for `weeks`.
    """
    figures = []
    for shop in shops:
        weeks = [_checks(shop, as_of, ()) for as_of in _ends(shop, limit)]
        progress(f"{shop.name}: {len(weeks)} weeks")
        figures += _lowest(shop.name, weeks)
        failed = Counter(check.name for checks in weeks for check in checks if not check.passed)
        named = ", ".join(f"{name} {count}" for name, count in sorted(failed.items())) or "none"
        figures.append(shown(f"{shop.name}: failed checks in {len(weeks)} weeks", named))
    return figures


def _lowest(name: str, weeks: Sequence[Sequence[DataCheck]]) -> list[Figure]:
    """Return the lowest ratio of each check."""
    figures = []
    for rule in MEASURED:
        ratios = [
            check.figure
            for checks in weeks
            for check in checks
            if check.name == rule and check.figure is not None
        ]
        if ratios:
            what = f"{name}: lowest ratio of {rule} in {len(ratios)} weeks"
            figures.append(shown(what, f"{min(ratios):.2f}"))
    return figures


def _without_old_fits(nights: Sequence[Night], as_of: datetime) -> list[Night]:
    """Drop the fits that no later night is compared with."""
    accepted = [night for night in nights if night.decision.promotes]

    def needed(night: Night) -> bool:
        return as_of - night.as_of <= 46 * DAY or night in accepted[-5:]

    return [night if needed(night) else replace(night, fit=night.fit.emptied()) for night in nights]


def _part(shop: Shop, task: Task, as_of: datetime, past: Sequence[Night], grows: bool) -> Split:
    later = [night for night in past if night.decision.kind != "first"]
    days = later[-1].decision.block.length.days if later else None
    config = SplitConfig(task=task, target_kinds=("purchase",))
    events = shop.events.filter(before(as_of))
    waited = grows and bool(past) and past[-1].decision.waiting
    pinned = PinnedTask(holdout_days=days, waited=waited)
    return split(events, as_of, config, first=not past, pinned=pinned)


def decided(
    shop: Shop, task: Task, as_of: datetime, part: Split, fit: Fit, past: Sequence[Night]
) -> Night:
    """Evaluate a night, and apply the gate."""
    blocked = [night.decision.block for night in past if night.decision.kind == "block"]
    checks = _checks(shop, as_of, blocked)
    accepted = [night for night in past if night.decision.promotes]
    champion = accepted[-1].decision.recipe if accepted else None
    evidence = Evidence(
        k=K,
        task=task,
        holdout=part.holdout,
        judged=tuple(_evaluated(name, fit, part) for name in OF_TASK[task]),
        expected=OF_TASK[task],
        champion=champion,
        checks=checks,
        past=build_gate_history([night.decision for night in past]),
        **_references(accepted, as_of, champion, fit, part),
    )
    decision = decide(evidence, CONFIG)
    if not past:
        decision = _by_hand(decision, max(evidence.judged, key=mean))
    overlap, idle = _overlap(accepted, champion, fit, task)
    return Night(as_of, decision, checks, fit, overlap, idle)


def _by_hand(decision: Decision, best: EvaluatedRecipe) -> Decision:
    """Put a recipe live, with its anchor, as a user can."""
    anchor = anchor_from(decision, GateHistory(), best.recipe_hash)
    return replace(
        decision, kind="first", recipe=best.name, recipe_hash=best.recipe_hash, anchor=anchor
    )


def _checks(shop: Shop, as_of: datetime, blocked: Sequence[Interval]) -> tuple[DataCheck, ...]:
    events = shop.events.filter(before(as_of))
    volume = judge_volume(events[c.TIMESTAMP], as_of, VolumeConfig())
    activity = judge_activity(events, as_of, blocked, ActivityConfig())
    return (*volume, *activity, *judge_returns(events, as_of, blocked, ReturnsConfig()))


def _evaluated(name: str, fit: Fit, part: Split) -> EvaluatedRecipe:
    evaluation, recipe = evaluate(fit.scorers[name], fit.history, part, k=K), RECIPES[name]
    rank = recipe.capabilities.baseline
    return EvaluatedRecipe(name, recipe.hash, rank, evaluation.users, evaluation.coverage, K)


def _references(
    accepted: Sequence[Night], as_of: datetime, champion: str | None, fit: Fit, part: Split
) -> dict[str, Reference]:
    """Return the last accepted night and the one nearest to a month ago, as a nightly run does."""
    able = [night for night in accepted if night.fit.cutoff <= part.cutoff and night.fit.scorers]
    if champion is None or not able:
        return {}
    chosen = {"last": able[-1]}
    near = [night for night in able if 21 * DAY <= as_of - night.as_of <= 45 * DAY]
    if near:
        chosen["month"] = min(near, key=lambda night: abs(as_of - night.as_of - 30 * DAY))
    references = {}
    for label, night in chosen.items():
        pair = evaluate_stored(
            night.fit.scorers[str(night.decision.recipe)],
            night.fit.history,
            fit.scorers[champion],
            fit.history,
            part,
            k=K,
            fallback=fit.scorers[FALLBACK],
        )
        references[label] = Reference(f"{night.as_of:%Y-%m-%d}", pair.tonight, pair.stored)
    return references


def _overlap(
    accepted: Sequence[Night], champion: str | None, fit: Fit, task: Task
) -> tuple[float | None, int]:
    """Return the overlap with the last accepted night's lists, for users without new events."""
    last = accepted[-1] if accepted else None
    if last is None or champion != last.decision.recipe or last.fit.cutoff >= fit.cutoff:
        return None, 0
    users = idle_users(last.fit, fit)
    if not users:
        return None, 0
    return overlap_of((last.fit, champion), (fit, champion), users, task), len(users)


def idle_users(before: Fit, now: Fit) -> list[str]:
    """Return the users without new events between two training windows."""
    old = _events(before.history)
    return sorted(user for user, count in _events(now.history).items() if old.get(user) == count)


def overlap_of(
    before: tuple[Fit, str], now: tuple[Fit, str], users: Sequence[str], task: Task
) -> float:
    """Return the share of the first entries of one recipe's lists that another's contain.

    Parameters
    ----------
    before, now
        A fit and the name of a recipe.
    users
        Users of both training windows.
    task
        Whether lists may repeat items.
    """
    entries = []
    for fit, name in (before, now):
        history = fit.history.take(rows_of(users, fit.history.user_ids))
        lists = lists_of(
            fit.scorers[name], history, K, history.seen if task == "discovery" else None
        )
        owner = np.repeat(np.arange(len(users)), np.diff(lists.indptr))
        entries.append(
            pl.DataFrame({"user": owner, "item": [str(i) for i in history.item_ids[lists.item]]})
        )
    kept = entries[0].join(entries[1], on=("user", "item"), how="semi").height
    return kept / max(entries[0].height, 1)


def _events(history: History) -> dict[str, int]:
    """Return the number of events of each user."""
    return dict(zip(history.user_ids.tolist(), np.diff(history.indptr).tolist(), strict=True))


def summary(nights: Mapping[str, Sequence[Night]]) -> list[Figure]:
    """Return blocked nights by rule, with limits of Clopper and Pearson, by series and in all."""
    figures, total, blocked_in_all = [], 0, 0
    for name, series in nights.items():
        later = series[1:]
        blocked = [night for night in later if night.decision.kind == "block"]
        rules = Counter(
            rule.name
            for night in blocked
            for rule in night.decision.rules
            if rule.outcome in ("fail", "missing") and not rule.name.startswith("switch.")
        )
        named = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items())) or "none"
        kinds = Counter(night.decision.kind for night in later)
        total, blocked_in_all = total + len(later), blocked_in_all + len(blocked)
        figures.append(
            shown(
                f"{name}: blocked of {len(later)} healthy nights, by rule: {named}",
                f"{len(blocked)} ({_limits(len(blocked), len(later))})",
            )
        )
        figures.append(
            shown(
                f"{name}: champions {' > '.join(_champions(series))}; decisions",
                ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
            )
        )
        figures += _lowest(name, [night.checks for night in later])
        overlaps = [
            night.overlap for night in later if night.overlap is not None and night.idle >= 20
        ]
        if overlaps:
            text = f"{min(overlaps):.2f}, {np.median(overlaps):.2f}, {max(overlaps):.2f}"
            figures.append(shown(f"{name}: overlap of weekly lists, lowest, median, highest", text))
            figures.append(
                shown(f"{name}: overlaps that the cold check would stop", str(_stopped(later)))
            )
    what = f"all series: blocked of {total} healthy nights ({_limits(blocked_in_all, total)})"
    return [*figures, at_most(what, blocked_in_all, GOAL)]


def _stopped(series: Sequence[Night]) -> int:
    """Count the overlaps below the least one by those of earlier weeks with the same champion."""
    earlier: list[float] = []
    stopped, champion = 0, None
    for night in series:
        if night.decision.recipe != champion:
            champion, earlier = night.decision.recipe, []
        if night.overlap is None or night.idle < MIN_IDLE_USERS or not night.decision.promotes:
            continue
        stopped += night.overlap < least_overlap(earlier[-EARLIER:], night.idle)
        earlier.append(night.overlap)
    return stopped


def _champions(series: Sequence[Night]) -> list[str]:
    names: list[str] = []
    for night in series:
        if night.decision.promotes and (not names or names[-1] != night.decision.recipe):
            names.append(str(night.decision.recipe))
    return names


def _limits(count: int, total: int) -> str:
    """Return the 95 % interval of Clopper and Pearson, and the one-sided upper limit."""
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    upper = beta.ppf(0.95, count + 1, total - count) if count < total else 1.0
    return f"{low:.1%} to {high:.1%}, at most {upper:.1%}"
