"""Scores -> lists: exact top-K, blocked, never padded.

Promises: a list holds the best `k` items that have a score, fewer where there are fewer, never an
excluded or forbidden one. The score of a pair is its inner product in float64 plus its sparse cell,
rounded to float32 once; the order is score falling, then item index (so item id) rising, at the
cut too. So a list depends neither on the block it was computed in, nor on the number of threads,
nor on the kernels of the BLAS: a fresh process on another machine gives the same bytes.

How: one float32 product a block finds the candidates, wide enough by a bound on its rounding error
that nothing can be missed; only these are scored in float64. What stands beside the factors (a
profile times links, the sparse term) is summed cell by cell in the order it is stored in, so it is
the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.models.contract import Scores

_Cells = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Rows, columns, values."""
_BLOCK_CELLS = 1 << 22
"""Cells of one dense block of scores: 16 MiB of float32."""
_EXACT_PAIRS = 1 << 16
"""Pairs scored in float64 at a time."""
_LARGEST = np.finfo(np.float32).max
_ROUNDING = 2.0**-24
_SMALLEST = 2.0**-126


@dataclass(frozen=True)
class Lists:
    """Ragged lists, one a user: best item first, never padded.

    Attributes
    ----------
    indptr
        ``(n_rows + 1,)`` int64: the list of row ``u`` is ``indptr[u]:indptr[u + 1]``.
    item
        ``(n,)`` int32 column of each entry.
    score
        ``(n,)`` float32, falling within a list; equal scores stand in the order of columns.
    """

    indptr: NDArray[np.int64]
    item: NDArray[np.int32]
    score: NDArray[np.float32]

    @property
    def n_rows(self) -> int:
        """Number of lists, empty ones included."""
        return len(self.indptr) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(n_rows,)`` int64 length of each list."""
        return np.diff(self.indptr)

    @property
    def row(self) -> NDArray[np.int32]:
        """``(n,)`` int32 row of each entry."""
        return np.repeat(np.arange(self.n_rows, dtype=np.int32), self.counts)

    @property
    def rank(self) -> NDArray[np.int64]:
        """``(n,)`` int64 place of each entry in its list, from 0."""
        return np.arange(len(self.item)) - np.repeat(self.indptr[:-1], self.counts)

    def of(self, row: int) -> NDArray[np.int32]:
        """Return the items of one row, best first."""
        return self.item[self.indptr[row] : self.indptr[row + 1]]


def top_k(
    scores: Scores,
    k: int,
    *,
    exclude: sp.csr_matrix | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> Lists:
    """Return the best `k` items of each user.

    Parameters
    ----------
    scores
        Of ``n_users`` over ``n_items``.
    k
        Longest length of a list, ≥ 1; may exceed the catalogue.
    exclude
        Users × items; its stored cells, whatever their value, never appear.
    allowed
        ``(n_items,)`` bool; items that are ``False`` never appear.

    Raises
    ------
    DataError
        A score is not finite, or too large for float32.
    ValueError
        Shapes do not fit, or ``k < 1``.
    """
    n_users, n_items = scores.shape
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    for name, part in (("sparse", scores.sparse), ("exclude", exclude)):
        if part is not None and part.shape != (n_users, n_items):
            raise ValueError(f"{name} is {part.shape}, the scores are {(n_users, n_items)}")
    if allowed is not None and allowed.shape != (n_items,):
        raise ValueError(f"allowed is {allowed.shape}, the catalogue holds {n_items}")
    if scores.sparse is not None and not scores.sparse.has_canonical_format:
        scores = replace(scores, sparse=_canonical(scores.sparse))
    longest = 0.0 if scores.items is None else _norms(scores.items).max(initial=0.0)
    forbidden = None if allowed is None else ~allowed
    step = max(1, _BLOCK_CELLS // max(1, n_items))
    blocks = [
        _block(
            _rows(scores, part), k, None if exclude is None else exclude[part], forbidden, longest
        )
        for part in (slice(at, min(at + step, n_users)) for at in range(0, n_users, step))
    ]
    counts = [np.zeros(1, np.int64), *(count for count, _, _ in blocks)]
    items = [np.zeros(0, np.int32), *(item for _, item, _ in blocks)]
    values = [np.zeros(0, np.float32), *(value for _, _, value in blocks)]
    return Lists(np.cumsum(np.concatenate(counts)), np.concatenate(items), np.concatenate(values))


def _rows(scores: Scores, rows: slice) -> Scores:
    """Return the scores of some rows, with all that stands beside the factors in one term."""
    users = None if scores.users is None else scores.users[rows]
    beside = None if scores.sparse is None else scores.sparse[rows]
    if scores.profile is not None and scores.links is not None:
        led = (scores.profile[rows] @ scores.links).tocsr()
        beside = led if beside is None else led + beside
        beside.sum_duplicates()
    return Scores(users, scores.items, beside)


def _block(
    scores: Scores,
    k: int,
    exclude: sp.csr_matrix | None,
    forbidden: NDArray[np.bool_] | None,
    longest: float,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Return counts, items and scores of the lists of one block of users."""
    error = _error_bound(scores, longest)
    n = len(error)
    if scores.users is not None and scores.items is not None:
        block = scores.users @ scores.items.T
        unknown = np.abs(scores.users).max(axis=1, initial=0.0) == 0
        block[unknown] = -np.inf
        wobble = _add_sparse(block, scores.sparse, unknown)
        if exclude is not None:
            user, item, _ = _cells(exclude)
            block[user, item] = -np.inf
        if forbidden is not None:
            np.copyto(block, -np.inf, where=forbidden)
        user, item = _candidates(block, k, error, wobble)
    else:
        user, item = _allowed_cells(scores.sparse, exclude, forbidden)
    score = _exact(scores, user, item)
    keep = _crowd_thinned(user, score, k, n)
    user, item, score = user[keep], item[keep], score[keep]
    order = np.lexsort((-score, user))  # stable, and the pairs come in the order of items
    user, item, score = user[order], item[order], score[order]
    found = np.bincount(user, minlength=n)
    first = np.arange(len(user)) - np.repeat(np.cumsum(found) - found, found) < k
    return np.minimum(found, k), item[first].astype(np.int32), score[first]


