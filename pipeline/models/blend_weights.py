"""Weights of the parts of a blend, selected on windows before the holdout.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.tuning import ACCEPTANCE, CandidatePool, PartScores, utility

MAX_TRADED_GAIN = 1 / 3
"""Share of a blend's gain over its best part (in log NDCG) that stability and coverage may cost.
NDCG alone favours items that are popular everywhere, which lists for discovery should not hold, and
does not measure how much of a list changes overnight."""
COVERAGE_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Per cent of utility for one per cent more of the catalogue: each leads to another mixture."""
_SWEEPS = 6
_ZERO = 1e-9
"""Replaces 0 in logarithms."""

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
    """Measured values of a mixture over the windows.

    Attributes
    ----------
    mixture
        The mixture.
    log_ndcg, log_coverage
        ``(n_windows,)`` float64: logarithms, so that differences are relative changes.
    stability
        Mean share of list entries kept overnight; 1 if no window measures it.
    """

    mixture: Mixture
    log_ndcg: NDArray[np.float64]
    log_coverage: NDArray[np.float64]
    stability: float


@dataclass(frozen=True)
class Objective:
    """Value that a search maximises: a weighted sum of the logarithms of a result.

    Attributes
    ----------
    ndcg, stability, coverage
        Weights; NDCG and stability with weight 1 are the logarithm of `tuning.utility`.
    """

    ndcg: float = 0.0
    stability: float = 0.0
    coverage: float = 0.0

    def by_window(self, result: MixtureResult) -> NDArray[np.float64]:
        """Return the value on each window."""
        stable = math.log(max(utility(1.0, result.stability), _ZERO))
        log_values = self.ndcg * result.log_ndcg + self.coverage * result.log_coverage
        return log_values + self.stability * stable

    def __call__(self, result: MixtureResult) -> float:
        """Return the mean over the windows."""
        return float(self.by_window(result).mean())


_NDCG = Objective(ndcg=1.0)
_UTILITY = Objective(ndcg=1.0, stability=1.0)
_COVERAGE = Objective(coverage=1.0)


def optimise_mixture(
    start: Mixture,
    pools: Sequence[CandidatePool],
    *,
    grid: Mapping[str, Sequence[float]],
    maximise_coverage: bool,
    untrended_parts: Sequence[str],
    trends: Callable[[History], Trends],
) -> Mixture:
    """Search from `start`, and from the best part alone, one weight or exponent at a time.

    Parameters
    ----------
    start
        First mixture; returned if `pools` is empty.
    pools
        One per window.
    grid
        Values to try for ``weights``, ``recency_boost`` and ``popularity_penalty``; an absent field
        keeps its value. Without ``weights``, the result is compared with `start` instead of the
        best part alone.
    maximise_coverage
        The mixtures that may be returned keep all but `MAX_TRADED_GAIN` of the gain. False returns
        the one with the highest utility. True returns the one with the largest coverage among those
        that are at least as stable as that one.
    untrended_parts
        Parts that the trend does not multiply.
    trends
        Returns the factors of a window's items.
    """
    if not pools:
        return start
    cache = MixtureCache(pools, untrended_parts, trends)
    alone = (
        max(map(cache.of, _alone(start, grid)), key=_NDCG) if "weights" in grid else cache.of(start)
    )
    # The search is greedy: from the best part alone, it cannot end below that part.
    starts = (cache.of(start), alone)
    here = max((_coordinate_search(begin, cache, grid, _NDCG) for begin in starts), key=_NDCG)
    # Each price leads the search elsewhere, and all mixtures on the way stay in the cache.
    for price in COVERAGE_WEIGHTS if maximise_coverage else COVERAGE_WEIGHTS[:1]:
        here = _coordinate_search(here, cache, grid, replace(_UTILITY, coverage=price))
    top = max(map(_NDCG, cache.seen))
    floor = top - MAX_TRADED_GAIN * (top - _NDCG(alone))

    def near(result: MixtureResult) -> bool:
        return _NDCG(result) >= floor

    best = max(filter(near, cache.seen), key=_UTILITY)
    best = _coordinate_search(best, cache, grid, _UTILITY, near)
    if not maximise_coverage:
        return best.mixture

    def as_stable(result: MixtureResult) -> bool:
        return near(result) and result.stability >= best.stability

    here = max(filter(as_stable, cache.seen), key=lambda x: (_COVERAGE(x), _UTILITY(x)))
    return _coordinate_search(here, cache, grid, _COVERAGE, as_stable).mixture


def _alone(start: Mixture, grid: Mapping[str, Sequence[float]]) -> Iterator[Mixture]:
    """Yield each part alone, without the exponents that are searched."""
    boost = 0.0 if "recency_boost" in grid else start.recency_boost
    penalty = 0.0 if "popularity_penalty" in grid else start.popularity_penalty
    for name in start.weights:
        yield Mixture({other: float(other == name) for other in start.weights}, boost, penalty)


