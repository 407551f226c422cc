"""One recipe on newer data: healthy weeks, weeks that lost data, and 60 nights in a row."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gate_figures import Figure, at_most, shown
from benchmarks.gate_fits import BLEND, DAY, K, World, fits_of
from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.data.split import PinnedTask, Split, SplitConfig, before, split
from pipeline.data.validate.checks import DataCheck, Status
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
from pipeline.evaluation.gate.refresh import judge_refresh
from pipeline.models.als import Als
from pipeline.models.blend import Blend
from pipeline.models.contract import Recipe, Scorer
from pipeline.models.personal_frequency import PersonalFrequency
from pipeline.models.popularity import DecayedPopularity, Popularity
from pipeline.models.svd import Svd

CONFIG = GateConfig()
HOLDOUT = 14
EVERY = 6
HEALTHY = 34
"""Number of nights, `EVERY` days apart."""
MONTH = 5
"""Number of nights that make about a month."""
DAMAGED = 8
APART = 10
LEARNT = "learnt from"


@dataclass(frozen=True)
class Fit:
    """A training window and the scorers of both recipes."""

    history: History
    scorers: Mapping[str, Scorer]


def fitted(shop: World, cut: datetime) -> Fit:
    """Train both recipes on the events before a cut."""
    history = shop.history(cut)
    return Fit(history, fits_of(history))


@dataclass(frozen=True)
class Paired:
    """A recipe, its seed SD, and a night's holdout."""

    name: str
    tau: float
    part: Split

    def failed_rules(
        self, tonight: Fit, last: Fit, month: Fit | None = None
    ) -> tuple[set[str], float]:
        """Return the paired rules that block a refresh, and the lift over the last fit."""
        newest = self._reference(tonight, last)
        judged = (
            EvaluatedRecipe(self.name, self.name, None, newest.tonight, 1.0, K, seed_sd=self.tau),
            # Rules of the baseline itself are not read.
            EvaluatedRecipe("baseline", "baseline", 0, newest.tonight, 1.0, K),
        )
        evidence = Evidence(
            k=K,
            task="repeat",
            holdout=self.part.holdout,
            judged=judged,
            expected=(),
            champion=self.name,
            checks=(),
            last=newest,
            month=None if month is None else self._reference(tonight, month),
        )
        refresh = judge_refresh(evidence, judged[0], CONFIG)
        lift = refresh.rules[0].figure
        assert lift is not None
        failed = {rule.name.split(".")[1] for rule in refresh.rules if rule.outcome == "fail"}
        return failed & {"last", "month", "slices"}, lift

    def _reference(self, tonight: Fit, stored: Fit) -> Reference:
        pair = evaluate_stored(
            stored.scorers[self.name],
            stored.history,
            tonight.scorers[self.name],
            tonight.history,
            self.part,
            k=K,
        )
        return Reference("an earlier night", pair.tonight, pair.stored)


def refreshes(shop: World, taus: Mapping[str, float], progress: Progress) -> list[Figure]:
    """Evaluate healthy nights, then nights that lost half of their events."""
    return _healthy(shop, taus, progress) + _damaged(shop, taus, progress)


def _healthy(shop: World, taus: Mapping[str, float], progress: Progress) -> list[Figure]:
    newest = shop.end - HOLDOUT * DAY
    cuts = [newest - EVERY * DAY * back for back in range(HEALTHY - 1, -1, -1)]
    fits: list[Fit] = []
    causes: Counter[str] = Counter()
    pairs = months = 0
    for number, cut in enumerate(cuts):
        progress(f"{shop.name}: healthy night {number + 1} of {HEALTHY}")
        tonight = fitted(shop, cut)
        part = shop.split(cut + HOLDOUT * DAY, HOLDOUT)
        for name, tau in taus.items() if fits else ():
            month = fits[-MONTH] if len(fits) >= MONTH else None
            failed, _ = Paired(name, tau, part).failed_rules(tonight, fits[-1], month)
            causes.update(failed)
            pairs, months = pairs + 1, months + (month is not None)
        fits = [*fits, tonight][-MONTH:]
    label = "healthy refreshes blocked,"
    return [
        at_most(f"{label} against the last night, of {pairs}", causes["last"], 0),
        at_most(f"{label} against a month ago, of {months}", causes["month"], 0),
        at_most(f"{label} by a slice, of {pairs}", causes["slices"], 0.02 * pairs),
    ]


def _damaged(shop: World, taus: Mapping[str, float], progress: Progress) -> list[Figure]:
    newest = shop.end - HOLDOUT * DAY
    by_damage: dict[tuple[str, str], list[tuple[bool, float]]] = {}
    for number in range(DAMAGED):
        progress(f"{shop.name}: night {number + 1} of {DAMAGED} with half of its events")
        cut = newest - APART * DAY * number
        random = np.random.default_rng(number)
        half = replace(
            shop, events=shop.events.filter(pl.Series(random.random(len(shop.events)) < 0.5))
        )
        last, tonight = fitted(shop, cut - DAY), fitted(half, cut)
        as_of = cut + HOLDOUT * DAY
        known = pl.col(c.USER_ID).is_in(tonight.history.user_ids.tolist())
        whole = shop.split(as_of, HOLDOUT)
        parts = {
            LEARNT: replace(whole, truth=whole.truth.filter(known)),
            f"{LEARNT} and evaluated on": half.split(as_of, HOLDOUT),
        }
        for lost, part in parts.items():
            for name, tau in taus.items():
                failed, change = Paired(name, tau, part).failed_rules(tonight, last)
                by_damage.setdefault((name, lost), []).append(("last" in failed, change))
    return [_share_detected(name, lost, nights) for (name, lost), nights in by_damage.items()]


