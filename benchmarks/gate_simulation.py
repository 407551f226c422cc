"""Simulated years of a shop: false switches, days until a true gain, and blocked healthy nights.

Figures are shares of the champion's mean. Switches: a year of weekly blocks of equal size, as in
GATE.md; the lift of a block is the true lift, the error of its users and seeds, and a normal effect
of the week. Refreshes: nights with a block of seven days, so that neighbours share six of them.

Guarantees: thresholds, effects, weights and bounds are those of the gate's own modules; a sample of
the e-values and of the verdicts is computed by these modules as well, and must be equal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gate_figures import Figure, within_third
from pipeline import columns as c
from pipeline.base import Interval
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate import (
    BlockLevel,
    EvaluatedRecipe,
    Evidence,
    GateConfig,
    GateHistory,
    Reference,
)
from pipeline.evaluation.gate.e_process import (
    EFFECTS,
    MIXTURE_WEIGHTS,
    figures_of,
    opening_weight,
    threshold_of,
)
from pipeline.evaluation.gate.e_process import PERIODS as RECORDS_OF_SD
from pipeline.evaluation.gate.evidence import REFRESH_LAST
from pipeline.evaluation.gate.records import BlockRecord
from pipeline.evaluation.gate.refresh import judge_refresh

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RUNS = 6_000
SEED = 20_261_130
WEEKS, NIGHTS, WEEK = 52, 365, 7
CANDIDATES = 4
MEMORY = 0.3
"""Correlation of the effects of two weeks in a row."""
SEED_SD = 0.003
SHOPS = {500: 0.03, 2_000: 0.015, 20_000: 0.0047}
"""Users -> standard error of a weekly lift, without seeds."""
PERIODS = (0.0, 0.01, 0.015)
LIFTS = (0.02, 0.05, 0.10)
MIXTURE_SD = 0.02
"""SD of the normal mixture of mSPRT: a lift that is common between recipes."""
CONFIG = GateConfig()
START = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)


# ---------------------------------------------------------------- switches


def weeks(
    se: float, lift: float, period: float, memory: float, runs: int, random: np.random.Generator
) -> Floats:
    """Return ``(runs, WEEKS)`` measured lifts."""
    effect = random.standard_normal((runs, WEEKS))
    for week in range(1, WEEKS):
        effect[:, week] *= np.sqrt(1 - memory**2)
        effect[:, week] += memory * effect[:, week - 1]
    return lift + np.sqrt(variance(se)) * random.standard_normal((runs, WEEKS)) + period * effect


def variance(se: float) -> float:
    """Return the variance of a weekly lift, with two fits' seeds."""
    return se**2 + 2 * SEED_SD**2


@dataclass(frozen=True)
class Evaluated:
    """Many e-processes after some weeks; the fields are those of `EFigures`."""

    log_e: Floats
    log_v: Floats
    log_rest: Floats
    lift: Floats


@dataclass(frozen=True)
class Sums:
    """Records of many e-processes: their number, sums of lifts and squares, the largest lift."""

    count: Floats
    total: Floats
    squares: Floats
    largest: Floats

    @classmethod
    def of(cls, x: Floats) -> Sums:
        """Add up ``(runs, blocks)`` lifts."""
        count = np.full(len(x), float(x.shape[1]))
        return cls(count, x.sum(axis=1), (x**2).sum(axis=1), x.max(axis=1))


def e_processes(sums: Sums, v: float, period_sd: float) -> Evaluated:
    """Compute e-processes whose records have equal variances."""
    count, total = sums.count, sums.total
    freedom = count - 1
    q = (sums.squares - total**2 / count) / v
    extra = np.maximum(0.0, (q - freedom) * v / np.maximum(freedom, 1))
    u = v + np.maximum(period_sd**2, np.where(count >= RECORDS_OF_SD, extra, 0.0))
    log_v, log_u = _log_e(total / v, count / v), _log_e(total / u, count / u)
    rest = total - sums.largest
    log_rest = np.minimum(_log_e(rest / v, freedom / v), _log_e(rest / u, freedom / u))
    log_rest = np.where(count > 1, log_rest, -np.inf)
    return Evaluated(np.minimum(log_v, log_u), log_v, log_rest, total / count)


def _log_e(sum_x: Floats, sum_w: Floats) -> Floats:
    g = np.array(EFFECTS)
    logs = g * sum_x[:, None] - g**2 / 2 * sum_w[:, None]
    points: Floats = logsumexp(logs, axis=1, b=MIXTURE_WEIGHTS)
    return points


