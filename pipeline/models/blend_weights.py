"""How much each part of a blend counts, chosen on windows before the holdout.

Guarantees: on these windows the mixture is not worse than the best part alone; it trades at most
`MAX_TRADED_GAIN` of the gain of blending for list stability and, where lists exclude items that the
user had, for coverage, which costs NDCG but no stability; equal pools give the same mixture.

The parts are trained once per window. Their scores of the candidates (`tuning.CandidatePool`) are
mixed again for every trial, which is cheap: so weights and exponents are searched together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.tuning import CandidatePool, PartScores, utility

MAX_TRADED_GAIN = 1 / 3
"""The share of what a blend wins over its best part (in log NDCG) that calm and a wider choice of
items may cost. NDCG alone drifts towards what sells everywhere, which a list for discovery is not
for, and it does not see lists that are others every morning."""
COVERAGE_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Per cent of worth for one per cent more of the catalogue: each leads to another mixture."""
_LEAST = 0.002
"""A move that gains less than this share is not made."""
_SWEEPS = 6
_ZERO = 1e-9
"""Stands for 0 in logarithms."""

Trends = Callable[[float, float], NDArray[np.float32]]
"""Takes `recency_boost` and `popularity_penalty`, returns ``(n_items,)`` float32 > 0."""


@dataclass(frozen=True)
class Mixture:
    """Weights of the parts by name, and the exponents of the trend."""

    weights: Mapping[str, float]
    recency_boost: float
    popularity_penalty: float


@dataclass(frozen=True)
class MixtureResult:
    """Mean log NDCG and mean log coverage over the windows: differences are shares.

    `stability` is the share of the lists that stays overnight, 1 where nobody asked.
    """

    mixture: Mixture
    ndcg: float
    coverage: float
    stability: float

    @property
    def utility(self) -> float:
        """Mean log NDCG, and what the share of lists that stays overnight is worth."""
        return self.ndcg + math.log(max(utility(1.0, self.stability), _ZERO))

    def at(self, price: float) -> float:
        """Return the utility with coverage at a price."""
        return self.utility + price * self.coverage


def optimise_mixture(
    start: Mixture,
    pools: Sequence[CandidatePool],
    *,
    grid: Mapping[str, Sequence[float]],
    maximise_coverage: bool,
    untrended_parts: Sequence[str],
    trends: Callable[[History], Trends],
) -> Mixture:
    """Climb from `start`, and from the best part alone, one weight or exponent at a time.

    Parameters
    ----------
    pools
        One a window; without any, `start` is returned.
    grid
        Values to try for ``weights``, ``recency_boost`` and ``popularity_penalty``; what is absent
        stays as it is. If the weights do, `start` is what the choice is held against, not the best
        part alone.
    maximise_coverage
        Of the mixtures seen that find enough, take the widest that is as calm as the one that is
        worth most; without, that one.
    untrended_parts
        Parts that the trend does not multiply.
    trends
        What a window's items are multiplied by.
    """
    if not pools:
        return start
    cache = MixtureCache([CandidateRanking(pool, untrended_parts, trends) for pool in pools])
    alone = (
        max(map(cache.of, _alone(start, grid)), key=_ndcg) if "weights" in grid else cache.of(start)
    )
    starts = (cache.of(start), alone)
    here = max((_coordinate_search(one, cache, grid, _ndcg) for one in starts), key=_ndcg)
    for price in COVERAGE_WEIGHTS if maximise_coverage else COVERAGE_WEIGHTS[:1]:
        here = _coordinate_search(here, cache, grid, partial(MixtureResult.at, price=price))
    top = max(cache.seen, key=_ndcg).ndcg
    floor = top - MAX_TRADED_GAIN * (top - alone.ndcg)

    def near(result: MixtureResult) -> bool:
        return result.ndcg >= floor

    best = max(filter(near, cache.seen), key=_utility)
    best = _coordinate_search(best, cache, grid, _utility, near)
    if not maximise_coverage:
        return best.mixture

    def as_stable(result: MixtureResult) -> bool:
        return near(result) and result.stability >= best.stability

    here = max(filter(as_stable, cache.seen), key=lambda result: (result.coverage, result.utility))
    return _coordinate_search(here, cache, grid, _coverage, as_stable).mixture


def _ndcg(result: MixtureResult) -> float:
    return result.ndcg


def _utility(result: MixtureResult) -> float:
    return result.utility


def _coverage(result: MixtureResult) -> float:
    return result.coverage


def _alone(start: Mixture, grid: Mapping[str, Sequence[float]]) -> Iterator[Mixture]:
    """Yield each part alone, as it would be without a blend."""
    bare = replace(
        start,
        recency_boost=0.0 if "recency_boost" in grid else start.recency_boost,
        popularity_penalty=0.0 if "popularity_penalty" in grid else start.popularity_penalty,
    )
    for name in start.weights:
        yield replace(bare, weights={other: float(other == name) for other in start.weights})


