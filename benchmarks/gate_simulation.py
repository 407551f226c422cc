"""Simulated years of nights: rate of false switches of a rule, and its delay until a true gain.

Figures are shares of the champion's mean. The measured lift of one recipe over another is the sum
of the true lift, the mean over the users of the last block (windows of two nights overlap), a drift
over weeks, and the seed noise of two fits, which lasts for some nights as their data do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gate_figures import Figure, at_least, days, near, rate
from pipeline.evaluation.gate import GateConfig
from pipeline.evaluation.gate.e_process import EFFECTS, MIXTURE_WEIGHTS

Floats = NDArray[np.float64]

YEAR = 365
RUNS = 20_000
CANDIDATES = 5
LOSS = 0.005
"""Loss of each of the worse candidates."""
CONFIG = GateConfig()


@dataclass(frozen=True)
class Shop:
    """Components of the lift that a night measures.

    Attributes
    ----------
    users
        Standard error of a block over its users.
    seed, kept
        SD of a recipe's mean over seeds, and the share of a fit's deviation that the next has.
    drift, month
        SD of the lift between two recipes over seasons, and the days that a season lasts.
    block
        Days of a block.
    """

    users: float
    seed: float = 0.003
    kept: float = 0.8
    drift: float = 0.005
    month: float = 30.0
    block: int = 7

    @property
    def v(self) -> float:
        """Variance of a block in the gate's formula, which leaves the drift out."""
        return self.users**2 + 2 * self.seed**2


SHOPS = {"OR": Shop(users=0.02), "CJ": Shop(users=0.0115)}
"""Blocks of 7 days with all users."""


def seen(shop: Shop, lift: float, runs: int, random: np.random.Generator) -> Floats:
    """Return ``(runs, nights)``: the measured lift of a candidate with the true lift `lift`."""
    days_ = random.standard_normal((runs, YEAR + shop.block))
    total = np.cumsum(np.concatenate([np.zeros((runs, 1)), days_], axis=1), axis=1)
    over_users = (total[:, shop.block :] - total[:, : -shop.block])[:, :YEAR]
    return (
        lift
        + shop.users / np.sqrt(shop.block) * over_users
        + _lasting(shop.drift, np.exp(-1 / shop.month), runs, random)
        + _lasting(shop.seed * np.sqrt(2), shop.kept, runs, random)
    )


def _lasting(spread: float, kept: float, runs: int, random: np.random.Generator) -> Floats:
    """Return an AR(1) series with a constant spread; `kept` is its coefficient."""
    noise = random.standard_normal((runs, YEAR))
    for night in range(1, YEAR):
        noise[:, night] *= np.sqrt(1 - kept**2)
        noise[:, night] += kept * noise[:, night - 1]
    return spread * noise


class Accounts:
    """E(v) of many e-processes at once; a test compares them with `figures_of`."""

    def __init__(self, runs: int) -> None:
        self.log_bets = np.zeros((runs, len(EFFECTS)))
        self.sx, self.sw = np.zeros(runs), np.zeros(runs)

    def add(self, x: Floats, v: float) -> None:
        """Add a block to every e-process."""
        bets = np.array(EFFECTS)
        self.log_bets += bets * x[:, None] / v - bets**2 / (2 * v)
        self.sx += x / v
        self.sw += 1 / v

    def close(self, which: NDArray[np.bool_]) -> None:
        """Restart some of them."""
        for kept in (self.log_bets, self.sx, self.sw):
            kept[which] = 0.0

    @property
    def log_points(self) -> Floats:
        """As `EFigures.log_v`."""
        points: Floats = logsumexp(self.log_bets, axis=1, b=MIXTURE_WEIGHTS)
        return points

    @property
    def lift(self) -> Floats:
        """As `EFigures.lift`."""
        return np.divide(self.sx, self.sw, out=np.full(len(self.sx), np.nan), where=self.sw > 0)


Rule = Callable[[int, Floats], NDArray[np.bool_]]
"""Night and measured lift of the other side -> runs that switch, which start again."""


def every_night(shop: Shop, margin: float) -> Callable[[int], Rule]:
    """Return a rule that tests each night at α, beyond a margin."""
    height = margin + float(stats.norm.isf(CONFIG.alpha)) * np.sqrt(shop.v)
    return lambda runs: lambda night, x: x > height


def account(shop: Shop, candidates: int) -> Callable[[int], Rule]:
    """Return the rule of the e-process, with the threshold of so many candidates."""
    points = np.log(candidates / CONFIG.alpha)

    def begin(runs: int) -> Rule:
        kept = Accounts(runs)

        def rule(night: int, x: Floats) -> NDArray[np.bool_]:
            if night % shop.block:
                return np.zeros(runs, np.bool_)
            kept.add(x, shop.v)
            switched = (kept.log_points >= points) & (kept.lift >= CONFIG.min_lift)
            kept.close(switched)
            return switched

        return rule

    return begin