Rule = Callable[[Floats, float], Flags]
"""Lifts of the blocks so far and their variance -> runs that switch."""


def specified(x: Floats, v: float) -> Flags:
    """Apply the rules S1, S2 and S3."""
    return switches_by(Sums.of(x), v)


def switches_by(sums: Sums, v: float) -> Flags:
    """Apply the rules S1, S2 and S3 to records."""
    now = e_processes(sums, v, CONFIG.period_sd_of("repeat"))
    threshold = threshold_of(CONFIG.alpha, opening_weight(CANDIDATES))
    held = (now.log_e >= np.log(threshold)) & (now.lift >= CONFIG.min_lift)
    flags: Flags = held & (now.log_rest >= np.log(CONFIG.not_one_week))
    return flags


def former(x: Floats, v: float) -> Flags:
    """Apply the former rule: E(v) of five times 100, and one block suffices."""
    now = e_processes(Sums.of(x), v, 0.0)
    flags: Flags = (now.log_v >= np.log(5 / CONFIG.alpha)) & (now.lift >= CONFIG.min_lift)
    return flags


def msprt(x: Floats, v: float) -> Flags:
    """Apply the mixture SPRT of a normal prior, one-sided, with α shared by the candidates."""
    blocks, mean = x.shape[1], x.mean(axis=1)
    spread = v + blocks * MIXTURE_SD**2
    log = np.log(v / spread) / 2 + (blocks * mean * MIXTURE_SD) ** 2 / (2 * v * spread)
    flags: Flags = (log >= np.log(CANDIDATES / CONFIG.alpha)) & (mean >= CONFIG.min_lift)
    return flags


def obrien_fleming(x: Floats, v: float) -> Flags:
    """Apply O'Brien and Fleming's bound for 52 looks, with α shared by the candidates.

    The bound of S_k/√K is that of Brownian motion, less Siegmund's correction for discrete looks.
    """
    height = -ndtri(CONFIG.alpha / CANDIDATES / 2) - 0.583 / np.sqrt(WEEKS)
    mean = x.mean(axis=1)
    reached = x.sum(axis=1) / np.sqrt(v * WEEKS) >= height
    flags: Flags = reached & (mean >= CONFIG.min_lift)
    return flags


def first_switch(x: Floats, v: float, rule: Rule) -> Floats:
    """Return the days until the first switch of each run; infinity if there is none."""
    first = np.full(len(x), np.inf)
    for block in range(1, WEEKS + 1):
        waiting = np.flatnonzero(np.isinf(first))
        first[waiting[rule(x[waiting, :block], v)]] = WEEK * block
    return first


@dataclass(frozen=True)
class Line:
    """A rule, and the figures of GATE.md by number of users: false switches, and median days."""

    rule: Rule
    false: dict[int, tuple[float, ...]] | None = None
    days: dict[int, tuple[float, ...]] | None = None


LINES = {
    "former rule": Line(
        former,
        {500: (0, 0.002, 0.005), 2_000: (0, 0.011, 0.057), 20_000: (0, 0.10, 0.26)},
        {500: (224, 42, 14), 2_000: (63, 14, 7), 20_000: (14, 7, 7)},
    ),
    "this specification": Line(
        specified,
        {500: (0, 0.001, 0.004), 2_000: (0.001, 0.003, 0.019), 20_000: (0, 0.020, 0.074)},
        {500: (252, 49, 21), 2_000: (77, 21, 14), 20_000: (21, 14, 14)},
    ),
    "mSPRT": Line(msprt),
    "O'Brien-Fleming": Line(obrien_fleming),
}


