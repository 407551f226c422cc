"""How much each part of a blend counts, chosen on windows before the holdout.

Promises: on these windows the choice is not behind the best part alone; it gives at most `SPENT` of
what blending won for lists that stay overnight and, where lists leave out what people had, for ones
that show more of the catalogue, which costs NDCG and no calm; the same pools give the same choice.

The parts are trained once a window. What they say of the candidates (`tuning.Pool`) is then mixed
anew for every trial, which costs next to nothing: so all that is mixed is searched together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.tuning import Pool, Said, worth

SPENT = 1 / 3
"""The share of what a blend wins over its best part (in log NDCG) that calm and a wider choice of
items may cost. NDCG alone drifts towards what sells everywhere, which a list for discovery is not
for, and it does not see lists that are others every morning."""
_PRICES = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Per cent of worth for one per cent more of the catalogue: each leads to another mixture."""
_LEAST = 0.002
"""A move that gains less than this share is not made."""
_SWEEPS = 6
_ZERO = 1e-9
"""Stands for 0 in logarithms."""

Trends = Callable[[float, float], NDArray[np.float32]]
"""Takes the exponents `trend` and `spread`, returns ``(n_items,)`` float32 > 0."""


@dataclass(frozen=True)
class Mixture:
    """Weights of the parts by name, and the exponents of the trend."""

    weights: Mapping[str, float]
    trend: float
    spread: float


@dataclass(frozen=True)
class _Found:
    """Mean log NDCG and mean log coverage over the windows: differences are shares.

    `calm` is the share of the lists that stays overnight, 1 where nobody asked.
    """

    mixture: Mixture
    ndcg: float
    coverage: float
    calm: float

    @property
    def worth(self) -> float:
        return self.ndcg + math.log(max(worth(1.0, self.calm), _ZERO))

    def at(self, price: float) -> float:
        return self.worth + price * self.coverage


def choose(
    start: Mixture,
    pools: Sequence[Pool],
    *,
    tries: Mapping[str, Sequence[float]],
    wide: bool,
    still: Sequence[str],
    trends: Callable[[History], Trends],
) -> Mixture:
    """Climb from `start`, and from the best part alone, one weight or exponent at a time.

    Parameters
    ----------
    pools
        One a window; without any, `start` is returned.
    tries
        Values to try for ``weights``, ``trend`` and ``spread``; what is absent stays as it is. If
        the weights do, `start` is what the choice is held against, not the best part alone.
    wide
        Of the mixtures seen that find enough, take the widest that is as calm as the one that is
        worth most; without, that one.
    still
        Parts that the trend does not multiply.
    trends
        What a window's items are multiplied by.
    """
    if not pools:
        return start
    book = _Book([_Board(pool, still, trends) for pool in pools])
    alone = (
        max(map(book.of, _alone(start, tries)), key=_ndcg) if "weights" in tries else book.of(start)
    )
    starts = (book.of(start), alone)
    here = max((_climb(one, book, tries, _ndcg) for one in starts), key=_ndcg)
    for price in _PRICES if wide else _PRICES[:1]:
        here = _climb(here, book, tries, partial(_Found.at, price=price))
    top = max(book.seen, key=_ndcg).ndcg
    floor = top - SPENT * (top - alone.ndcg)

    def near(result: _Found) -> bool:
        return result.ndcg >= floor

    best = max(filter(near, book.seen), key=_worth)
    best = _climb(best, book, tries, _worth, near)
    if not wide:
        return best.mixture

    def as_calm(result: _Found) -> bool:
        return near(result) and result.calm >= best.calm

    here = max(filter(as_calm, book.seen), key=lambda found: (found.coverage, found.worth))
    return _climb(here, book, tries, _coverage, as_calm).mixture


def _ndcg(result: _Found) -> float:
    return result.ndcg


def _worth(result: _Found) -> float:
    return result.worth


def _coverage(result: _Found) -> float:
    return result.coverage


def _alone(start: Mixture, tries: Mapping[str, Sequence[float]]) -> Iterator[Mixture]:
    """Yield each part alone, as it would be without a blend."""
    bare = replace(
        start,
        trend=0.0 if "trend" in tries else start.trend,
        spread=0.0 if "spread" in tries else start.spread,
    )
    for name in start.weights:
        yield replace(bare, weights={other: float(other == name) for other in start.weights})