def year(x: Floats, begin: Callable[[int], Rule]) -> tuple[Floats, Floats]:
    """Simulate a year: ``(runs,)`` switches, and the night of the first, from 1, or infinity."""
    runs = len(x)
    rule, side = begin(runs), np.ones(runs)
    count, first = np.zeros(runs), np.full(runs, np.inf)
    for night in range(YEAR):
        went = rule(night, x[:, night] * side)
        count += went
        first[went] = np.minimum(first[went], night + 1)
        side[went] *= -1
    return count, first


def creep(shop: Shop, points: float, runs: int, random: np.random.Generator) -> float:
    """Return the mean level after a year in which every night another candidate, 0.5 % worse than
    the champion, has one block.
    """
    switched = 0
    for _ in range(YEAR):
        accounts = Accounts(runs)
        accounts.add(-LOSS + np.sqrt(shop.v) * random.standard_normal(runs), shop.v)
        went = (accounts.log_points >= np.log(points)) & (accounts.lift >= CONFIG.min_lift)
        switched += int(went.sum())
    return -LOSS * switched / runs


def ignoring_seeds(tau: float, mean: float, spread: float, n: int, alpha: float = 0.01) -> float:
    """Return the false switches of a test over users alone: Φ̄(z_α/√(1 + 2(τ·mean)²n/σ_d²))."""
    ratio = 1 + 2 * (tau * mean) ** 2 * n / spread**2
    return float(stats.norm.sf(stats.norm.isf(alpha) / np.sqrt(ratio)))


@dataclass(frozen=True)
class Line:
    """A rule, the number of candidates, and the expected figures of GATE.md by shop.

    Attributes
    ----------
    step
        Days between two evaluations.
    expected
        False switches a year, median days to +2 % and to +5 %.
    """

    rule: Callable[[Shop], Callable[[int], Rule]]
    candidates: int
    step: int
    expected: dict[str, tuple[float, float, float]]


LINES = {
    "every night, α 1 %, no margin": Line(
        lambda shop: every_night(shop, 0.0), 1, 1, {"OR": (1.87, 19, 1), "CJ": (2.03, 7, 1)}
    ),
    "every night, margin 1 %": Line(
        lambda shop: every_night(shop, CONFIG.min_lift),
        1,
        1,
        {"OR": (0.59, 47, 4), "CJ": (0.36, 23, 1)},
    ),
    "e-process": Line(
        lambda shop: account(shop, 1), 1, 7, {"OR": (0.011, 71, 15), "CJ": (0.032, 29, 1)}
    ),
    "e-process, five candidates": Line(
        lambda shop: account(shop, CANDIDATES),
        CANDIDATES,
        7,
        {"OR": (0.02, 99, 15), "CJ": (0.065, 36, 1)},
    ),
}
CREEP = {"OR": -0.0001, "CJ": -0.0003}
"""Mean level after 365 worse candidates: a bound, because only a few switches are counted."""


def simulate(runs: int = RUNS, seed: int = 7) -> list[Figure]:
    """Return every simulated figure beside the expected one."""
    random = np.random.default_rng(seed)
    figures: list[Figure] = []
    for name, shop in SHOPS.items():
        paths = {lift: seen(shop, lift, runs, random) for lift in (0.0, 0.02, 0.05)}
        for rule, line in LINES.items():
            begin = line.rule(shop)
            switches, gain, large = line.expected[name]
            count, _ = year(paths[0.0], begin)
            label = f"{name}, {rule}"
            wrong = line.candidates * float(count.mean())
            figures.append(rate(f"{label}: false switches a year", wrong, switches))
            for lift, expected in ((0.02, gain), (0.05, large)):
                _, first = year(paths[lift], begin)
                median = float(np.median(first))
                figures.append(days(f"{label}: days to {lift:+.0%}", median, expected, line.step))
    for name, shop in SHOPS.items():
        label = f"{name}, 365 candidates that are 0.5 % worse: level after a year, "
        for points in (1 / CONFIG.alpha, CANDIDATES / CONFIG.alpha):
            mean = creep(shop, points, runs, random)
            figures.append(at_least(f"{label}threshold {points:.0f}", mean, CREEP[name], "{:+.3%}"))
    naive = ignoring_seeds(tau=0.0031, mean=0.124, spread=0.043, n=15_000)
    figures.append(near("a test over users alone, n 15,000", naive, 0.103, "{:.1%}"))
    return figures