def _coordinate_search(
    here: MixtureResult,
    cache: MixtureCache,
    grid: Mapping[str, Sequence[float]],
    value: Objective,
    near: Callable[[MixtureResult], bool] = lambda _: True,
) -> MixtureResult:
    """Change one field at a time while that raises `value`, only to mixtures that are `near`."""
    exponents = [("recency_boost", None), ("popularity_penalty", None)]
    for _ in range(_SWEEPS):
        before = here
        for field, part in [*(("weights", name) for name in here.mixture.weights), *exponents]:
            results = [cache.of(mixture) for mixture in _moves(here.mixture, grid, field, part)]
            best = max(filter(near, results), key=value, default=here)
            if ACCEPTANCE.accepts(np.exp(value.by_window(best)), np.exp(value.by_window(here))):
                here = best
        if here is before:
            break
    return here


def _moves(
    here: Mixture, grid: Mapping[str, Sequence[float]], field: str, part: str | None
) -> list[Mixture]:
    """Return the mixtures that differ from `here` in one weight or exponent."""
    changes: list[dict[str, Any]] = [{field: value} for value in grid.get(field, ())]
    if part is not None:
        changes = [{field: {**here.weights, part: value}} for value in grid.get(field, ())]
    mixtures = [replace(here, **change) for change in changes]
    return [mixture for mixture in mixtures if any(mixture.weights.values())]


class MixtureCache:
    """Results of all mixtures that were measured on some pools.

    Parameters
    ----------
    pools
        One per window.
    untrended_parts, trends
        As in `optimise_mixture`.
    """

    def __init__(
        self,
        pools: Sequence[CandidatePool],
        untrended_parts: Sequence[str],
        trends: Callable[[History], Trends],
    ) -> None:
        self._results: dict[tuple[float, ...], MixtureResult] = {}
        self._pools: list[tuple[CandidatePool, _Scaled, _Scaled | None]] = []
        scaled = partial(_Scaled, untrended_parts=untrended_parts, trends=trends)
        for pool in pools:
            now, check = scaled(pool.user, pool.part_scores), pool.stability
            before = None if check is None else scaled(pool.user, check.part_scores)
            self._pools.append((pool, now, before))

    @property
    def seen(self) -> list[MixtureResult]:
        """All results, in the order of trial."""
        return list(self._results.values())

    def of(self, mixture: Mixture) -> MixtureResult:
        """Return the result of a mixture, measured once."""
        most = max(mixture.weights.values())  # lists depend on the ratios of the weights alone
        ratios = (round(weight / most, 9) for weight in mixture.weights.values())
        key = (mixture.recency_boost, mixture.popularity_penalty, *ratios)
        if key not in self._results:
            values, kept = [], []
            for pool, now, before in self._pools:
                mixed = now.mixed(mixture)
                values.append(pool.value(mixed))
                if pool.stability is not None and before is not None:
                    kept.append(pool.stability.kept_share(mixed, before.mixed(mixture)))
            log_ndcg, log_coverage = np.log(np.maximum(values, _ZERO)).T
            stability = float(np.mean(kept)) if kept else 1.0
            self._results[key] = MixtureResult(mixture, log_ndcg, log_coverage, stability)
        return self._results[key]


class _Scaled:
    """Scores of the parts, each scaled by the user's best, for each trend that is tried."""

    def __init__(
        self,
        user: NDArray[np.int64],
        part_scores: PartScores,
        untrended_parts: Sequence[str],
        trends: Callable[[History], Trends],
    ) -> None:
        self._part_scores, self._untrended_parts = part_scores, untrended_parts
        self._trends = trends(part_scores.history)
        self._scaled: dict[tuple[str, float, float], NDArray[np.float32]] = {}
        self._first = np.flatnonzero(np.diff(user, prepend=-1))
        self._each = np.diff(np.append(self._first, len(user)))

    def mixed(self, mixture: Mixture) -> NDArray[np.float32]:
        """Return ``(n,)`` scores of the pairs."""
        parts = (np.float32(w) * self._part(n, mixture) for n, w in mixture.weights.items() if w)
        return sum(parts, np.zeros(len(self._part_scores.item), np.float32))

    def _part(self, name: str, mixture: Mixture) -> NDArray[np.float32]:
        moves = name not in self._untrended_parts
        trend, spread = mixture.recency_boost, mixture.popularity_penalty
        # An untrended part has the same scores for all exponents, so they are computed once.
        key = (name, trend, spread) if moves else (name, 0.0, 0.0)
        if key not in self._scaled:
            score = self._part_scores.scores[name]
            if moves:
                score = score * self._trends(trend, spread)[self._part_scores.item]
            # As in `scaled`: a user's scores are divided by the best, unless it is not above 0.
            most = np.repeat(np.maximum.reduceat(score, self._first), self._each)
            scaled = np.zeros_like(score)
            np.divide(score, most, out=scaled, where=most > 0)
            self._scaled[key] = scaled
        return self._scaled[key]
