"""How much each part of a blend counts, chosen on windows before the holdout.

Promises: a move must pay on more windows than not; of mixtures that are about as good the one that
shows more of the catalogue wins; the same pools give the same choice.

The parts are trained once a window. What they say of the candidates (`tuning.Pool`) is then mixed
anew for every trial, which costs next to nothing: so weights and trend are searched together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.tuning import Pool

COVERAGE_COUNTS = 0.03
"""What one per cent more of the catalogue shown is worth, in per cent of NDCG."""
_LEAST = 0.002
"""A move that gains less than this share is not made."""
_SWEEPS = 6


@dataclass(frozen=True)
class Mixture:
    """Weights of the parts by name, and the exponent of the trend."""

    weights: Mapping[str, float]
    trend: float


def choose(
    start: Mixture,
    pools: Sequence[Pool],
    *,
    weights: Sequence[float],
    trends: Sequence[float],
    still: Sequence[str],
    trend_of: Callable[[History, float], NDArray[np.float32]],
) -> Mixture:
    """Climb from `start`, and from each part alone, one weight or the trend at a time.

    Parameters
    ----------
    pools
        One a window; without any, `start` is returned.
    weights, trends
        Values to try; empty: leave as they are.
    still
        Parts that the trend does not multiply.
    trend_of
        ``(n_items,)`` float32 trend of a window for an exponent.
    """
    if not pools:
        return start
    boards = [_Board(pool, still, trend_of) for pool in pools]
    starts = [start]
    if weights:
        alone = [{n: float(n == name) for n in start.weights} for name in start.weights]
        starts += [replace(start, weights=one) for one in alone]
    ends = [_climb(one, boards, weights, trends) for one in starts]
    return max(ends, key=lambda end: end[1].mean())[0]


def _climb(
    here: Mixture, boards: Sequence[_Board], weights: Sequence[float], trends: Sequence[float]
) -> tuple[Mixture, NDArray[np.float64]]:
    gain = _gains(here, boards)
    for _ in range(_SWEEPS):
        before = here
        for moves in _moves(here, weights, trends):
            tried = [(move, _gains(move, boards)) for move in moves]
            better = [
                (move, found)
                for move, found in tried
                if found.mean() > gain.mean() + _LEAST and (found > gain).sum() * 2 > len(boards)
            ]
            if better:
                here, gain = max(better, key=lambda one: one[1].mean())
        if here == before:
            break
    return here, gain


def _moves(
    here: Mixture, weights: Sequence[float], trends: Sequence[float]
) -> Iterator[list[Mixture]]:
    """Yield, for each thing that can be moved, the mixtures that differ in it."""
    now = dict(here.weights)
    for name in now:
        changed = [now | {name: value} for value in weights if value != now[name]]
        yield [replace(here, weights=one) for one in changed if any(one.values())]
    yield [replace(here, trend=value) for value in trends if value != here.trend]


def _gains(mixture: Mixture, boards: Sequence[_Board]) -> NDArray[np.float64]:
    return np.array([board.gain(mixture) for board in boards])


class _Board:
    """A pool with the parts' scores scaled for each trend that is asked for."""

    def __init__(
        self,
        pool: Pool,
        still: Sequence[str],
        trend_of: Callable[[History, float], NDArray[np.float32]],
    ) -> None:
        self._pool, self._still, self._trend_of = pool, still, trend_of
        self._scaled: dict[tuple[str, float], NDArray[np.float32]] = {}
        self._first = np.flatnonzero(np.diff(pool.user, prepend=-1))
        self._each = np.diff(np.append(self._first, len(pool.user)))

    def gain(self, mixture: Mixture) -> float:
        """Return log NDCG, and a little for coverage: differences are shares."""
        parts = [w * self._part(n, mixture.trend) for n, w in mixture.weights.items() if w]
        ndcg, coverage = self._pool.value(np.sum(parts, axis=0, dtype=np.float32))
        return float(np.log(max(ndcg, 1e-9)) + COVERAGE_COUNTS * np.log(max(coverage, 1e-9)))

    def _part(self, name: str, exponent: float) -> NDArray[np.float32]:
        key = (name, 0.0 if name in self._still else exponent)
        if key not in self._scaled:
            score = self._pool.scores[name]
            if key[1]:
                score = score * self._trend_of(self._pool.history, key[1])[self._pool.item]
            most = np.repeat(np.maximum.reduceat(score, self._first), self._each)
            scaled = np.zeros_like(score)
            np.divide(score, most, out=scaled, where=most > 0)
            self._scaled[key] = scaled
        return self._scaled[key]