def _coordinate_search(
    here: MixtureResult,
    cache: MixtureCache,
    grid: Mapping[str, Sequence[float]],
    value: Callable[[MixtureResult], float],
    near: Callable[[MixtureResult], bool] = lambda _: True,
) -> MixtureResult:
    """Move while that is worth more, and never to what is not near enough."""
    for _ in range(_SWEEPS):
        before = here
        for moves in _moves(here.mixture, grid):
            results = [cache.of(mixture) for mixture in moves(here.mixture)]
            best = max(filter(near, results), key=value, default=here)
            if value(best) > value(here) + _LEAST:
                here = best
        if here is before:
            break
    return here


def _moves(
    start: Mixture, grid: Mapping[str, Sequence[float]]
) -> Iterator[Callable[[Mixture], list[Mixture]]]:
    """Yield, for each thing that can be moved, what gives the mixtures that differ in it."""

    def weight_moves(name: str) -> Callable[[Mixture], list[Mixture]]:
        def moves(here: Mixture) -> list[Mixture]:
            others = [dict(here.weights) | {name: value} for value in grid["weights"]]
            return [replace(here, weights=w) for w in others if any(w.values())]

        return moves

    if "weights" in grid:
        for name in start.weights:
            yield weight_moves(name)
    if "recency_boost" in grid:
        yield lambda here: [replace(here, recency_boost=value) for value in grid["recency_boost"]]
    if "popularity_penalty" in grid:
        yield lambda here: [
            replace(here, popularity_penalty=value) for value in grid["popularity_penalty"]
        ]


class MixtureCache:
    """Every mixture that was measured, once."""

    def __init__(self, rankings: Sequence[CandidateRanking]) -> None:
        self._rankings = rankings
        self._results: dict[tuple[float, ...], MixtureResult] = {}

    @property
    def seen(self) -> list[MixtureResult]:
        """All of them, in the order of trial."""
        return list(self._results.values())

    def of(self, mixture: Mixture) -> MixtureResult:
        """Measure a mixture, once."""
        most = max(mixture.weights.values())  # lists know ratios alone
        ratios = (round(weight / most, 9) for weight in mixture.weights.values())
        key = (mixture.recency_boost, mixture.popularity_penalty, *ratios)
        if key not in self._results:
            values = np.array([board.value(mixture) for board in self._rankings])
            ndcg, coverage = np.log(np.maximum(values, _ZERO)).mean(axis=0)
            kept = [
                share for board in self._rankings if (share := board.stability(mixture)) is not None
            ]
            stability = float(np.mean(kept)) if kept else 1.0
            self._results[key] = MixtureResult(mixture, float(ndcg), float(coverage), stability)
        return self._results[key]


class CandidateRanking:
    """A pool with the parts' scores scaled for each trend that is asked for."""

    def __init__(
        self,
        pool: CandidatePool,
        untrended_parts: Sequence[str],
        trends: Callable[[History], Trends],
    ) -> None:
        self._pool, self._stability = pool, pool.stability
        self._part_scores = _Scaled(pool.user, pool.part_scores, untrended_parts, trends)
        if pool.stability is not None:
            self._before = _Scaled(pool.user, pool.stability.part_scores, untrended_parts, trends)

    def value(self, mixture: Mixture) -> tuple[float, float]:
        """Return NDCG and coverage of the lists that a mixture makes."""
        return self._pool.value(self._part_scores.mixed(mixture))

    def stability(self, mixture: Mixture) -> float | None:
        """Return how much of its lists of a day earlier stays; ``None`` where nobody asked."""
        if self._stability is None:
            return None
        return self._stability.kept_share(
            self._part_scores.mixed(mixture), self._before.mixed(mixture)
        )


class _Scaled:
    """What scorers say, each scaled by the user's best, for each trend that is asked for."""

    def __init__(
        self,
        user: NDArray[np.int64],
        part_scores: PartScores,
        untrended_parts: Sequence[str],
        trends: Callable[[History], Trends],
    ) -> None:
        self._part_scores, self._untrended_parts, self._trends = (
            part_scores,
            untrended_parts,
            trends(part_scores.history),
        )
        self._scaled: dict[tuple[str, float, float], NDArray[np.float32]] = {}
        self._first = np.flatnonzero(np.diff(user, prepend=-1))
        self._each = np.diff(np.append(self._first, len(user)))

    def mixed(self, mixture: Mixture) -> NDArray[np.float32]:
        """``(n,)`` scores of the pairs."""
        parts = (np.float32(w) * self._part(n, mixture) for n, w in mixture.weights.items() if w)
        return sum(parts, np.zeros(len(self._part_scores.item), np.float32))

    def _part(self, name: str, mixture: Mixture) -> NDArray[np.float32]:
        moves = name not in self._untrended_parts
        key = (
            name,
            mixture.recency_boost if moves else 0.0,
            mixture.popularity_penalty if moves else 0.0,
        )
        if key not in self._scaled:
            score = self._part_scores.scores[name]
            if moves:
                score = score * self._trends(*key[1:])[self._part_scores.item]
            most = np.repeat(np.maximum.reduceat(score, self._first), self._each)
            scaled = np.zeros_like(score)
            np.divide(score, most, out=scaled, where=most > 0)
            self._scaled[key] = scaled
        return self._scaled[key]