def _share_detected(name: str, lost: str, nights: Sequence[tuple[bool, float]]) -> Figure:
    seen, changes = sum(blocked for blocked, _ in nights), [change for _, change in nights]
    span = f"{min(changes):+.1%} to {max(changes):+.1%}"
    what = f"{name}, half of the events {lost} lost ({span}): found"
    label = f"{seen} of {len(nights)}"
    if (name, lost) != (BLEND, LEARNT):
        return shown(what, label)
    return Figure(what, label, f"{DAMAGED} of {DAMAGED}", seen == DAMAGED)


# Nights in a row ----------------------------------------------------------------------------------

NIGHTS = 60
CHAMPION = "blend"
UNCHANGED: dict[str, Recipe] = {
    "popularity": Popularity(),
    "decayed_popularity": DecayedPopularity(),
    "personal_frequency": PersonalFrequency(),
    CHAMPION: Blend(
        parts={
            "als": Als(half_life_days=60.0, device="cpu"),
            "own": PersonalFrequency(),
            "svd": Svd(factors=256, half_life_days=120.0),
        },
        weights={"als": 0.6, "own": 1.0, "svd": 1.0},
        recency_boost=0.5,
    ),
}
"""The baselines, and the default blend as a first night of Online Retail selects it."""


@dataclass(frozen=True)
class Accepted:
    """A night whose model went live."""

    as_of: datetime
    cutoff: datetime
    history: History
    scorer: Scorer


def nights(shop: World, progress: Progress) -> list[Figure]:
    """Evaluate one recipe on 60 nights, each decided by all rules."""
    decisions: list[Decision] = []
    accepted: list[Accepted] = []
    days = None
    for number in range(NIGHTS + 1):
        as_of = shop.end - DAY * (NIGHTS - number)
        first = not accepted
        events = shop.events.filter(before(as_of))
        pinned = PinnedTask(holdout_days=days)
        part = split(events, as_of, SplitConfig(task="repeat"), first=first, pinned=pinned)
        history = shop.history(part.cutoff)
        scorers = {name: recipe.train(history) for name, recipe in UNCHANGED.items()}
        evidence = Evidence(
            k=K,
            task="repeat",
            holdout=part.holdout,
            judged=tuple(_judged(name, s, history, part) for name, s in scorers.items()),
            expected=tuple(scorers),
            champion=None if first else CHAMPION,
            checks=(DataCheck("volume", Status.PASSED, None, None, "as before"),),
            past=build_gate_history(decisions),
            **_references(accepted, as_of, scorers[CHAMPION], history, part),
        )
        decision = decide(evidence, CONFIG)
        progress(f"{as_of:%Y-%m-%d} {decision.sentence}")
        if first:  # the study is of the nights after it
            decision = _by_hand(decision)
        decisions.append(decision)
        days = None if first else part.holdout_days
        if decision.recipe == CHAMPION and decision.promotes:
            accepted.append(Accepted(as_of, part.cutoff, history, scorers[CHAMPION]))
    later = decisions[1:]
    kept = [d for d in later if d.kind != "refresh"]
    rules = Counter(r.name for d in kept for r in d.rules if r.outcome in ("fail", "missing"))
    named = ", ".join(f"{name} {count}" for name, count in rules.most_common(3)) or "none"
    what = f"unchanged recipe over {len(later)} nights, share not refreshed (by {named})"
    return [at_most(what, len(kept) / len(later), 0.05, "{:.1%}")]


def _by_hand(decision: Decision) -> Decision:
    """Put the recipe live, with its anchor, as a user can."""
    champion = UNCHANGED[CHAMPION].hash
    return replace(
        decision,
        kind="first",
        recipe=CHAMPION,
        recipe_hash=champion,
        anchor=anchor_from(decision, GateHistory(), champion),
    )


def _judged(name: str, scorer: Scorer, history: History, part: Split) -> EvaluatedRecipe:
    evaluation = evaluate(scorer, history, part, k=K)
    recipe = UNCHANGED[name]
    baseline_rank = recipe.capabilities.baseline
    return EvaluatedRecipe(
        name, recipe.hash, baseline_rank, evaluation.users, evaluation.coverage, K
    )


def _references(
    accepted: Sequence[Accepted], as_of: datetime, tonight: Scorer, history: History, part: Split
) -> dict[str, Reference]:
    """Return the last accepted night and the one nearest to a month ago."""
    fits = [night for night in accepted if night.cutoff <= part.cutoff]
    if not fits:
        return {}
    chosen = {"last": fits[-1]}
    month = [n for n in fits if timedelta(days=21) <= as_of - n.as_of <= timedelta(days=45)]
    if month:
        chosen["month"] = min(month, key=lambda n: abs((as_of - n.as_of) - timedelta(days=30)))
    references = {}
    for label, night in chosen.items():
        pair = evaluate_stored(night.scorer, night.history, tonight, history, part, k=K)
        references[label] = Reference(f"{night.as_of:%Y-%m-%d}", pair.tonight, pair.stored)
    return references
