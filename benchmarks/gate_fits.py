"""Equal recipes on real purchases: the gate's rules between sixteen fits with different seeds.

One event for each user, item and day; a holdout of 28 days after each of five cuts, evaluated once
as a whole and once by weeks, with the same lists.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gate_figures import Figure, at_most, between, near, shown
from benchmarks.quality import completejourney, online_retail
from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.data.split import Split, SplitConfig, before, split
from pipeline.evaluation.calibrate import CUTOFFS, REPLICATES, Needed, calibrate, replay
from pipeline.evaluation.compare import difference, paired
from pipeline.evaluation.evaluate import NDCG, SLICE
from pipeline.evaluation.gate import GateConfig
from pipeline.evaluation.gate.e_process import opening_weight, threshold_of
from pipeline.evaluation.gate.records import BlockRecord, record_of
from pipeline.evaluation.gate.slice_rules import recorded_slice_rules
from pipeline.evaluation.holdout import rows_of
from pipeline.evaluation.seed_variance import ReplicateBlock, list_values, seed_spread
from pipeline.evaluation.slices import COLD, HOT, LAPSED, RECENT, WARM, user_slices
from pipeline.models.als import Als
from pipeline.models.blend import Blend
from pipeline.models.contract import Scorer
from pipeline.models.keyed_random import keyed_normal
from pipeline.models.personal_frequency import PersonalFrequency

Floats = NDArray[np.float64]

K = 10
FITS = 16
CUTS = 5
DAYS = 28
WEEK = 7
DAY = timedelta(days=1)
HALF_LIFE = 60.0
ALS, BLEND = "als", "blend"
CONFIG = GateConfig()
SEGMENTS = {"segment_10": (0.0, 0.1), "segment_5": (0.1, 0.15), "segment_2": (0.15, 0.17)}
"""Shares of the users, by a hash of their id."""


@dataclass(frozen=True)
class World:
    """A shop's purchases, at the start of their day, and the midnight after the last one."""

    name: str
    events: pl.DataFrame
    end: datetime

    @property
    def cuts(self) -> list[datetime]:
        """Ends of the training windows, oldest first."""
        return [self.end - DAYS * DAY * back for back in range(CUTS, 0, -1)]

    def history(self, until: datetime) -> History:
        """Return the training window before an instant."""
        past = self.events.filter(before(until)).with_columns(pl.lit(1.0, pl.Float32).alias(WEIGHT))
        return build_history(past, until)

    def split(self, as_of: datetime, days: int) -> Split:
        """Split off the last days before an instant as the holdout."""
        config = SplitConfig(holdout_days=days, holdout_days_options=(days,), task="repeat")
        return split(self.events.filter(before(as_of)), as_of, config, first=False)


def world(name: str, purchases: pl.DataFrame, least_buyers: int) -> World:
    """Keep one purchase per user, item and day, of items with at least `least_buyers` users."""
    events = (
        purchases.with_columns(pl.col("at").dt.truncate("1d").cast(c.INSTANT).alias(c.TIMESTAMP))
        .select(c.USER_ID, c.ITEM_ID, c.TIMESTAMP)
        .unique()
        .filter(pl.col(c.USER_ID).n_unique().over(c.ITEM_ID) >= least_buyers)
        .with_columns(pl.lit("purchase").alias(c.KIND), pl.lit(1.0).alias(c.VALUE))
        .sort(c.TIMESTAMP, c.USER_ID, c.ITEM_ID)
    )
    return World(name, events, events[c.TIMESTAMP][-1] + DAY)


WORLDS: dict[str, Callable[[Path], World]] = {
    "online-retail": lambda data: world("OR", online_retail(data), 1),
    "completejourney": lambda data: world("CJ", completejourney(data), 20),
}


def als(history: History) -> Als:
    """Return the recipe of GATE.md, whose alpha 1 multiplies unscaled cells; `Als` scales them."""
    cell = float(history.confidence(HALF_LIFE).data.mean(dtype=np.float64))
    return Als(
        factors=64,
        alpha=cell,
        regularization=5.0,
        iterations=10,
        half_life_days=HALF_LIFE,
        device="cpu",
    )


def blended(history: History) -> Blend:
    """Return that recipe with personal frequency at half its weight."""
    own = PersonalFrequency(half_life_days=HALF_LIFE)
    return Blend(parts={ALS: als(history), "own": own}, weights={ALS: 1.0, "own": 0.5})