def _add_sparse(
    block: NDArray[np.float32],
    sparse: sp.csr_matrix | None,
    unknown: NDArray[np.bool_],
) -> _Cells | None:
    """Add the sparse term to `block`, rounded down; return by how much the sums may be higher."""
    if sparse is None:
        return None
    user, item, value = _cells(sparse)
    total = np.where(unknown[user], value, block[user, item] + value)
    wobble = np.float32(4 * _ROUNDING) * (np.abs(total) + np.abs(value))
    block[user, item] = total - wobble
    return user, item, 2 * wobble


def _candidates(
    block: NDArray[np.float32], k: int, error: NDArray[np.float64], wobble: _Cells | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (row in the block, item) of every pair that may be among its user's best `k`."""
    floor = np.maximum(_reached_by(block, k) - 2 * error, -_LARGEST).astype(np.float32)
    floor = np.nextafter(floor, -_LARGEST)  # not towards −inf: past the last number is a warning
    if wobble is not None:
        user, item, value = wobble
        block[user, item] += value
    flat = np.flatnonzero(block >= floor[:, None])
    user, item = np.divmod(flat, block.shape[1])
    return user, item


def _crowd_thinned(
    user: NDArray[np.int64], score: NDArray[np.float32], k: int, n: int
) -> NDArray[np.bool_]:
    """Tell which pairs to sort: of a row with far too many (ties, mostly), its best `k` only."""
    keep = np.ones(len(user), bool)
    end = np.cumsum(np.bincount(user, minlength=n))
    for row in np.flatnonzero(np.diff(end, prepend=0) > 64 + 16 * k):
        pairs = slice(end[row - 1] if row else 0, end[row])
        mine = score[pairs]
        last = np.partition(mine, len(mine) - k)[len(mine) - k]
        keep[pairs] = mine > last
        tied = np.flatnonzero(mine == last) + pairs.start
        keep[tied[: k - keep[pairs].sum()]] = True
    return keep


def _reached_by(block: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """Return, for each row, a value that at least `k` cells reach; −inf where there are fewer.

    The columns are dealt into piles; the k-th best of the piles' best is such a value, and with
    many more piles than `k` it is nearly always the k-th best itself, for a fraction of the work.
    """
    n, columns = block.shape
    if k > columns:
        return np.full(n, -np.inf)
    piles = min(columns, 64 * k)
    depth = columns // piles
    best = block[:, : piles * depth].reshape(n, depth, piles).max(axis=1)
    return np.partition(best, piles - k, axis=1)[:, piles - k].astype(np.float64)


def _allowed_cells(
    sparse: sp.csr_matrix,
    exclude: sp.csr_matrix | None,
    forbidden: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (row in the block, item) of every cell that may appear."""
    user, item, _ = _cells(sparse)
    keep = np.ones(len(user), bool)
    if exclude is not None:
        width = exclude.shape[1]
        gone_user, gone_item, _ = _cells(exclude)
        keep &= ~np.isin(user * width + item, gone_user * width + gone_item)
    if forbidden is not None:
        keep &= ~forbidden[item]
    return user[keep], item[keep]


def _exact(scores: Scores, user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float32]:
    """Score pairs in float64, in an order that depends on nothing but the number of factors."""
    exact = np.zeros(len(user), np.float64)
    if scores.users is not None and scores.items is not None:
        for at in range(0, len(user), _EXACT_PAIRS):
            pick = slice(at, at + _EXACT_PAIRS)
            product = scores.users[user[pick]].astype(np.float64) * scores.items[item[pick]]
            exact[pick] = product.sum(axis=1)
    if scores.sparse is not None:
        width = scores.sparse.shape[1]
        cell_user, cell_item, value = _cells(scores.sparse)
        key, wanted = cell_user * width + cell_item, user * width + item
        at = np.minimum(np.searchsorted(key, wanted), max(0, len(key) - 1))
        if len(key):
            exact += np.where(key[at] == wanted, value[at], np.float32(0))
    return exact.astype(np.float32)


def _error_bound(scores: Scores, longest: float) -> NDArray[np.float64]:
    """Bound, for each user, how far a float32 product may lie from the exact one.

    ``|fl(u·v) − u·v| ≤ γ_f ‖u‖ ‖v‖`` with ``γ_f ≈ f·2⁻²⁴`` whatever the order of summation
    (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), doubled for the roundings after
    it; the last term covers products that underflow. `longest` is the largest ‖v‖.
    """
    factors, size, beside = 0, np.zeros(scores.shape[0]), np.float32(0)
    if scores.users is not None and scores.items is not None:
        factors = scores.users.shape[1]
        size = _norms(scores.users) * longest
    if scores.sparse is not None and scores.sparse.nnz:
        beside = np.abs(scores.sparse.data).max()
    wild = ~(size + beside < _LARGEST / 2)
    if wild.any():
        raise DataError(
            "the model gives scores that are no finite numbers",
            where="scores",
            count=int(wild.sum()),
        )
    return 2 * (factors + 2) * (_ROUNDING * size + _SMALLEST)


def _norms(factors: NDArray[np.float32]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("rf,rf->r", factors, factors, dtype=np.float64)
    return np.sqrt(squares)


def _cells(matrix: sp.csr_matrix) -> _Cells:
    """Return (row, column, value) of the stored cells."""
    rows = np.arange(matrix.shape[0], dtype=np.int64)
    return np.repeat(rows, np.diff(matrix.indptr)), matrix.indices.astype(np.int64), matrix.data


def _canonical(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Return a copy with sorted columns and no cell twice."""
    copy = matrix.copy()
    copy.sum_duplicates()
    return copy
