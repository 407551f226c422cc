"""Distance of a window from reference windows, relative to the distances among these.

Guarantees: a window with few users does not alarm because it is small; differences between usual
days, weekends included, are not drift; a distance below the floor is not, however significant; a
user with many events weighs as much as one with a single event.

A window's distribution over cells (items, categories, bins) is the mean over its users of each
user's shares. Its distance from a reference is the Jensen–Shannon divergence in bits (Lin 1991).
By chance, n users against N have ``V·(1/n + 1/N) / (8·ln 2)``: to second order the divergence is
``χ²/(8·ln 2)`` with p-weighted squares, and V is the sum over cells of the variance between
users ÷ mean. The rest is the *excess*. Each reference window has an excess against the others, and
the z-score compares a window's excess with those::

    z = (excess − median) / √( spread² + noise² + floor² )

with the standard deviation of the chance part, ``noise``, at this window's number of users. The
spread is that of the normal distribution with the same median deviation, or with the same ninth
decile if that is wider: one weekday in seven may differ without being drift. The scored days are
also compared together, with runs of as many days of the reference: a small change that lasts is
then found, because the chance part is smaller.

The others are those of other weeks (folds): cells that depend on popularity are then built without
the window that is measured in them, in the reference as for the newest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FLOOR: Final = 0.002
"""Bits. With a threshold of 4 an excess below .008 is never drift: a PSI of about .045."""
_NORMAL: Final = 1.4826
NINTH: Final = 1.2816
"""Normal distribution: SD ÷ median deviation, and the ninth decile in SDs."""
_8_LN_2: Final = 8.0 * math.log(2.0)


@dataclass(frozen=True)
class Histogram:
    """Sums over the users of each window, and the shares expected from the reference.

    Attributes
    ----------
    sums, squares
        ``(windows, cells)`` float64: sum over users of their share, and of its square.
    users
        ``(windows,)`` float64 number of users.
    expected
        ``(windows, cells)`` float64: mean share over the users of the reference windows of the
        window.
    against
        ``(windows,)`` float64: number of these users.
    """

    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    users: NDArray[np.float64]
    expected: NDArray[np.float64]
    against: NDArray[np.float64]


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Jensen–Shannon divergence of distributions (Lin 1991).

    Parameters
    ----------
    p, q
        ``(..., cells)`` float64 that sum to 1 along the last axis.

    Returns
    -------
    ``(...)`` float64 in bits.
    """
    middle = (p + q) / 2
    return (_relative(p, middle) + _relative(q, middle)) / 2


def scores(cells: Histogram, reference: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the z-score of each window outside the reference.

    Parameters
    ----------
    cells
        Sums of all windows.
    reference
        ``(windows,)`` bool; at least two reference windows have users.

    Returns
    -------
    ``(n,)`` float64; NaN for a window without users.
    """
    excess, noise, spread = _excess(cells, reference)
    return (excess / np.sqrt(spread**2 + noise**2 + FLOOR**2))[~reference]


def pooled_score(
    pooled: Histogram, cells: Histogram, reference: NDArray[np.bool_], days: int
) -> float:
    """Return the z-score of several days together.

    Parameters
    ----------
    pooled
        Sums over runs of so many days: the scored days in the first row, the others are their
        reference.
    cells, reference
        Of the single days, as for `scores`.
    days
        Length of a run.
    """
    excess, noise, spread = _excess(pooled, np.arange(len(pooled.users)) > 0)
    # The runs overlap and are few. Their spread is at least that of a mean over independent days.
    spread = max(spread, _excess(cells, reference)[2] / days)
    return float(excess[0]) / math.sqrt(spread**2 + float(noise[0]) ** 2 + FLOOR**2)


def _excess(
    cells: Histogram, reference: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return excess less median and noise of each window, and the spread of the reference."""
    present = cells.users > 0
    users = np.where(present, cells.users, np.nan)
    weight, freedom = _between_users(cells, reference & present)
    chance = weight * (1 / users + 1 / np.where(cells.against > 0, cells.against, np.nan)) / _8_LN_2
    excess = divergence(cells.sums / users[:, None], cells.expected) - chance
    usual = excess[reference & present]
    median, spread = robust(usual)
    spread = max(spread, (float(np.quantile(usual, 0.9)) - median) / NINTH)
    return excess - median, chance * math.sqrt(2 / freedom), spread


def robust(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the median, and the SD of a normal distribution with the same median deviation."""
    median = float(np.median(values))
    return median, _NORMAL * float(np.median(np.abs(values - median)))


def _between_users(cells: Histogram, chosen: NDArray[np.bool_]) -> tuple[float, float]:
    """Return V and its degrees of freedom, (Σ λ)² / Σ λ² with λ = variance ÷ mean of each cell."""
    n = cells.users[chosen].sum()
    mean = cells.sums[chosen].sum(axis=0) / n
    # Rounding may make a variance of 0 slightly negative.
    variance = np.maximum(cells.squares[chosen].sum(axis=0) / n - mean**2, 0.0)
    part = variance[mean > 0] / mean[mean > 0]
    total, squared = float(part.sum()), float((part**2).sum())
    return total, (total**2 / squared if squared > 0 else 1.0)


def _relative(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    some = p > 0
    ratio = np.divide(p, q, out=np.ones_like(p), where=some & (q > 0))
    # A cell without share contributes 0, the limit of p·log p.
    bits: NDArray[np.float64] = (p * np.log2(ratio, where=some, out=np.zeros_like(p))).sum(axis=-1)
    return bits