def fits_of(history: History, replicate: int = 0) -> dict[str, Scorer]:
    """Train the blend, and take the ALS out of it."""
    blend = blended(history).train(history, replicate=replicate)
    return {ALS: blend.parts[ALS], BLEND: blend}


@dataclass(frozen=True)
class Slices:
    """Ids of the users of a holdout of 28 days, and the users in each slice."""

    ids: list[str]
    inside: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Bank:
    """Metric values of all fits.

    Attributes
    ----------
    months
        A block of 28 days after each cut, oldest first.
    weeks
        The same days in blocks of seven.
    slices
        Of `months`.
    blends
        ``(fits, n)`` values of the blend on `months`.
    """

    months: list[ReplicateBlock]
    weeks: list[ReplicateBlock]
    slices: list[Slices]
    blends: list[Floats]

    @property
    def seed_sds(self) -> dict[str, float]:
        """Relative SD over seeds of either recipe."""
        return {ALS: seed_spread([m.ndcg for m in self.months]), BLEND: seed_spread(self.blends)}


def bank(shop: World, progress: Progress) -> Bank:
    """Fit all replicates once, and keep their metric values by user."""
    months: list[ReplicateBlock] = []
    weeks: list[ReplicateBlock] = []
    slices: list[Slices] = []
    blends: list[Floats] = []
    for number, cut in enumerate(shop.cuts, start=1):
        history = shop.history(cut)
        month = shop.split(cut + DAYS * DAY, DAYS)
        ends = [cut + (start + WEEK) * DAY for start in range(0, DAYS, WEEK)]
        parts = [month, *(_known(shop.split(end, WEEK), history) for end in ends)]
        pairs: list[list[tuple[Floats, Floats]]] = [[] for _ in parts]
        of_blend = []
        for replicate in range(FITS):
            progress(f"{shop.name}: cut {number} of {CUTS}, fit {replicate + 1} of {FITS}")
            scorers = fits_of(history, replicate)
            of_blend.append(list_values(scorers[BLEND], history, month, K)[0])
            for values, part in zip(pairs, parts, strict=True):
                values.append(list_values(scorers[ALS], history, part, K))
        blocks = [_block(part, values) for part, values in zip(parts, pairs, strict=True)]
        months.append(blocks[0])
        weeks += blocks[1:]
        slices.append(_slices(history, month))
        blends.append(np.stack(of_blend))
    return Bank(months, weeks, slices, blends)


def _block(part: Split, values: Sequence[tuple[Floats, Floats]]) -> ReplicateBlock:
    values_ndcg, values_reversed = (np.stack(side) for side in zip(*values, strict=True))
    return ReplicateBlock(part.holdout, values_ndcg, values_reversed)


def _known(part: Split, history: History) -> Split:
    """Leave out users that a fit of some weeks before has not seen."""
    known = pl.col(c.USER_ID).is_in(history.user_ids.tolist())
    return replace(part, truth=part.truth.filter(known))


def _slices(history: History, part: Split) -> Slices:
    ids = part.users.to_list()
    judged = history.take(rows_of(ids, history.user_ids))
    inside = {n: user_slices(judged)[n] for n in (COLD, WARM, HOT, RECENT, LAPSED)}
    place = stats.norm.cdf(keyed_normal(judged.user_ids, 1, key="segment")[:, 0])
    inside |= {n: (place >= low) & (place < high) for n, (low, high) in SEGMENTS.items()}
    return Slices(ids, inside)


LEVELS = {
    "OR": (0.348, 0.340, 0.285, 0.279, 0.323),
    "CJ": (0.306, 0.282, 0.280, 0.274, 0.277),
}
USERS = {"OR": (708, 781, 948, 1088, 1300), "CJ": (1950,) * CUTS}
TAU = {"OR": 0.0019, "CJ": 0.0009}
SWITCHED = {"OR": 4, "CJ": 3}
"""Switches among 240 pairs of fits, at an e-value of 100."""


