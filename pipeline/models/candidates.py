"""Candidate pairs for exact lists: one float32 product, and a bound on its rounding error.

Guarantees: for each user, all pairs that may be among the best `k` by exact scores are returned,
ties at the cut included; few others are, unless many scores lie within the error of one another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.models.contract import Scores

Cells = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Pairs of a block, as row · width + column, and a value each."""
_FEW = 32
"""Without factors, a block is written out if more than one cell in this number is stored."""
_LARGEST = np.finfo(np.float32).max
_ROUNDING = 2.0**-24
_SMALLEST = 2.0**-126


@dataclass(frozen=True)
class Limits:
    """Limits of the lists of a block.

    Attributes
    ----------
    k
        Length of a list, ≥ 1.
    longest
        The largest norm of an item's factors.
    exclude
        Users × items of the block: stored cells are excluded.
    forbidden
        ``(n_items,)`` bool: items excluded for all users.
    """

    k: int
    longest: float
    exclude: sp.csr_matrix | None
    forbidden: NDArray[np.bool_] | None


def candidates(scores: Scores, limits: Limits) -> Cells:
    """Find the pairs of a block that may be among their users' best `k`.

    Parameters
    ----------
    scores
        Of the block, without a history; no cell of the sparse term is stored twice.
    limits
        Limits of the lists.

    Returns
    -------
    The pairs in the order of users and items, and the value of the sparse term of each.

    Raises
    ------
    DataError
        `model.scores_not_finite`: a score is not finite, or too large for float32.
    """
    n, n_items = scores.shape
    size = np.zeros(n) if scores.users is None else norms(scores.users)
    error = _error_bound(scores, size, limits.longest)
    cells = None if scores.sparse_bonus is None else _cells(scores.sparse_bonus)
    block: NDArray[np.float32]
    if scores.users is not None and scores.items is not None:
        block = scores.users @ scores.items.T
    elif cells is not None and len(cells[0]) * _FEW < n * n_items:
        # Only stored cells have scores, so a block with few of them is not written out.
        return _allowed_cells(cells, n_items, limits)
    else:
        block = np.empty((n, n_items), np.float32)
    block[size == 0] = -np.inf
    wobble = _add_cells(block, cells)
    if limits.exclude is not None:
        block.reshape(-1)[_cells(limits.exclude)[0]] = -np.inf
    if limits.forbidden is not None:
        np.copyto(block, -np.inf, where=limits.forbidden)
    pair = _reaching(block, limits.k, error, wobble)
    return pair, _picked(block, cells, pair)


def _add_cells(block: NDArray[np.float32], cells: Cells | None) -> Cells | None:
    """Add the cells to `block`, rounded down; return the largest error of each sum."""
    if cells is None:
        return None
    # The cells hold lower bounds of the sums while the threshold is taken, upper bounds afterwards:
    # so rounding can add candidates but never lose one.
    (pair, value), flat = cells, block.reshape(-1)
    product = flat[pair]
    total = np.where(np.isneginf(product), value, product + value)
    wobble = np.float32(4 * _ROUNDING) * (np.abs(total) + np.abs(value))
    flat[pair] = total - wobble
    return pair, 2 * wobble


def _reaching(
    block: NDArray[np.float32], k: int, error: NDArray[np.float64], wobble: Cells | None
) -> NDArray[np.int64]:
    """Return every pair that may be among its user's best `k`, in the order of users and items."""
    floor = np.maximum(_reached_by(block, k) - 2 * error, -_LARGEST).astype(np.float32)
    floor = np.nextafter(floor, -_LARGEST)  # not towards −inf: past the last number is a warning
    if wobble is not None:
        pair, value = wobble
        block.reshape(-1)[pair] += value
    return np.flatnonzero(block >= floor[:, None])


def _picked(
    block: NDArray[np.float32], cells: Cells | None, pair: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the cells' values at some pairs, 0 for pairs without a cell; overwrites `block`."""
    picked = np.zeros(len(pair), np.float32)
    if cells is not None:
        # Marking the pairs in the block finds the cells among them without a sort.
        flat = block.reshape(-1)
        flat[pair] = np.inf
        hit = np.flatnonzero(flat[cells[0]] == np.inf)
        picked[np.searchsorted(pair, cells[0][hit])] = cells[1][hit]
    return picked


def _reached_by(block: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """Return, for each row, a value that at least `k` cells reach; −inf in shorter rows."""
    # The columns are split into groups; the k-th best of the groups' best is such a value, and with
    # many more groups than `k` it is nearly always the k-th best itself, for a fraction of the
    # work.
    n, columns = block.shape
    if k > columns:
        return np.full(n, -np.inf)
    groups = min(columns, 64 * k)
    depth = columns // groups
    best = block[:, : groups * depth].reshape(n, depth, groups).max(axis=1)
    return np.partition(best, groups - k, axis=1)[:, groups - k].astype(np.float64)


def _allowed_cells(cells: Cells, n_items: int, limits: Limits) -> Cells:
    """Return the cells that are not excluded, in the order of users and items."""
    order = np.argsort(cells[0])
    pair, value = cells[0][order], cells[1][order]
    keep = np.ones(len(pair), bool)
    if limits.exclude is not None:
        keep &= ~np.isin(pair, _cells(limits.exclude)[0])
    if limits.forbidden is not None:
        keep &= ~limits.forbidden[pair % n_items]
    return pair[keep], value[keep]


def _error_bound(scores: Scores, size: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """Bound, for each user, the difference between a float32 product and the exact one."""
    # ``|fl(u·v) − u·v| ≤ γ_f ‖u‖ ‖v‖`` with ``γ_f ≈ f·2⁻²⁴`` whatever the order of summation
    # (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), doubled for the roundings after
    # it; the last term covers products that underflow. `size` is ‖u‖, `longest` the largest ‖v‖.
    factors = 0 if scores.users is None else scores.users.shape[1]
    largest = size * longest
    beside = np.float32(0)
    if scores.sparse_bonus is not None and scores.sparse_bonus.nnz:
        beside = np.abs(scores.sparse_bonus.data).max()
    unbounded = ~(largest + beside < _LARGEST / 2)  # true for NaN, unlike `>=`
    if unbounded.any():
        raise DataError(
            "model.scores_not_finite",
            "scores of the model are not finite, or too large for float32; train it again with "
            "stronger regularization",
            where="scores",
            count=int(unbounded.sum()),
        )
    return 2 * (factors + 2) * (_ROUNDING * largest + _SMALLEST)


def norms(factors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean norm of each row, in float64."""
    squares: NDArray[np.float64] = np.einsum("rf,rf->r", factors, factors, dtype=np.float64)
    return np.sqrt(squares)


def _cells(matrix: sp.csr_matrix) -> Cells:
    """Return the stored cells."""
    n, width = matrix.shape
    start = np.repeat(np.arange(n, dtype=np.int64) * width, np.diff(matrix.indptr))
    return start + matrix.indices, matrix.data
