"""How much each part of a blend counts, chosen on windows before the holdout.

Promises: a move must pay on more windows than not; where lists leave out what people had, of
mixtures that are about as good the one that shows more of the catalogue wins; the same pools give
the same choice.

The parts are trained once a window. What they say of the candidates (`tuning.Pool`) is then mixed
anew for every trial, which costs next to nothing: so all that is mixed is searched together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.tuning import Pool

COVERAGE_COUNTS = 0.12
"""What one per cent more of the catalogue shown is worth, in per cent of NDCG. Without it the
choice drifts towards what sells everywhere, which a list for discovery is not for."""
_LEAST = 0.002
"""A move that gains less than this share is not made."""
_SWEEPS = 6

TrendOf = Callable[[History, float, float], NDArray[np.float32]]
"""``(n_items,)`` float32 trend of a window, for the exponents `trend` and `spread`."""


@dataclass(frozen=True)
class Mixture:
    """Weights of the parts by name, and the exponents of the trend."""

    weights: Mapping[str, float]
    trend: float
    spread: float


def choose(
    start: Mixture,
    pools: Sequence[Pool],
    *,
    tries: Mapping[str, Sequence[float]],
    coverage_counts: float,
    still: Sequence[str],
    trend_of: TrendOf,
) -> Mixture:
    """Climb from `start`, and from the best part alone, one weight or exponent at a time.

    Parameters
    ----------
    pools
        One a window; without any, `start` is returned.
    tries
        Values to try for ``weights``, ``trend`` and ``spread``; what is absent stays as it is.
    coverage_counts
        As `COVERAGE_COUNTS`.
    still
        Parts that the trend does not multiply.
    """
    if not pools:
        return start
    boards = [_Board(pool, coverage_counts, still, trend_of) for pool in pools]
    starts = [start]
    if "weights" in tries:
        alone = [{n: float(n == name) for n in start.weights} for name in start.weights]
        lone = [replace(start, weights=one) for one in alone]
        starts.append(max(lone, key=lambda one: _gains(one, boards).mean()))
    ends = [_climb(one, boards, tries) for one in starts]
    return max(ends, key=lambda end: end[1].mean())[0]


def _climb(
    here: Mixture, boards: Sequence[_Board], tries: Mapping[str, Sequence[float]]
) -> tuple[Mixture, NDArray[np.float64]]:
    gain = _gains(here, boards)
    for _ in range(_SWEEPS):
        before = here
        for moves in _moves(here, tries):
            tried = [(move, _gains(move, boards)) for move in moves(here)]
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
    start: Mixture, tries: Mapping[str, Sequence[float]]
) -> Iterator[Callable[[Mixture], list[Mixture]]]:
    """Yield, for each thing that can be moved, what gives the mixtures that differ in it."""

    def weighed(name: str) -> Callable[[Mixture], list[Mixture]]:
        def moves(here: Mixture) -> list[Mixture]:
            others = [dict(here.weights) | {name: value} for value in tries["weights"]]
            return [replace(here, weights=w) for w in others if any(w.values())]

        return moves

    if "weights" in tries:
        for name in start.weights:
            yield weighed(name)
    if "trend" in tries:
        yield lambda here: [replace(here, trend=value) for value in tries["trend"]]
    if "spread" in tries:
        yield lambda here: [replace(here, spread=value) for value in tries["spread"]]


def _gains(mixture: Mixture, boards: Sequence[_Board]) -> NDArray[np.float64]:
    return np.array([board.gain(mixture) for board in boards])


class _Board:
    """A pool with the parts' scores scaled for each trend that is asked for."""

    def __init__(
        self, pool: Pool, coverage_counts: float, still: Sequence[str], trend_of: TrendOf
    ) -> None:
        self._pool, self._still, self._trend_of = pool, still, trend_of
        self._coverage_counts = coverage_counts
        self._scaled: dict[tuple[str, float, float], NDArray[np.float32]] = {}
        self._gains: dict[tuple[float, ...], float] = {}
        self._first = np.flatnonzero(np.diff(pool.user, prepend=-1))
        self._each = np.diff(np.append(self._first, len(pool.user)))

    def gain(self, mixture: Mixture) -> float:
        """Return log NDCG, and a little for coverage: differences are shares."""
        key = (mixture.trend, mixture.spread, *mixture.weights.values())
        if key not in self._gains:
            parts = [w * self._part(n, mixture) for n, w in mixture.weights.items() if w]
            ndcg, coverage = self._pool.value(np.sum(parts, axis=0, dtype=np.float32))
            wide = self._coverage_counts * np.log(max(coverage, 1e-9))
            self._gains[key] = float(np.log(max(ndcg, 1e-9)) + wide)
        return self._gains[key]

    def _part(self, name: str, mixture: Mixture) -> NDArray[np.float32]:
        moves = name not in self._still
        key = (name, mixture.trend if moves else 0.0, mixture.spread if moves else 0.0)
        if key not in self._scaled:
            score = self._pool.scores[name]
            if moves:
                score = score * self._trend_of(self._pool.history, *key[1:])[self._pool.item]
            most = np.repeat(np.maximum.reduceat(score, self._first), self._each)
            scaled = np.zeros_like(score)
            np.divide(score, most, out=scaled, where=most > 0)
            self._scaled[key] = scaled
        return self._scaled[key]