def _climb(
    here: _Found,
    book: _Book,
    tries: Mapping[str, Sequence[float]],
    value: Callable[[_Found], float],
    near: Callable[[_Found], bool] = lambda found: True,
) -> _Found:
    """Move while that is worth more, and never to what is not near enough."""
    for _ in range(_SWEEPS):
        before = here
        for moves in _moves(here.mixture, tries):
            found = [book.of(one) for one in moves(here.mixture)]
            best = max(filter(near, found), key=value, default=here)
            if value(best) > value(here) + _LEAST:
                here = best
        if here is before:
            break
    return here


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


class _Book:
    """Every mixture that was measured, once."""

    def __init__(self, boards: Sequence[_Board]) -> None:
        self._boards = boards
        self._found: dict[tuple[float, ...], _Found] = {}

    @property
    def seen(self) -> list[_Found]:
        """All of them, in the order of trial."""
        return list(self._found.values())

    def of(self, mixture: Mixture) -> _Found:
        most = max(mixture.weights.values())  # lists know ratios alone
        ratios = (round(weight / most, 9) for weight in mixture.weights.values())
        key = (mixture.trend, mixture.spread, *ratios)
        if key not in self._found:
            values = np.array([board.value(mixture) for board in self._boards])
            ndcg, coverage = np.log(np.maximum(values, _ZERO)).mean(axis=0)
            kept = [calm for board in self._boards if (calm := board.kept(mixture)) is not None]
            calm = float(np.mean(kept)) if kept else 1.0
            self._found[key] = _Found(mixture, float(ndcg), float(coverage), calm)
        return self._found[key]


class _Board:
    """A pool with the parts' scores scaled for each trend that is asked for."""

    def __init__(
        self, pool: Pool, still: Sequence[str], trends: Callable[[History], Trends]
    ) -> None:
        self._pool, self._stay = pool, pool.stay
        self._said = _Scaled(pool.user, pool.said, still, trends)
        if pool.stay is not None:
            self._before = _Scaled(pool.user, pool.stay.said, still, trends)

    def value(self, mixture: Mixture) -> tuple[float, float]:
        """Return NDCG and coverage of the lists that a mixture makes."""
        return self._pool.value(self._said.mixed(mixture))

    def kept(self, mixture: Mixture) -> float | None:
        """Return how much of its lists of a day earlier stays; ``None`` where nobody asked."""
        if self._stay is None:
            return None
        return self._stay.kept(self._said.mixed(mixture), self._before.mixed(mixture))


class _Scaled:
    """What scorers say, each scaled by the user's best, for each trend that is asked for."""

    def __init__(
        self,
        user: NDArray[np.int64],
        said: Said,
        still: Sequence[str],
        trends: Callable[[History], Trends],
    ) -> None:
        self._said, self._still, self._trends = said, still, trends(said.history)
        self._scaled: dict[tuple[str, float, float], NDArray[np.float32]] = {}
        self._first = np.flatnonzero(np.diff(user, prepend=-1))
        self._each = np.diff(np.append(self._first, len(user)))

    def mixed(self, mixture: Mixture) -> NDArray[np.float32]:
        """``(n,)`` scores of the pairs."""
        parts = (np.float32(w) * self._part(n, mixture) for n, w in mixture.weights.items() if w)
        return sum(parts, np.zeros(len(self._said.item), np.float32))

    def _part(self, name: str, mixture: Mixture) -> NDArray[np.float32]:
        moves = name not in self._still
        key = (name, mixture.trend if moves else 0.0, mixture.spread if moves else 0.0)
        if key not in self._scaled:
            score = self._said.scores[name]
            if moves:
                score = score * self._trends(*key[1:])[self._said.item]
            most = np.repeat(np.maximum.reduceat(score, self._first), self._each)
            scaled = np.zeros_like(score)
            np.divide(score, most, out=scaled, where=most > 0)
            self._scaled[key] = scaled
        return self._scaled[key]