def switches(runs: int = RUNS, seed: int = SEED) -> list[Figure]:
    """Return false switches a year and median days until true gains, by rule and shop."""
    random, more = np.random.default_rng(seed), np.random.default_rng(seed + 2)
    figures = []
    for users, se in SHOPS.items():
        v = variance(se)
        none = [weeks(se, 0.0, period, MEMORY, runs, random) for period in PERIODS]
        gain = {(0.0, lift): weeks(se, lift, 0.0, MEMORY, runs, random) for lift in LIFTS}
        for period in PERIODS[1:]:
            gain |= {(period, lift): weeks(se, lift, period, MEMORY, runs, more) for lift in LIFTS}
        compare_with_own(none[-1], v, users)
        for name, line in LINES.items():
            for at, period in enumerate(PERIODS):
                share = float(np.isfinite(first_switch(none[at], v, line.rule)).mean())
                what = (
                    f"{users:,} users, {name}: false switches a year, SD of the week {period:.1%}"
                )
                asked = None if line.false is None else line.false[users][at]
                figures.append(within_third(what, share, asked, "{:.3f}", noise=noise(asked, runs)))
            for (period, lift), measured in gain.items():
                days = float(np.median(first_switch(measured, v, line.rule)))
                what = (
                    f"{users:,} users, {name}: median days to {lift:+.0%}, "
                    f"SD of the week {period:.1%}"
                )
                asked = None
                if line.days is not None and not period:
                    asked = line.days[users][LIFTS.index(lift)]
                figures.append(within_third(what, days, asked, "{:.0f}", noise=WEEK))
    se = SHOPS[20_000]
    long = weeks(se, 0.0, 0.01, 0.8, runs, random)
    share = float(np.isfinite(first_switch(long, variance(se), specified)).mean())
    what = "20,000 users, this specification: the same with SD 1 % and correlation .8"
    return [*figures, within_third(what, share, 0.15, "{:.3f}", noise=noise(0.15, runs))]


def noise(asked: float | None, runs: int) -> float:
    """Return two standard errors of a share counted twice, and the rounding of a third digit."""
    return 0.0005 + 2 * np.sqrt((asked or 1 / 3_000) * (1 / 3_000 + 1 / runs))


def compare_with_own(x: Floats, v: float, users: int, sample: int = 12) -> None:
    """Compare a sample of e-processes with `figures_of`.

    Raises
    ------
    AssertionError
        A figure differs.
    """
    t2 = 2 * SEED_SD**2
    square = (v - t2) * users * (users - 1)
    for blocks in (1, 2, 3, 4, 9, WEEKS):
        many = e_processes(Sums.of(x[:sample, :blocks]), v, CONFIG.period_sd_of("repeat"))
        for row in range(min(sample, len(x))):
            records = [
                BlockRecord(
                    Interval(START + k * WEEK * DAY, START + (k + 1) * WEEK * DAY),
                    users,
                    t2,
                    float(x[row, k]),
                    square,
                    0.0,
                    0.0,
                )
                for k in range(blocks)
            ]
            one = figures_of(records, CONFIG.period_sd_of("repeat"))
            own = [one.log_e, one.log_v, one.log_rest, one.lift]
            here = [many.log_e[row], many.log_v[row], many.log_rest[row], many.lift[row]]
            np.testing.assert_allclose(here, own, rtol=1e-8, atol=1e-9)


# ---------------------------------------------------------------- refreshes


def nights(runs: int, count: int, random: np.random.Generator) -> Floats:
    """Return ``(runs, count)`` normal values of blocks of seven days that end a day apart."""
    days = random.standard_normal((runs, count + WEEK - 1))
    total = np.cumsum(np.concatenate([np.zeros((runs, 1)), days], axis=1), axis=1)
    means: Floats = (total[:, WEEK:] - total[:, :-WEEK]) / np.sqrt(WEEK)
    return means


def bound(se: float, margin: float | None = None) -> float:
    """Return the least relative change that a rule of a refresh lets pass."""
    least = CONFIG.refresh_margin if margin is None else margin
    return -max(least, CONFIG.refresh_errors * se)


def refused_bound(se: float) -> float:
    """Return the least change after a refusal (R8)."""
    return -max(CONFIG.refused_margin, se)


def refused_nights(x: Floats, se: float, *, narrower: bool = True) -> Flags:
    """Apply R2 to each night, with R8 after a refusal if `narrower`."""
    refused = np.zeros(len(x), np.bool_)
    bad = np.zeros(x.shape, np.bool_)
    for night in range(x.shape[1]):
        least = np.where(refused & narrower, refused_bound(se), bound(se))
        refused = x[:, night] < least
        bad[:, night] = refused
    return bad


