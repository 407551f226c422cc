"""Coverage of the intervals of attribution in simulated shops whose users differ in activity.

A user has a lognormal number of showings of a list with 20 entries, and a response rate of their
own (a beta distribution). An interval of 95 % should contain the true rate in 95 % of the draws.
*Before* is the former interval: the error of Liang and Zeger (1986) with t and U - 1 degrees of
freedom, for shares in Wilson's (1927) formula. *After* is `pipeline.data.cluster_robust`. Only
draws with at least `MIN_EFFECTIVE_USERS` count, because a smaller group has no interval.

    python benchmarks/attribution.py            5,000 draws of each shop, half a minute
    python benchmarks/attribution.py --draws 500
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import parser
from pipeline.data.cluster_robust import Mean, effective_users, proportion_ci, ratio_ci
from pipeline.monitoring.rates import MIN_EFFECTIVE_USERS

Floats = NDArray[np.float64]

ENTRIES = 20
SPEND = 10.0
"""Median revenue of a response; the logarithm has an SD of 1."""


@dataclass(frozen=True)
class Shop:
    """A simulated group of users.

    Attributes
    ----------
    activity
        SD of the logarithm of a user's showings.
    rate
        Response rate of a user of median activity, averaged over users.
    agreement
        Parameter of the beta distribution: users differ less if it is larger.
    follows
        Growth of the logarithm of a user's rate with an SD of activity.
    revenue
        Measure the revenue per entry instead of the share with a response.
    """

    name: str
    users: int
    activity: float
    rate: float
    agreement: float = 20.0
    follows: float = 0.0
    revenue: bool = False

    def draw(self, random: np.random.Generator) -> tuple[Floats, Floats]:
        """Return the sum and the number of observations of each user."""
        counts, level = self._levels(random, self.users)
        own = random.beta(level * self.agreement, (1 - level) * self.agreement)
        sums = random.binomial(counts.astype(np.int64), own).astype(np.float64)
        if self.revenue:
            spent = SPEND * np.exp(random.standard_normal(int(sums.sum())))
            user = np.repeat(np.arange(self.users), sums.astype(np.int64))
            sums = np.bincount(user, spent, minlength=self.users)
        return sums, counts

    @property
    def truth(self) -> float:
        """The expected sum over the expected number of observations."""
        counts, level = self._levels(np.random.default_rng(0), 1_000_000)
        mean_spend = SPEND * math.exp(0.5) if self.revenue else 1.0
        return float(counts @ level / counts.sum()) * mean_spend

    def coverage(self, draws: int, seed: int = 0) -> tuple[float, float]:
        """Return the shares of intervals with the truth, before and after."""
        random, truth = np.random.default_rng(seed), self.truth
        held = np.zeros(2)
        total = 0
        while total < draws:
            sums, counts = self.draw(random)
            if effective_users(counts) < MIN_EFFECTIVE_USERS:
                continue
            total += 1
            after = (
                ratio_ci(sums, counts, math.inf) if self.revenue else proportion_ci(sums, counts)
            )
            intervals = former(sums, counts, share=not self.revenue), after
            held += [_holds(interval, truth) for interval in intervals]
        return float(held[0] / draws), float(held[1] / draws)

    def _levels(self, random: np.random.Generator, users: int) -> tuple[Floats, Floats]:
        z = random.standard_normal(users)
        counts = ENTRIES * np.maximum(1.0, np.round(np.exp(self.activity * z)))
        return counts, np.minimum(self.rate * np.exp(self.follows * z), 0.9)


ALIKE = (
    Shop("equally active, 1.5 %", 100, 0.0, 0.015),
    Shop("equally active, .3 %", 100, 0.0, 0.003),
)
"""Shops in which the former interval was valid."""
APART = (
    Shop("very unequal, .3 %", 130, 1.0, 0.003),
    Shop("very unequal, .3 %, rates differ more", 130, 1.0, 0.003, 10.0),
    Shop("unequal, revenue at .3 %", 200, 0.7, 0.003, revenue=True),
    Shop("unequal, revenue at .3 %, rates alike", 100, 0.7, 0.003, 200.0, revenue=True),
    Shop("unequal, revenue at .5 %, rate follows", 100, 0.7, 0.005, follows=0.3, revenue=True),
    Shop("very unequal, revenue at .5 %", 200, 1.0, 0.005, 50.0, revenue=True),
)
"""Shops in which the former interval was too short."""
EXTREME = (
    Shop("very unequal, 1.5 %, rate follows", 130, 1.0, 0.015, follows=0.3),
    Shop("very unequal, revenue at 1 %", 130, 1.0, 0.01, revenue=True),
    Shop("a few users dominate, 1.5 %", 1_000, 1.5, 0.015),
    Shop("a few users dominate, revenue at 1.5 %", 1_000, 1.5, 0.015, revenue=True),
)
"""Shops in which both are too short: few users have most of the entries."""


def former(sums: Floats, counts: Floats, *, share: bool) -> Mean:
    """Return the former interval."""
    n, users = counts.sum(), len(counts)
    mean = sums.sum() / n
    residual = sums - mean * counts
    se = math.sqrt(users / (users - 1) * (residual @ residual)) / n
    if not sums.any():
        return Mean(mean, se, 0.0, 1 - 0.025 ** (1 / users) if share else None)
    t = float(stdtrit(users - 1, 0.975))
    if not share:
        return Mean(mean, se, max(0.0, mean - t * se), mean + t * se)
    inside = mean * (1 - mean)
    over = t * t * max(se**2 / inside, 1 / n)
    middle = (mean + over / 2) / (1 + over)
    reach = math.sqrt(over * (inside + over / 4)) / (1 + over)
    return Mean(mean, se, middle - reach, middle + reach)


def _holds(interval: Mean, truth: float) -> bool:
    assert interval.lo is not None
    return interval.lo <= truth and (interval.hi is None or truth <= interval.hi)


def main() -> None:
    """Print the coverage of each shop."""
    arguments = parser(__doc__)
    arguments.add_argument("--draws", type=int, default=5_000, help="draws of each shop")
    options = arguments.parse_args()
    rows = [(shop, *shop.coverage(options.draws)) for shop in (*ALIKE, *APART, *EXTREME)]
    if options.json:
        table = [{**asdict(shop), "before": x, "after": y} for shop, x, y in rows]
        print(json.dumps({"draws": options.draws, "coverage": table}))
        return
    print(f"{'coverage of 95 % intervals':<40} {'users':>6} {'before':>8} {'after':>8}")
    for shop, before, after in rows:
        print(f"{shop.name:<40} {shop.users:>6,} {before:>8.1%} {after:>8.1%}")


if __name__ == "__main__":
    main()
