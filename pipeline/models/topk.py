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

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from pipeline.errors import DataError
from pipeline.models.contract import Scores

_Cells = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Pairs of a block, as row · width + column, and a value each."""
_Found = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
"""Length of each list; items; scores."""
_BLOCK_CELLS = 1 << 23
"""Cells of one dense block of scores: 32 MiB of float32."""
_MOST_THREADS = 8
"""Blocks at a time, at most: what they hold in memory stays below a gibibyte."""
_EXACT_PAIRS = 1 << 10
"""Pairs scored in float64 at a time."""
_FEW = 32
"""Without factors, a block with less than one cell in so many is not written out."""
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

    def work(part: slice) -> _Found:
        gone = None if exclude is None else exclude[part]
        return _block(_rows(scores, part), k, gone, forbidden, longest)

    blocks = _each(work, n_users, n_items)
    counts = [np.zeros(1, np.int64), *(count for count, _, _ in blocks)]
    items = [np.zeros(0, np.int32), *(item for _, item, _ in blocks)]
    values = [np.zeros(0, np.float32), *(value for _, _, value in blocks)]
    return Lists(np.cumsum(np.concatenate(counts)), np.concatenate(items), np.concatenate(values))


def _each(work: Callable[[slice], _Found], n_users: int, n_items: int) -> list[_Found]:
    """Do `work` on all blocks of users, a block a thread; many more threads win little."""
    step = max(1, _BLOCK_CELLS // max(1, n_items))
    parts = [slice(at, min(at + step, n_users)) for at in range(0, n_users, step)]
    if len(parts) < 2:
        return [work(part) for part in parts]
    blas = ThreadpoolController().select(user_api="blas")
    threads = max((library.num_threads for library in blas.lib_controllers), default=1)
    with blas.limit(limits=1), ThreadPoolExecutor(min(threads, _MOST_THREADS)) as pool:
        return list(pool.map(work, parts))


def pair_scores(
    scores: Scores, user: NDArray[np.int64], item: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the ``(n,)`` float32 scores of pairs, exactly as `top_k` gives them.

    `user` and `item` are ``(n,)`` rows and columns, users rising. A pair without a score has 0.
    """
    n_users, n_items = scores.shape
    found: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
    step = max(1, _BLOCK_CELLS // max(1, n_items))
    for at in range(0, n_users, step):
        end = min(at + step, n_users)
        pairs = slice(*np.searchsorted(user, [at, end]))
        block, rows, columns = _rows(scores, slice(at, end)), user[pairs] - at, item[pairs]
        exact = _exact(block, rows, columns)
        if block.sparse is not None and len(rows):
            exact += np.asarray(block.sparse[rows, columns]).ravel()
        found.append(exact.astype(np.float32))
    return np.concatenate(found)


def _rows(scores: Scores, rows: slice) -> Scores:
    """Return the scores of some rows, with all that stands beside the factors in one term."""
    users = None if scores.users is None else scores.users[rows]
    beside = None if scores.sparse is None else scores.sparse[rows]
    if scores.profile is not None and scores.links is not None:
        led = (scores.profile[rows] @ scores.links).tocsr()
        beside = led if beside is None else led + beside
    return Scores(users, scores.items, beside)


def _block(
    scores: Scores,
    k: int,
    exclude: sp.csr_matrix | None,
    forbidden: NDArray[np.bool_] | None,
    longest: float,
) -> _Found:
    """Return counts, items and scores of the lists of one block of users."""
    n, n_items = scores.shape
    size = None if scores.users is None else _norms(scores.users)
    error = _error_bound(scores, size, longest)
    cells = None if scores.sparse is None else _cells(scores.sparse)
    if size is None and cells is not None and len(cells[0]) * _FEW < n * n_items:
        pair, beside = _allowed_cells(cells, n_items, exclude, forbidden)
    else:
        block = _product(scores, size)
        wobble = _add_cells(block, cells)
        if exclude is not None:
            block.reshape(-1)[_cells(exclude)[0]] = -np.inf
        if forbidden is not None:
            np.copyto(block, -np.inf, where=forbidden)
        pair = _candidates(block, k, error, wobble)
        beside = _picked(block, cells, pair)
    user, item = np.divmod(pair, n_items)
    score = (_exact(scores, user, item) + beside).astype(np.float32)
    keep = _crowd_thinned(user, score, k, n)
    user, item, score = user[keep], item[keep], score[keep]
    order = np.lexsort((-score, user))  # stable, and the pairs come in the order of items
    user, item, score = user[order], item[order], score[order]
    found = np.bincount(user, minlength=n)
    first = np.arange(len(user)) - np.repeat(np.cumsum(found) - found, found) < k
    return np.minimum(found, k), item[first].astype(np.int32), score[first]


def _product(scores: Scores, size: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """Return the products of factors; −inf where nothing is known of the user."""
    if scores.users is None or scores.items is None or size is None:
        return np.full(scores.shape, -np.inf, np.float32)
    block: NDArray[np.float32] = scores.users @ scores.items.T
    block[size == 0] = -np.inf
    return block


def _add_cells(block: NDArray[np.float32], cells: _Cells | None) -> _Cells | None:
    """Add the cells to `block`, rounded down; return by how much the sums may be higher."""
    if cells is None:
        return None
    (pair, value), flat = cells, block.reshape(-1)
    product = flat[pair]
    total = np.where(np.isneginf(product), value, product + value)
    wobble = np.float32(4 * _ROUNDING) * (np.abs(total) + np.abs(value))
    flat[pair] = total - wobble
    return pair, 2 * wobble


def _candidates(
    block: NDArray[np.float32], k: int, error: NDArray[np.float64], wobble: _Cells | None
) -> NDArray[np.int64]:
    """Return every pair that may be among its user's best `k`, in the order of users and items."""
    floor = np.maximum(_reached_by(block, k) - 2 * error, -_LARGEST).astype(np.float32)
    floor = np.nextafter(floor, -_LARGEST)  # not towards −inf: past the last number is a warning
    if wobble is not None:
        pair, value = wobble
        block.reshape(-1)[pair] += value
    return np.flatnonzero(block >= floor[:, None])


def _picked(
    block: NDArray[np.float32], cells: _Cells | None, pair: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the cells' values at some pairs, 0 where there is none; uses `block` up."""
    picked = np.zeros(len(pair), np.float32)
    if cells is not None:
        flat = block.reshape(-1)
        flat[pair] = np.inf
        hit = np.flatnonzero(flat[cells[0]] == np.inf)
        picked[np.searchsorted(pair, cells[0][hit])] = cells[1][hit]
    return picked


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
    cells: _Cells,
    n_items: int,
    exclude: sp.csr_matrix | None,
    forbidden: NDArray[np.bool_] | None,
) -> _Cells:
    """Return the cells that may appear, in the order of users and items."""
    order = np.argsort(cells[0])
    pair, value = cells[0][order], cells[1][order]
    keep = np.ones(len(pair), bool)
    if exclude is not None:
        keep &= ~np.isin(pair, _cells(exclude)[0])
    if forbidden is not None:
        keep &= ~forbidden[pair % n_items]
    return pair[keep], value[keep]


def _exact(scores: Scores, user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float64]:
    """Multiply factors in float64, in an order that depends on nothing but their number."""
    exact = np.zeros(len(user), np.float64)
    if scores.users is not None and scores.items is not None:
        for at in range(0, len(user), _EXACT_PAIRS):
            pick = slice(at, at + _EXACT_PAIRS)
            product = scores.users[user[pick]].astype(np.float64) * scores.items[item[pick]]
            exact[pick] = product.sum(axis=1)
    return exact


def _error_bound(
    scores: Scores, size: NDArray[np.float64] | None, longest: float
) -> NDArray[np.float64]:
    """Bound, for each user, how far a float32 product may lie from the exact one.

    ``|fl(u·v) − u·v| ≤ γ_f ‖u‖ ‖v‖`` with ``γ_f ≈ f·2⁻²⁴`` whatever the order of summation
    (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), doubled for the roundings after
    it; the last term covers products that underflow. `size` is ‖u‖, `longest` the largest ‖v‖.
    """
    factors = 0 if scores.users is None else scores.users.shape[1]
    largest = np.zeros(scores.shape[0]) if size is None else size * longest
    beside = np.float32(0)
    if scores.sparse is not None and scores.sparse.nnz:
        beside = np.abs(scores.sparse.data).max()
    wild = ~(largest + beside < _LARGEST / 2)
    if wild.any():
        raise DataError(
            "the model gives scores that are no finite numbers",
            where="scores",
            count=int(wild.sum()),
        )
    return 2 * (factors + 2) * (_ROUNDING * largest + _SMALLEST)


def _norms(factors: NDArray[np.float32]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("rf,rf->r", factors, factors, dtype=np.float64)
    return np.sqrt(squares)


def _cells(matrix: sp.csr_matrix) -> _Cells:
    """Return the stored cells."""
    n, width = matrix.shape
    start = np.repeat(np.arange(n, dtype=np.int64) * width, np.diff(matrix.indptr))
    return start + matrix.indices, matrix.data


def _canonical(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Return a copy with sorted columns and no cell twice."""
    copy = matrix.copy()
    copy.sum_duplicates()
    return copy
