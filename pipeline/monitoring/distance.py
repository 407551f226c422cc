"""How far a window lies from reference windows, beside how far these lie from each other.

Promises: a window of few people does not alarm for being small; what differs from day to day
anyway, weekends included, is no drift; a distance that is too small to matter is none, however
sure; one person's many events weigh as much as another's single one.

A window's distribution over cells (items, categories, bins) is the mean over its people of each
person's own shares. Its distance from a reference is the Jensen–Shannon divergence in bits (Lin
1991), of which that many people give ``V·(1/n + 1/N) / (8·ln 2)`` by chance: to second order the
divergence is ``χ²/(8·ln 2)`` with p-weighted squares, and V is the sum over cells of the variance
between people ÷ mean. What is left over is the *excess*. Each reference window has one, too,
against the others, and what counts is how far a window's excess is from theirs::

    z = (excess − median) / √( spread² + noise² + floor² )

with the standard deviation of the chance part, ``noise``, at this window's number of people. The
spread is that of the normal law with the same median deviation, or with the same ninth decile if
that is wider: one weekday in seven may differ, and is then no drift.

The others are those of other weeks (folds): cells that are made from what is popular are then made
without the window that is measured in them, in the reference as for the newest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FLOOR: Final = 0.002
"""Bits. With a bound of 4 an excess below .008 is never drift: a PSI of about .045."""
_NORMAL: Final = 1.4826
_NINTH: Final = 1.2816
"""A normal law's standard deviation ÷ its median deviation; its ninth decile in deviations."""
_8_LN_2: Final = 8.0 * math.log(2.0)


@dataclass(frozen=True)
class Histogram:
    """Sums over the people of each window, and what the reference makes expected there.

    Attributes
    ----------
    sums, squares
        ``(windows, cells)`` float64: sum over people of their share, and of its square.
    people
        ``(windows,)`` float64.
    expected
        ``(windows, cells)`` float64: mean share over the people of the reference windows that the
        window is held against.
    against
        ``(windows,)`` float64: how many people these were.
    """

    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    people: NDArray[np.float64]
    expected: NDArray[np.float64]
    against: NDArray[np.float64]


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Jensen–Shannon divergence of distributions along the last axis, in bits."""
    middle = (p + q) / 2
    return (_relative(p, middle) + _relative(q, middle)) / 2


def scores(cells: Histogram, reference: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return z of each window that is no reference; NaN for one without people.

    Parameters
    ----------
    reference
        ``(windows,)`` which of them are the reference: at least two with people.
    """
    there = cells.people > 0
    people = np.where(there, cells.people, np.nan)
    weight, freedom = _between_people(cells, reference & there)
    chance = (
        weight * (1 / people + 1 / np.where(cells.against > 0, cells.against, np.nan)) / _8_LN_2
    )
    excess = divergence(cells.sums / people[:, None], cells.expected) - chance
    noise = chance * math.sqrt(2 / freedom)
    middle, spread = robust(excess[reference & there])
    spread = max(spread, (float(np.quantile(excess[reference & there], 0.9)) - middle) / _NINTH)
    return (excess - middle)[~reference] / np.sqrt(spread**2 + noise[~reference] ** 2 + FLOOR**2)


def robust(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the median, and the spread of a normal law with the same median deviation."""
    middle = float(np.median(values))
    return middle, _NORMAL * float(np.median(np.abs(values - middle)))


def _between_people(cells: Histogram, chosen: NDArray[np.bool_]) -> tuple[float, float]:
    """Return V and its degrees of freedom: (Σ λ)² / Σ λ² with λ = variance ÷ mean of each cell."""
    n = cells.people[chosen].sum()
    mean = cells.sums[chosen].sum(axis=0) / n
    variance = np.maximum(cells.squares[chosen].sum(axis=0) / n - mean**2, 0.0)
    part = variance[mean > 0] / mean[mean > 0]
    total, squared = float(part.sum()), float((part**2).sum())
    return total, (total**2 / squared if squared > 0 else 1.0)


def _relative(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    some = p > 0
    ratio = np.divide(p, q, out=np.ones_like(p), where=some & (q > 0))
    bits: NDArray[np.float64] = (p * np.log2(ratio, where=some, out=np.zeros_like(p))).sum(axis=-1)
    return bits