def equal_fits(shop: World, known: Bank, progress: Progress) -> list[Figure]:
    """Return the gate's figures for recipes that are equal."""
    figures: list[Figure] = []
    for number, month in enumerate(known.months):
        label = f"cut {number + 1}: "
        level = float(month.ndcg.mean())
        figures.append(near(f"{label}NDCG@{K}", level, LEVELS[shop.name][number]))
        users = float(month.n_users)
        figures.append(near(f"{label}users", users, USERS[shop.name][number], "{:.0f}"))
    tau = known.seed_sds[ALS]
    figures.append(near("τ", tau, TAU[shop.name], "{:.2%}"))
    progress(f"{shop.name}: e-processes of equal recipes")
    figures += _lineages(shop.name, known.weeks, tau)
    progress(f"{shop.name}: slices of equal recipes")
    corrected, plain = _false_slices(known, tau)
    figures.append(between("slices, false blocks with Bonferroni's correction, %", corrected, 3, 7))
    figures.append(between("slices, false blocks without a correction, %", plain, 19, 28))
    return figures + _calibrated(known)


def _lineages(name: str, weeks: Sequence[ReplicateBlock], tau: float) -> list[Figure]:
    """Replay an e-process for every ordered pair of fits, week after week."""
    paths = []
    for first, second in permutations(range(FITS), 2):
        blocks = []
        for week in weeks:
            test = difference(
                week.ndcg[first], week.ndcg[second], tau_candidate=tau, tau_champion=tau
            )
            sums = (test.n, test.t2, test.x, test.s_dd, test.s_db, test.s_bb)
            judged = test.underpowered is None
            blocks.append(BlockRecord(week.holdout, *sums) if judged else None)
        paths.append(blocks)
    weeks_used = sum(block is not None for block in paths[0])
    figures = []
    four = threshold_of(CONFIG.alpha, opening_weight(4))
    for points, asked in ((1 / CONFIG.alpha, SWITCHED[name]), (four, 0)):
        needed = Needed(points, CONFIG.min_lift, CONFIG.not_one_week, CONFIG.period_sd_of("repeat"))
        switched = sum(replay(path, needed).switched is not None for path in paths)
        what = (
            f"of {len(paths)} pairs of fits over {weeks_used} weeks, "
            f"switched at e-value {points:.0f}"
        )
        figures.append(at_most(what, switched, asked))
    return figures


def _false_slices(known: Bank, tau: float) -> tuple[float, float]:
    """Return the pairs of equal recipes with a regressed slice, in %: corrected, and plain."""
    regressed = plain = tests = 0
    for month, slices in zip(known.months, known.slices, strict=True):
        frames = [_frame(values, slices) for values in month.ndcg]
        for first, second in permutations(frames, 2):
            test = difference(*paired(first, second, NDCG), tau_candidate=tau, tau_champion=tau)
            record = record_of(test, (first, second), (), month.holdout)
            results = recorded_slice_rules("equal", (first, second), [record], CONFIG)
            judged = [rule for rule in results if rule.outcome in ("pass", "fail")]
            regressed += any(rule.outcome == "fail" for rule in judged)
            plain += any((rule.figure or 0.0) <= CONFIG.slice_alpha_switch for rule in judged)
            tests += 1
    return 100 * regressed / tests, 100 * plain / tests


def _frame(values: Floats, slices: Slices) -> pl.DataFrame:
    columns: dict[str, Any] = {c.USER_ID: slices.ids, NDCG: values}
    columns |= {SLICE + n: np.where(ins, values, np.nan) for n, ins in slices.inside.items()}
    return pl.DataFrame(columns).with_columns(pl.exclude(c.USER_ID).fill_nan(None))


def _calibrated(known: Bank) -> list[Figure]:
    """Return the figures of `nightjar gate calibrate`, with as many fits and cuts as it uses."""
    blocks = [
        ReplicateBlock(m.holdout, m.ndcg[:REPLICATES], m.ndcg_reversed[:REPLICATES])
        for m in known.months[-CUTOFFS:]
    ]
    calibration = calibrate(blocks, CONFIG, candidates=4, task="repeat")
    what = (
        f"calibration: one block's rate of false switches, upper limit (v̂ {calibration.v_hat:.2f})"
    )
    return [
        at_most(what, calibration.rate_upper, 0.02, "{:.2%}"),
        at_most(
            "calibration: ordered pairs that pass", calibration.passed, 0.02 * calibration.pairs
        ),
        shown(
            f"calibration: power to find {calibration.planted:+.1%} within {CUTOFFS} blocks",
            f"{calibration.power:.0%}",
        ),
    ]
