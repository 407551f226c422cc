"""Scores -> lists: exact top-K, blocked, never padded.

Guarantees: a list holds the best `k` items that have a score, fewer if there are fewer, never an
excluded one. The score of a pair is its inner product in float64 plus its sparse cell, rounded to
float32 once; the order is score falling, then item index (so item id) rising, at the cut too. So a
list depends neither on the block it was computed in, nor on the number of threads, nor on the
kernels of the BLAS: a fresh process on another machine gives the same bytes. Beside its arguments
and its result it holds one block of scores per thread, however large the catalogue is.

One float32 product per block finds the candidates (`models.candidates`), with a margin for its
rounding error so that none is missed; only these are scored in float64. The terms beside the
factors (a history times links, the sparse term) are summed cell by cell in the order in which they
are stored, so they are the same on all machines.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from pipeline.models.candidates import Limits, candidates, norms
from pipeline.models.contract import Scores
from pipeline.models.sparse_rows import row_extremes, strongest

_T = TypeVar("_T")
_TopPairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Row in the block, column and score of each entry of some lists, in their order."""
_BLOCK_CELLS = 1 << 23
"""Cells of one dense block of scores: 32 MiB of float32."""
_BLOCK_USERS = 128
"""Users of a block, at least: with fewer, reading the item factors from memory takes longer than
the product. A block with too many cells is cut into tiles of items."""
_MOST_THREADS = 8
"""Blocks computed at a time, at most: each is in memory."""
_EXACT_PAIRS = 1 << 10
"""Pairs scored in float64 at a time."""


@dataclass(frozen=True)
class Lists:
    """Ragged lists, one per user: best item first, never padded.

    Attributes
    ----------
    indptr
        ``(n_rows + 1,)`` int64: the list of row ``u`` is ``indptr[u]:indptr[u + 1]``.
    item
        ``(n,)`` int32 column of each entry.
    score
        ``(n,)`` float32, falling within a list; equal scores are in the order of columns.
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
        Scores of ``n_users`` over ``n_items``.
    k
        Longest length of a list, ≥ 1; may exceed the catalogue.
    exclude
        Users × items; its stored cells, whatever their value, never appear.
    allowed
        ``(n_items,)`` bool; items that are ``False`` never appear.

    Raises
    ------
    DataError
        `model.scores_not_finite`: a score is not finite, or too large for float32.
    ValueError
        Shapes do not match, or ``k < 1``.
    """
    n_users, n_items = scores.shape
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    for name, part in (("sparse", scores.sparse_bonus), ("exclude", exclude)):
        if part is not None and part.shape != (n_users, n_items):
            raise ValueError(f"{name} is {part.shape}, the scores are {(n_users, n_items)}")
    if allowed is not None and allowed.shape != (n_items,):
        raise ValueError(f"allowed is {allowed.shape}, the catalogue holds {n_items}")
    scores = _canonical(scores)
    longest = 0.0 if scores.items is None else norms(scores.items).max(initial=0.0)
    forbidden = None if allowed is None else ~allowed

    def work(part: slice) -> _TopPairs:
        excluded = None if exclude is None else exclude[part]
        limits = Limits(k, longest, excluded, forbidden)
        user, item, score = _block(_rows(scores, part), limits)
        return np.bincount(user, minlength=part.stop - part.start), item, score

    none = np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    blocks = zip(none, *_each_block(work, scores), strict=True)
    counts, item, score = (np.concatenate(parts) for parts in blocks)
    return Lists(np.cumsum(counts), item.astype(np.int32), score)


def best_scores(scores: Scores) -> NDArray[np.float32]:
    """Return ``(n_users,)`` float32, the first score of each user's `top_k`; 0 without any."""
    best = np.zeros(scores.shape[0], np.float32)
    if scores.users is not None:
        lists = top_k(scores, 1)
        best[lists.row] = lists.score
        return best
    scores = _canonical(scores)

    def work(part: slice) -> None:
        # Without factors only stored cells have scores, so a maximum per row needs no ranking.
        cells = _rows(scores, part).sparse_bonus
        if cells is not None:
            best[part] = row_extremes(np.maximum, cells, empty=0.0)

    _each_block(work, scores)
    return best