def levels(runs: int, relative_sd: float, users: int, random: np.random.Generator) -> Floats:
    """Return the champion's mean on each night's block, in units of its usual mean.

    Weeks differ by an SD of 4 % besides the error of the users.
    """
    count = NIGHTS + 5 * WEEK + WEEK - 1
    day = relative_sd / np.sqrt(users) * np.sqrt(WEEK) * random.standard_normal((runs, count))
    week = np.repeat(0.04 * random.standard_normal((runs, count // WEEK + 1)), WEEK, axis=1)
    total = np.cumsum(np.concatenate([np.zeros((runs, 1)), 1 + day + week[:, :count]], 1), axis=1)
    means: Floats = (total[:, WEEK:] - total[:, :-WEEK]) / WEEK
    return means


def low_levels(x: Floats, least: float) -> tuple[Flags, Floats]:
    """Compare each night with the median of the last four accepted blocks before it.

    Parameters
    ----------
    x
        As `levels`.
    least
        Ratio below which a night is blocked.

    Returns
    -------
    tuple
        Blocked nights of the last year, and ``(runs, 4)`` earlier means of the last night.
    """
    runs, count = x.shape
    accepted, bad = np.ones(x.shape, np.bool_), np.zeros(x.shape, np.bool_)
    begin = count - NIGHTS
    used = np.full((runs, 4), np.nan)
    for night in range(begin, count):
        used, filled = np.full((runs, 4), np.nan), np.zeros(runs, np.int64)
        free = np.full(runs, night - WEEK)
        for earlier in range(night - WEEK, -1, -1):
            rows = np.flatnonzero((filled < 4) & (free >= earlier) & accepted[:, earlier])
            used[rows, filled[rows]] = x[rows, earlier]
            filled[rows] += 1
            free[rows] = earlier - WEEK
            if (filled >= 4).all():
                break
        enough = filled >= 2
        bad[:, night] = (x[:, night] / np.nanmedian(used, axis=1) < least) & enough
        accepted[:, night] = ~bad[:, night]
    return bad[:, begin:], used


def refreshes(runs: int = RUNS, seed: int = SEED) -> list[Figure]:
    """Return the blocked nights of a healthy year, and how long a true loss is refused."""
    random = np.random.default_rng(seed + 1)
    z = nights(runs, NIGHTS, random)
    compare_verdicts(z[:40, 0])
    figures = [
        *_blocked("month rule x < 0", z < 0, 182, 1.0),
        *_blocked("month rule x + 2.33 se < 0", z < -2.33, 3.65, 0.84),
    ]
    for se in (0.015, 0.03):
        figures += _blocked(f"R3, se {se:.1%}", se * z < bound(se), 0.5, 0.25)
    for se, nights_, shops in (
        (0.003, 0.0, 0.01),
        (0.005, 0.0, 0.01),
        (0.007, 1.4, 0.26),
        (0.015, 1.7, 0.26),
        (0.03, 1.56, 0.26),
    ):
        bad = refused_nights(se * z, se)
        figures += _blocked(f"R2 with R8, se {se:.1%}", bad, nights_, shops)
    users, relative_sd = 200, 3.0
    error = relative_sd / np.sqrt(users)
    se = error * np.sqrt(1 + np.pi / 2 / 4)
    x = levels(min(runs, 1_000), relative_sd, users, random)
    figures += _blocked("level below .6, no error", low_levels(x, 0.6)[0], 14, 1.0)
    bad, used = low_levels(x, 1 + bound(se, CONFIG.level_margin))
    compare_levels(x[:40, -1], used[:40], bad[:40, -1], relative_sd, users)
    figures += _blocked(f"R5, {users} users, relative SD 3", bad, 0.1, 0.06)
    return [*figures, *_true_loss(runs, random)]


def _blocked(name: str, bad: Flags, nights_: float, shops: float) -> Iterator[Figure]:
    years = len(bad)
    count, any_ = float(bad.sum(axis=1).mean()), float(bad.any(axis=1).mean())
    spread = 0.05 + 2 * float(bad.sum(axis=1).std()) / np.sqrt(min(years, 400))
    yield within_third(f"{name}: nights blocked a year", count, nights_, "{:.2f}", noise=spread)
    yield within_third(
        f"{name}: shops with any", any_, shops, "{:.1%}", noise=0.005 + noise(shops, years)
    )


def _true_loss(runs: int, random: np.random.Generator) -> list[Figure]:
    se, loss = 0.02, -0.08
    x = loss + se * nights(runs, 28, random)
    again, narrower = ~refused_nights(x, se, narrower=False), ~refused_nights(x, se)
    what = f"true {loss:.0%} at se {se:.0%} passes"
    spread = noise(0.2, runs)
    return [
        within_third(f"{what} on night 1", float(again[:, 0].mean()), 0.16, "{:.1%}", noise=spread),
        within_third(
            f"{what} within 28, with R8",
            float(narrower.any(1).mean()),
            0.18,
            "{:.1%}",
            noise=spread,
        ),
        within_third(
            f"{what} within 28, asked anew nightly", float(again.any(1).mean()), 0.81, "{:.1%}"
        ),
    ]


# ---------------------------------------------------------------- the gate's own verdicts

_USERS = 400
_SIGNS = np.tile([1.0, -1.0], _USERS // 2)
_IDS = [f"u{n:04}" for n in range(_USERS)]


def own_verdict(
    x: float,
    se: float,
    *,
    refused: bool = False,
    level: float = 1.0,
    sd: float = 1.0,
    past: Sequence[BlockLevel] = (),
) -> dict[str, str]:
    """Return the outcome of each rule of a refresh, by the gate's own module.

    Parameters
    ----------
    x, se
        Change against both stored scorers, and its standard error.
    refused
        The comparison with the last scorer refused the last refresh.
    level, sd
        Mean and SD of the champion's values on tonight's block.
    past
        Levels of earlier blocks.
    """
    stored = np.ones(_USERS)
    tonight = stored + x + se * np.sqrt(_USERS - 1) * _SIGNS
    reference = Reference("an earlier night", _frame(tonight), _frame(stored))
    own = level + sd * np.sqrt((_USERS - 1) / _USERS) * _SIGNS
    judged = (
        EvaluatedRecipe("champion", "champion", None, _frame(own), 1.0, 10, seed_sd=0.0),
        EvaluatedRecipe("baseline", "baseline", 0, _frame(own * 0.5), 1.0, 10),
    )
    evidence = Evidence(
        k=10,
        task="repeat",
        holdout=Interval(START, START + WEEK * DAY),
        judged=judged,
        expected=(),
        champion="champion",
        checks=(),
        last=reference,
        month=reference,
        past=GateHistory(levels=tuple(past), refused=(REFRESH_LAST,) if refused else ()),
    )
    rules = judge_refresh(evidence, judged[0], CONFIG).rules
    return {rule.name: rule.outcome for rule in rules}


def _frame(values: Floats) -> pl.DataFrame:
    return pl.DataFrame({c.USER_ID: _IDS, NDCG: values})


def compare_verdicts(z: Floats) -> None:
    """Compare the bounds of R2, R3 and R8 with the gate's own verdicts at some changes.

    Raises
    ------
    AssertionError
        A verdict differs.
    """
    for se in (0.003, 0.015, 0.03):
        for number, value in enumerate(z):
            x, refused = 3 * se * float(value), number % 2 == 1
            own = own_verdict(x, se, refused=refused)
            least = refused_bound(se) if refused else bound(se)
            assert (own[REFRESH_LAST] == "fail") == (x < least), (x, se, refused)
            assert (own["refresh.month"] == "fail") == (x < bound(se)), (x, se)


def compare_levels(
    tonight: Floats, used: Floats, bad: Flags, relative_sd: float, users: int
) -> None:
    """Compare verdicts of R5 with the gate's own, for blocks with these means.

    Raises
    ------
    AssertionError
        A verdict differs.
    """
    # The gate's own level has `_USERS` users: their SD is chosen for the same error.
    scale = relative_sd * np.sqrt(_USERS / users)
    outcomes = set()
    for at in range(len(tonight)):
        # The last of these nights is also given a level far below the bound.
        for factor in (1.0, 0.1) if at == 0 else (1.0,):
            mean = float(tonight[at]) * factor
            past = [
                BlockLevel(
                    "champion",
                    Interval(START - (k + 1) * WEEK * DAY, START - k * WEEK * DAY),
                    users,
                    float(value),
                    relative_sd * float(value),
                    None,
                    None,
                    accepted=True,
                )
                for k, value in enumerate(used[at])
            ]
            own = own_verdict(0.0, 0.01, level=mean, sd=scale * mean, past=past)["refresh.level"]
            outcomes.add(own)
            se = relative_sd / np.sqrt(users) * np.sqrt(1 + 1.57 / 4)
            expected = mean / float(np.median(used[at])) - 1 < bound(se, CONFIG.level_margin)
            assert (own == "fail") == expected == (bool(bad[at]) if factor == 1.0 else expected)
    assert outcomes == {"pass", "fail"}


def simulate(runs: int = RUNS, seed: int = SEED) -> list[Figure]:
    """Return every simulated figure beside that of GATE.md."""
    return [*switches(runs, seed), *refreshes(runs, seed)]