def _each_block(work: Callable[[slice], _T], scores: Scores) -> list[_T]:
    """Call `work` for each block of users, on as many threads as the BLAS has."""
    n_users, n_items = scores.shape
    step = max(_BLOCK_USERS, _BLOCK_CELLS // max(1, n_items))
    parts = [slice(at, min(at + step, n_users)) for at in range(0, n_users, step)]
    if len(parts) < 2:
        return [work(part) for part in parts]
    blas = ThreadpoolController().select(user_api="blas")
    threads = max((library.num_threads for library in blas.lib_controllers), default=1)
    # Blocks run side by side, so the product of each takes one thread of the BLAS.
    with blas.limit(limits=1), ThreadPoolExecutor(min(threads, _MOST_THREADS)) as pool:
        return list(pool.map(work, parts))


def pair_scores(
    scores: Scores, user: NDArray[np.int64], item: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores of pairs, exactly as `top_k` gives them.

    Parameters
    ----------
    scores
        Scores of ``n_users`` over ``n_items``.
    user, item
        ``(n,)`` rows and columns of the pairs, users rising.

    Returns
    -------
    ``(n,)`` float32; 0 for a pair without a score.
    """

    def work(part: slice) -> NDArray[np.float32]:
        pairs = slice(*np.searchsorted(user, [part.start, part.stop]))
        block, rows, columns = _rows(scores, part), user[pairs] - part.start, item[pairs]
        exact = _exact(block, rows, columns)
        if block.sparse_bonus is not None and len(rows):
            exact += np.asarray(block.sparse_bonus[rows, columns]).ravel()
        return exact.astype(np.float32)

    return np.concatenate([np.zeros(0, np.float32), *_each_block(work, scores)])


def _rows(scores: Scores, rows: slice) -> Scores:
    """Return the scores of some rows, all terms beside the factors summed to one."""
    users = None if scores.users is None else scores.users[rows]
    beside = None if scores.sparse_bonus is None else scores.sparse_bonus[rows]
    # Per block of users: for all of them at once, the linked cells could fill the memory.
    if scores.user_history is not None and scores.item_similarity is not None:
        linked = (scores.user_history[rows] @ scores.item_similarity).tocsr()
        beside = linked if beside is None else linked + beside
    return Scores(users, scores.items, beside)


def _block(scores: Scores, limits: Limits) -> _TopPairs:
    """Return the lists of one block of users: of each tile of the catalogue, then of all tiles."""
    n, n_items = scores.shape
    width = max(1, _BLOCK_CELLS // max(1, n))
    if width >= n_items:
        return _tile(scores, limits)
    tiles = []
    for start in range(0, n_items, width):
        part = slice(start, start + width)
        bonus, exclude, forbidden = scores.sparse_bonus, limits.exclude, limits.forbidden
        user, item, score = _tile(
            Scores(
                scores.users,
                None if scores.items is None else scores.items[part],
                None if bonus is None else bonus[:, part],
            ),
            replace(
                limits,
                exclude=None if exclude is None else exclude[:, part],
                forbidden=None if forbidden is None else forbidden[part],
            ),
        )
        tiles.append((user, item + start, score))
    user, item, score = (np.concatenate(parts) for parts in zip(*tiles, strict=True))
    return _best((user, item, score), limits.k, n)


def _tile(scores: Scores, limits: Limits) -> _TopPairs:
    """Return the lists of a block of users over some items."""
    n, n_items = scores.shape
    pair, beside = candidates(scores, limits)
    user, item = np.divmod(pair, n_items)
    score = (_exact(scores, user, item) + beside).astype(np.float32)
    # Ties can make all items of a row candidates; only its best `k` have to be sorted.
    start = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=n))])
    keep = strongest(score, item, start, limits.k, long_row=64 + 16 * limits.k)
    return _best((user[keep], item[keep], score[keep]), limits.k, n)


def _best(pairs: _TopPairs, k: int, n: int) -> _TopPairs:
    """Sort pairs into lists; of equal scores, the lower item comes first in `pairs`."""
    user, item, score = pairs
    order = np.lexsort((-score, user))  # by user, then score; stable, so items stay in order
    user, item, score = user[order], item[order], score[order]
    counts = np.bincount(user, minlength=n)
    first = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts) < k
    return user[first], item[first], score[first]


def _exact(scores: Scores, user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float64]:
    """Multiply factors in float64, in an order that depends on their number only."""
    exact = np.zeros(len(user), np.float64)
    if scores.users is not None and scores.items is not None:
        for at in range(0, len(user), _EXACT_PAIRS):
            pick = slice(at, at + _EXACT_PAIRS)
            # Not a product of the BLAS, whose order of summation differs between machines.
            product = scores.users[user[pick]].astype(np.float64) * scores.items[item[pick]]
            exact[pick] = product.sum(axis=1)
    return exact


def _canonical(scores: Scores) -> Scores:
    """Return the scores with a sparse term of sorted columns, no cell twice."""
    if scores.sparse_bonus is None or scores.sparse_bonus.has_canonical_format:
        return scores
    copy = scores.sparse_bonus.copy()  # summing works in place, on a matrix of the caller
    copy.sum_duplicates()
    return replace(scores, sparse_bonus=copy)
